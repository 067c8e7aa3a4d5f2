"""The lints of the present process: looked for while somebody asks, and for some seconds after that."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from functools import partial

import trio

from ..tree.text import duration
from .book import LintBook
from .lint import LONG_STEP, Lint, lint_of
from .steps import StepWatch
from .tasks import ObservedQueue, Queues, TaskLints

ATTENTION_S = 10.0
"""Seconds after a call of ``look`` for which the event loop is watched."""
LOOK_EVERY_S = 1.0
"""The least seconds between two looks at all tasks."""
COST_FACTOR = 50.0
"""There is no further look before so many times the seconds that the last one took: looks take 2 % of the time."""


def _no_queues() -> Iterable[ObservedQueue]:
    return ()


class LintWatch:
    """The lints of the event loop in which it is created.

    ``run`` must run meanwhile. Nobody who does not ask pays: the thread that watches steps, and the instrument, exist
    for ``ATTENTION_S`` after each ``look``. They take about 1 % of a core.

    Args:
        process: the name of the process.
        queues: gives queues to look at besides trio's channels, in the trio thread.
    """

    def __init__(self, process: str, queues: Queues = _no_queues) -> None:
        self._process = process
        self._book = LintBook(process)
        self._steps = StepWatch(self._book)
        self._tasks = TaskLints(self._book, queues)
        self._attention: trio.CancelScope | None = None
        """Encloses the watching; None while nothing is watched."""
        self._asked = trio.Event()
        self._looking = trio.Lock()
        self._again_at = -math.inf

    async def run(self) -> None:
        """Watch while somebody asks, until cancelled. The thread has ended when it returns."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            self._steps.instrument.forget()
            trio.lowlevel.add_instrument(self._steps.instrument)
            try:
                with trio.move_on_after(ATTENTION_S) as self._attention:
                    await self._watch_steps()
            finally:
                self._attention = None
                trio.lowlevel.remove_instrument(self._steps.instrument)

    async def _watch_steps(self) -> None:
        """Run the thread that watches steps, until cancelled."""
        limiter, stopped = trio.CapacityLimiter(1), threading.Event()
        async with trio.open_nursery() as nursery:
            watch = partial(self._steps.run, stopped)
            nursery.start_soon(partial(trio.to_thread.run_sync, watch, limiter=limiter, thread_name="umbel-steps"))
            try:
                await trio.sleep_forever()
            finally:
                stopped.set()  # The nursery waits for the thread, which ends at its next look.

    async def look(self) -> list[Lint]:
        """Watch for ``ATTENTION_S`` from now on, look at all tasks if that was not just done, and return the lints."""
        if self._attention is None or self._attention.cancel_called:
            self._asked.set()  # Also while the watching ends: its deadline has passed and has no effect any more.
        else:
            self._attention.deadline = trio.current_time() + ATTENTION_S
        async with self._looking:
            began = trio.current_time()
            if began >= self._again_at:
                await self._tasks.look()
                now = trio.current_time()
                self._again_at = max(began + LOOK_EVERY_S, now + COST_FACTOR * (now - began))
        return self.lints()

    def lints(self) -> list[Lint]:
        """The lints that are known, what goes on first. For any thread: also while the event loop is blocked."""
        lints = self._book.lints()
        step = self._steps.running_step()
        if step is None:
            return lints
        return [running_step(self._process, step.where, step.seconds), *lints]


def running_step(process: str, where: str, seconds: float) -> Lint:
    """The lint of a step that holds the event loop at this moment, since so many seconds."""
    detail = f"for {duration(seconds)} so far"
    return lint_of(LONG_STEP, process, where, detail, ongoing=True)
