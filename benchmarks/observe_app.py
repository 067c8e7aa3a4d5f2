"""The workers of ``observe_scrape.py``: the routes of ``./umbel.toml``, and a file with how long figures held the loop.

A worker collects and encodes its figures in one step of its event loop. For each such step a line is appended to
``holds-PID`` after it: its seconds, the CPU seconds of the thread in it, and the number of time series.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from umbel import Umbel
from umbel.supervisor.control import channel, messages
from umbel.supervisor.worker import worker_server

collect, encode = worker_server.process_figures, messages.encode
began = cpu_began = 0.0


def make() -> Umbel:
    """Return the application; from then on the steps of this worker are measured."""
    holds = Path(f"holds-{os.getpid()}").open("a", buffering=1)  # noqa: SIM115  # open until the worker ends

    def timed_collect(*arguments: Any) -> Any:
        global began, cpu_began
        began, cpu_began = time.perf_counter(), time.thread_time()
        return collect(*arguments)

    def timed_encode(message: messages.Message) -> bytes:
        line = encode(message)
        if isinstance(message, messages.Figures):
            held, used = time.perf_counter() - began, time.thread_time() - cpu_began
            holds.write(f"{held} {used} {sum(map(len, message.figures.values.values()))}\n")
        return line

    worker_server.process_figures = timed_collect
    channel.encode = messages.encode = timed_encode
    return Umbel.from_file("umbel.toml")
