"""Reader of one HTTP/1.1 or 1.0 response without I/O (RFC 9112): finds the end of the head and the end of the body.

Theory
------
*Problem.* A client receives the bytes of a connection in pieces that may end anywhere. It needs the head, then the body
bytes as they come, then the end of the message: only a message that has ended exactly where its framing says leaves a
connection that can be reused. The result must not depend on the pieces. Every byte may come from a hostile peer.

*Use.* One reader reads one response. The owner feeds bytes with ``feed``, and the end of the connection with
``feed_eof``. After each of them the owner looks at ``head``, ``take()`` and ``ended``. There is no waiting and no
cancellation here; one task uses a reader. After an exception neither the reader nor its connection can be used again.

*States.* The attributes determine the state; a reader moves downwards only:

    new       not ``started``                     nothing has come
    head      ``started``, ``head`` is None       a head is read, final or interim
    body      ``head`` is set, not ``ended``      one of the three framings below
    ended     ``ended``                           further bytes set ``excess``

*The head.* A head ends with CR LF CR LF. A head in one piece is parsed at once (``head_of``). A head in several pieces
is collected in ``_raw``; each piece but the last is checked as it comes (``check_part``), and ``_checked`` is the
position of the first line that is not checked yet, so the cost stays linear. With the last piece, the whole head is
parsed. A head of 1xx is counted and given to ``on_interim``, and the next head follows. A 101 is the final head if the
request asked for an upgrade to the protocol that its Upgrade names; else it is an error.

*The body* (RFC 9112 section 6.3). The first rule that applies decides:

    101                            neither is set          as "otherwise": the bytes of the other protocol
    HEAD request, 204, 304         no body                 ended at once
    Transfer-Encoding: chunked     ``_chunked`` is set     ended by the decoder
    Content-Length                 ``_left`` is set        ended when ``_left`` is 0
    otherwise                      neither is set          ended by ``feed_eof``; the connection is not kept alive

``head_of`` has refused a head with both Transfer-Encoding and Content-Length. The end of the connection in any state
but the last framing and ``ended`` is an error: an incomplete body is never taken for a complete one.

*The shortcut.* Most responses come whole in one piece, with a Content-Length. ``whole_of`` recognises them. It returns
a head only where the steps above would accept the bytes with the same result. It raises only where these steps would
refuse the head too, and returns None in all other cases.

*Trailers.* The trailer fields of a chunked body are in ``trailers`` once the reader has ended, without those that an
intermediary must not forward or that would contradict the framing (``_NO_TRAILERS``, RFC 9110 section 6.5.1).

*Bounds.* ``Limits`` bounds each head, and together the chunk extensions and the trailer section. ``INFORMATIONAL_MAX``
bounds the number of interim responses, of which none is kept. The body is not bounded here: the owner takes its bytes
with ``take`` and may stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from ..core.http.header_field import Field
from ..core.http.hop_by_hop import is_hop_by_hop
from .chunked import ChunkedDecoder
from .errors import IncompleteMessageError, MalformedMessageError, MessageTooLargeError, NoMessageError
from .response_head import Head, check_part, head_of, known_heads

INFORMATIONAL_MAX = 100
"""Maximum number of interim (1xx) responses before the final response. A server may send 102 as a heartbeat."""

OnInterim = Callable[[int, Sequence[Field]], object]
"""Function that gets the status and the end-to-end fields of each interim response. It must not raise or wait."""

_NO_TRAILERS = frozenset({b"content-encoding", b"content-length", b"content-range", b"content-type", b"host"})
_PREFIX = b"HTTP/1."
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a response's head, and separately of its trailer section."""

    max_head: int = 64 * 1024
    """Maximum bytes, including the status line and the empty line."""
    max_fields: int = 100
    """Maximum number of fields."""


def whole_of(data: bytes, method: str, limits: Limits) -> Head | None:
    """The head, if ``data`` is exactly one whole final response with a Content-Length; else None.

    The body is then ``data[head.size:]``. After None, ``data`` must be read by a ``ResponseReader``. ``method``: the
    method of the request; with HEAD the result is None.

    Raises:
        MalformedMessageError: the head is malformed, or its framing is ambiguous.
    """
    found = data.find(_END)
    if found < 0 or found > limits.max_head - 4:
        return None
    raw = data[:found]
    if raw in known_heads:
        head = known_heads[raw]
    else:
        # Checked before the head is split into lines.
        if data.count(b"\n", 0, found) > limits.max_fields:
            return None
        head = head_of(raw)
    if head.whole_size != len(data) or head.lines - 1 > limits.max_fields or method == "HEAD":
        return None
    return head


class ResponseReader:
    """Reader of the response to one request; see the module.

    Args:
        method: the method of the request, in upper case; a response to HEAD has no body.
        limits: the limits of the head and of the trailer section.
        on_interim: called within ``feed`` for each interim response but 101; None: they are dropped.
        upgrade: the protocol, in lower case, that the request asks for with Upgrade; None: a 101 is an error.
    """

    # Class attributes and not __slots__: for nearly every response most of them keep these values.
    started = False
    """Whether a byte has come."""
    head: Head | None = None
    """The head of the final response; None until the head is complete."""
    ended = False
    """Whether the message is complete."""
    excess = False
    """Whether bytes came after the end of the message. Such a connection must not be reused."""
    interim = 0
    """Number of interim (1xx) responses before the head."""
    _raw: bytearray | None = None
    """The bytes of an incomplete head; None between heads."""
    _checked = 0
    """Position in ``_raw`` of the first line that is not checked yet."""
    _left: int | None = None
    """Body bytes that are still to come; None without Content-Length."""
    _chunked: ChunkedDecoder | None = None

    def __init__(
        self, method: str, limits: Limits, on_interim: OnInterim | None = None, upgrade: bytes | None = None
    ) -> None:
        self._method = method
        self._limits = limits
        self._on_interim = on_interim
        self._upgrade = upgrade
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            MalformedMessageError: the bytes are not a response of HTTP/1.0 or HTTP/1.1, or its framing is ambiguous.
            MessageTooLargeError: the head or the trailer section exceeds its limits.
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
        """Take the end of the connection. It ends a body without other framing.

        Raises:
            NoMessageError: not one byte of a response has come.
            IncompleteMessageError: the head or the body is incomplete.
        """
        if self.ended:
            return
        if not self.started:
            raise NoMessageError
        if self.head is None:
            raise IncompleteMessageError("the connection was closed in the middle of the response's head")
        if self._chunked is not None or self._left is not None:
            raise IncompleteMessageError("the connection was closed in the middle of the response's body")
        self.ended = True

    @property
    def trailers(self) -> Sequence[Field]:
        """The trailer fields, once the message has ended; see the module. Empty without any."""
        if self._chunked is None or not self.ended or not self._chunked.trailers:
            return ()
        return [each for each in self._chunked.trailers if not (each[1] in _NO_TRAILERS or is_hop_by_hop(each[1]))]

    def take(self) -> bytes:
        """Return and forget the body bytes that have come since the last call; empty if none."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def _feed_whole(self, data: bytes) -> bool:
        """Take ``data`` if it is exactly one response with Content-Length, and return whether it is.

        The result is that of ``_feed_head`` and ``_feed_body``, in a fraction of the steps.
        """
        head = self.head = whole_of(data, self._method, self._limits)
        if head is None:
            return False
        if head.length:
            self._out.append(data[head.size :])
        self.ended = True
        return True

    def _feed_head(self, data: bytes) -> bytes:
        """Take the bytes of ``data`` that belong to the head, and return the rest."""
        raw = self._raw
        if raw is None and (found := data.find(_END)) >= 0:
            self._check_beginning(data, found + 4)
            self._end_head(data[:found])
            return data[found + 4 :]
        if raw is None:
            raw = self._raw = bytearray()
        before = len(raw)
        raw += data
        # The end may be split between pieces: up to three of its four bytes may have come before.
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
            raise _head_too_big(f"the response's head is longer than {self._limits.max_head} bytes")
        if not raw.startswith(_PREFIX if size >= 7 else _PREFIX[:size]):
            raise MalformedMessageError("the response does not begin with HTTP/1.")

    def _end_head(self, raw: bytes) -> None:
        """Parse a complete head and choose the framing of the body (RFC 9112 section 6.3).

        ``raw`` is the head without the CR LF CR LF at its end.
        """
        # ``raw`` has one LF fewer than lines, and the status line is no field: the number of LF is that of fields.
        if raw.count(b"\n") > self._limits.max_fields:
            raise _head_too_big(f"the response has more than {self._limits.max_fields} header fields")
        head = head_of(raw)
        status = head.status
        if not 200 <= status <= 599 and not self._is_final(head):
            return
        if status == 204 or status == 304 or self._method == "HEAD":
            self.ended = True
        elif head.chunked:
            self._chunked = ChunkedDecoder(self._limits.max_head, self._limits.max_fields)
        elif (length := head.length) is not None:
            self._left = length
            self.ended = length == 0
        else:
            # The end of the connection ends the body, whatever Connection says. (A 101 has no framing: ``_is_final``.)
            head = replace(head, keep_alive=False)
        self.head = head
        self._on_interim = None  # The function may hold a request, and the reader may be kept with its connection.

    def _is_final(self, head: Head) -> bool:
        """Whether a head whose status is not in 200 to 599 is final: a 101 that the request asked for.

        Counts any other head, and gives it to ``on_interim``.

        Raises:
            MalformedMessageError: the status is neither interim nor final, or a 101 that the request did not ask for,
                or there are too many interim responses.
        """
        status = head.status
        if status == 101 and self._upgrade is not None:
            if head.upgrade != self._upgrade or head.version != b"HTTP/1.1":
                raise MalformedMessageError("the response has the status 101 and does not name the requested protocol")
            if head.chunked or head.length is not None:
                raise MalformedMessageError("the response has the status 101 and a Content-Length or Transfer-Encoding")
            return True
        if not 100 <= status <= 199 or status == 101:
            raise MalformedMessageError(f"the response has the status {status}, which is not allowed here")
        self.interim += 1
        if self.interim > INFORMATIONAL_MAX:
            raise MalformedMessageError(f"the upstream sent more than {INFORMATIONAL_MAX} interim responses")
        if self._on_interim is not None:
            self._on_interim(status, head.kept)
        return False

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
