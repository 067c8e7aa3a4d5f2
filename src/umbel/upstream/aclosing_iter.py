"""Iteration over a foreign byte stream that closes the iterator when the block ends.

An async generator that is left to the garbage collector would run its cleanup later, outside of its cancel scopes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


@asynccontextmanager
async def pieces_of(stream: httpx.AsyncByteStream) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give an iterator of ``stream``, and close it when the block ends, also by an error or a cancel.

    Unlike ``contextlib.aclosing`` it accepts an iterator without ``aclose``::

        async with pieces_of(stream) as pieces:
            async for piece in pieces: ...
    """
    iterator = aiter(stream)
    try:
        yield iterator
    finally:
        if (aclose := getattr(iterator, "aclose", None)) is not None:
            await aclose()
