"""Iterating a byte stream so that its iterator is closed with the loop.

Used wherever this package reads a stream that someone else made. Left to the garbage collector, an async generator
would end at some later time, outside of every scope that it was written in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


@asynccontextmanager
async def pieces_of(stream: httpx.AsyncByteStream) -> AsyncIterator[AsyncIterator[bytes]]:
    """``async with pieces_of(stream) as pieces: async for piece in pieces: …``.

    Like ``contextlib.aclosing``, but an iterator that is no generator will do too.
    """
    iterator = aiter(stream)
    try:
        yield iterator
    finally:
        if (aclose := getattr(iterator, "aclose", None)) is not None:
            await aclose()
