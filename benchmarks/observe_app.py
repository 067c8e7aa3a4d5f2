"""The workers of ``observe_scrape.py``: the routes of ``./umbel.toml``, and a file with how long figures held the loop.

A worker collects its figures in one step of its event loop, and encodes them in another one. For each such step a line
is appended to ``holds-PID`` after it: its seconds, the CPU seconds of the thread in it, and the number of time series.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from umbel import Umbel
from umbel.observe.figures import ProcessFigures
from umbel.supervisor.control import channel, messages
from umbel.supervisor.worker import worker_server

collect, encode = worker_server.process_figures, messages.encode


def make() -> Umbel:
    """Return the application; from then on the steps of this worker are measured."""
    holds = Path(f"holds-{os.getpid()}").open("a", buffering=1)  # noqa: SIM115  # open until the worker ends

    def note(began: float, cpu_began: float, figures: ProcessFigures) -> None:
        held, used = time.perf_counter() - began, time.thread_time() - cpu_began
        holds.write(f"{held} {used} {sum(map(len, figures.values.values()))}\n")

    def timed_collect(*arguments: Any) -> ProcessFigures:
        began, cpu_began = time.perf_counter(), time.thread_time()
        figures = collect(*arguments)
        note(began, cpu_began, figures)
        return figures

    def timed_encode(message: messages.Message) -> bytes:
        began, cpu_began = time.perf_counter(), time.thread_time()
        line = encode(message)
        if isinstance(message, messages.Figures):
            note(began, cpu_began, message.figures)
        return line

    worker_server.process_figures = timed_collect
    channel.encode = messages.encode = timed_encode
    return Umbel.from_file("umbel.toml")
