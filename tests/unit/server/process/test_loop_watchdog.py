"""Event loop watchdog: it leaves no thread and no descriptor, and does not wait for the reader of stderr."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from umbel.server.process.loop_watchdog import watched_loop


@contextmanager
def stderr_into(descriptor: int) -> Iterator[None]:
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def threads() -> set[str]:
    """The ids of all threads of this process, also of those that Python does not know."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


def lowest_free_descriptor() -> int:
    with open(os.devnull) as file:  # noqa: PTH123 - as short as can be
        return file.fileno()


async def test_the_watchdog_leaves_no_thread_and_no_descriptor() -> None:
    before, lowest = threads(), lowest_free_descriptor()
    with pytest.RaisesGroup(KeyError):
        async with watched_loop(0.05, pytest.fail):
            assert threads() - before
            raise KeyError
    # The kernel may show a thread for a moment after its end; idle threads of earlier tests may end meanwhile.
    with trio.fail_after(10):
        while threads() - before:
            await trio.testing.wait_all_tasks_blocked(0.005)
    assert lowest_free_descriptor() == lowest


async def test_an_unread_stderr_does_not_block_the_loop() -> None:
    reading, writing = os.pipe()
    recorded: list[str] = []
    told = trio.Event()

    def record(sentence: str) -> None:
        recorded.append(sentence)
        told.set()

    try:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 65536)
        os.set_blocking(writing, True)
        with stderr_into(writing), trio.fail_after(20):
            async with watched_loop(0.05, record):
                threading.Event().wait(0.3)  # Blocks the event loop.
                await told.wait()
    finally:
        os.close(reading)
        os.close(writing)
    assert recorded[0].startswith("the event loop was blocked for 0.")
    assert len(recorded) == 1
