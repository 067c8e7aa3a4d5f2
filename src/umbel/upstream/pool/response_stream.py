"""Response stream: a body that is received piece by piece on a leased connection, and the return of the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx

from .connection import Connection


class ConnectionLease:
    """The use of a pool's connection by one streamed response, which returns the connection exactly once.

    It returns the connection at the end of the response, after an error, or by ``abort``.

    Args:
        connection: a connection whose response has a head and is not complete.
        give_back: returns the connection; the pool then decides whether it is reused.
    """

    __slots__ = ("_back", "_connection", "over")

    def __init__(self, connection: Connection, give_back: Callable[[], None]) -> None:
        self._connection = connection
        self._back = give_back
        self.over = False
        """Whether the connection was returned. If so, it may be serving another request, and must not be used."""

    async def read(self) -> bytes:
        """Receive the next bytes of the body; may return no bytes at its end.

        An error or a cancel closes and returns the connection.

        Raises:
            as ``Connection.start``.
        """
        try:
            data = await self._connection.read()
        except BaseException:
            self._give_back()
            raise
        if self._connection.ended:
            await self.finish()
        return data

    async def finish(self) -> None:
        """Return the connection after the end of the response; the pool closes it if the request is not yet sent.

        Then waits for the end of the task that sends the request's body: at most SETTLE_TIMEOUT, even if the caller is
        cancelled.

        Raises:
            Exception: what ended that task, such as an exception of the request's own body.
        """
        self._give_back()
        await self._connection.settle()
        self._connection.raise_failure()

    async def abort(self) -> None:
        """Close and return the connection, unless it was returned. Waits at most SETTLE_TIMEOUT, even if cancelled."""
        if not self.over:
            self._connection.close_now()
            self._give_back()
            await self._connection.settle()

    def _give_back(self) -> None:
        if not self.over:
            self.over = True
            self._back()


class StreamedBody(httpx.AsyncByteStream):
    """Body stream of a leased connection. It is its own iterator: no generator waits for the garbage collector."""

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
        """Close the connection, unless the response was received to its end. Waits as ``ConnectionLease.abort``."""
        await self._lease.abort()
