"""Decoding of response bodies: size limit and content coding (gzip, deflate), piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ...core.http.content_coding import GZIP, codings_of
from ...core.http.decompression import OVERHEAD_MAX, BadCodingError, make_decompressor
from ...core.http.header_field import Field
from ...core.http.media_types import is_json
from ...core.model import JSON_MAX, OTHER_MAX
from ...http1.response_head import Head
from ..errors import Malformed, TooBig, incomplete

Coding = Literal["gzip", "deflate"]


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
    if head.length is not None and head.length > limit + (OVERHEAD_MAX if coding else 0):
        raise TooBig(f"the body has {head.length} bytes, the limit is {limit}")
    return kept, Decoder(limit, coding)


class Decoder:
    """Decoder that collects the pieces of one body, up to ``limit`` bytes after decoding.

    Args:
        coding: content coding of the body; None: the bytes are collected as they are.
    """

    __slots__ = ("_coding", "_content", "_decompressor", "_limit", "_raw")

    def __init__(self, limit: int, coding: Coding | None = None) -> None:
        self._limit = limit
        # Not a list of pieces: a piece of one byte would take some forty bytes of memory.
        self._content = bytearray()
        self._raw = 0
        self._coding = coding
        self._decompressor = None if coding is None else make_decompressor(coding)

    def feed(self, data: bytes) -> None:
        """Decode the next received bytes.

        Raises:
            TooBig: the body is over its limit.
            Malformed: the coding is broken, or bytes follow the coded body.
        """
        self._raw += len(data)
        if self._raw > self._limit + OVERHEAD_MAX:
            # This also bounds coded bytes that decode to nothing, such as empty blocks.
            raise _too_big(self._limit)
        if self._decompressor is None:
            self._keep(data)
            return
        try:
            for piece in self._decompressor.feed(data):
                self._keep(piece)
        except BadCodingError as error:
            raise _bad_coding(str(error)) from error

    def end(self) -> bytes:
        """Return the whole decoded body.

        Raises:
            Malformed: the compressed body is incomplete.
        """
        # A coded body without any byte is accepted as an empty body, although it is no valid coding.
        if self._decompressor is not None and self._raw and not self._decompressor.is_complete:
            raise incomplete(f"the {self._coding} body is incomplete")
        return bytes(self._content)

    def _keep(self, piece: bytes) -> None:
        if len(self._content) + len(piece) > self._limit:
            raise _too_big(self._limit)
        self._content += piece


def _too_big(limit: int) -> TooBig:
    return TooBig(f"the body is larger than the limit of {limit} bytes")


def _coding(values: list[bytes]) -> Coding | None:
    codings = codings_of(values)
    if not codings:
        return None
    if len(codings) > 1 or not (codings[0] in GZIP or codings[0] == b"deflate"):
        raise _bad_coding("the content coding is not gzip or deflate alone")
    return "deflate" if codings[0] == b"deflate" else "gzip"


def _bad_coding(detail: str) -> Malformed:
    return Malformed(detail, proxy_error="http_response_content_coding")
