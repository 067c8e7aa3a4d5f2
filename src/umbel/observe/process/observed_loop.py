"""The event loop of a process, seen from the thread of its admin side.

Theory
------
The thread has a trio run of its own. So it answers while the event loop of the process, the *observed loop*, is
blocked. It has two ways to learn something:

- It asks: a function is handed to the observed loop, which runs it and hands the result back (``ask``). A loop that
  does not answer within ``ANSWER_S`` counts as blocked; its answer is dropped when it comes.
- It looks: trio's task objects and the interpreter's frames can be read from any thread (``tree``, ``blocked_at``). The
  loop may change them at the same moment; a read that fails for this reason is repeated some times.

*How long it is blocked.* Once a second the thread hands over a function that notes its time (a *beat*). While a beat is
outstanding for more than ``ANSWER_S``, the loop has been blocked at least since it was handed over.

*Limits.* C code that does not release the interpreter's lock stops the thread too. Nothing handed over may raise, since
trio would end the observed loop: so every exception travels back as a result.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Generic, TypeVar

import outcome
import trio
from trio_util import periodic

from ...core.statistics.recent_maximum import RecentMaximum
from ..catalogue import LAG_PERIOD_S
from ..lints.place import place_of_stack
from ..tree.nodes import TaskNode
from ..tree.reader import TreeReader

ANSWER_S = 0.5
"""Seconds for which an answer of the observed loop is awaited."""
BEAT_S = 1.0
"""Seconds between two beats."""
_READS_MAX = 5
"""The bound on reads of a tree that changes meanwhile."""

ResultT = TypeVar("ResultT")


class LoopBlockedError(Exception):
    """The observed loop does not answer in time, or has ended."""


class ObservedLoop:
    """The event loop in which it is created. Its methods are for the thread of the admin side.

    Args:
        nursery: runs the asynchronous functions that are handed over.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        self._root = root
        self._token = trio.lowlevel.current_trio_token()
        self._clock_ahead = trio.current_time() - perf_counter()
        """The loop's clock, which only its own thread may read, is ``perf_counter()`` plus these seconds."""
        self._thread = threading.get_ident()
        self._nursery = nursery
        self._sent_at: float | None = None
        """When the outstanding beat was handed over; None if there is none."""
        self._lag = RecentMaximum(LAG_PERIOD_S)
        """Seconds from the handing over of each beat until the loop took it; the loop adds, the thread reads."""

    async def beat(self) -> None:
        """Hand over a beat once a second, until cancelled."""
        async for _ in periodic(BEAT_S):
            if self._sent_at is None:
                self._sent_at = monotonic()
                self._hand_over(self._take_beat)

    def _take_beat(self) -> None:
        if self._sent_at is not None:
            now = monotonic()
            self._lag.add(now - self._sent_at, now)
        self._sent_at = None

    def lag(self) -> float:
        """Seconds of the highest lateness of a beat within the last ``LAG_PERIOD_S``, and of the present blockage."""
        return max(self._lag.at(monotonic()), self.blocked_s())

    def blocked_s(self) -> float:
        """For how many seconds the loop has been blocked at least; 0 if it is not."""
        sent = self._sent_at  # The loop may reset it at any moment.
        seconds = 0.0 if sent is None else monotonic() - sent
        return seconds if seconds > ANSWER_S else 0.0

    def blocked_at(self) -> str:
        """The place where the loop's thread is, such as ``srv/app.py:17 in handler`` (``place_of_stack``)."""
        frame = sys._current_frames().get(self._thread)
        return "" if frame is None else place_of_stack(frame)

    def tree(self, reader: TreeReader) -> TaskNode | None:
        """The task tree, read from this thread; None: the tasks change too fast for that."""
        for _ in range(_READS_MAX):
            try:
                return reader.read(self._root, self._clock_ahead + perf_counter(), remembers=False)
            except Exception:  # noqa: BLE001 - the loop changes what is read; another read may succeed
                continue
        return None

    async def ask(self, function: Callable[[], ResultT], within: float = ANSWER_S) -> ResultT:
        """Have the loop call ``function``, and return its result.

        Raises:
            LoopBlockedError: there is no answer within ``within`` seconds.
            Exception: what ``function`` raised.
        """
        answer: _Answer[ResultT] = _Answer()
        self._hand_over(lambda: answer.give(outcome.capture(function)))
        return await answer.wait(within)

    async def ask_async(self, function: Callable[[], Awaitable[ResultT]], within: float) -> ResultT:
        """As ``ask``, for an asynchronous function, which runs in a task of the loop's nursery."""
        answer: _Answer[ResultT] = _Answer()

        async def run() -> None:
            try:
                answer.give(outcome.Value(await function()))
            except Exception as error:  # noqa: BLE001 - it is raised in the thread of the admin side
                answer.give(outcome.Error(error))

        def start() -> None:
            # The nursery refuses new tasks when it is about to end.
            started = outcome.capture(self._nursery.start_soon, run)
            if isinstance(started, outcome.Error):
                answer.give(started)

        self._hand_over(start)
        return await answer.wait(within)

    def _hand_over(self, function: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):  # Then there is no answer, and no further beat.
            self._token.run_sync_soon(function)


class _Answer(Generic[ResultT]):
    """An answer that comes from the observed loop."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._came = trio.Event()
        self._result: outcome.Outcome[ResultT] | None = None

    def give(self, result: outcome.Outcome[ResultT]) -> None:
        """Give the result, in the observed loop. It is dropped if nobody waits any more."""
        self._result = result
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._came.set)

    async def wait(self, within: float) -> ResultT:
        """Wait for the result and return it, or raise what it holds."""
        with trio.move_on_after(within):
            await self._came.wait()
        if self._result is None:
            raise LoopBlockedError(f"the event loop has not answered within {within:g} s")
        return self._result.unwrap()
