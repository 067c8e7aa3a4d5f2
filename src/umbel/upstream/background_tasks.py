"""A nursery that lives exactly as long as the ``async with`` of the object that it belongs to.

For tasks that belong to no caller (shared calls, refreshes of names). It adds no policy: no restarts, no limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from functools import partial
from typing import TypeVarTuple

import trio

from ..core.errors import NotRunningError

Ts = TypeVarTuple("Ts")


class OwnNursery:
    """A nursery for ``owner`` (its name, for messages).

    Entered again by the same task while it is entered (httpx's client enters a transport that runs already), it counts;
    the outermost exit cancels the tasks and waits for them. The exception of the block goes on bare, not in a group.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._entered = 0
        self._task: trio.lowlevel.Task | None = None
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self.running = False
        """Whether tasks can be started."""
        self._context = Context()

    @property
    def depth(self) -> int:
        """How many times it is entered."""
        return self._entered

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery itself, for tasks that belong in the context of whoever starts them.

        Raises:
            NotRunningError: outside of the ``async with``.
        """
        self.check()
        assert self._nursery is not None
        return self._nursery

    def check(self) -> None:
        """Raise NotRunningError outside of the ``async with``."""
        if self._nursery is None:
            raise NotRunningError(f"{self._owner} is used outside of its `async with`")

    async def open(self) -> bool:
        """Enter; whether this was the outermost.

        Raises:
            RuntimeError: another task has entered it.
        """
        task = trio.lowlevel.current_task()
        if self._entered:
            if task is not self._task:
                # It could only be left in the order in which it was entered, and tasks end as they like.
                raise RuntimeError(f"{self._owner} is entered by one task; others use it inside of that block")
            self._entered += 1
            return False
        self._task = task
        # A task that serves many callers must not keep, or see, the context of the one that began it.
        self._context = copy_context()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._entered = 1
        self.running = True
        return True

    async def close(self) -> None:
        """Leave. The outermost cancels the tasks and waits for their end.

        Cancelled while it waits, it still waits for them: they are cancelled too.
        """
        self._entered -= 1
        if self._entered or self._nursery is None or self._manager is None:
            return
        nursery, manager = self._nursery, self._manager
        self._nursery = self._manager = self._task = None
        self.running = False
        nursery.cancel_scope.cancel(reason=f"{self._owner} is closed")
        await manager.__aexit__(None, None, None)

    def start_soon(self, task: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a child.

        Raises:
            NotRunningError: outside of the ``async with``.
        """
        self._context.run(partial(self.nursery.start_soon, task, *args))
