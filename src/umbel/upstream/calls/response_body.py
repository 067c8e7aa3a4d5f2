"""Response body decoding: the size bound and the content coding (gzip, deflate) of a body, piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

from ...core.http.content_coding import GZIP, codings_of
from ...core.http.header_field import Field
from ...core.http.media_types import is_json
from ...core.model import JSON_MAX, OTHER_MAX
from ...http1.response_head import Head
from ..errors import Malformed, TooBig, incomplete

Coding = Literal["gzip", "deflate"]

_PIECE = 64 * 1024
_MEMBERS_MAX = 64
# What gzip may add to a body that does not compress, with room for a long header; beyond it the coding is a trick.
_OVERHEAD_MAX = 64 * 1024
_PADDING = b"\0"


def limit_of(fields: Iterable[Field]) -> int:
    """The bound of a body where none is configured: JSON_MAX or OTHER_MAX bytes, by its media type."""
    # A loop and not any(): this runs for every response, and nearly every one is of that very type.
    for _, name, value in fields:
        if name == b"content-type" and (value == b"application/json" or is_json(value.decode("latin-1"))):
            return JSON_MAX
    return OTHER_MAX


def check_size(size: int, limit: int) -> None:
    """Check the size of a body without a content coding.

    Raises:
        TooBig: it is over its bound.
    """
    if size > limit:
        raise _too_big(limit)


def fields_and_decoder(method: str, head: Head, limit: int | None) -> tuple[list[Field], Decoder]:
    """The fields that are true of the decoded body (no Content-Length, no Content-Encoding), and its decoder.

    Args:
        limit: bytes after decoding; None: by the media type. No more than three times that is ever in memory.

    Raises:
        TooBig: the body announces more than its bound.
        Malformed: a coding other than gzip or deflate alone.
    """
    if limit is None:
        limit = limit_of(head.fields)
    codings = [value for _, name, value in head.fields if name == b"content-encoding"]
    kept = [field for field in head.kept if field[1] != b"content-encoding"] if codings else list(head.kept)
    if method == "HEAD" or not head.has_body:
        return kept, Decoder(limit)  # The fields describe a body that is not there.
    coding = _coding(codings) if codings else None
    if head.length is not None and head.length > limit + (_OVERHEAD_MAX if coding else 0):
        raise TooBig(f"a body of {head.length} bytes is over the limit of {limit}")
    return kept, Decoder(limit, coding)


class Decoder:
    """Decoder that collects the pieces of a body, up to ``limit`` bytes after decoding.

    Zero bytes behind a compressed body are padding and mean nothing; any other byte there is refused, because what it
    belongs to is not known.
    """

    __slots__ = ("_begin", "_coding", "_content", "_limit", "_members", "_raw", "_zlib")

    def __init__(self, limit: int, coding: Coding | None = None) -> None:
        self._limit = limit
        # Not a list: pieces may be a byte each, and then weigh forty times that.
        self._content = bytearray()
        self._raw = 0
        self._members = 0
        self._coding = coding
        self._zlib = _gzip() if coding == "gzip" else None
        self._begin = b""
        """The first byte of a deflate body, until its second shows which of the two forms it has."""

    def feed(self, data: bytes) -> None:
        """Take the next raw bytes.

        Raises:
            TooBig: the body is over its bound.
            Malformed: the coding is broken, or something follows the coded body.
        """
        self._raw += len(data)
        if self._raw > self._limit + _OVERHEAD_MAX:
            # Also the end of coded bytes without number that mean nothing, such as empty blocks.
            raise _too_big(self._limit)
        if self._coding is None:
            self._keep(data)
            return
        member = self._zlib
        if member is None:
            data = self._begin + data
            if len(data) < 2:
                self._begin = data
                return
            member = self._zlib = _deflate(data)
        try:
            while data:
                if member.eof:
                    if not (data := data.lstrip(_PADDING)):
                        break
                    member = self._zlib = self._next_member()
                self._inflate(member, data)
                data = member.unused_data
        except zlib.error as error:
            raise _bad_coding(f"broken {self._coding}: {error}") from error

    def end(self) -> bytes:
        """The whole body.

        Raises:
            Malformed: the compressed body is cut short.
        """
        # No bytes at all are taken for an empty body, though they are no gzip.
        if self._coding is not None and self._raw and not (self._zlib is not None and self._zlib.eof):
            raise incomplete(f"the {self._coding} body ends before its end")
        return bytes(self._content)

    def _next_member(self) -> zlib._Decompress:
        """The decompressor of the next gzip member: a body may be several in a row (RFC 1952 section 2.2)."""
        self._members += 1
        if self._coding != "gzip":
            raise _bad_coding("bytes behind the deflate body")
        if self._members >= _MEMBERS_MAX:
            raise _bad_coding(f"over {_MEMBERS_MAX} gzip members")
        return _gzip()

    def _inflate(self, member: zlib._Decompress, data: bytes) -> None:
        """Decode a piece at a time, so that zlib never makes much more than the limit has room for."""
        piece = member.decompress(data, _PIECE)
        self._keep(piece)
        while len(piece) == _PIECE:  # There may be more, even with all of the input taken in.
            piece = member.decompress(member.unconsumed_tail, _PIECE)
            self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        if len(self._content) + len(piece) > self._limit:
            raise _too_big(self._limit)
        self._content += piece


def _too_big(limit: int) -> TooBig:
    return TooBig(f"the body is over the limit of {limit} bytes")


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _deflate(data: bytes) -> zlib._Decompress:
    """The decompressor of a deflate body that begins with ``data``, of two bytes at least.

    RFC 9110 section 8.4.1.2: it is zlib's format, and some send the compressed data alone. zlib's has a checked header.
    """
    wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _coding(values: list[bytes]) -> Coding | None:
    codings = codings_of(values)
    if not codings:
        return None
    if len(codings) > 1 or not (codings[0] in GZIP or codings[0] == b"deflate"):
        raise _bad_coding("a content coding other than gzip or deflate alone")
    return "deflate" if codings[0] == b"deflate" else "gzip"


def _bad_coding(detail: str) -> Malformed:
    return Malformed(detail, proxy_error="http_response_content_coding")
