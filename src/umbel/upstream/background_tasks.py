"""Background tasks of an object: a nursery that is open exactly as long as the object's ``async with`` block.

For tasks that serve many callers and belong to none of them: shared calls, timers, health checks, DNS look-ups. Adds no
policy: no restarts, no limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVarTuple

import trio

from ..core.errors import NotRunningError

Ts = TypeVarTuple("Ts")


class BackgroundNursery:
    """A nursery that may be opened again by the task that has opened it (httpx's client enters an entered transport).

    The outermost ``close`` cancels the tasks and waits for their end. The exception of the block is raised as it is,
    not in a group.

    Args:
        owner: the name of the object that the tasks belong to, for messages.
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
        """The nursery itself, for tasks that belong in the context of their starter.

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


class TaskOwner:
    """Base class of an async context manager that has background tasks. The same task may enter it more than once.

    Each time ``below`` is entered first and exited last. Only the outermost entry calls ``_begin``; if that raises or
    is cancelled, the nursery is closed and ``below`` is exited.

    Args:
        nursery: of the background tasks.
        below: a context manager that the background tasks need; None if they need none.
    """

    def __init__(self, nursery: BackgroundNursery, below: AbstractAsyncContextManager[Any] | None = None) -> None:
        self._nursery = nursery
        self._below = below

    async def _begin(self) -> None:
        """Start the background tasks in ``self._nursery``. Called by the outermost entry."""

    async def __aenter__(self) -> Self:
        if self._below is not None:
            await self._below.__aenter__()
        try:
            if await self._nursery.open():
                try:
                    await self._begin()
                except BaseException:
                    await self._nursery.close()
                    raise
        except BaseException:
            if self._below is not None:
                await self._below.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await self._nursery.close()
        finally:
            if self._below is not None:
                await self._below.__aexit__(exc_type, exc_value, traceback)
