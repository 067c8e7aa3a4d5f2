"""Reader of one HTTP/1.1 response, without I/O (RFC 9112): where the head ends, and where the body ends.

Heads are parsed by ``response_head.py``, chunks by ``chunked.py``. Ambiguous framing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from .chunked import ChunkedDecoder
from .errors import IncompleteMessageError, MalformedMessageError, MessageTooLargeError, NoMessageError
from .response_head import Head, check_part, head_of, known_heads

INFORMATIONAL_MAX = 100
"""Interim (1xx) responses before the response. 102 may be sent as a heartbeat; more than this is an attack."""

_PREFIX = b"HTTP/1."
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a response's head, and of its trailer section."""

    max_head: int = 64 * 1024
    """Bytes, the status line and the empty line included."""
    max_fields: int = 100


def whole_of(data: bytes, method: str, limits: Limits) -> Head | None:
    """The head of a response of known length that ``data`` holds from its first byte to its last.

    Its content is ``data[head.size:]``. None where it is not so, or where only a ``ResponseReader`` can tell what is
    wrong.

    Raises:
        MalformedMessageError: as ``ResponseReader.feed``.
    """
    found = data.find(_END)
    if found < 0 or found > limits.max_head - 4:
        return None
    raw = data[:found]
    head = known_heads.get(raw)
    if head is None:
        # Before anything costs by the number of lines.
        if data.count(b"\n", 0, found) > limits.max_fields:
            return None
        head = head_of(raw)
    if head.whole_size != len(data) or head.lines - 1 > limits.max_fields or method == "HEAD":
        return None
    return head


class ResponseReader:
    """Reader of the response to one request. How the bytes are cut into pieces never changes the result.

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
    interim = 0
    """Interim (1xx) responses that came before the head."""
    _raw: bytearray | None = None
    """A head that comes in pieces."""
    _checked = 0
    _left: int | None = None
    _chunked: ChunkedDecoder | None = None

    def __init__(self, method: str, limits: Limits) -> None:
        self._method = method
        self._limits = limits
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            MalformedMessageError: not HTTP/1.0 or 1.1, or something that we refuse.
            MessageTooLargeError: a head over its bounds.
        """
        if data and not self.started:
            self.started = True
            if self._feed_whole(data):
                return
        while data and self.head is None:
            data = self._feed_head(data)
        if data:
            self._feed_body(data)

    def feed_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            NoMessageError: before a byte came.
            IncompleteMessageError: before the end of the message.
        """
        if self.ended:
            return
        if not self.started:
            raise NoMessageError
        if self.head is None:
            raise IncompleteMessageError("the connection was closed inside the response's head")
        if self._chunked is not None or self._left is not None:
            raise IncompleteMessageError("the connection was closed inside the response's body")
        self.ended = True

    def take(self) -> bytes:
        """The body bytes that have come since the last call; empty if none."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def _feed_whole(self, data: bytes) -> bool:
        """Take a response of known length that ``data`` holds from its first byte to its last, as it holds most.

        The same as the way through ``_feed_head`` and ``_feed_body``, in a fraction of the steps.
        """
        head = self.head = whole_of(data, self._method, self._limits)
        if head is None:
            return False
        if head.length:
            self._out.append(data[head.size :])
        self.ended = True
        return True

    def _feed_head(self, data: bytes) -> bytes:
        """Take what of ``data`` belongs to the head; the rest is returned."""
        raw = self._raw
        if raw is None and (found := data.find(_END)) >= 0:
            # Nearly always the whole head comes at once, and nothing needs collecting.
            self._check_beginning(data, found + 4)
            self._end_head(data[:found])
            return data[found + 4 :]
        if raw is None:
            raw = self._raw = bytearray()
        before = len(raw)
        raw += data
        found = raw.find(_END, max(0, before - 3))
        if found < 0:
            self._check_beginning(raw, len(raw))
            self._checked = check_part(raw, before, self._checked)
            return b""
        self._check_beginning(raw, found + 4)
        self._raw, self._checked = None, 0
        self._end_head(bytes(raw[:found]))
        return data[found + 4 - before :]

    def _check_beginning(self, raw: bytes | bytearray, size: int) -> None:
        if size > self._limits.max_head:
            raise _head_too_big(f"the response's head is over {self._limits.max_head} bytes")
        if not raw.startswith(_PREFIX if size >= 7 else _PREFIX[:size]):
            raise MalformedMessageError("the response does not begin as HTTP/1")

    def _end_head(self, raw: bytes) -> None:
        """Decide what the head decides (RFC 9112 section 6.3). ``raw`` ends before the empty line."""
        # The status line is no field.
        if raw.count(b"\n") > self._limits.max_fields:
            raise _head_too_big(f"the response has over {self._limits.max_fields} header fields")
        head = head_of(raw)
        status = head.status
        if not 200 <= status <= 599:
            self._end_interim(status)
            return
        if status == 204 or status == 304 or self._method == "HEAD":
            self.ended = True
        elif head.chunked:
            self._chunked = ChunkedDecoder(self._limits.max_head, self._limits.max_fields)
        elif (length := head.length) is not None:
            self._left = length
            self.ended = length == 0
        else:
            # The body ends with the connection.
            head = replace(head, keep_alive=False)
        self.head = head

    def _end_interim(self, status: int) -> None:
        """A 1xx has come, and the head that counts is still to come; 101 nobody has asked for."""
        if not 100 <= status <= 199 or status == 101:
            raise MalformedMessageError(f"status {status} in the response")
        self.interim += 1
        if self.interim > INFORMATIONAL_MAX:
            raise MalformedMessageError(f"over {INFORMATIONAL_MAX} interim responses")

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


def _head_too_big(detail: str) -> MessageTooLargeError:
    return MessageTooLargeError(detail, "http_response_header_section_size")
