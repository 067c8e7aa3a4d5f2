"""Tasks that do one job after the other, each under a cancel scope of its own.

Used by the coalescing layer for its flights. A new task and a new scope for each cost more than all the rest of such a
layer; a task that waits for its next job costs only to be woken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .ownnursery import OwnNursery

IDLE_MAX = 100
"""Tasks kept for the next job."""

Job = tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]


class Pilots(OwnNursery):
    """An ``OwnNursery`` whose tasks are used again."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._idle: list[_Pilot] = []

    def start(self, job: Callable[..., Awaitable[object]], *args: object) -> trio.CancelScope:
        """Have ``job`` done by a child, which must raise nothing but a cancel.

        Returns:
            The scope that the child runs under. It is the job's until that has ended, and the next one's afterwards.

        Raises:
            NotRunningError: outside of the ``async with``.
        """
        if self._idle and self.running:
            pilot = self._idle.pop()
            pilot.job = (job, args)
            trio.lowlevel.reschedule(pilot.task)
        else:
            pilot = _Pilot((job, args))
            self.start_soon(self._work, pilot)
        return pilot.scope

    async def _work(self, pilot: _Pilot) -> None:
        pilot.task = trio.lowlevel.current_task()

        def nobody_may_wake_it(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(pilot)
            return trio.lowlevel.Abort.SUCCEEDED

        with pilot.scope:
            while True:
                job, args = pilot.job
                await job(*args)
                # Waiting, it keeps nothing of its last job alive.
                pilot.job = _NONE
                del job, args
                if len(self._idle) >= IDLE_MAX:
                    return
                self._idle.append(pilot)
                await trio.lowlevel.wait_task_rescheduled(nobody_may_wake_it)


class _Pilot:
    """One task: what it does, and the scope that ends it."""

    __slots__ = ("job", "scope", "task")

    task: trio.lowlevel.Task

    def __init__(self, job: Job) -> None:
        self.job = job
        self.scope = trio.CancelScope()


async def _nothing() -> None:
    """No job."""


_NONE: Job = (_nothing, ())
