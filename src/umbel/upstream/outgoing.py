"""An httpx request as the bytes of an HTTP/1.1 request head, with the framing of its body decided (RFC 9112).

Called by the pool once per request. Strict: what cannot be written without changing its meaning is refused before a
byte is sent, so no value can end a line or frame a second request.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httpx

from .errors import BadRequest
from .messages import fields_of

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods that may be sent again by themselves (RFC 9110 section 9.2.2; TRACE is not for gateways)."""
_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
_METHOD = re.compile(rb"(?!CONNECT$)[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Origin-form: visible ASCII, and no fragment.
_TARGET = re.compile(rb"/[!\"$-~]*+")
# The whole of what we write, in one look: a method but CONNECT, a target, and fields that end where their lines do. The
# quantifiers are possessive, so that it never tries twice (and takes a third of the time).
_HEAD = re.compile(
    rb"(?!CONNECT )[!#$%&'*+.^_`|~0-9A-Za-z-]++ (?:/[!\"$-~]*+|(?<=^OPTIONS )\*) HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: [\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_PROXY_FIELD = re.compile(rb"(?<=\n)proxy-[^\r]*\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")
# Fields of this connection, written by us or not at all (RFC 9110 section 7.6.1); Expect because we never wait for 100.
_OWN = frozenset(
    {b"connection", b"content-length", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_SPECIAL = _OWN | {b"host"}
_PERSISTENCE = frozenset({b"close", b"keep-alive"})


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
    fields = fields_of(request.headers)
    lines = [b"%b: %b\r\n" % (name, value) for name, lower, value in fields if lower not in _SPECIAL]
    host = b""
    own: dict[bytes, bytes] = {}
    for _, lower, value in [field for field in fields if field[1] in _SPECIAL]:
        if lower != b"host":
            own[lower] = own[lower] + b"," + value if lower in own else value
        elif host:
            raise BadRequest("two Host fields")
        else:
            host = value
    close = False
    if b"connection" in own:
        tokens = {token.strip() for token in own[b"connection"].lower().split(b",")}
        close = b"close" in tokens
        if not tokens <= _PERSISTENCE:
            lines = [b"%b: %b\r\n" % (name, value) for name, lower, value in fields if lower not in tokens | _SPECIAL]
    body, stream, length = _framing(request, own)
    if stream is not None and length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif length or method in _EXPECT_CONTENT:
        lines.append(b"Content-Length: %d\r\n" % (length or 0))
    if close:
        lines.append(b"Connection: close\r\n")
    verb = method.encode("ascii", "replace")
    place = host or default_host or request.url.netloc
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, place, b"".join(lines))
    # A value that ends its line and begins another well-formed one is seen by the number of lines.
    if _HEAD.fullmatch(head) is None or head.count(b"\n") != len(lines) + 3:
        raise _bad_head(verb, target)
    if b"proxy-" in head.lower():
        head = _PROXY_FIELD.sub(b"", head)  # Fields for a proxy, which are rare: nothing else is looked at for them.
    idempotent = method in IDEMPOTENT or "idempotency-key" in request.headers
    return Outgoing(method, head, body, stream, length, idempotent and stream is None, close)


def _bad_head(verb: bytes, target: bytes) -> BadRequest:
    """What is wrong with a head. A value may be a secret, and a name may be anything: neither is shown."""
    if _METHOD.fullmatch(verb) is None:
        return BadRequest("the method cannot be sent")
    if _TARGET.fullmatch(target) is None:
        return BadRequest("the target is not a path with an optional query in visible ASCII")
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
