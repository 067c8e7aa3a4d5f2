"""A response that is read piece by piece from the connection that it comes on, and that connection's way back.

Made by the pool for a response that is not whole when its head is there. It decides nothing about the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx

from .connection import Connection


class ConnectionLease:
    """The one way back to the pool for a connection that was lent: used exactly once, by whoever comes first."""

    __slots__ = ("_back", "_connection", "over")

    def __init__(self, connection: Connection, give_back: Callable[[], None]) -> None:
        self._connection = connection
        self._back = give_back
        self.over = False
        """Once true, the connection may be serving someone else."""

    async def read(self) -> bytes:
        """The next bytes of the body; may be empty at its end. An error closes the connection."""
        try:
            data = await self._connection.read()
        except BaseException:
            self._give_back()
            raise
        if self._connection.ended:
            await self.finish()
        return data

    async def finish(self) -> None:
        """The response is complete."""
        self._give_back()
        await self._connection.settle()
        self._connection.raise_failure()

    async def abort(self) -> None:
        """Nobody wants the rest of the response."""
        if not self.over:
            self._connection.close_now()
            self._give_back()
            await self._connection.settle()

    def _give_back(self) -> None:
        if not self.over:
            self.over = True
            self._back()


class StreamedBody(httpx.AsyncByteStream):
    """A response's body as it comes from its connection. Its own iterator, so there is no generator to be forgotten."""

    __slots__ = ("_lease",)

    def __init__(self, lease: ConnectionLease) -> None:
        self._lease = lease

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._lease.over:
            if data := await self._lease.read():
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection, unless the response was read to its end."""
        await self._lease.abort()
