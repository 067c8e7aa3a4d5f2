"""Decompression of bodies piece by piece, in the codings gzip, deflate, zstd and br.

A decompressor gives its output in pieces of some 64 KiB, whatever its input decodes to, so that its user can stop at a
limit: a body of a kilobyte may decode to gigabytes. Its own memory is bounded by the window of the coding: 32 KiB for
gzip and deflate, 8 MiB for zstd (RFC 9659), 16 MiB for br (RFC 7932 section 9.1).

The result does not depend on how the body was divided into the arguments of ``feed``.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from .compressors import library

DecodedCoding = Literal["gzip", "deflate", "zstd", "br"]

PIECE = 64 * 1024
"""Bytes of a piece of output; one of br may be some 32 KiB longer."""
OVERHEAD_MAX = 64 * 1024
"""Bytes that a coding may add to a body that does not compress: a coded body may be longer than its limit by this."""

_MEMBERS_MAX = 64
_ZSTD_WINDOW_LOG_MAX = 23
_PADDING = b"\0"


class BadCodingError(ValueError):
    """A coded body is broken, or bytes follow it. The text says how."""


class Decompressor(ABC):
    """Decompressor of one body."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the coded body has reached its end, as far as it was fed."""

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes of the body, and yield the output in pieces. To be read to its end before the next.

        Raises:
            BadCodingError: the coding is broken, or bytes follow the coded body.
        """


def make_decompressor(coding: DecodedCoding) -> Decompressor:
    """Make the decompressor of one body.

    Raises:
        ImportError: the library of the coding is not installed.
    """
    if coding == "br":
        return _Brotli()
    if coding == "zstd":
        return _Zstd()
    return _Zlib(coding)


class _Zlib(Decompressor):
    """Decompressor of gzip and deflate.

    Zero bytes after a compressed body are ignored as padding. A gzip body may have up to 64 members, one after the
    other (RFC 1952 section 2.2); any other byte after a compressed body is an error.
    """

    __slots__ = ("_begin", "_coding", "_member", "_members")

    def __init__(self, coding: Literal["gzip", "deflate"]) -> None:
        self._coding = coding
        self._members = 0
        self._member = _gzip() if coding == "gzip" else None
        self._begin = b""
        """First byte of a deflate body, kept until the second byte shows the format (``_deflate``)."""

    @property
    def is_complete(self) -> bool:
        return self._member is not None and self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        member = self._member
        if member is None:
            data = self._begin + data
            if len(data) < 2:
                self._begin = data
                return
            member = self._member = _deflate(data)
        try:
            while data:
                if member.eof:
                    if not (data := data.lstrip(_PADDING)):
                        break
                    member = self._member = self._next_member()
                piece = member.decompress(data, PIECE)
                yield piece
                while len(piece) == PIECE:  # A full piece: zlib may hold more output, even without further input.
                    piece = member.decompress(member.unconsumed_tail, PIECE)
                    yield piece
                data = member.unused_data
        except zlib.error as error:
            raise BadCodingError(f"broken {self._coding}: {error}") from error

    def _next_member(self) -> zlib._Decompress:
        self._members += 1
        if self._coding != "gzip":
            raise BadCodingError("bytes follow the end of the deflate body")
        if self._members >= _MEMBERS_MAX:
            raise BadCodingError(f"the gzip body has more than {_MEMBERS_MAX} members")
        return _gzip()


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _deflate(data: bytes) -> zlib._Decompress:
    """The decompressor of a deflate body that begins with ``data`` (at least two bytes).

    The zlib format, or compressed data without zlib's header, which some servers send (RFC 9110 section 8.4.1.2). The
    check bits of zlib's header tell them apart.
    """
    wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


class _Zstd(Decompressor):
    """Decompressor of zstd: up to 64 frames, one after the other (RFC 8878 section 3.1)."""

    __slots__ = ("_frame", "_frames", "_library")

    def __init__(self) -> None:
        self._library = library("zstd")
        self._frames = 0
        self._frame = self._next_frame()

    @property
    def is_complete(self) -> bool:
        return bool(self._frame.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                if self._frame.eof:
                    self._frame = self._next_frame()
                yield self._frame.decompress(data, PIECE)
                while not self._frame.needs_input and not self._frame.eof:
                    yield self._frame.decompress(b"", PIECE)
                data = self._frame.unused_data
        except self._library.ZstdError as error:
            raise BadCodingError(f"broken zstd: {error}") from error

    def _next_frame(self) -> Any:
        self._frames += 1
        if self._frames > _MEMBERS_MAX:
            raise BadCodingError(f"the zstd body has more than {_MEMBERS_MAX} frames")
        window = {self._library.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX}
        return self._library.ZstdDecompressor(options=window)


class _Brotli(Decompressor):
    """Decompressor of br. The library itself refuses bytes after the end."""

    __slots__ = ("_decompressor", "_library")

    def __init__(self) -> None:
        self._library = library("br")
        self._decompressor = self._library.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._decompressor.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._decompressor.process(data, output_buffer_limit=PIECE)
            while piece:
                yield piece
                piece = self._decompressor.process(b"", output_buffer_limit=PIECE)
        except self._library.error as error:
            raise BadCodingError(f"broken br: {error}") from error
