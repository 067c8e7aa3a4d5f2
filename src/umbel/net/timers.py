"""Timer queue: callbacks at times of trio's clock, run by one task.

Theory
------
*Problem.* Nearly all timers are cancelled before their time: the timeout of a call that succeeds, the hedge that is not
sent, the idle timeout of a connection that is used again. So ``add`` and ``cancel`` must be cheap. A timer that is
cancelled costs one push onto a heap, and later its share of a removal. It costs no task and no cancel scope, and at
most one wake-up of ``run``.

*Data structure.* A heap of ``(when, number, timer)``. ``number`` grows by one per timer. So two timers for one time run
in the order in which they were added, and the heap never compares two ``Timer`` objects.

A timer has three states. ``active`` is True in the first one only:

    waiting  --its time has come-->  run         the entry leaves the heap, then the callback is called
    waiting  --Timer.cancel------->  cancelled   the callback is set to None; the entry stays in the heap

*Cancelled entries.* ``cancel`` forgets the callback at once, so a cancelled entry keeps nothing alive but the small
``Timer``. The entry itself leaves the heap when ``_run_due`` finds it at the top, or in a rebuild. ``cancel`` rebuilds
the heap when more than ``CANCELLED_MAX`` entries are cancelled and more entries are cancelled than live. Invariants:

- ``_live + _cancelled == len(_heap)``;
- after ``cancel``, ``_cancelled <= max(CANCELLED_MAX, _live)``. So a flood of timers that are added and cancelled
  leaves at most twice the live timers plus ``CANCELLED_MAX`` entries in the heap.

A rebuild costs time linear in the heap and removes more than half of it, so on average its cost per cancel is constant.

*Sleeping.* ``run`` sleeps in a cancel scope whose deadline is the time of the first entry, or never if the heap is
empty. ``add`` sets an earlier deadline if the new timer comes first; trio allows this at any time and from any task.
While ``run`` is not asleep, the deadline has no effect and needs none: ``run`` looks at the heap again before it
sleeps. ``cancel`` never moves the deadline, so ``run`` may wake once for a cancelled entry and sleep again.

*Callbacks* run in the task of ``run``. They may add and cancel timers. At most ``CALLBACKS_MAX`` callbacks run in one
turn of the scheduler; if more are due, ``run`` first passes through a checkpoint. A callback must not raise: its
exception ends ``run``. ``run`` is protected from KeyboardInterrupt, so Ctrl-C never stops a callback half-way.

*Cancellation.* A cancel of ``run`` takes effect while ``run`` sleeps or at the checkpoint, never inside of a callback.
The timers stay in the heap and do not run. If something waits for such a timer, the owner of the queue must call
``run_all`` after the end of ``run``: it runs them all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import trio

CANCELLED_MAX = 64
"""Number of cancelled entries that may stay in the heap however few timers are live."""
CALLBACKS_MAX = 64
"""Maximum number of callbacks in one turn of the scheduler."""


class Timer:
    """Callback that runs once at its time, unless the timer is cancelled before. Made by ``TimerQueue.add``."""

    __slots__ = ("_callback", "_queue")

    def __init__(self, queue: TimerQueue, callback: Callable[[], object]) -> None:
        self._queue = queue
        self._callback: Callable[[], object] | None = callback

    @property
    def active(self) -> bool:
        """Whether the callback has still to run: the timer has neither run nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never run the callback, and forget it. Does nothing if the callback has run or the timer was cancelled."""
        if self._callback is not None:
            self._callback = None
            queue = self._queue
            queue._live -= 1
            queue._cancelled += 1
            if queue._cancelled > CANCELLED_MAX and queue._cancelled > queue._live:
                queue._rebuild()


class TimerQueue:
    """Queue of callbacks at times of ``trio.current_time()``, which are called while ``run`` runs.

    A callback is a plain function that must not raise and must not block. An exception of a callback is a bug: it ends
    ``run``, and so the nursery in which ``run`` was started.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        """Number of the latest timer."""
        self._live = self._cancelled = 0
        self._sleep = trio.CancelScope()
        self._wakes_at = math.inf
        """Deadline of ``_sleep``: when ``run`` wakes."""
        self.now: Callable[[], float] = trio.current_time
        """The current time. While ``run`` runs, the method of trio's clock itself: ``trio.current_time`` looks the
        clock up in each call."""

    def __len__(self) -> int:
        """Number of timers that have still to run."""
        return self._live

    def add(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback()`` at the time ``when`` (trio's clock), or in the next turn of ``run`` if it is past."""
        timer = Timer(self, callback)
        self._live += 1
        self._number += 1
        heappush(self._heap, (when, self._number, timer))
        if when < self._wakes_at:
            self._wakes_at = self._sleep.deadline = when
        return timer

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Call callbacks at their times, until cancelled. One task at a time."""
        self.now = trio.lowlevel.current_clock().current_time
        try:
            while True:
                if self._run_due(self.now()):
                    await trio.lowlevel.checkpoint()
                    continue
                # No checkpoint between ``_run_due`` and the sleep: no timer can be added that the sleep ignores.
                self._wakes_at = self._heap[0][0] if self._heap else math.inf
                with trio.CancelScope(deadline=self._wakes_at) as self._sleep:
                    await trio.sleep_forever()
        finally:
            self.now = trio.current_time

    def run_all(self) -> None:
        """Call every callback now, whatever its time, also those that callbacks add. For after the end of ``run``."""
        while self._run_due(math.inf):
            pass

    def _run_due(self, now: float) -> bool:
        """Call up to ``CALLBACKS_MAX`` callbacks that are due, and remove cancelled entries at the top of the heap.

        Return whether more are due.
        """
        left = CALLBACKS_MAX
        # ``self._heap`` is read in each round: a callback that cancels timers may replace it by a rebuilt heap.
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
                # The entry is removed and counted before the call: the callback may add and cancel, even this timer.
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
