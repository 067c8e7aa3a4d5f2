"""HTTP/1.1 responses read from bytes, without I/O (RFC 9112): llhttp for the head, strict framing around it.

Used by ``connection.py``: one reader per request. llhttp lets much pass (odd versions and statuses, several transfer
codings, heads of any size, trailers as header fields); everything it lets pass that we refuse is checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import httptools

from .chunked import ChunkedDecoder
from .errors import ConnectionReset, Malformed, TooBig, incomplete

INFORMATIONAL_MAX = 100
"""Interim (1xx) responses before the response. 102 may be sent as a heartbeat; more than this is an attack."""

_PREFIX = b"HTTP/1."
_VERSIONS = {"1.0": b"HTTP/1.0", "1.1": b"HTTP/1.1"}
# Control characters, bare CR or LF, and folded lines: nowhere in a head.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a response's head (and of its trailer section)."""

    max_head: int = 64 * 1024
    """Bytes, the status line and the empty line included."""
    max_fields: int = 100


class Head(NamedTuple):
    """A response's head. ``headers`` are the end-to-end fields in order, as they came."""

    status: int
    reason: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    """Whether the peer lets the connection serve again after this response."""


class _Collector:
    """What llhttp calls. Never raises: llhttp would hide the exception in its own."""

    __slots__ = ("complete", "fields", "reason")

    def __init__(self) -> None:
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


class ResponseReader:
    """Reads the response to one request from whatever pieces the bytes come in; the pieces never change the result.

    ``feed`` what comes and ``feed_eof`` when nothing more will; then look at ``head``, ``take()`` and ``ended``.
    After an exception the reader is of no more use, nor is its connection.
    """

    __slots__ = (
        "_chunked",
        "_collector",
        "_informational",
        "_left",
        "_limits",
        "_method",
        "_out",
        "_parser",
        "_raw",
        "ended",
        "excess",
        "head",
        "started",
    )

    def __init__(self, method: str, limits: Limits) -> None:
        self._method = method
        self._limits = limits
        self._informational = 0
        self._left: int | None = None
        self._chunked: ChunkedDecoder | None = None
        self._out: list[bytes] = []
        self.started = False
        """Whether a byte has come."""
        self.head: Head | None = None
        self.ended = False
        """Whether the message is complete."""
        self.excess = False
        """Whether bytes came behind the message's end: its connection must never serve again."""
        self._begin_head()

    def _begin_head(self) -> None:
        self._raw = bytearray()
        self._collector = _Collector()
        self._parser = httptools.HttpResponseParser(self._collector)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            Malformed: not HTTP/1.0 or 1.1, or something that we refuse.
            TooBig: a head over its bounds.
        """
        self.started = self.started or bool(data)
        while data and self.head is None:
            data = self._feed_head(data)
        if data:
            self._feed_body(data)

    def feed_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            ConnectionReset: before a byte came.
            Malformed: before the end of the message (``http_response_incomplete``).
        """
        if self.ended:
            return
        if not self.started:
            raise ConnectionReset("the connection was closed before a byte of the response", untouched=True)
        if self.head is None:
            raise incomplete("the connection was closed inside the response's head")
        if self._chunked is not None or self._left is not None:
            raise incomplete("the connection was closed inside the response's body")
        self.ended = True

    def take(self) -> bytes:
        """The body bytes that have come since the last call; empty if none."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def _feed_head(self, data: bytes) -> bytes:
        raw = self._raw
        before = len(raw)
        raw += data
        found = raw.find(b"\r\n\r\n", max(0, before - 3))
        if found >= 0:
            del raw[found + 4 :]
        if len(raw) > self._limits.max_head:
            raise _head_too_big(f"the response's head is over {self._limits.max_head} bytes")
        if not raw.startswith(_PREFIX[: len(raw)]):
            raise Malformed("the response does not begin as HTTP/1")
        used = len(raw) - before
        try:
            self._parser.feed_data(data[:used])
        except httptools.HttpParserUpgrade:
            pass  # 101: refused below like every status that we never asked for.
        except httptools.HttpParserError as error:
            raise Malformed(f"the response's head: {error}") from error
        if found >= 0:
            self._end_head()
        return data[used:]

    def _end_head(self) -> None:
        collector, version = self._collector, self._parser.get_http_version()
        if not collector.complete or _FORBIDDEN.search(self._raw):
            raise Malformed("the response's head holds a forbidden character")
        if version not in _VERSIONS:
            raise Malformed(f"the response is of HTTP version {version}")
        if len(collector.fields) > self._limits.max_fields:
            raise _head_too_big(f"the response has over {self._limits.max_fields} header fields")
        status: int = self._parser.get_status_code()
        if not 100 <= status <= 599 or status == 101:
            raise Malformed(f"status {status} in the response")
        if status < 200:
            self._informational += 1
            if self._informational > INFORMATIONAL_MAX:
                raise Malformed(f"over {INFORMATIONAL_MAX} interim responses")
            self._begin_head()
            return
        self._frame(status, version, collector)

    def _frame(self, status: int, version: str, collector: _Collector) -> None:
        """Decide where the body ends (RFC 9112 section 6.3) and whether the connection may serve again."""
        connection, coding, lengths = b"", [], []
        headers: list[tuple[bytes, bytes]] = []
        for name, value in collector.fields:
            lower = name.lower()
            if lower in _HOP_BY_HOP or lower.startswith(b"proxy-"):
                if lower == b"connection":
                    connection += b"," + value
                elif lower == b"transfer-encoding":
                    coding.append(value.strip().lower())
                continue
            if lower == b"content-length":
                lengths.append(value.strip())
            headers.append((name, value))
        if coding and (coding != [b"chunked"] or version == "1.0" or lengths):
            raise Malformed("a Transfer-Encoding that is not one chunked alone in HTTP/1.1")
        if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
            raise Malformed("Content-Length is not one number")

        delimited = True
        if self._method == "HEAD" or status in (204, 304):
            self.ended = True
        elif coding:
            self._chunked = ChunkedDecoder(self._limits.max_head, self._limits.max_fields)
        elif lengths:
            self._left = int(lengths[0])
            self.ended = self._left == 0
        else:
            delimited = False
        tokens = {token.strip() for token in connection.lower().split(b",")}
        persistent = b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)
        if len(tokens) > 1:
            headers = [(name, value) for name, value in headers if name.lower() not in tokens]
        self.head = Head(status, collector.reason, _VERSIONS[version], headers, delimited and persistent)

    def _feed_body(self, data: bytes) -> None:
        if self.ended:
            self.excess = True
        elif self._chunked is not None:
            rest = self._chunked.feed(data, self._out)
            self.ended = self._chunked.ended
            self.excess = bool(rest)
        elif self._left is not None:
            piece = data[: self._left]
            self._out.append(piece)
            self._left -= len(piece)
            self.ended = self._left == 0
            self.excess = len(piece) < len(data)
        else:
            self._out.append(data)


def _head_too_big(detail: str) -> TooBig:
    return TooBig(detail, proxy_error="http_response_header_section_size")
