"""Upload slots: ``max_uploads`` of them. ``request_place.py`` says when a request needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .server_limits import Limits


class UploadSlots:
    """The upload slots of one server, which bound the requests whose bodies it waits for at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = trio.Semaphore(limits.max_uploads)
        self._waiting_max = limits.connections_allowed

    @property
    def taken(self) -> int:
        """Requests that hold a slot."""
        return self._limits.max_uploads - self._free.value

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._free.statistics().tasks_waiting

    @property
    def full(self) -> bool:
        """Whether no further request may wait for a slot: as many wait as connections are allowed.

        The number of connections alone is no bound, because an HTTP/2 connection has many streams.
        """
        return self.waiting >= self._waiting_max

    def take_now(self) -> bool:
        """Take a slot if one is free. Return whether one was."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def take(self) -> None:
        """Wait for a slot and take it, in the order of arrival. Cancelled, none is taken."""
        await self._free.acquire()

    def give_back(self) -> None:
        """Give a slot back; the first request that waits gets it."""
        self._free.release()
