"""Event loop watchdog of a process without a master: it reports a blocked event loop, and ends nothing.

A task re-arms a timer of ``faulthandler`` every second. If the event loop is blocked, the task does not run, and a C
thread writes the stacks of all threads to stderr: file, line and function of each frame, no values. That thread does
not need the GIL, so it also shows C code that never releases it.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from ...core.console import own_stderr

HANG_TIMEOUT = 10.0
"""Default seconds after which a blocked event loop is reported."""
EVENT = "loop.blocked"
"""The name of the record that is written when the event loop runs again."""


@asynccontextmanager
async def watched_loop(hang_timeout: float, record: Callable[[str], object]) -> AsyncIterator[None]:
    """Run ``watch_loop`` with these arguments while the block runs."""
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_loop, hang_timeout, record)
        yield
        nursery.cancel_scope.cancel(reason="the watched block has ended")


async def watch_loop(
    hang_timeout: float,
    record: Callable[[str], object],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Watch the event loop until cancelled. One task per process, because ``faulthandler`` has one timer.

    A blocked loop has its stacks written to stderr, once, after ``hang_timeout`` seconds. When the loop runs again,
    ``record`` is called with one sentence that says for how long the loop was blocked.
    """
    every, armed = min(1.0, hang_timeout / 5), False
    with own_stderr() as descriptor:
        try:
            while True:
                # Re-arming ends the former thread and starts another one, in some 100 microseconds.
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
                        os.write(descriptor, f"{EVENT}: {sentence}; its stack is printed above\n".encode())
                    record(sentence)
        finally:
            faulthandler.cancel_dump_traceback_later()
