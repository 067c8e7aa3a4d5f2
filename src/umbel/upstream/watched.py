"""The stream of a response that is not complete yet, for a layer that must know when it is over.

Used by the layers that count or judge (bulkhead, balance, breaker) where they stand alone: inside a stack the body
layer has read every response before they see it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx


class Watched(httpx.AsyncByteStream):
    """The stream of ``response``; when it is closed, ``over`` is told, once, with the error that broke it (or None).

    Closed is closed: also where the user left the response in the middle, or the closing itself failed. It is its own
    iterator, so that leaving it leaves no generator behind for the garbage collector to end.
    """

    def __init__(self, response: httpx.Response, over: Callable[[BaseException | None], None]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._pieces: AsyncIterator[bytes] | None = None
        self._over: Callable[[BaseException | None], None] | None = over
        self._error: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces is None:
            self._pieces = aiter(self._stream)
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self._error = error
            raise

    async def aclose(self) -> None:
        """Close the stream, then tell."""
        try:
            try:
                if (close_pieces := getattr(self._pieces, "aclose", None)) is not None:
                    await close_pieces()
            finally:
                await self._stream.aclose()
        finally:
            over, self._over = self._over, None
            error, self._error = self._error, None
            if over is not None:
                over(error)
