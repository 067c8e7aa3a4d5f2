"""What a process shows of its own event loop: the task tree, at a bounded cost."""

from __future__ import annotations

import os
from time import perf_counter

import trio
from msgspec.structs import replace

from ..tree.nodes import ProcessTree
from ..tree.reader import Frames, TreeReader

COST_FACTOR = 50.0
"""A tree is not read again before so many times the seconds that the reading took: it takes at most 2 % of the time."""
STALE_S_MAX = 10.0
"""The bound on the age of a tree that is given again."""


class LiveProcess:
    """Reads the present process, in its trio thread.

    Args:
        process: its name in trees, such as ``worker 1``.
        frames: as ``TreeReader``.
    """

    def __init__(self, process: str, frames: Frames | None = None) -> None:
        self.reader = TreeReader(frames)
        self._process = process
        self._lock = trio.Lock()
        self._latest: ProcessTree | None = None
        self._read_at = 0.0
        self._again_at = 0.0

    async def tree(self) -> ProcessTree:
        """The task tree. One that was just read is given again, with its age, if reading it is expensive.

        It is read in slices, between which other tasks run. A cancel ends the reading.
        """
        async with self._lock:
            if self._latest is None or perf_counter() >= self._again_at:
                began = perf_counter()
                root = await self.reader.read_in_slices()
                self._read_at = perf_counter()
                self._again_at = self._read_at + min(STALE_S_MAX, COST_FACTOR * (self._read_at - began))
                tasks = trio.lowlevel.current_statistics().tasks_living
                self._latest = ProcessTree(process=self._process, pid=os.getpid(), tasks=tasks, root=root)
                return self._latest
            return replace(self._latest, age=round(perf_counter() - self._read_at, 3))
