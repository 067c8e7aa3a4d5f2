"""Parser of HTTP/1.1 request bodies (RFC 9112 sections 6 and 7): finds their end, and enforces their limits. No I/O."""

from __future__ import annotations

from ...http1.chunked import ChunkedDecoder
from ...http1.errors import MalformedMessageError, MessageTooLargeError
from ..limits.server_limits import Limits
from ..response.error_response import ErrorResponse


class BodyError(Exception):
    """The body must not be read on. It carries the error response to the request."""

    def __init__(self, error_response: ErrorResponse) -> None:
        super().__init__(error_response.detail)
        self.error_response = error_response


class Body:
    """The body of one request: of ``length`` bytes, or chunked if ``length`` is -1."""

    __slots__ = ("_chunks", "_left", "_limits", "received", "takes_any_size")

    def __init__(self, length: int, limits: Limits) -> None:
        self._left = length
        self._limits = limits
        self._chunks = ChunkedDecoder(limits.max_head, limits.max_fields) if length < 0 else None
        self.received = 0
        """Bytes of content that were received."""
        self.takes_any_size = False
        """Whether ``max_body`` does not hold."""

    @property
    def ended(self) -> bool:
        """Whether the last byte was received."""
        return self._chunks.ended if self._chunks is not None else self._left == 0

    @property
    def left(self) -> int | None:
        """Bytes that are still to come; None if that is unknown."""
        return None if self._chunks is not None else self._left

    @property
    def is_too_large(self) -> bool:
        """Whether the length of the body is over ``max_body``. A body of unknown length is not, before it is read."""
        return self._chunks is None and self._left > self._limits.max_body and not self.takes_any_size

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Parse ``data``. Return the content in it, and the bytes after the end of the body.

        Raises:
            BodyError: 400, malformed chunks; 413, over ``max_body``, unless ``takes_any_size``; 431, a trailer section
                over its limits. The content in ``data`` is lost then.
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
        if self.received > self._limits.max_body and not self.takes_any_size:
            raise BodyError(too_large(self._limits))
        return content, rest


def too_large(limits: Limits) -> ErrorResponse:
    """The error response to a body over ``max_body``."""
    return ErrorResponse(413, f"The body is over {limits.max_body} bytes.")


_CHUNKS_REFUSED = "The body's chunked coding is malformed."
_TRAILERS_REFUSED = "The trailer section of the body is too large."
