"""Background tasks of an object: a nursery that is open exactly as long as the object's ``async with`` block.

For tasks that serve many callers and belong to none of them: shared calls, timers, health checks, DNS look-ups. Tasks
are neither restarted nor limited.
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
    """A nursery that the same task may open several times, as httpx's client does with a transport.

    The outermost ``close`` cancels the tasks and waits for their end. An exception of the owner's block is not wrapped
    in a group. An exception of a task cancels the block, and the outermost ``close`` raises it in an exception group.

    Args:
        owner: name of the object that the tasks belong to, for messages.
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
        """How many times the nursery is entered."""
        return self._entered

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery itself, for tasks that inherit the context variables of the task that starts them.

        Raises:
            NotRunningError: the nursery is not open.
        """
        self.check()
        assert self._nursery is not None
        return self._nursery

    def check(self) -> None:
        """Check that the nursery is open.

        Raises:
            NotRunningError: it is not open.
        """
        if self._nursery is None:
            raise NotRunningError(f"{self._owner} is used outside of its `async with`")

    async def open(self) -> bool:
        """Enter, and open the nursery if this is the outermost entry. Return whether it is.

        Raises:
            RuntimeError: another task has entered the nursery.
        """
        task = trio.lowlevel.current_task()
        if self._entered:
            if task is not self._task:
                # Entries must be left in reverse order, which two tasks cannot guarantee.
                raise RuntimeError(f"{self._owner} is already entered by another task; use it inside that task's block")
            self._entered += 1
            return False
        self._task = task
        # A background task must neither see nor keep alive the context variables of the caller that starts it.
        self._context = copy_context()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._entered = 1
        self.running = True
        return True

    async def close(self) -> None:
        """Leave. The outermost exit cancels the tasks and waits for their end, also when it is itself cancelled."""
        self._entered -= 1
        if self._entered or self._nursery is None or self._manager is None:
            return
        nursery, manager = self._nursery, self._manager
        self._nursery = self._manager = self._task = None
        self.running = False
        nursery.cancel_scope.cancel(reason=f"{self._owner} is closed")
        await manager.__aexit__(None, None, None)

    def start_soon(self, task: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a background task. It has the context variables of the outermost ``open``, not those of the caller.

        Raises:
            NotRunningError: the nursery is not open.
        """
        self._context.run(partial(self.nursery.start_soon, task, *args))


class TaskOwner:
    """Base class of an async context manager with background tasks. The same task may enter it several times.

    Each entry enters ``below`` first, and each exit exits ``below`` last. Only the outermost entry calls ``_begin``; if
    ``_begin`` raises or is cancelled, the nursery is closed and ``below`` is exited. The outermost exit cancels the
    tasks and waits for their end.

    Args:
        nursery: for the background tasks.
        below: context manager that the background tasks need; None: they need none.
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
