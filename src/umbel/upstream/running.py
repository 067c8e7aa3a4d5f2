"""The ``async with`` of what has tasks of its own beside its callers' (shared calls, timers, checks, look-ups).

It says in which order things are entered and left, and nothing of what they do.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from .background_tasks import OwnNursery


class Running:
    """An async context manager with an ``OwnNursery``, around ``below`` if there is something that its tasks use.

    ``below`` is entered first and left last, each time; ``_begin`` is called by the outermost entering alone. If that
    fails or is cancelled, the nursery is closed and what is below is left again. May be entered anew by the same task
    while it is entered.
    """

    def __init__(self, nursery: OwnNursery, below: AbstractAsyncContextManager[Any] | None = None) -> None:
        self._nursery = nursery
        self._below = below

    async def _begin(self) -> None:
        """Start what runs as long as this does, in ``self._nursery``."""

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
