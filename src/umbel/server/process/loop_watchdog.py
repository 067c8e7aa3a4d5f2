"""The watchdog of a process without a master: it writes the stack of a loop that is blocked, and ends nothing.

A task arms a timer of ``faulthandler`` again and again. If the task does not get to run in time, a thread of C writes
the stacks of all threads to stderr: file, line and function of each frame, and no value. That thread needs no lock of
the interpreter, so it also shows what a loop does in C code that never lets go of it. Nothing of this is on the path of
a request.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from ...core.console import own_stderr

HANG_TIMEOUT = 10.0
"""Seconds, where no configuration says more."""
EVENT = "loop.blocked"
"""The name of the record that says how long it was."""


@asynccontextmanager
async def watched_loop(hang_timeout: float, record: Callable[[str], object]) -> AsyncIterator[None]:
    """Watch the loop while the block runs; ``record`` gets one sentence after each time that it was blocked."""
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_loop, hang_timeout, record)
        yield
        nursery.cancel_scope.cancel(reason="what was watched has ended")


async def watch_loop(
    hang_timeout: float,
    record: Callable[[str], object],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The same as a task, until it is cancelled. One of a process, for the timer is the process's own."""
    every, armed = min(1.0, hang_timeout / 5), False
    with own_stderr() as descriptor:
        try:
            while True:
                # Arming again ends the thread of before, and costs some 100 microseconds.
                faulthandler.dump_traceback_later(hang_timeout, file=descriptor)
                armed_at = trio.current_time()
                if not armed:
                    armed = True
                    task_status.started()
                await trio.sleep(every)
                silent = trio.current_time() - armed_at
                if silent > hang_timeout:
                    sentence = f"the event loop was blocked for {silent:.1f} s (hang_timeout is {hang_timeout:g} s)"
                    with suppress(OSError):
                        os.write(descriptor, f"{EVENT}: {sentence}; its stack stands above\n".encode())
                    record(sentence)
        finally:
            faulthandler.cancel_dump_traceback_later()
