"""The reader of HTTP/1.1 request bodies: their end and their limits (RFC 9112 section 6), without I/O.

It takes the bytes of the connection and returns the content; bytes behind the body are returned unread.
"""

from __future__ import annotations

from ...http1.chunked import ChunkedDecoder
from ...http1.errors import MalformedMessageError, MessageTooLargeError
from ..limits.server_limits import Limits
from ..response.error_response import ErrorResponse


class BodyError(Exception):
    """The body cannot be read on."""

    def __init__(self, error_response: ErrorResponse) -> None:
        super().__init__(error_response.detail)
        self.error_response = error_response


class Body:
    """A body of ``length`` bytes, or a chunked one if that is -1."""

    __slots__ = ("_chunks", "_left", "_limits", "received")

    def __init__(self, length: int, limits: Limits) -> None:
        self._left = length
        self._limits = limits
        self._chunks = ChunkedDecoder(limits.max_head, limits.max_fields) if length < 0 else None
        self.received = 0
        """Bytes of content so far."""

    @property
    def ended(self) -> bool:
        """Whether its last byte has come."""
        return self._chunks.ended if self._chunks is not None else self._left == 0

    @property
    def left(self) -> int | None:
        """Bytes that are still to come; None if nobody knows."""
        return None if self._chunks is not None else self._left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take ``data``; return the content in it, and what stands behind the body's end.

        Raises:
            BodyError: bad framing, or more than a body may have. What was good before it is lost.
        """
        if self._chunks is None:
            content, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
            self._left -= len(content)
            self.received += len(content)
            return content, rest
        pieces: list[bytes] = []
        try:
            rest = self._chunks.feed(data, pieces)
        except MalformedMessageError as error:
            raise BodyError(ErrorResponse(400, _CHUNKS_REFUSED)) from error
        except MessageTooLargeError as error:
            raise BodyError(ErrorResponse(431, _TRAILERS_REFUSED)) from error
        content = b"".join(pieces)
        self.received += len(content)
        if self.received > self._limits.max_body:
            raise BodyError(too_large(self._limits))
        return content, rest


def too_large(limits: Limits) -> ErrorResponse:
    """The error response to a body over the limit, known beforehand or found out."""
    return ErrorResponse(413, f"The body is over {limits.max_body} bytes.")


_CHUNKS_REFUSED = "The body is not well chunked."
_TRAILERS_REFUSED = "The trailer section of the body is too large."
