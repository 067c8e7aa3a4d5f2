"""Upload: the body of a proxied request, which the call asks for piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from ...core.errors import RequestError
from ...core.pieces import next_piece

if TYPE_CHECKING:
    from ...core.inbound import InboundRequest

Receive = Callable[[], Awaitable[bytes]]
"""Receives the next piece of the body; empty at its end."""


def check_size(size: int | None, limit: int | None) -> None:
    """Check the bytes of a body; None: not known, or no limit.

    Raises:
        RequestError: 413, the body is larger than the limit.
    """
    if size is not None and limit is not None and size > limit:
        raise RequestError(413, f"The body is larger than {limit} bytes, the limit of this path.")


class Upload(AsyncIterator[bytes]):
    """Iterator over the pieces of a request's body. Nothing is read ahead, so the client waits for the upstream.

    Args:
        receive: receives the next piece.
        first: a piece that was received already; empty: none.
        limit: the maximum bytes of the body; None: no limit.
        inbound: the request, which gets the size of its next read.
    """

    __slots__ = ("_first", "_inbound", "_last", "_limit", "_receive", "_size", "begun")

    def __init__(self, receive: Receive, first: bytes, limit: int | None, inbound: InboundRequest) -> None:
        self._receive = receive
        self._inbound = inbound
        self._last = 0
        """Bytes of the last piece."""
        self._first = first
        self._limit = limit
        self._size = 0
        self.begun = False
        """Whether a piece was asked for: the request cannot be sent again from then on."""

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            ClientGoneError: the client has left, or the server has sent an error response itself.
            RequestError: 413, the body exceeds the limit.
        """
        self.begun = True
        data, self._first = self._first, b""
        data = data or await self._receive()
        if not data:
            raise StopAsyncIteration
        self._last = size = len(data)
        self._size += size
        check_size(self._size, self._limit)
        return data

    def sent(self, *, at_once: bool) -> None:
        """Note that the last piece was sent, and choose the size of the next one; ``at_once``: sent without a wait."""
        self._inbound.receive_max = next_piece(self._last, at_once=at_once)
