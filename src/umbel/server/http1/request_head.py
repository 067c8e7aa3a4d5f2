"""The parser of HTTP/1.1 request heads: strict (RFC 9112 sections 2 to 6), and without I/O.

llhttp splits the fields. What llhttp accepts and this server refuses is checked here. ``head_errors.py`` finds the
reason for which a head is refused.
"""

from __future__ import annotations

import re

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
from ..limits.server_limits import Limits
from ..response.error_response import ErrorResponse
from .head_errors import HeadError, read_unusual_target
from .host import NOT_SERVED, Hosts

Field = tuple[bytes, bytes]

END = b"\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""The head that an HTTP/2 connection begins with (RFC 9113 section 3.4)."""

_METHOD_NAMES = """
    DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL
    REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE
    QUERY
"""
_IN_TARGETS = NOT_OF_TARGET.sub(b"/", bytes(range(256)))
"""For ``bytes.translate``: it leaves alone what may stand in the target of such a head, and nothing else."""
METHODS = {name.encode(): name for name in _METHOD_NAMES.split()}
"""The methods that llhttp knows, less CONNECT: nothing here is a tunnel."""
_METHOD_SIZE = max(map(len, METHODS)) + len("  ")
_REMEMBERED_MAX, _REMEMBERED_SIZE = 256, 1024
"""Field sections that are remembered, and the bytes of the largest."""
_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te"})


class ParsedFields(msgspec.Struct, frozen=True):
    """The fields of a head, and what they mean together with its version."""

    version: str
    fields: tuple[Field, ...]
    """All of them, names in lower case, values without space around them."""
    length: int = 0
    """Bytes of the body; -1 if it is chunked."""
    keep_alive: bool = True
    """Whether the client lets the connection serve again."""
    expects_continue: bool = False
    takes_trailers: bool = False
    websocket: bool = False
    """Whether a GET with them is a WebSocket upgrade."""
    served: bool = True
    """Whether the host that they name is served."""


class Head(msgspec.Struct, frozen=True):
    """A request's head that may be acted upon."""

    method: str
    target: bytes
    """In origin form, or ``*``."""
    parsed: ParsedFields


class _Collector:
    """What llhttp calls. Never raises: llhttp would hide the exception in its own."""

    __slots__ = ("fields", "special")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.special: list[Field] = []
        """The fields that say something to the server."""

    @classmethod
    def of(cls, raw: bytes) -> _Collector:
        """The fields that llhttp would report of a well-formed head."""
        collector = cls()
        for line in raw.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            collector.on_header(name, value.lstrip(b" \t"))
        return collector

    def on_header(self, name: bytes, value: bytes) -> None:
        field = (name.lower(), value.rstrip(b" \t"))
        self.fields.append(field)
        if field[0] in _SPECIAL:
            self.special.append(field)


class HeadReader:
    """Reads heads within the limits. One for all connections of a server."""

    def __init__(self, limits: Limits, hosts: Hosts) -> None:
        self._limits = limits
        self._max_known_target = min(limits.max_target, limits.max_head - _REMEMBERED_SIZE - _METHOD_SIZE)
        """Up to this a head with fields that are remembered is within ``max_head``."""
        self._hosts = hosts
        self._pattern = _head_pattern(underscores=limits.underscore_headers == "keep")
        self._known: BoundedCache[bytes, ParsedFields] = BoundedCache(_REMEMBERED_MAX, _REMEMBERED_SIZE)
        """What stood behind the target in requests of HTTP/1.1 that were found good: the version and the fields."""

    def check_part(self, part: bytes, since: int = 0) -> None:
        """Look at a head that has not come to its end; its first ``since`` bytes were looked at before.

        Raises:
            HeadError: it can be no head any more, or is over its bounds.
        """
        # A CR that ended the last part is looked at again, with what follows it.
        if NEVER_IN_HEAD.search(part, max(0, since - 1)) is not None:
            raise HeadError(ErrorResponse(400, "The request is not HTTP/1.1."))
        words = part.partition(b"\r\n")[0].split(b" ", 2)
        if len(words) > 1 and len(words[1]) > self._limits.max_target:
            raise HeadError(ErrorResponse(414, f"The target is over {self._limits.max_target} bytes."))
        if len(part) > self._limits.max_head:
            raise HeadError(ErrorResponse(431, f"The head is over {self._limits.max_head} bytes."))

    def read(self, raw: bytes) -> Head:
        """The head that ``raw`` is; it ends with the empty line.

        Raises:
            HeadError: it must not be acted upon.
        """
        # A client says the same fields again and again, so what they mean is remembered.
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

    def _allowed_for_any_host(self, head: Head) -> Head:
        """A head for a host that is not served, if it is of a request that is answered all the same."""
        if head.parsed.websocket or not self._limits.is_for_any_host(head.method, head.target):
            raise HeadError(NOT_SERVED, fields=head.parsed.fields)
        return head

    def _read(self, raw: bytes) -> Head:
        limits = self._limits
        match = self._pattern.fullmatch(raw)
        # The request line and the empty line are no fields.
        if match is None or len(raw) > limits.max_head or raw.count(b"\n") - 2 > limits.max_fields:
            return self._read_unusual(raw)
        method, target, minor = match.groups()
        if len(target) > limits.max_target:
            raise HeadError(ErrorResponse(414, f"The target is over {limits.max_target} bytes."))
        return self._read_fields(raw, method, target, minor)

    def _read_unusual(self, raw: bytes) -> Head:
        """A target that is no path may still be right: ``http://host/path``, and ``*`` for OPTIONS."""
        target, authority = read_unusual_target(raw, self._limits)
        method, _, rest = raw.partition(b" ")
        version = rest[: rest.index(b"\r\n")].rpartition(b"HTTP/1.")[2]
        # llhttp has other rules for targets; the target was checked before.
        plain = b"%b / HTTP/1.%b%b" % (method, version, rest[rest.index(b"\r\n") :])
        head = self._read_fields(plain, method, target, version)
        if authority is not None and not self._hosts.are_equal(authority, dict(head.parsed.fields).get(b"host", b"")):
            raise HeadError(ErrorResponse(400, "The target names another host than the Host field."))
        return head

    def _read_fields(self, raw: bytes, method: bytes, target: bytes, minor: bytes) -> Head:
        collector = _Collector()
        try:
            httptools.HttpRequestParser(collector).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # Judged below, like every other field.
        except httptools.HttpParserInvalidMethodError as error:
            raise HeadError(ErrorResponse(501, "The server does not know this method.")) from error
        except httptools.HttpParserError as error:
            # llhttp gives no reason, and has not reported all of the fields.
            self._interpret(minor, _Collector.of(raw))
            raise HeadError(ErrorResponse(400, "The head is not one of HTTP/1.1.")) from error
        if method not in METHODS:
            raise HeadError(ErrorResponse(501, "The server is no tunnel."))
        return Head(METHODS[method], target, self._interpret(minor, collector))

    def _interpret(self, minor: bytes, collector: _Collector) -> ParsedFields:
        """Decide what the special fields decide."""
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
            raise HeadError(ErrorResponse(417, "The only expectation that can be met is 100-continue."))
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
    """The pattern of a whole well-formed head whose target is a path; ``underscores``: whether names may have them.

    The quantifiers are possessive: nothing is tried twice.
    """
    request_line = rf"([{TOKEN_CHARS}]++) (/[{TARGET_CHARS}]*+) HTTP/1\.([01])\r\n"
    name_chars = TOKEN_CHARS if underscores else TOKEN_CHARS.replace("_", "")
    return bytes_pattern(rf"\A{request_line}(?:[{name_chars}]++:[{FIELD_CHARS}]*+\r\n)*+\r\n")


def _names_secret(parsed: ParsedFields) -> bool:
    """Whether a field may hold somebody's credentials, which no memory keeps."""
    return any(may_be_secret(name) for name, _ in parsed.fields)


def _members(values: list[bytes]) -> set[bytes]:
    """The members of a list field with these values."""
    return list_members(b",".join(values)) if values else set()


def _framing(lengths: list[bytes], codings: list[bytes], one: bool) -> int:
    """Where the body ends: its length, or -1 for chunked (RFC 9112 section 6.3). Every doubt is an error."""
    if codings:
        members = [part.strip(b" \t").lower() for value in codings for part in value.split(b",")]
        twice = len(members) > 1 and set(members) == {b"chunked"}
        if lengths or not one or len(codings) > 1 or twice:
            raise HeadError(ErrorResponse(400, "The body's end is given twice, or in a way that is not HTTP/1.1's."))
        if members != [b"chunked"]:
            raise HeadError(ErrorResponse(501, "The only transfer coding that is understood is chunked."))
        return -1
    if lengths:
        if len(lengths) > 1 or len(lengths[0]) > _DIGITS_MAX or not lengths[0].isdigit():
            raise HeadError(ErrorResponse(400, "Content-Length is not one number."))
        return int(lengths[0])
    return 0


_DIGITS_MAX = 19
"""Of a length: a number of 64 bits has no more."""
