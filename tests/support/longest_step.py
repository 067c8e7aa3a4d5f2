"""The longest step of any task: the longest time for which the event loop ran nothing else."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import trio


class LongestStep(trio.abc.Instrument):
    """Measures the steps of Umbel's tasks, each from one checkpoint to the next.

    ``seconds`` is the longest one, and ``task`` the name of its task.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.task = ""
        self._began = perf_counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = perf_counter() - self._began
        if took > self.seconds and task.name.startswith("umbel."):
            self.seconds, self.task = took, task.name


@contextmanager
def longest_step() -> Iterator[LongestStep]:
    """Measure the longest step within the block.

    The garbage collector is off within the block, because the test's own objects would make its pauses long.
    """
    steps = LongestStep()
    trio.lowlevel.add_instrument(steps)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield steps
    finally:
        if was_enabled:
            gc.enable()
        trio.lowlevel.remove_instrument(steps)
