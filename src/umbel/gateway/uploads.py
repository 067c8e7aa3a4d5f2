"""The container of a request's body, between the server that brings it and whoever reads it.

Put into Quart's requests by ``app.py`` and filled by ``connection.py``. Quart's own does not bound a body as a whole:
0.22 bounds what waits to be read, 0.23 nothing until the body is complete.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import trio
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestEntityTooLarge

from ..server.fairness import CountedCalls


class Upload(TrioBody, CountedCalls):
    """A body that is read in parts (``async for``) or as a whole (``await``), with the interface of Quart's.

    It holds at most ``max_content_length`` bytes, and nothing any more once the client has sent more than that in all:
    readers then get ``RequestEntityTooLarge``, at once where the length was known.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self._held = bytearray()
        self._received = 0
        self._limit = max_content_length
        self._ended = False
        self._news = trio.Event()
        self._error: RequestEntityTooLarge | None = None
        if expected_content_length is not None:
            self._bound(expected_content_length)

    def append(self, data: bytes) -> None:
        """Take a part."""
        self._received += len(data)
        self._bound(self._received)
        if self._error is None:
            self._held += data
        self._tell()

    def set_complete(self) -> None:
        """There is no further part."""
        self._ended = True
        self._tell()

    def set_result(self, data: bytes) -> None:
        """The body is this, and complete."""
        self.append(data)
        self.set_complete()

    def clear(self) -> None:
        """Drop what is held."""
        self._held.clear()

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        await self.count_call()
        while not self._held and not self._ended and self._error is None:
            await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._held:
            raise StopAsyncIteration
        data = bytes(self._held)
        self._held.clear()
        return data

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def _whole(self) -> bytes:
        await self.count_call()
        while not self._ended and self._error is None:
            await self._news.wait()
        if self._error is not None:
            raise self._error
        return bytes(self._held)

    def _bound(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            self._error = RequestEntityTooLarge()
            self._held.clear()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


class UmbelRequest(TrioRequest):
    """Quart-Trio's request, with a body that is bounded while it comes."""

    body_class = Upload
    body: Upload
