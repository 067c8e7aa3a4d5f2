"""Tells the master from a thread that the worker's event loop is blocked, and where.

The master notices by itself that a worker is silent, but not what it does. The thread hands a function to the event
loop twice a second; while the loop has not called it for ``BLOCKED_S``, the thread sends what it sees of the loop's
thread. It cannot do so while C code keeps the interpreter's lock.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic

import trio

from ...observe.lints.place import place_of_stack
from ..control.channel import Channel
from ..control.messages import LoopBlocked

EVERY_S = 0.5
"""Seconds between two looks."""
BLOCKED_S = 0.5
"""Seconds without an answer from which on an event loop counts as blocked."""


class BlockWatch:
    """Watches the event loop in which it is created.

    Args:
        channel: the channel to the master.
        clock: gives the time in seconds, in any thread.
    """

    def __init__(self, channel: Channel, clock: Callable[[], float] = monotonic) -> None:
        self._channel = channel
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._asked_at: float | None = None
        """When the function was handed over that the loop has not called yet; None: it has called each."""

    async def run(self) -> None:
        """Watch until cancelled. The thread has ended when it returns."""
        stopped = threading.Event()
        async with trio.open_nursery() as nursery:
            work = partial(trio.to_thread.run_sync, partial(self._watch, stopped), thread_name="umbel-blocked")
            nursery.start_soon(partial(work, limiter=trio.CapacityLimiter(1)))
            try:
                await trio.sleep_forever()
            finally:
                stopped.set()  # The nursery waits for the thread, which ends at once.

    def _watch(self, stopped: threading.Event) -> None:
        with suppress(trio.RunFinishedError):
            while not stopped.wait(EVERY_S):
                self._look()

    def _look(self) -> None:
        asked_at = self._asked_at  # The loop may reset it at any moment.
        if asked_at is None:
            self._asked_at = self._clock()
            self._token.run_sync_soon(self._on_called)
            return
        seconds = self._clock() - asked_at
        frame = sys._current_frames().get(self._thread)
        if seconds >= BLOCKED_S and frame is not None:
            self._channel.send_from_thread(LoopBlocked(seconds=round(seconds, 3), at=place_of_stack(frame)))

    def _on_called(self) -> None:
        self._asked_at = None
