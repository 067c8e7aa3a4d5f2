"""The body layer: reads a response to its end, within bounds, and undoes its content coding.

Stands right above the pool, so that every layer above it sees a complete response or a failed attempt. It decodes gzip
and nothing else, never what the bytes mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import httpx
import trio

from ..messages import ACCEPT_GZIP, Complete, Field, fields_of, response_fields
from ..model import JSON_MAX, OTHER_MAX, CallFacts, facts_of
from .errors import Malformed, TooBig, incomplete
from .layer import Layer
from .pieces import pieces_of
from .rewrite import rewritten

# RFC 9110 section 8.4.1.3: x-gzip is the same.
_GZIP = frozenset({b"gzip", b"x-gzip"})
_ACCEPT = {b"accept-encoding": b"gzip"}
_PIECE = 64 * 1024
_MEMBERS_MAX = 64
# What gzip may add to a body that does not compress, with room for a long header; beyond it the coding is a trick.
_OVERHEAD_MAX = 64 * 1024


class Body(Layer):
    """Asks for gzip, and gives back responses that are read, decoded and closed (``response.content``).

    ``max_body`` bounds the bytes after decoding; the call's own (``CallFacts.max_body``) goes before it, and without
    either it is JSON_MAX or OTHER_MAX by the response's type. At the bound reading stops and the connection is closed;
    no more than three times the bound is ever in memory. Content-Encoding and Content-Length are gone from the headers.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, *, max_body: int | None = None) -> None:
        super().__init__(transport)
        self._max_body = max_body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below and read its response.

        Raises:
            TooBig: the body is over its bound.
            Malformed: a coding that is not gzip alone, or broken gzip.
        """
        began = trio.current_time()
        asking = request if ACCEPT_GZIP in fields_of(request.headers) else rewritten(request, _ACCEPT)
        response = await self._transport.handle_async_request(asking)
        if isinstance(response, Complete):
            return self._bounded(facts_of(request), response)
        stream = response.stream
        if isinstance(stream, httpx.ByteStream):
            # Here already, as most are: there is nothing to wait for, and nothing to close.
            kept, decoder = self.begin(
                request.method, facts_of(request), response.status_code, fields_of(response.headers)
            )
            for piece in stream:
                decoder.feed(piece)
            content = decoder.end()
        else:
            assert isinstance(stream, httpx.AsyncByteStream)
            try:
                kept, decoder = self.begin(
                    request.method, facts_of(request), response.status_code, fields_of(response.headers)
                )
                async with pieces_of(stream) as pieces:
                    async for piece in pieces:
                        decoder.feed(piece)
                content = decoder.end()
            finally:
                # Read to its end it is closed already; closed before, it takes its connection along.
                await stream.aclose()
        return Complete(response.status_code, kept, content, response.extensions, trio.current_time() - began)

    def _bounded(self, facts: CallFacts | None, response: Complete) -> Complete:
        """A response that is here already and has no coding, as most have."""
        fields = response_fields(response)
        self.check_size(facts, fields, len(response.content))
        response.fields = [field for field in fields if field[1] != b"content-length"]
        return response

    def check_size(self, facts: CallFacts | None, fields: Iterable[Field], size: int) -> None:
        """Pass a body of ``size`` bytes without a coding.

        Raises:
            TooBig: it is over its bound.
        """
        limit = self._limit(facts)
        if limit is None:
            limit = (
                JSON_MAX if any(name == b"content-type" and _is_json(value) for _, name, value in fields) else OTHER_MAX
            )
        if size > limit:
            raise _too_big(limit)

    def _limit(self, facts: CallFacts | None) -> int | None:
        return facts.max_body if facts is not None and facts.max_body is not None else self._max_body

    def begin(
        self, method: str, facts: CallFacts | None, status: int, fields: Iterable[Field]
    ) -> tuple[list[Field], Decoder]:
        """The fields that are true of the decoded body, and what decodes it.

        Raises:
            TooBig, Malformed: as ``handle_async_request``.
        """
        kept: list[Field] = []
        coding = length = media_type = b""
        for field in fields:
            _, name, value = field
            if name == b"content-length":
                length = value
                continue
            if name == b"content-encoding":
                coding = coding + b"," + value if coding else value
                continue
            if name == b"content-type":
                media_type = value
            kept.append(field)
        limit = self._limit(facts)
        if limit is None:
            limit = JSON_MAX if _is_json(media_type) else OTHER_MAX
        if method == "HEAD" or status in (204, 304):
            return kept, Decoder(limit, gzip=False)  # The headers describe a body that is not there.
        coded = _is_gzip(coding) if coding else False
        if length.isdigit() and int(length) > limit + (_OVERHEAD_MAX if coded else 0):
            raise TooBig(f"a body of {length.decode('ascii')} bytes is over the limit of {limit}")
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
