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
from .messages import Field

INFORMATIONAL_MAX = 100
"""Interim (1xx) responses before the response. 102 may be sent as a heartbeat; more than this is an attack."""

_PREFIX = b"HTTP/1."
_END = b"\r\n\r\n"
# A head of version 1.0 or 1.1 with no control character but the tab, every line ended by CR LF and none folded; names
# are llhttp's to judge. The quantifiers are possessive: nothing is tried twice.
_HEAD = re.compile(
    rb"(HTTP/1\.[01]) ([0-9]{3})(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n"
    rb"(?:[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_LENGTH_DIGITS_MAX = 18
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
_SPECIAL = _HOP_BY_HOP | {b"content-length", b"content-encoding"}
_PERSISTENCE = frozenset({b"close", b"keep-alive"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a response's head (and of its trailer section)."""

    max_head: int = 64 * 1024
    """Bytes, the status line and the empty line included."""
    max_fields: int = 100


class Head(NamedTuple):
    """A response's head. ``fields`` are the end-to-end fields in order."""

    status: int
    reason: bytes
    version: bytes
    fields: list[Field]
    coded: bool
    """Whether there is a Content-Encoding."""
    keep_alive: bool
    """Whether the peer lets the connection serve again after this response."""


class _Collector:
    """What llhttp calls. Never raises: llhttp would hide the exception in its own."""

    __slots__ = ("fields", "special")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        """The end-to-end fields."""
        self.special: list[tuple[bytes, bytes]] = []
        """The fields that say something to us, names in lower case; those of this connection are here alone."""

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower in _SPECIAL:
            self.special.append((lower, value))
            if lower in _HOP_BY_HOP:
                return
        self.fields.append((name, lower, value))


class ResponseReader:
    """Reads the response to one request from whatever pieces the bytes come in; the pieces never change the result.

    ``feed`` what comes and ``feed_eof`` when nothing more will; then look at ``head``, ``take()`` and ``ended``.
    After an exception the reader is of no more use, nor is its connection.
    """

    # Not __slots__: most of these stay as they are here for nearly every response.
    started = False
    """Whether a byte has come."""
    head: Head | None = None
    ended = False
    """Whether the message is complete."""
    excess = False
    """Whether bytes came behind the message's end: its connection must never serve again."""
    _informational = 0
    _left: int | None = None
    _chunked: ChunkedDecoder | None = None

    def __init__(self, method: str, limits: Limits) -> None:
        self._method = method
        self._limits = limits
        self._raw = bytearray()
        self._out: list[bytes] = []
        self._collector = collector = _Collector()
        self._parser = httptools.HttpResponseParser(collector)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            Malformed: not HTTP/1.0 or 1.1, or something that we refuse.
            TooBig: a head over its bounds.
        """
        if data:
            self.started = True
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
        before = len(self._raw)
        if not before and (found := data.find(_END)) >= 0:
            # Nearly always the whole head comes at once, and nothing needs collecting.
            raw: bytes | bytearray = data[: found + 4]
        else:
            raw = self._raw
            raw += data
            found = raw.find(_END, max(0, before - 3))
            if found >= 0:
                del raw[found + 4 :]
        size = len(raw)
        if size > self._limits.max_head:
            raise _head_too_big(f"the response's head is over {self._limits.max_head} bytes")
        if not raw.startswith(_PREFIX if size >= 7 else _PREFIX[:size]):
            raise Malformed("the response does not begin as HTTP/1")
        used = size - before
        try:
            self._parser.feed_data(data[:used] if before else raw)
        except httptools.HttpParserUpgrade:
            pass  # 101: refused below like every status that we never asked for.
        except httptools.HttpParserError as error:
            raise Malformed(f"the response's head: {error}") from error
        if found >= 0:
            self._end_head(raw)
        return data[used:]

    def _end_head(self, raw: bytes | bytearray) -> None:
        """Check the whole head, and decide what its special fields decide (RFC 9112 section 6.3)."""
        match = _HEAD.fullmatch(raw)
        if match is None:
            raise Malformed("the response's head is not of HTTP/1.0 or 1.1, or holds a forbidden character")
        # The status line and the empty line are no fields.
        if raw.count(b"\n") - 2 > self._limits.max_fields:
            raise _head_too_big(f"the response has over {self._limits.max_fields} header fields")
        version, status, reason = match.groups(b"")
        if not 200 <= (code := int(status)) <= 599:
            self._end_interim(code)
            return
        collector = self._collector
        fields, connection, coded = collector.fields, b"", False
        codings, lengths = [], []
        for name, value in collector.special:
            if name == b"content-length":
                lengths.append(value.strip())
            elif name == b"connection":
                connection = connection + b"," + value if connection else value
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
            elif name == b"content-encoding":
                coded = True
        persistent = version == b"HTTP/1.1"
        if connection:
            tokens = {token.strip() for token in connection.lower().split(b",")}
            if not tokens <= _PERSISTENCE:
                fields = [field for field in fields if field[1] not in tokens]
            persistent = b"close" not in tokens and (persistent or b"keep-alive" in tokens)
        if b"proxy-" in raw.lower():
            fields = [field for field in fields if not field[1].startswith(b"proxy-")]
        delimited = self._frame(code, version, codings, lengths)
        # Of a bytearray, where the head came in pieces, the groups are slices of it.
        self.head = Head(code, bytes(reason), bytes(version), fields, coded, delimited and persistent)

    def _end_interim(self, status: int) -> None:
        """A 1xx has come, and the head that counts is still to come; 101 nobody has asked for."""
        if not 100 <= status <= 199 or status == 101:
            raise Malformed(f"status {status} in the response")
        self._informational += 1
        if self._informational > INFORMATIONAL_MAX:
            raise Malformed(f"over {INFORMATIONAL_MAX} interim responses")
        self._raw = bytearray()
        self._collector = _Collector()
        self._parser = httptools.HttpResponseParser(self._collector)

    def _frame(self, status: int, version: bytes, codings: list[bytes], lengths: list[bytes]) -> bool:
        """Where the body ends; False if only with the connection."""
        if codings and (codings != [b"chunked"] or lengths or version != b"HTTP/1.1"):
            raise Malformed("a Transfer-Encoding that is not one chunked alone in HTTP/1.1")
        if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS_MAX):
            raise Malformed("Content-Length is not one number")
        if status == 204 or status == 304 or self._method == "HEAD":
            self.ended = True
        elif codings:
            self._chunked = ChunkedDecoder(self._limits.max_head, self._limits.max_fields)
        elif lengths:
            self._left = int(lengths[0])
            self.ended = self._left == 0
        else:
            return False
        return True

    def _feed_body(self, data: bytes) -> None:
        if self.ended:
            self.excess = True
        elif self._left is not None:
            left = self._left = self._left - len(data)
            if left > 0:
                self._out.append(data)
                return
            self.ended = True
            if left < 0:
                self.excess = True
                data = data[:left]
            self._out.append(data)
        elif self._chunked is not None:
            rest = self._chunked.feed(data, self._out)
            self.ended = self._chunked.ended
            self.excess = bool(rest)
        else:
            self._out.append(data)


def _head_too_big(detail: str) -> TooBig:
    return TooBig(detail, proxy_error="http_response_header_section_size")
