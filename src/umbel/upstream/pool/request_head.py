"""Request encoding: the HTTP/1.1 head of a request as bytes, and the framing of its body (RFC 9112).

The encoding is strict: a method, target or field that HTTP/1.1 cannot carry raises BadRequest before a byte is sent. So
no value can end a line or begin a second request (request smuggling).

Most requests of an upstream differ in few bytes, so encoded parts are remembered at three levels: the line of a field
(``_known``), the lines of a ``FieldBlock`` or ``FieldBlocks`` (in the block itself), and the beginning of a whole head
(``remember_beginning``). A remembered part depends only on its key, never on an earlier request. Fields that may hold
secrets, and values of a single attempt, are not remembered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from ...core.call import EVERY, FieldBlock, FieldBlocks, Mode, PreparedRequest
from ...core.http.header_field import ACCEPT_GZIP, Field
from ...core.http.hop_by_hop import HOP_BY_HOP, is_hop_by_hop, named_by
from ...core.http.secret_fields import may_be_secret
from ...core.http.syntax import FIELD_VALUE, ORIGIN_FORM, TOKEN, TOKEN_CHARS, bytes_pattern, list_members
from ...core.httpx_calls.httpx_messages import fields_of
from ...net.bounded_cache import BoundedCache
from ..errors import BadRequest

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The idempotent methods (RFC 9110 section 9.2.2), without TRACE, which the gateway does not forward."""
_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
_METHOD = bytes_pattern(f"(?!CONNECT$)[{TOKEN_CHARS}]++")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# Fields about the connection and the framing. This module writes them itself or not at all.
_OWN = HOP_BY_HOP | {b"content-length", b"expect"}
_SPECIAL = _OWN | {b"host"}
_VERBS = {name: name.encode("ascii") for name in (*IDEMPOTENT, "POST", "PATCH")}
# Fields whose values belong to one attempt or request, so that remembering them is useless.
_ONCE = frozenset({b"traceparent", b"tracestate", b"x-request-id"})
_KNOWN_MAX, _KNOWN_SIZE = 1024, 128
"""Bounds of the remembered fields, and of the remembered targets: their number, and the bytes of the longest."""
_BEGINNING_MAX = 8 * 1024
"""Bytes of the longest beginning of a head that is remembered."""


class EncodedRequest(NamedTuple):
    """A request that is ready to be sent."""

    method: str
    head: bytes
    """Request line and fields, with the empty line."""
    body: bytes
    """The whole body; empty if there is ``stream``."""
    stream: httpx.AsyncByteStream | None
    """The body as a stream; None if it is in memory."""
    length: int | None
    """Number of bytes that ``stream`` must yield; None: chunked."""
    replayable: bool
    """Whether the request may be sent twice: it is idempotent, and its body is in memory."""
    close: bool
    """Whether the request says ``Connection: close``, so that the connection must not be reused."""
    upgrade: bytes | None = None
    """The protocol in lower case to which the request asks to upgrade; None: to none."""
    expects_continue: bool = False
    """Whether the request has ``Expect: 100-continue``: ``stream`` must wait for the 100 (``PreparedRequest``)."""


def encode_httpx_request(request: httpx.Request) -> EncodedRequest:
    """Encode an httpx request. Its target is ``extensions["target"]`` if given, as in httpcore.

    Raises:
        BadRequest: HTTP/1.1 cannot carry the method, target, a field or the framing.
    """
    target: bytes = request.extensions.get("target") or request.url.raw_path
    if not isinstance(target, bytes):
        raise BadRequest("the target extension is not bytes")
    fields = fields_of(request.headers)
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return encode_request(request.method, target, fields, request.url.netloc, content=request.read())
    if not isinstance(stream, httpx.AsyncByteStream):
        raise BadRequest("the body is a synchronous stream; pass an asynchronous stream")
    return encode_request(request.method, target, fields, request.url.netloc, stream=stream)


def encode_request(
    method: str,
    target: bytes,
    fields: Sequence[Field],
    default_host: bytes,
    *,
    encoded: bytes = b"",
    content: bytes = b"",
    stream: httpx.AsyncByteStream | None = None,
    mode: Mode = "whole",
    expects_continue: bool = False,
) -> EncodedRequest:
    """Encode a request, whatever its fields are.

    Fields about the connection and the framing are not copied: they are checked and written anew. A stream is framed by
    the Content-Length among ``fields``, or else chunked.

    Args:
        default_host: value of the field Host if ``fields`` has none.
        encoded: lines of further fields, which are written as they are.
        content: the body in memory; ignored with ``stream``.
        mode: with "stream" and "upgrade", ``TE: trailers`` among ``fields`` is written; with "upgrade", Upgrade too.
        expects_continue: whether to write ``Expect: 100-continue``.

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
        host = fields[place][2]  # The usual case: Host is the only field that this module writes anew.
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
    upgrade = None
    if mode != "whole" and own is not None:
        upgrade = _add_options(lines, own, mode, close)
    elif close:
        lines.append(b"Connection: close\r\n")
    if expects_continue:
        lines.append(b"Expect: 100-continue\r\n")
    if not host and FIELD_VALUE.fullmatch(host := default_host) is None:
        raise _bad_field()
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (verb, target, host, b"".join(lines), encoded)
    replayable = stream is None and (method in IDEMPOTENT or any(field[1] == b"idempotency-key" for field in fields))
    return EncodedRequest(method, head, content, stream, length, replayable, close, upgrade, expects_continue)


def _add_options(lines: list[bytes], own: dict[bytes, bytes], mode: Mode, close: bool) -> bytes | None:
    """Add Connection to ``lines``, with the options that a streaming call keeps, and with their own fields.

    Args:
        own: result of ``_special``; its values have passed the check of fields.

    Returns:
        the value of Upgrade in lower case, if it was added.
    """
    options = [b"close"] if close else []
    if b"te" in own and b"trailers" in list_members(own[b"te"]):
        lines.append(b"TE: trailers\r\n")
        options.append(b"TE")
    upgrade = own.get(b"upgrade") if mode == "upgrade" else None
    if upgrade is not None:
        lines.append(b"Upgrade: %b\r\n" % upgrade)
        options.append(b"Upgrade")
    if options:
        lines.append(b"Connection: %b\r\n" % b", ".join(options))
    return None if upgrade is None else upgrade.strip().lower()


def is_idempotent(prepared: PreparedRequest) -> bool:
    """Whether the request is idempotent: by its method (RFC 9110 section 9.2.2), or because of an Idempotency-Key."""
    return prepared.method in IDEMPOTENT or any(field[1] == b"idempotency-key" for field in prepared.fields)


def prepared_fields(fields: Sequence[Field]) -> Sequence[Field]:
    """The fields of an httpx request that a call keeps: without Host and Content-Length, which are written anew."""
    return [field for field in fields if field[1] not in (b"host", b"content-length")]


def encode_call(prepared: PreparedRequest, base: bytes, host: bytes, added: Sequence[Field]) -> EncodedRequest:
    """Encode the request of a call with a body in memory.

    Args:
        base: prefix of the target: the replica's base path.
        host: value of the field Host. Host of the call is replaced, and so is an Accept-Encoding other than gzip.
        added: fields of the attempt. The call's fields with these names are replaced.

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
    """Encode the request of a call to bytes, in the usual case that each of its fields can be sent unchanged.

    Args:
        base, host: see ``encode_call``.
        added: the lines of the attempt's fields.
        attempt_prefixes: beginnings of the lines of fields that attempts write, in lower case.

    Returns:
        head and body; None if ``encode_call`` must be used instead, because a field is about the connection, the
        framing or the host, accepts another coding than gzip, has a name with capitals, or is one that attempts write.

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
    """Remember the beginning of the head of ``prepared`` in ``beginnings``, under ``key``.

    The rest of such a head is the lines of the gateway's fields, those of the attempt's fields, and the empty line. So
    nothing is remembered for a request with a Content-Length.
    """
    if prepared.content is None and prepared.method not in _EXPECT_CONTENT:
        beginning = _beginning(prepared, base, host, attempt_prefixes)
        if beginning is not None and len(beginning) <= _BEGINNING_MAX:
            beginnings.add(key, beginning)


def _beginning(
    prepared: PreparedRequest, base: bytes, host: bytes, attempt_prefixes: tuple[bytes, ...]
) -> bytes | None:
    """Request line, Host and the lines of the request's own fields; None and errors as in ``encode_plain_call``."""
    method, target, headers = prepared.method, prepared.target, prepared.headers
    if type(headers) is FieldBlock and (headers.lines_for is attempt_prefixes or headers.lines_for is EVERY):
        lines = headers.lines
    else:
        lines = _kept_lines(headers, [ACCEPT_GZIP], attempt_prefixes)
    if lines is None or method not in _VERBS:
        return None
    if target not in _good_targets.entries:
        _check_target(method, target)
        # A query may hold a secret. "*" is valid for OPTIONS only, so its check depends on the method.
        if b"?" not in target and target != b"*":
            _good_targets.add(target, True)
    return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b" % (_VERBS[method], base, target, host, lines)


def lines_of_blocks(blocks: Sequence[Sequence[Field]], attempt_prefixes: tuple[bytes, ...]) -> bytes | None:
    """The lines of all ``blocks``, remembered in the blocks; None as in ``encode_plain_call``.

    Raises:
        BadRequest: HTTP/1.1 cannot carry a field.
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
    """The lines of ``fields``, remembered in ``fields`` if that is a block; see ``_plain_lines``.

    None also for a field that attempts write.
    """
    lines = _plain_lines(fields, codings)
    if lines is not None and any(name in lines for name in attempt_prefixes):
        lines = None
    if isinstance(fields, FieldBlock):
        fields.lines, fields.lines_for = lines, attempt_prefixes
    return lines


def _plain_lines(fields: Sequence[Field], codings: list[Field]) -> bytes | None:
    """The lines of ``fields``; None if a field cannot be sent unchanged (``encode_plain_call``).

    Args:
        codings: the Accept-Encoding fields that must be among ``fields``.

    Raises:
        BadRequest: HTTP/1.1 cannot carry a field.
    """
    # ``attempt_prefixes`` are in lower case, so a name with capitals would not be found.
    if [field for field in fields if field[1] == b"accept-encoding" or field[0] != field[1]] != codings:
        return None
    lines = [_known.get(field) or _line(field) for field in fields]
    return None if b"" in lines else b"".join(lines)


def _codings(fields: Sequence[Field]) -> list[Field]:
    return [field for field in fields if field[1] == b"accept-encoding"]


def _check_target(method: str, target: bytes) -> None:
    if ORIGIN_FORM.fullmatch(target) is None and not (target == b"*" and method == "OPTIONS"):
        raise BadRequest("the target must be a path with an optional query, in visible ASCII")


# Targets that have passed ``_check_target``.
_good_targets: BoundedCache[bytes, bool] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)
# Checked lines by field. A line depends on its field only, so an entry is never wrong.
_known: BoundedCache[Field, bytes] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda field: len(field[0]) + len(field[2])
)


def _special(fields: Sequence[Field], lines: list[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The Host, and the fields about the connection and the framing, of the fields whose line is empty.

    Raises:
        BadRequest: there are two Host fields.
    """
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
    """The line of a field; empty for a field that this module writes itself or not at all.

    Raises:
        BadRequest: HTTP/1.1 cannot carry the field.
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
        raise BadRequest("the method is CONNECT or is not a token")
    return verb


def _bad_field() -> BadRequest:
    # Neither name nor value is in the message: a value may be a secret, and a name may have any bytes.
    return BadRequest("a header field contains a character that no field can carry, such as CR, LF or NUL")


def _length(own: dict[bytes, bytes], size: int | None) -> int | None:
    """The length of the body: ``size`` if it is in memory, else the request's Content-Length; None: chunked.

    Raises:
        BadRequest: Content-Length is invalid, contradicts ``size``, or, without ``size``, stands beside
            Transfer-Encoding.
    """
    said = own.get(b"content-length")
    if said is not None and _LENGTH.fullmatch(said.strip()) is None:
        raise BadRequest("Content-Length is not one number of at most 18 digits")
    length = int(said) if said is not None else None
    if size is not None:
        if length is not None and length != size:
            raise BadRequest(f"Content-Length is {length}, but the body has {size} bytes")
        return size
    if length is not None and b"transfer-encoding" in own:
        raise BadRequest("the request has both Content-Length and Transfer-Encoding; remove one of them")
    return length
