"""Decoding of response bodies: size limit and content coding (gzip, deflate), piece by piece."""

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
# Bytes that a coding may add to a body that does not compress. A coded body may be longer than the limit by this much.
_OVERHEAD_MAX = 64 * 1024
_PADDING = b"\0"


def limit_of(fields: Iterable[Field]) -> int:
    """The default limit of a body in bytes: JSON_MAX or OTHER_MAX, by its media type."""
    # A loop and not ``any``, with the most frequent type first: this runs for every response.
    for _, name, value in fields:
        if name == b"content-type" and (value == b"application/json" or is_json(value.decode("latin-1"))):
            return JSON_MAX
    return OTHER_MAX


def check_size(size: int, limit: int) -> None:
    """Check the size of a body without a content coding.

    Raises:
        TooBig: ``size`` is over ``limit``.
    """
    if size > limit:
        raise _too_big(limit)


def fields_and_decoder(method: str, head: Head, limit: int | None) -> tuple[list[Field], Decoder]:
    """The header fields that describe the decoded body (without Content-Length and Content-Encoding), and its decoder.

    Args:
        limit: bytes after decoding; None: by the media type. Decoding needs at most three times as much memory.

    Raises:
        TooBig: Content-Length is over the limit; with a content coding, over the limit by more than 64 KiB.
        Malformed: the content coding is neither gzip nor deflate, or there are several codings.
    """
    if limit is None:
        limit = limit_of(head.fields)
    codings = [value for _, name, value in head.fields if name == b"content-encoding"]
    kept = [field for field in head.kept if field[1] != b"content-encoding"] if codings else list(head.kept)
    if method == "HEAD" or not head.has_body:
        return kept, Decoder(limit)  # Content-Length and Content-Encoding describe a body that is not sent.
    coding = _coding(codings) if codings else None
    if head.length is not None and head.length > limit + (_OVERHEAD_MAX if coding else 0):
        raise TooBig(f"the body has {head.length} bytes, the limit is {limit}")
    return kept, Decoder(limit, coding)


class Decoder:
    """Decoder that collects the pieces of one body, up to ``limit`` bytes after decoding.

    Zero bytes after a compressed body are ignored as padding. A gzip body may have up to 64 members, one after the
    other; any other byte after a compressed body is an error.

    Args:
        coding: content coding of the body; None: the bytes are collected as they are.
    """

    __slots__ = ("_begin", "_coding", "_content", "_limit", "_members", "_raw", "_zlib")

    def __init__(self, limit: int, coding: Coding | None = None) -> None:
        self._limit = limit
        # Not a list of pieces: a piece of one byte would take some forty bytes of memory.
        self._content = bytearray()
        self._raw = 0
        self._members = 0
        self._coding = coding
        self._zlib = _gzip() if coding == "gzip" else None
        self._begin = b""
        """First byte of a deflate body, kept until the second byte shows the format (``_deflate``)."""

    def feed(self, data: bytes) -> None:
        """Decode the next received bytes.

        Raises:
            TooBig: the body is over its limit.
            Malformed: the coding is broken, or bytes follow the coded body.
        """
        self._raw += len(data)
        if self._raw > self._limit + _OVERHEAD_MAX:
            # This also bounds coded bytes that decode to nothing, such as empty blocks.
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
        """Return the whole decoded body.

        Raises:
            Malformed: the compressed body is incomplete.
        """
        # A coded body without any byte is accepted as an empty body, although it is no valid coding.
        if self._coding is not None and self._raw and not (self._zlib is not None and self._zlib.eof):
            raise incomplete(f"the {self._coding} body is incomplete")
        return bytes(self._content)

    def _next_member(self) -> zlib._Decompress:
        """Return the decompressor of the next gzip member; a body may have several (RFC 1952 section 2.2)."""
        self._members += 1
        if self._coding != "gzip":
            raise _bad_coding("bytes follow the end of the deflate body")
        if self._members >= _MEMBERS_MAX:
            raise _bad_coding(f"the gzip body has more than {_MEMBERS_MAX} members")
        return _gzip()

    def _inflate(self, member: zlib._Decompress, data: bytes) -> None:
        """Decode at most ``_PIECE`` bytes at a time, so that zlib never produces much more than the limit."""
        piece = member.decompress(data, _PIECE)
        self._keep(piece)
        while len(piece) == _PIECE:  # A full piece: zlib may hold more output, even without further input.
            piece = member.decompress(member.unconsumed_tail, _PIECE)
            self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        if len(self._content) + len(piece) > self._limit:
            raise _too_big(self._limit)
        self._content += piece


def _too_big(limit: int) -> TooBig:
    return TooBig(f"the body is larger than the limit of {limit} bytes")


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _deflate(data: bytes) -> zlib._Decompress:
    """The decompressor of a deflate body that begins with ``data`` (at least two bytes).

    The zlib format, or compressed data without zlib's header, which some servers send (RFC 9110 section 8.4.1.2). The
    check bits of zlib's header tell them apart.
    """
    wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _coding(values: list[bytes]) -> Coding | None:
    codings = codings_of(values)
    if not codings:
        return None
    if len(codings) > 1 or not (codings[0] in GZIP or codings[0] == b"deflate"):
        raise _bad_coding("the content coding is not gzip or deflate alone")
    return "deflate" if codings[0] == b"deflate" else "gzip"


def _bad_coding(detail: str) -> Malformed:
    return Malformed(detail, proxy_error="http_response_content_coding")
