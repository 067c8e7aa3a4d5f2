"""Timer queue: callbacks at times of trio's clock, run by one task.

Most timers are cancelled before their time: a call's timeout, a hedge that is not made, an idle connection that is used
again. A cancelled timer therefore costs a push onto a heap, and neither a task, nor a cancel scope, nor a wake-up.

Theory
------
The heap holds ``(when, number, timer)``. ``number`` grows by one per timer, so that of two timers for one time the
earlier one runs first, and timers themselves are never compared.

``Timer.cancel`` sets the callback to None and leaves the entry in the heap. The entry keeps only the small ``Timer``
alive, nothing that the callback referred to. The queue counts live and cancelled entries. When there are more than
``CANCELLED_MAX`` cancelled ones, and they are more than half of the heap, the heap is rebuilt without them. Each
rebuild halves the heap at least, so its cost is spread over as many cancels: a constant per cancel. The heap therefore
never holds more than twice the live timers and ``CANCELLED_MAX`` entries.

One task sleeps until the first entry's time. A new timer that comes before that time moves the deadline of the scope
under which the task sleeps; trio allows this at any time and from any task. A cancelled first entry is not removed: the
task may wake once for it, which is rare and cheaper than looking at each cancel.

At most ``CALLBACKS_MAX`` callbacks run in one scheduler turn. When more are due, the task passes through a checkpoint
first, so that many timers delay other tasks by no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import trio

CANCELLED_MAX = 64
"""Cancelled entries that may stay in the heap, however few live ones there are."""
CALLBACKS_MAX = 64
"""Callbacks that run in one turn of the scheduler."""


class Timer:
    """A callback that runs once, at its time, unless it is cancelled before."""

    __slots__ = ("_callback", "_queue")

    def __init__(self, queue: TimerQueue, callback: Callable[[], object]) -> None:
        self._queue = queue
        self._callback: Callable[[], object] | None = callback

    @property
    def active(self) -> bool:
        """Whether the callback is still to run."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never run the callback. Does nothing if it has run, or was cancelled before."""
        if self._callback is not None:
            self._callback = None
            queue = self._queue
            queue._live -= 1
            queue._cancelled += 1
            if queue._cancelled > CANCELLED_MAX and queue._cancelled > queue._live:
                queue._rebuild()


class TimerQueue:
    """Runs callbacks at times of ``trio.current_time()``, for as long as ``run`` runs.

    A callback is a plain function that must not raise and must not block. An exception of one is a bug: it ends ``run``
    and with it the nursery that ``run`` was started in.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        """Of the latest timer."""
        self._live = self._cancelled = 0
        self._sleep = trio.CancelScope()
        self._wakes_at = math.inf
        """When ``run`` wakes: the deadline of ``_sleep``."""
        self.now: Callable[[], float] = trio.current_time
        """``trio.current_time()``; while ``run`` runs without its looking for the run and its clock each time."""

    def __len__(self) -> int:
        """How many timers are still to run."""
        return self._live

    def add(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run ``callback()`` at the time ``when``, or as soon as ``run`` gets to it."""
        timer = Timer(self, callback)
        self._live += 1
        self._number += 1
        heappush(self._heap, (when, self._number, timer))
        if when < self._wakes_at:
            self._wakes_at = self._sleep.deadline = when
        return timer

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Sleep and run callbacks, until cancelled. A callback is never interrupted by KeyboardInterrupt."""
        self.now = trio.lowlevel.current_clock().current_time
        try:
            while True:
                if self._run_due(self.now()):
                    await trio.lowlevel.checkpoint()
                    continue
                self._wakes_at = self._heap[0][0] if self._heap else math.inf
                with trio.CancelScope(deadline=self._wakes_at) as self._sleep:
                    await trio.sleep_forever()
        finally:
            self.now = trio.current_time

    def run_all(self) -> None:
        """Run every callback now, whatever its time: for when ``run`` has ended for good."""
        while self._run_due(math.inf):
            pass

    def _run_due(self, now: float) -> bool:
        """Run what is due, and drop cancelled entries at the top of the heap; whether more is due."""
        left = CALLBACKS_MAX
        while self._heap:
            when, _, timer = self._heap[0]
            callback = timer._callback
            if callback is None:
                heappop(self._heap)
                self._cancelled -= 1
            elif when > now:
                return False
            elif not left:
                return True
            else:
                heappop(self._heap)
                timer._callback = None
                self._live -= 1
                callback()
                left -= 1
        return False

    def _rebuild(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2]._callback is not None]
        heapify(self._heap)
        self._cancelled = 0
