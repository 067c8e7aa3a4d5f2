"""An httpx request as the bytes of an HTTP/1.1 request head, with the framing of its body decided (RFC 9112).

Called by the pool once per request. Strict: what cannot be written without changing its meaning is refused before a
byte is sent, so no value can end a line or frame a second request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

from .errors import BadRequest

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods that may be sent again by themselves (RFC 9110 section 9.2.2; TRACE is not for gateways)."""
_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Origin-form: visible ASCII, and no fragment.
_TARGET = re.compile(rb"/[!\"$-~]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# Fields of this connection, written by us or not at all (RFC 9110 section 7.6.1); Expect because we never wait for 100.
_OWN = frozenset(
    {b"connection", b"content-length", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


@dataclass(frozen=True, slots=True)
class Outgoing:
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


def prepare(request: httpx.Request, default_host: bytes) -> Outgoing:
    """What to send for ``request``. The target is ``extensions["target"]`` if given (httpcore's convention).

    Raises:
        BadRequest: a method, target, field or framing that HTTP/1.1 cannot carry; nothing has been sent.
    """
    method = request.method
    if _METHOD.fullmatch(method) is None or method == "CONNECT":
        raise BadRequest("the method cannot be sent")
    target: bytes = request.extensions.get("target") or request.url.raw_path
    if _TARGET.fullmatch(target) is None and not (target == b"*" and method == "OPTIONS"):
        raise BadRequest("the target is not a path with an optional query in visible ASCII")

    host, fields, own = _sorted_fields(request.headers.raw)
    lines = [b"%s %s HTTP/1.1" % (method.encode("ascii"), target), b"Host: " + (host or default_host)]
    lines += fields
    body, stream, length = _framing(request, own)
    if stream is not None and length is None:
        lines.append(b"Transfer-Encoding: chunked")
    elif length or method in _EXPECT_CONTENT:
        lines.append(b"Content-Length: %d" % (length or 0))
    close = b"close" in _tokens(own)
    if close:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    idempotent = method in IDEMPOTENT or "idempotency-key" in request.headers
    return Outgoing(method, b"\r\n".join(lines), body, stream, length, idempotent and stream is None, close)


def _sorted_fields(raw: list[tuple[bytes, bytes]]) -> tuple[bytes, list[bytes], dict[bytes, bytes]]:
    """The Host, the lines of the end-to-end fields, and the fields of this connection."""
    host = b""
    passed: list[tuple[bytes, bytes]] = []
    own: dict[bytes, bytes] = {}
    for name, value in raw:
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            # The value may be a secret, and the name may be anything: neither is shown.
            raise BadRequest("a header field holds a character that no field can carry, such as CR, LF or NUL")
        lower = name.lower()
        if lower == b"host":
            if host:
                raise BadRequest("two Host fields")
            host = value
        elif lower in _OWN:
            own[lower] = own[lower] + b"," + value if lower in own else value
        elif not lower.startswith(b"proxy-"):
            passed.append((lower, name + b": " + value))
    named = _tokens(own)
    return host, [line for lower, line in passed if lower not in named], own


def _tokens(own: dict[bytes, bytes]) -> set[bytes]:
    """What the Connection field names."""
    return {token.strip() for token in own.get(b"connection", b"").lower().split(b",")}


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
