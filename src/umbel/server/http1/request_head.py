"""Strict parser of HTTP/1.1 request heads (RFC 9112 sections 2 to 6). No I/O.

A head passes three steps: one pattern for the whole head, llhttp (which splits the fields), and the interpretation of
the fields that concern the server. The pattern refuses what llhttp would tolerate. ``head_errors.py`` finds the reason
of a refusal. The field sections of accepted heads are cached, because clients repeat them: with a known section, only
the method and the target are checked.
"""

from __future__ import annotations

import re
from functools import cached_property

import httptools
import msgspec

from ...core.http.secret_fields import may_be_secret
from ...core.http.syntax import (
    FIELD_CHARS,
    NEVER_IN_HEAD,
    NOT_OF_TARGET,
    TARGET_CHARS,
    TOKEN_CHARS,
    bytes_pattern,
    list_members,
)
from ...net.bounded_cache import BoundedCache
from ..limits.server_limits import Limits, is_own_probe
from ..response.error_response import NOT_ADMITTED, ErrorResponse
from .head_errors import HeadError, read_unusual_target
from .host import NOT_SERVED, Hosts

Field = tuple[bytes, bytes]

END = b"\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""The first 18 bytes of HTTP/2's preface (RFC 9113 section 3.4), which have the form of a head."""

_METHOD_NAMES = """
    DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL
    REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE
    QUERY
"""
_IN_TARGETS = NOT_OF_TARGET.sub(b"/", bytes(range(256)))
"""Table for ``bytes.translate``. It changes exactly the bytes that a target must not have."""
METHODS = {name.encode(): name for name in _METHOD_NAMES.split()}
"""The methods that llhttp knows, without CONNECT, which the server does not support."""
_METHOD_SIZE = max(map(len, METHODS)) + len("  ")
_REMEMBERED_MAX, _REMEMBERED_SIZE = 256, 1024
"""Field sections in the cache, and bytes of the largest."""
# The fields that concern the server.
_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te"})


class ParsedFields(msgspec.Struct, frozen=True):
    """The version and the fields of a head, and their meaning for the server."""

    version: str
    """``1.0`` or ``1.1``."""
    fields: tuple[Field, ...]
    """All fields in their order, names in lower case, values without surrounding blanks."""
    length: int = 0
    """Bytes of the body; -1 if it is chunked."""
    keep_alive: bool = True
    """Whether the client wants the connection to stay open."""
    expects_continue: bool = False
    """Whether Expect has ``100-continue``."""
    takes_trailers: bool = False
    """Whether TE has ``trailers``."""
    websocket: bool = False
    """Whether a GET with these fields is a WebSocket's opening handshake."""
    served: bool = True
    """Whether the host is served."""


class Head(msgspec.Struct, frozen=True):
    """An accepted request head."""

    method: str
    target: bytes
    """In origin form, or ``*``."""
    parsed: ParsedFields


class _Collector:
    """The callbacks of llhttp. They never raise, because llhttp would replace the exception by its own."""

    __slots__ = ("fields", "special")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.special: list[Field] = []
        """The fields that concern the server."""

    @classmethod
    def of(cls, raw: bytes) -> _Collector:
        """A collector with the fields of ``raw``, as llhttp would report them.

        ``raw`` must match ``_head_pattern``; nothing is checked.
        """
        collector = cls()
        for line in raw.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            collector.on_header(name, value.lstrip(b" \t"))
        return collector

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field from llhttp."""
        field = (name.lower(), value.rstrip(b" \t"))
        self.fields.append(field)
        if field[0] in _SPECIAL:
            self.special.append(field)


class HeadReader:
    """Parser of the request heads of one server, with the cache of their field sections."""

    def __init__(self, limits: Limits, hosts: Hosts) -> None:
        self._limits = limits
        self._max_known_target = min(limits.max_target, limits.max_head - _REMEMBERED_SIZE - _METHOD_SIZE)
        """Bytes of a target up to which a head with a cached section is within ``max_head``."""
        self._hosts = hosts
        self._pattern = _head_pattern(underscores=limits.underscore_headers == "keep")
        self._known: BoundedCache[bytes, ParsedFields] = BoundedCache(_REMEMBERED_MAX, _REMEMBERED_SIZE)
        """The cache. The key is all that follows the target: the version HTTP/1.1, the fields and the empty line."""

    def check_part(self, part: bytes, since: int = 0) -> None:
        """Check an incomplete head, of which the first ``since`` bytes were checked before.

        Raises:
            HeadError: 414 or 431, it exceeds a limit; 400, it cannot become a head.
        """
        # A CR at the end of the last part is checked again, together with the byte after it.
        if NEVER_IN_HEAD.search(part, max(0, since - 1)) is not None:
            raise HeadError(ErrorResponse(400, "The request is not HTTP/1.1."))
        words = part.partition(b"\r\n")[0].split(b" ", 2)
        if len(words) > 1 and len(words[1]) > self._limits.max_target:
            raise HeadError(ErrorResponse(414, f"The target is over {self._limits.max_target} bytes."))
        if len(part) > self._limits.max_head:
            raise HeadError(ErrorResponse(431, f"The head is over {self._limits.max_head} bytes."))

    def read(self, raw: bytes) -> Head:
        """Parse a complete head, the empty line included.

        Raises:
            HeadError: the head is refused: 400, 414, 417, 421, 431, 501 or 505.
        """
        try:
            method, target, section = raw.split(b" ", 2)
        except ValueError:
            method = target = section = b""
        known = self._known.get(section)
        if known is not None:
            name = METHODS.get(method)
            if (
                name is not None
                and len(target) <= self._max_known_target
                and target.startswith(b"/")
                and target.translate(_IN_TARGETS) == target
            ):
                head = Head(name, target, known)
                return head if known.served else self._allowed_for_any_host(head)
        head = self._read(raw)
        if section.startswith(b"HTTP/1.1\r\n") and self._known.takes(section) and not _names_secret(head.parsed):
            self._known.add(section, head.parsed)
        return head if head.parsed.served else self._allowed_for_any_host(head)

    @cached_property
    def refusing(self) -> HeadReader:
        """A reader with the same limits for the peers that may make no requests: it refuses all but own probes."""
        return _RefusingReader(self._limits, self._hosts)

    def _allowed_for_any_host(self, head: Head) -> Head:
        """Return ``head``, whose host is not served, if the request is a probe.

        Raises:
            HeadError: 421, it is no probe.
        """
        if head.parsed.websocket or not self._limits.is_for_any_host(head.method, head.target):
            raise HeadError(NOT_SERVED, fields=head.parsed.fields)
        return head

    def _read(self, raw: bytes) -> Head:
        """Parse a head without the cache; raises as ``read``."""
        limits = self._limits
        match = self._pattern.fullmatch(raw)
        # Two lines are not fields: the request line and the empty line.
        if match is None or len(raw) > limits.max_head or raw.count(b"\n") - 2 > limits.max_fields:
            return self._read_unusual(raw)
        method, target, minor = match.groups()
        if len(target) > limits.max_target:
            raise HeadError(ErrorResponse(414, f"The target is over {limits.max_target} bytes."))
        return self._read_fields(raw, method, target, minor)

    def _read_unusual(self, raw: bytes) -> Head:
        """Parse a head with a target like ``http://host/path``, or ``*`` for OPTIONS; raises as ``read``."""
        target, authority = read_unusual_target(raw, self._limits)
        method, _, rest = raw.partition(b" ")
        version = rest[: rest.index(b"\r\n")].rpartition(b"HTTP/1.")[2]
        # With "/" in place of the target: it was checked above, and llhttp has other rules for targets.
        plain = b"%b / HTTP/1.%b%b" % (method, version, rest[rest.index(b"\r\n") :])
        head = self._read_fields(plain, method, target, version)
        if authority is not None and not self._hosts.are_equal(authority, dict(head.parsed.fields).get(b"host", b"")):
            raise HeadError(ErrorResponse(400, "The target names another host or port than the Host field."))
        return head

    def _read_fields(self, raw: bytes, method: bytes, target: bytes, minor: bytes) -> Head:
        """Split the fields by llhttp, and interpret them; ``minor``: of the version. Raises as ``read``."""
        collector = _Collector()
        try:
            httptools.HttpRequestParser(collector).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # llhttp stops at an Upgrade. _interpret decides about it.
        except httptools.HttpParserInvalidMethodError as error:
            raise HeadError(ErrorResponse(501, "The server does not know this method.")) from error
        except httptools.HttpParserError as error:
            # llhttp gives no reason, and may have reported a part of the fields. _interpret raises with a reason.
            self._interpret(minor, _Collector.of(raw))
            raise HeadError(ErrorResponse(400, "The head is malformed.")) from error
        if method not in METHODS:
            raise HeadError(ErrorResponse(501, "The server does not support CONNECT."))
        return Head(METHODS[method], target, self._interpret(minor, collector))

    def _interpret(self, minor: bytes, collector: _Collector) -> ParsedFields:
        """Interpret the fields that concern the server; raises as ``read``."""
        one = minor == b"1"
        values: dict[bytes, list[bytes]] = {}
        for name, value in collector.special:
            values.setdefault(name, []).append(value)
        length = _framing(values.get(b"content-length", []), values.get(b"transfer-encoding", []), one)
        served = self._hosts.serve(values.get(b"host", []), required=one)
        connection = _members(values.get(b"connection", []))
        keep_alive = b"close" not in connection and (one or b"keep-alive" in connection)
        expectations = _members(values.get(b"expect", []))
        if one and expectations - {b"100-continue"}:
            raise HeadError(ErrorResponse(417, "The only Expect that the server supports is 100-continue."))
        websocket = (
            one and b"upgrade" in connection and b"websocket" in _members(values.get(b"upgrade", [])) and length == 0
        )
        return ParsedFields(
            "1.1" if one else "1.0",
            tuple(collector.fields),
            length,
            keep_alive,
            bool(one and expectations),
            one and b"trailers" in _members(values.get(b"te", [])),
            websocket,
            served,
        )


def _head_pattern(*, underscores: bool) -> re.Pattern[bytes]:
    """The pattern of a whole well-formed head whose target is a path; ``underscores``: names may have them.

    The quantifiers are possessive, so the match takes linear time.
    """
    request_line = rf"([{TOKEN_CHARS}]++) (/[{TARGET_CHARS}]*+) HTTP/1\.([01])\r\n"
    name_chars = TOKEN_CHARS if underscores else TOKEN_CHARS.replace("_", "")
    return bytes_pattern(rf"\A{request_line}(?:[{name_chars}]++:[{FIELD_CHARS}]*+\r\n)*+\r\n")


class _RefusingReader(HeadReader):
    """Parser of the heads of a peer that may make no requests."""

    def read(self, raw: bytes) -> Head:
        """Parse a head as ``HeadReader.read``.

        Raises:
            HeadError: as there; and 403, the request is not a GET or HEAD of an own probe without a body.
        """
        head = super().read(raw)
        if head.parsed.websocket or head.parsed.length or not is_own_probe(head.method, head.target):
            raise HeadError(NOT_ADMITTED, fields=head.parsed.fields)
        return head


def _names_secret(parsed: ParsedFields) -> bool:
    """Whether a field may hold credentials, which must not be cached."""
    return any(may_be_secret(name) for name, _ in parsed.fields)


def _members(values: list[bytes]) -> set[bytes]:
    """The members, in lower case, of a list field with these values."""
    return list_members(b",".join(values)) if values else set()


def _framing(lengths: list[bytes], codings: list[bytes], one: bool) -> int:
    """The length of the body, or -1 for chunked (RFC 9112 section 6.3). ``one``: the version is HTTP/1.1.

    Anything that two servers could read differently is refused (request smuggling).

    Raises:
        HeadError: 400, the length is ambiguous or malformed; 501, another transfer coding.
    """
    if codings:
        members = [part.strip(b" \t").lower() for value in codings for part in value.split(b",")]
        twice = len(members) > 1 and set(members) == {b"chunked"}
        if lengths or not one or len(codings) > 1 or twice:
            raise HeadError(ErrorResponse(400, _ONE_LENGTH))
        if members != [b"chunked"]:
            raise HeadError(ErrorResponse(501, "The only transfer coding that the server supports is chunked."))
        return -1
    if lengths:
        if len(lengths) > 1 or len(lengths[0]) > _DIGITS_MAX or not lengths[0].isdigit():
            raise HeadError(ErrorResponse(400, "Content-Length is not a single number."))
        return int(lengths[0])
    return 0


_ONE_LENGTH = (
    'Give the length of the body in one way: Content-Length, or in HTTP/1.1 a single "Transfer-Encoding: chunked".'
)
_DIGITS_MAX = 19
"""Digits of a Content-Length; a number of 64 bits has no more."""
