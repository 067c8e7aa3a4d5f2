"""Response stream: a body that is read piece by piece from a leased connection, and that connection's return.

For a response that is not complete when its head is there. Whether the connection may serve again is the pool's
decision.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx

from .connection import Connection


class ConnectionLease:
    """Lease of a pool's connection, which is returned exactly once: at the end, an error, or ``abort``."""

    __slots__ = ("_back", "_connection", "over")

    def __init__(self, connection: Connection, give_back: Callable[[], None]) -> None:
        self._connection = connection
        self._back = give_back
        self.over = False
        """Whether the connection was returned: it may be serving another request."""

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
        """Return the connection: the response is complete."""
        self._give_back()
        await self._connection.settle()
        self._connection.raise_failure()

    async def abort(self) -> None:
        """Close the connection and return it, if that has not happened yet."""
        if not self.over:
            self._connection.close_now()
            self._give_back()
            await self._connection.settle()

    def _give_back(self) -> None:
        if not self.over:
            self.over = True
            self._back()


class StreamedBody(httpx.AsyncByteStream):
    """Body stream of a leased connection. It is its own iterator, so no generator is left to the garbage collector."""

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
