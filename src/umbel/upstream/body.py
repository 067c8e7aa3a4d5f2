"""A response's body: its bound, and its content coding undone, as the pieces come.

It decodes gzip and nothing else, and never what the bytes mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from ..messages import Field
from ..model import JSON_MAX, OTHER_MAX
from .errors import Malformed, TooBig, incomplete
from .head import Head

# RFC 9110 section 8.4.1.3: x-gzip is the same.
_GZIP = frozenset({b"gzip", b"x-gzip"})
_PIECE = 64 * 1024
_MEMBERS_MAX = 64
# What gzip may add to a body that does not compress, with room for a long header; beyond it the coding is a trick.
_OVERHEAD_MAX = 64 * 1024


def limit_of(fields: Iterable[Field]) -> int:
    """The bound of a body where nobody has set one: JSON_MAX or OTHER_MAX bytes, by its media type."""
    is_json = any(name == b"content-type" and _is_json(value) for _, name, value in fields)
    return JSON_MAX if is_json else OTHER_MAX


def check_size(size: int, limit: int) -> None:
    """Pass a body of ``size`` bytes without a coding.

    Raises:
        TooBig: it is over its bound.
    """
    if size > limit:
        raise _too_big(limit)


def fields_and_decoder(method: str, head: Head, limit: int | None) -> tuple[list[Field], Decoder]:
    """The fields that are true of the decoded body (no Content-Length, no Content-Encoding), and what decodes it.

    Args:
        limit: bytes after decoding; None: by the media type. No more than three times that is ever in memory.

    Raises:
        TooBig: the body announces more than its bound.
        Malformed: a coding that is not gzip alone.
    """
    if limit is None:
        limit = limit_of(head.fields)
    codings = [value for _, name, value in head.fields if name == b"content-encoding"]
    kept = [field for field in head.kept if field[1] != b"content-encoding"] if codings else list(head.kept)
    if method == "HEAD" or not head.has_body:
        return kept, Decoder(limit, gzip=False)  # The fields describe a body that is not there.
    coded = _is_gzip(b",".join(codings)) if codings else False
    if head.length is not None and head.length > limit + (_OVERHEAD_MAX if coded else 0):
        raise TooBig(f"a body of {head.length} bytes is over the limit of {limit}")
    return kept, Decoder(limit, gzip=coded)


class Decoder:
    """Collects the pieces of a body, decoded, up to ``limit`` bytes."""

    __slots__ = ("_content", "_limit", "_members", "_raw", "_zlib")

    def __init__(self, limit: int, *, gzip: bool) -> None:
        self._limit = limit
        # Not a list: pieces may be a byte each, and then weigh forty times that.
        self._content = bytearray()
        self._raw = 0
        self._members = 0
        self._zlib = _member() if gzip else None

    def feed(self, data: bytes) -> None:
        """Take the next raw bytes.

        Raises:
            TooBig, Malformed: as ``Body``.
        """
        self._raw += len(data)
        if self._raw > self._limit + _OVERHEAD_MAX:
            # Also the end of coded bytes without number that mean nothing, such as empty blocks.
            raise _too_big(self._limit)
        if self._zlib is None:
            self._keep(data)
            return
        try:
            while data:
                if self._zlib.eof:
                    # A gzip body may be several members in a row (RFC 1952 section 2.2).
                    self._members += 1
                    if self._members >= _MEMBERS_MAX:
                        raise _bad_coding(f"over {_MEMBERS_MAX} gzip members")
                    self._zlib = _member()
                self._inflate(self._zlib, data)
                data = self._zlib.unused_data
        except zlib.error as error:
            raise _bad_coding(f"broken gzip: {error}") from error

    def end(self) -> bytes:
        """The whole body.

        Raises:
            Malformed: the gzip is cut short.
        """
        # No bytes at all are taken for an empty body, though they are no gzip.
        if self._zlib is not None and self._raw and not self._zlib.eof:
            raise incomplete("the gzip body ends before its end")
        return bytes(self._content)

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


def _member() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


def _is_gzip(coding: bytes) -> bool:
    name = coding.strip().lower()
    if name in _GZIP:
        return True
    if name not in (b"", b"identity"):
        raise _bad_coding("a content coding other than gzip alone")
    return False


def _bad_coding(detail: str) -> Malformed:
    return Malformed(detail, proxy_error="http_response_content_coding")
