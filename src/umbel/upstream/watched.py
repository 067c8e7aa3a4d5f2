"""The stream of a response that is not complete yet, for a layer that must know when it is over.

Used by the layers that count or judge (bulkhead, balance, breaker) where they stand alone: inside a stack the body
layer has read every response before they see it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx

from .pieces import pieces_of


class Watched(httpx.AsyncByteStream):
    """The stream of ``response``; when it is closed, ``over`` is told, once, with the error that broke it (or None).

    Closed is closed: also where the user left the response in the middle, or the closing itself failed.
    """

    def __init__(self, response: httpx.Response, over: Callable[[BaseException | None], None]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._over: Callable[[BaseException | None], None] | None = over
        self._error: BaseException | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with pieces_of(self._stream) as pieces:
            while True:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except BaseException as error:
                    self._error = error
                    raise
                yield piece

    async def aclose(self) -> None:
        """Close the stream, then tell."""
        try:
            await self._stream.aclose()
        finally:
            over, self._over = self._over, None
            error, self._error = self._error, None
            if over is not None:
                over(error)
