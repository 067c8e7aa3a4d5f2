"""Request encoding: the HTTP/1.1 head of a request as bytes, and the framing of its body (RFC 9112).

Strict: what cannot be written without changing its meaning is refused before a byte is sent, so no value can end a line
or frame a second request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from ...core.call import EVERY, FieldBlock, FieldBlocks, PreparedRequest
from ...core.http.header_field import ACCEPT_GZIP, Field
from ...core.http.hop_by_hop import HOP_BY_HOP, is_hop_by_hop, named_by
from ...core.http.secret_fields import may_be_secret
from ...core.http.syntax import FIELD_VALUE, ORIGIN_FORM, TOKEN, TOKEN_CHARS, bytes_pattern, list_members
from ...core.httpx_messages import fields_of
from ...net.bounded_cache import BoundedCache
from ..errors import BadRequest

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods that may be sent again by themselves (RFC 9110 section 9.2.2; TRACE is not for gateways)."""
_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
_METHOD = bytes_pattern(f"(?!CONNECT$)[{TOKEN_CHARS}]++")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# Fields of this connection, written by us or not at all; Expect because we never wait for 100.
_OWN = HOP_BY_HOP | {b"content-length", b"expect"}
_SPECIAL = _OWN | {b"host"}
_VERBS = {name: name.encode("ascii") for name in (*IDEMPOTENT, "POST", "PATCH")}
# Values that belong to one attempt: they never come twice.
_ONCE = frozenset({b"traceparent", b"tracestate"})
_KNOWN_MAX, _KNOWN_SIZE = 1024, 128
"""Fields, and targets, that are kept, and the bytes of the longest."""
_BEGINNING_MAX = 8 * 1024


class EncodedRequest(NamedTuple):
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


def encode_httpx_request(request: httpx.Request) -> EncodedRequest:
    """Encode an httpx request. The target is ``extensions["target"]`` if given (httpcore's convention).

    Raises:
        BadRequest: a method, target, field or framing that HTTP/1.1 cannot carry; nothing has been sent.
    """
    target: bytes = request.extensions.get("target") or request.url.raw_path
    if not isinstance(target, bytes):
        raise BadRequest("the target extension is not bytes")
    fields = fields_of(request.headers)
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return encode_request(request.method, target, fields, request.url.netloc, content=request.read())
    if not isinstance(stream, httpx.AsyncByteStream):
        raise BadRequest("the body is a synchronous stream; trio needs an asynchronous one")
    return encode_request(request.method, target, fields, request.url.netloc, stream=stream)


def encode_request(
    method: str,
    target: bytes,
    fields: Sequence[Field],
    default_host: bytes,
    *,
    content: bytes = b"",
    stream: httpx.AsyncByteStream | None = None,
) -> EncodedRequest:
    """Encode a request: its head with any fields, and the framing of its body.

    Without a Host field it is sent ``default_host``. A stream is framed by the request's own Content-Length, or
    chunked.

    Raises:
        BadRequest: as ``encode_httpx_request``.
    """
    verb = _VERBS.get(method) or _verb(method)
    _check_target(method, target)
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
        tokens = list_members(own[b"connection"])
        close = b"close" in tokens
        if named := named_by(own[b"connection"]):
            lines = [line for field in fields if field[1] not in named and (line := _line(field))]
    length = _length(own or {}, None if stream is not None else len(content))
    if stream is not None and length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif length or method in _EXPECT_CONTENT:
        lines.append(b"Content-Length: %d\r\n" % (length or 0))
    if close:
        lines.append(b"Connection: close\r\n")
    if not host and FIELD_VALUE.fullmatch(host := default_host) is None:
        raise _bad_field()
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (verb, target, host, b"".join(lines))
    replayable = stream is None and (method in IDEMPOTENT or any(field[1] == b"idempotency-key" for field in fields))
    return EncodedRequest(method, head, content, stream, length, replayable, close)


def is_idempotent(prepared: PreparedRequest) -> bool:
    """Whether sending the request twice means the same as once (RFC 9110 section 9.2.2). An Idempotency-Key says so."""
    return prepared.method in IDEMPOTENT or any(field[1] == b"idempotency-key" for field in prepared.fields)


def prepared_fields(fields: Sequence[Field]) -> Sequence[Field]:
    """Fields of an httpx request, as they belong into a call's: a length that only says the body's is left out."""
    return [field for field in fields if field[1] not in (b"host", b"content-length")]


def encode_call(prepared: PreparedRequest, base: bytes, host: bytes, added: Sequence[Field]) -> EncodedRequest:
    """Encode the request of a call with a body in memory: its fields, and those that the attempt adds.

    ``base`` stands before the target, ``host`` is the Host field. Fields of the call's own that bear the name of an
    added one, or say Host or another Accept-Encoding than gzip, are replaced.

    Raises:
        BadRequest: as ``encode_httpx_request``.
    """
    method, target, content = prepared.method, prepared.target, prepared.content
    _check_target(method, target)
    replaced = {field[1] for field in added} | {b"host"}
    fields = [field for field in prepared.fields if field[1] not in replaced]
    if _codings(fields) != [ACCEPT_GZIP]:
        fields = [*(field for field in fields if field[1] != b"accept-encoding"), ACCEPT_GZIP]
    return encode_request(method, base + target, [*fields, *added], host, content=content or b"")


def encode_plain_call(
    prepared: PreparedRequest, base: bytes, host: bytes, added: bytes, attempt_prefixes: tuple[bytes, ...]
) -> bytes | None:
    """Encode the same as bytes where each field of the call can be sent as it stands, as nearly always.

    None where ``encode_call`` must decide: a field says something of the connection, the framing, the host or another
    coding than gzip, is named in capitals, or is one that an attempt writes (``attempt_prefixes``: how the lines of
    such fields begin, in lower case).

    Raises:
        BadRequest: as ``encode_httpx_request``.
    """
    beginning = _beginning(prepared, base, host, attempt_prefixes)
    more = lines_of_blocks(prepared.gateway, attempt_prefixes)
    if beginning is None or more is None:
        return None
    content = prepared.content
    if content:
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (beginning, more, added, len(content), content)
    length = b"Content-Length: 0\r\n" if prepared.method in _EXPECT_CONTENT else b""
    return b"%b%b%b%b\r\n" % (beginning, more, added, length)


def remember_beginning(
    beginnings: BoundedCache[object, bytes],
    key: object,
    prepared: PreparedRequest,
    base: bytes,
    host: bytes,
    attempt_prefixes: tuple[bytes, ...],
) -> None:
    """Remember under ``key`` how the plain requests begin that ``beginnings`` are of.

    The gateway's lines are next in a request, then those of an attempt, and an empty line: nothing is remembered of a
    request that has a length.
    """
    if prepared.content is None and prepared.method not in _EXPECT_CONTENT:
        beginning = _beginning(prepared, base, host, attempt_prefixes)
        if beginning is not None and len(beginning) <= _BEGINNING_MAX:
            beginnings.add(key, beginning)


def _beginning(
    prepared: PreparedRequest, base: bytes, host: bytes, attempt_prefixes: tuple[bytes, ...]
) -> bytes | None:
    """The request line, the Host, and the request's own fields; None and errors as ``encode_plain_call``."""
    method, target, headers = prepared.method, prepared.target, prepared.headers
    if type(headers) is FieldBlock and (headers.lines_for is attempt_prefixes or headers.lines_for is EVERY):
        lines = headers.lines
    else:
        lines = _kept_lines(headers, [ACCEPT_GZIP], attempt_prefixes)
    if lines is None or method not in _VERBS:
        return None
    if target not in _good_targets.entries:
        _check_target(method, target)
        # A query may hold a secret; and "*" is a target of OPTIONS alone.
        if b"?" not in target and target != b"*":
            _good_targets.add(target, True)
    return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b" % (_VERBS[method], base, target, host, lines)


def lines_of_blocks(blocks: Sequence[Sequence[Field]], attempt_prefixes: tuple[bytes, ...]) -> bytes | None:
    """The lines of the gateway's blocks one behind the other, kept for the other calls of the request; None as above.

    Raises:
        BadRequest: a field that no line can hold.
    """
    if type(blocks) is FieldBlocks and blocks.lines_for is attempt_prefixes:
        return blocks.lines
    lines: bytes | None = b""
    for block in blocks:
        if type(block) is FieldBlock and (block.lines_for is attempt_prefixes or block.lines_for is EVERY):
            more = block.lines
        else:
            more = _kept_lines(block, [], attempt_prefixes)
        lines = None if lines is None or more is None else lines + more
    if type(blocks) is FieldBlocks:
        blocks.lines, blocks.lines_for = lines, attempt_prefixes
    return lines


def _kept_lines(fields: Sequence[Field], codings: list[Field], attempt_prefixes: tuple[bytes, ...]) -> bytes | None:
    """``_plain_lines``, kept in a block that has a memory; None also if an attempt writes one of the fields itself."""
    lines = _plain_lines(fields, codings)
    if lines is not None and any(name in lines for name in attempt_prefixes):
        lines = None
    if isinstance(fields, FieldBlock):
        fields.lines, fields.lines_for = lines, attempt_prefixes
    return lines


def _plain_lines(fields: Sequence[Field], codings: list[Field]) -> bytes | None:
    """The lines of ``fields``; None if they need a closer look, whatever an attempt adds (``encode_plain_call``).

    ``codings``: the one field that may speak of Accept-Encoding, if any may.

    Raises:
        BadRequest: a field that no line can hold.
    """
    # A name in capitals would hide from ``attempt_prefixes``.
    if [field for field in fields if field[1] == b"accept-encoding" or field[0] != field[1]] != codings:
        return None
    lines = [_known.get(field) or _line(field) for field in fields]
    return None if b"" in lines else b"".join(lines)


def _codings(fields: Sequence[Field]) -> list[Field]:
    return [field for field in fields if field[1] == b"accept-encoding"]


def _check_target(method: str, target: bytes) -> None:
    if ORIGIN_FORM.fullmatch(target) is None and not (target == b"*" and method == "OPTIONS"):
        raise BadRequest("the target is not a path with an optional query in visible ASCII")


# Targets that have been looked at: a memory like ``_known``.
_good_targets: BoundedCache[bytes, bool] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
# Lines of fields that have been looked at: the same ones go out again and again. What a line is depends on nothing but
# its field, so this is a memory, and never a decision.
_known: BoundedCache[Field, bytes] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda field: len(field[0]) + len(field[2])
)


def _special(fields: Sequence[Field], lines: list[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
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
    """The line of a field; empty for a field that is written by us, or not at all.

    Raises:
        BadRequest: no line can hold it.
    """
    name, lower, value = field
    if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
        raise _bad_field()
    ours = lower in _SPECIAL or is_hop_by_hop(lower)
    line = b"" if ours else b"%b: %b\r\n" % (name, value)
    if lower not in _ONCE and _known.takes(field) and not may_be_secret(lower):
        _known.add(field, line)
    return line


def _verb(method: str) -> bytes:
    verb = method.encode("ascii", "replace")
    if _METHOD.fullmatch(verb) is None:
        raise BadRequest("the method cannot be sent")
    return verb


def _bad_field() -> BadRequest:
    # A value may be a secret, and a name may be anything: neither is shown.
    return BadRequest("a header field holds a character that no field can carry, such as CR, LF or NUL")


def _length(own: dict[bytes, bytes], size: int | None) -> int | None:
    """The length of the body: ``size`` where it is in memory, else what the request says of its stream."""
    said = own.get(b"content-length")
    if said is not None and _LENGTH.fullmatch(said.strip()) is None:
        raise BadRequest("Content-Length is not one number")
    length = int(said) if said is not None else None
    if size is not None:
        if length is not None and length != size:
            raise BadRequest("Content-Length is not the length of the body")
        return size
    if length is not None and b"transfer-encoding" in own:
        raise BadRequest("Content-Length with Transfer-Encoding")
    return length
