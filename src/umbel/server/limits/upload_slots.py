"""The slots of requests whose body is still to come, of which there are ``max_uploads``.

``upload.py`` says when a request takes a slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .server_limits import Limits


class UploadSlots:
    """The upload slots of one server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = trio.Semaphore(limits.max_uploads)

    @property
    def taken(self) -> int:
        """Requests whose body is being waited for."""
        return self._limits.max_uploads - self._free.value

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._free.statistics().tasks_waiting

    @property
    def full(self) -> bool:
        """Whether no further request may wait. HTTP/2 has more streams than connections, so these need a bound."""
        return self.waiting >= self._limits.max_connections

    def take_now(self) -> bool:
        """Take a slot if one is free."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def take(self) -> None:
        """Wait for a slot and take it; requests get slots in the order of their coming."""
        await self._free.acquire()

    def give_back(self) -> None:
        """Give a slot back, to the first request that waits."""
        self._free.release()
