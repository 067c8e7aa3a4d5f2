"""An httpx request as the bytes of an HTTP/1.1 request head, with the framing of its body decided (RFC 9112).

Called by the pool once per request. Strict: what cannot be written without changing its meaning is refused before a
byte is sent, so no value can end a line or frame a second request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import httpx

from ..messages import Field, fields_of, may_be_secret
from .errors import BadRequest
from .origin import Origin, origin_of

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods that may be sent again by themselves (RFC 9110 section 9.2.2; TRACE is not for gateways)."""
_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
_METHOD = re.compile(rb"(?!CONNECT$)[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Origin-form: visible ASCII, and no fragment.
_TARGET = re.compile(rb"/[!\"$-~]*+")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# Fields of this connection, written by us or not at all (RFC 9110 section 7.6.1); Expect because we never wait for 100.
_OWN = frozenset(
    {b"connection", b"content-length", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_SPECIAL = _OWN | {b"host"}
_PERSISTENCE = frozenset({b"close", b"keep-alive"})
_VERBS = {name: name.encode("ascii") for name in (*IDEMPOTENT, "POST", "PATCH")}
# Values that belong to one attempt: they never come twice.
_ONCE = frozenset({b"traceparent", b"tracestate"})
_KNOWN_MAX = 1024
_KNOWN_LINE_MAX = 128


class Outgoing(NamedTuple):
    """A request that is ready to be sent."""

    method: str
    head: bytes
    """The request line and the fields, with the empty line."""
    body: bytes
    """The whole body where it is in memory."""
    stream: httpx.AsyncByteStream | None
    """The body where it comes piece by piece."""
    length: int | None
    """Of ``stream``: how many bytes it must give; None sends it chunked."""
    replayable: bool
    """Whether sending it twice means the same as once, and can be done."""
    close: bool
    """Whether the connection must not serve again."""


def prepare(request: httpx.Request, default_host: bytes = b"") -> Outgoing:
    """What to send for ``request``. The target is ``extensions["target"]`` if given (httpcore's convention).

    Without a Host field it is sent ``default_host``, or what the URL says.

    Raises:
        BadRequest: a method, target, field or framing that HTTP/1.1 cannot carry; nothing has been sent.
    """
    method = request.method
    target: bytes = request.extensions.get("target") or request.url.raw_path
    if not isinstance(target, bytes):
        raise BadRequest("the target extension is not bytes")
    verb = _VERBS.get(method) or _verb(method)
    if _TARGET.fullmatch(target) is None and not (target == b"*" and method == "OPTIONS"):
        raise BadRequest("the target is not a path with an optional query in visible ASCII")
    fields = fields_of(request.headers)
    known = map(_known.get, fields)
    lines = [line if line is not None else _line(field) for field, line in zip(fields, known, strict=True)]
    host = b""
    own: dict[bytes, bytes] | None = None
    if lines.count(b"") == 1 and fields[place := lines.index(b"")][1] == b"host":
        host = fields[place][2]  # As nearly always: nothing else is said that is ours to say.
    elif b"" in lines:
        host, own = _special(fields, lines)
    close = False
    if own is not None and b"connection" in own:
        tokens = {token.strip() for token in own[b"connection"].lower().split(b",")}
        close = b"close" in tokens
        if not tokens <= _PERSISTENCE:
            lines = [line for field in fields if field[1] not in tokens and (line := _line(field))]
    body, stream, length = _framing(request, own or {})
    if stream is not None and length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif length or method in _EXPECT_CONTENT:
        lines.append(b"Content-Length: %d\r\n" % (length or 0))
    if close:
        lines.append(b"Connection: close\r\n")
    if not host and _VALUE.fullmatch(host := default_host or request.url.netloc) is None:
        raise _bad_field()
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, b"".join(lines))
    idempotent = method in IDEMPOTENT or "idempotency-key" in request.headers
    return Outgoing(method, head, body, stream, length, idempotent and stream is None, close)


def plain_lines(fields: Sequence[Field]) -> bytes | None:
    """The lines of ``fields``; None if one of them says something of the connection, the framing or the host.

    Raises:
        BadRequest: a field that no line can hold.
    """
    lines = [_known.get(field) or _line(field) for field in fields]
    return None if b"" in lines else b"".join(lines)


@lru_cache(maxsize=256)
def common_lines(fields: tuple[Field, ...]) -> bytes:
    """The same of fields that several requests have, such as the calls of one. They are remembered for a while.

    NOT_PLAIN where ``plain_lines`` says None.
    """
    lines = plain_lines(fields)
    return NOT_PLAIN if lines is None else lines


NOT_PLAIN = b"\0"
"""What no line holds."""


def is_plain(method: str, target: bytes) -> bool:
    """Whether a request line can be made of these as they are, and the request may be sent twice."""
    return method in IDEMPOTENT and _TARGET.fullmatch(target) is not None


def plain_head(method: str, target: bytes, host: bytes, lines: bytes, length: int) -> bytes:
    """The head of a request that ``is_plain``, with these lines; the same that ``prepare`` makes of it."""
    if length or method == "PUT":
        lines += b"Content-Length: %d\r\n" % length
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (_VERBS[method], target, host, lines)


class Prebuilt(NamedTuple):
    """A request as it was when it was prepared, with where it goes and what is sent for it."""

    method: str
    url: httpx.URL
    fields: list[Field]
    stream: object
    target: bytes | None
    origin: Origin
    outgoing: Outgoing


_PREBUILT = "_umbel_prebuilt"


def prebuilt(request: httpx.Request) -> tuple[Origin, Outgoing]:
    """Where ``request`` goes by its URL, and what to send for it; found out once for a request that is sent many times.

    The request itself remembers it, so it lives as long. Changed in any way, it is prepared anew.

    Raises:
        BadRequest: as ``prepare``.
    """
    known: Prebuilt | None = request.__dict__.get(_PREBUILT)
    if known is not None:
        method, url, fields, stream, target, origin, outgoing = known
        if (
            url is request.url
            and stream is request.stream
            and fields == fields_of(request.headers)
            and target == request.extensions.get("target")
            and method == request.method
        ):
            return origin, outgoing
    origin, outgoing = origin_of(request.url), prepare(request)
    if outgoing.stream is not None:
        return origin, outgoing  # It can be sent once only.
    request.__dict__[_PREBUILT] = Prebuilt(
        request.method,
        request.url,
        fields_of(request.headers).copy(),
        request.stream,
        request.extensions.get("target"),
        origin,
        outgoing,
    )
    return origin, outgoing


_known: dict[Field, bytes] = {}
"""Lines of fields that have been looked at: the same ones go out again and again. What a line is depends on nothing but
its field, so this is a memory, and never a decision. When it is full it starts anew."""


def _special(fields: list[Field], lines: list[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The Host, and what was said of the connection and the framing, of the fields that have no line."""
    host = b""
    own: dict[bytes, bytes] = {}
    for (_, lower, value), line in zip(fields, lines, strict=True):
        if line:
            continue
        if lower == b"host":
            if host:
                raise BadRequest("two Host fields")
            host = value
        elif lower in _OWN:
            own[lower] = own[lower] + b"," + value if lower in own else value
    return host, own


def _line(field: Field) -> bytes:
    """The line of a field; empty for one that is written by us, or not at all.

    Raises:
        BadRequest: no line can hold it.
    """
    name, lower, value = field
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise _bad_field()
    ours = lower in _SPECIAL or lower.startswith(b"proxy-")
    line = b"" if ours else b"%b: %b\r\n" % (name, value)
    if len(name) + len(value) <= _KNOWN_LINE_MAX and lower not in _ONCE and not may_be_secret(lower):
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        _known[field] = line
    return line


def _verb(method: str) -> bytes:
    verb = method.encode("ascii", "replace")
    if _METHOD.fullmatch(verb) is None:
        raise BadRequest("the method cannot be sent")
    return verb


def _bad_field() -> BadRequest:
    # A value may be a secret, and a name may be anything: neither is shown.
    return BadRequest("a header field holds a character that no field can carry, such as CR, LF or NUL")


def _framing(request: httpx.Request, own: dict[bytes, bytes]) -> tuple[bytes, httpx.AsyncByteStream | None, int | None]:
    """The body, as bytes or as a stream, and its length if it is known."""
    said = own.get(b"content-length")
    if said is not None and _LENGTH.fullmatch(said.strip()) is None:
        raise BadRequest("Content-Length is not one number")
    length = int(said) if said is not None else None
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        body = request.read()
        if length is not None and length != len(body):
            raise BadRequest("Content-Length is not the length of the body")
        return body, None, len(body)
    if not isinstance(stream, httpx.AsyncByteStream):
        raise BadRequest("the body is a synchronous stream; trio needs an asynchronous one")
    if length is not None and b"transfer-encoding" in own:
        raise BadRequest("Content-Length with Transfer-Encoding")
    return b"", stream, length
