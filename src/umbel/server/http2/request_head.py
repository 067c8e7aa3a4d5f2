"""Strict parser of HTTP/2 request heads and trailer sections (RFC 9113 section 8). No I/O.

The protocol library would end the connection for a malformed header list, where RFC 9113 (section 8.1.1) asks for a
stream error. So ``CapturingDecoder`` keeps the decoded list for this module and gives the library a list that is always
valid. The library checks frames, stream states and HPACK; this module checks header lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Decoder, HeaderTuple
from hpack.exceptions import HPACKDecodingError, HPACKError, OversizedHeaderListError

from ...core.http.syntax import FIELD_CHARS, FIELD_VISIBLE_CHARS, ORIGIN_FORM, TOKEN, bytes_pattern
from ..http1.head_errors import NO_PATH, HeadError, with_query_in_ascii
from ..http1.host import NOT_SERVED, Hosts
from ..limits.server_limits import Limits
from ..response.error_response import ErrorResponse

Fields = list[tuple[bytes, bytes]]

# Three changes of the table size in a row (RFC 7541 section 6.3): a prefix of five bits, and the bytes of a number that
# does not fit into it.
_RESIZED = re.compile(rb"\A(?:[\x20-\x3e]|\x3f[\x80-\xff]*+[\x00-\x7f]){3}")

_UPPER = re.compile(rb"[A-Z]")
# RFC 9113 section 8.2.1: no control character but the tab, and no space at either end.
_VALUE = bytes_pattern(f"(?:[{FIELD_VISIBLE_CHARS}](?:[{FIELD_CHARS}]*[{FIELD_VISIBLE_CHARS}])?)?")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Fields of an HTTP/1.1 connection, which make an HTTP/2 message malformed (RFC 9113 section 8.2.2)."""
# An index that fits into one byte, and a change of the table size (RFC 7541 sections 6.1 and 6.3).
_FIRST_INDEX, _LAST_INDEX, _SIZE_UPDATE = 0x81, 0xFE, 0x20
_OVERHEAD = 32
"""Bytes that HPACK counts per field beside its name and value (RFC 7541 section 4.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request head."""

    method: str
    path: bytes
    """``:path``, or empty if there is none."""
    fields: Sequence[tuple[bytes, bytes]]
    """The header fields. In an accepted head they begin with ``host`` and have at most one ``cookie``."""
    protocol: bytes | None = None
    """``:protocol`` of an extended CONNECT (RFC 8441), which is ``websocket`` in an accepted head; else None."""
    content_length: int | None = None
    """Bytes of the body according to Content-Length; None without one."""
    expects_continue: bool = False
    """Whether Expect is ``100-continue``."""
    takes_trailers: bool = False
    """Whether TE is ``trailers``."""


_STAND_IN = (HeaderTuple(b":method", b"GET"),)


class HeadDecoder(Decoder):
    """HPACK decoder that refuses a block which begins with more than two changes of the table size.

    No encoder needs more (RFC 7541 section 4.2). A change takes one byte, and 64 KiB of them would block the event loop
    for 50 ms.
    """

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a header block.

        Raises:
            HPACKDecodingError: the block is malformed.
            OversizedHeaderListError: the list is larger than ``max_header_list_size``.
        """
        if _RESIZED.match(data) is not None:
            raise HPACKDecodingError("more than two changes of the table size")
        return super().decode(data, raw)


class CompressionError(ProtocolError):
    """A header block cannot be decoded. The HPACK table is unknown then, so the connection ends (RFC 9113 4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class CapturingDecoder(HeadDecoder):
    """HPACK decoder that keeps the decoded header list, and returns a list of one valid field to the library."""

    fields: Fields
    """The header list of the last block."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a header block into ``fields``; return the list for the library.

        Raises:
            CompressionError: the block is malformed.
            OversizedHeaderListError: the list is larger than ``max_header_list_size``.
        """
        try:
            fields, at, size = self._indexed(data)
            if at < len(data):
                fields += self._decode_rest(data, at, size)
        except OversizedHeaderListError:
            raise
        except HPACKError as error:
            raise CompressionError(f"a header block cannot be decoded: {error}") from error
        self.fields = fields
        return _STAND_IN

    def _indexed(self, data: bytes) -> tuple[Fields, int, int]:
        """Decode the leading fields that are indices of one byte. Return them, the bytes read, and the fields' size.

        From the second request of a connection on, most heads consist of them, and the library is slow for each.
        """
        fields: Fields = []
        size, size_max = 0, self.max_header_list_size
        entry_of = self.header_table.get_by_index
        for at, byte in enumerate(data):
            if not _FIRST_INDEX <= byte <= _LAST_INDEX:
                return fields, at, size
            field = entry_of(byte & 0x7F)
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size > size_max:
                raise OversizedHeaderListError(f"a header list larger than {size_max}")
            fields.append(field)
        return fields, len(data), size

    def _decode_rest(self, data: bytes, at: int, size: int) -> Fields:
        """Decode the fields after the first ``at`` bytes; the fields before have ``size`` bytes, as HPACK counts."""
        if at and data[at] & 0xE0 == _SIZE_UPDATE:
            raise HPACKDecodingError("a change of the table size after a field")
        size_max = self.max_header_list_size
        self.max_header_list_size = size_max - size
        try:
            decoded = super().decode(data[at:], raw=True)
        finally:
            self.max_header_list_size = size_max
        return [(bytes(name), bytes(value)) for name, value in decoded]


def read_head(raw: Fields, limits: Limits, hosts: Hosts) -> Head:
    """Check the header list of a request, and return its head.

    Raises:
        HeadError: 400, the head is malformed; 414 or 431, it exceeds a limit; 417, 421 or 501, the server does not
            support its expectation, its host or its method.
    """
    pseudo = {name: value for name, value in raw if name[:1] == b":"}
    fields = [field for field in raw if field[0][:1] != b":"]
    if len(fields) > limits.max_fields:
        raise HeadError(ErrorResponse(431, f"The request has more than {limits.max_fields} header fields."))
    if len(pseudo.get(b":path", b"")) > limits.max_target:
        raise HeadError(ErrorResponse(414, f"The target is longer than {limits.max_target} bytes."))
    if sum(len(name) + len(value) for name, value in raw) > limits.max_head:
        raise HeadError(ErrorResponse(431, f"The head is longer than {limits.max_head} bytes."))
    method, protocol = pseudo.get(b":method", b""), pseudo.get(b":protocol")
    _check_pseudo(raw, pseudo)
    if not TOKEN.fullmatch(method):
        raise HeadError(ErrorResponse(400, "The method has a character that no method may have."))
    if method == b"CONNECT" and protocol != b"websocket":
        raise HeadError(ErrorResponse(501, "The server supports CONNECT for WebSocket only."))
    path = pseudo.get(b":path", b"")
    path = path if path.isascii() else with_query_in_ascii(path)
    # RFC 9113 section 8.3.1: a path, or * for OPTIONS.
    if not ORIGIN_FORM.fullmatch(path) and (method, path) != (b"OPTIONS", b"*"):
        raise HeadError(ErrorResponse(400, NO_PATH))
    _check_fields(fields, limits)
    host, served = _host(pseudo.get(b":authority"), fields, hosts)
    if not served and not limits.is_for_any_host(method.decode("ascii"), path):
        raise HeadError(NOT_SERVED)
    return Head(
        method.decode("ascii"),
        path,
        ((b"host", host), *_joined(fields)),
        protocol,
        _content_length(fields),
        _expects_continue(fields),
        any(name == b"te" for name, _ in fields),
    )


def unchecked_head(raw: Fields) -> Head:
    """The head of an unchecked header list, for a record or an error response. What is missing is empty."""
    pseudo = {name: value for name, value in raw if name[:1] == b":"}
    fields = [(name, value) for name, value in raw if name[:1] != b":"]
    return Head(pseudo.get(b":method", b"").decode("latin-1"), pseudo.get(b":path", b""), fields)


def check_trailers(raw: Fields, limits: Limits) -> None:
    """Check the trailer section of a request.

    Raises:
        HeadError: 431, the section exceeds a limit; 400, it is malformed.
    """
    if len(raw) > limits.max_fields or sum(len(name) + len(value) for name, value in raw) > limits.max_head:
        raise HeadError(ErrorResponse(431, "The trailer section of the body is too large."))
    if any(name[:1] == b":" for name, _ in raw):
        raise malformed("The trailer section has a pseudo-header field.")
    _check_fields(raw, limits)


def malformed(reason: str) -> HeadError:
    """The error for a malformed request (RFC 9113 section 8.1.1): 400, and PROTOCOL_ERROR for its stream."""
    return HeadError(ErrorResponse(400, f"The request is malformed: {reason}"), malformed=True)


def list_size_max(limits: Limits) -> int:
    """The bytes of a header list, as HPACK counts them, above which the connection ends.

    It is far above ``max_head``, at which only the request is refused, so that most oversized heads end no connection.
    """
    return 4 * limits.max_head + _OVERHEAD * limits.max_fields


def _check_pseudo(raw: Fields, pseudo: dict[bytes, bytes]) -> None:
    """Check the pseudo-header fields (RFC 9113 sections 8.3 and 8.3.1, RFC 8441 section 4).

    Raises:
        HeadError: they are not those of a request.
    """
    count = len(pseudo)
    if not pseudo.keys() <= _PSEUDO:
        raise malformed("A pseudo-header field is unknown, or not allowed in a request.")
    if sum(1 for name, _ in raw if name[:1] == b":") != count:
        raise malformed("A pseudo-header field is repeated.")
    if any(name[:1] != b":" for name, _ in raw[:count]):
        raise malformed("A pseudo-header field follows a header field.")
    if not all(_VALUE.fullmatch(value) for value in pseudo.values()):
        raise malformed("The value of a pseudo-header field has a control character, or a blank at an end.")
    if not pseudo.get(b":method"):
        raise malformed("The :method is missing.")
    connects = pseudo[b":method"] == b"CONNECT"
    if b":protocol" in pseudo and not connects:
        raise malformed("There is a :protocol, but the method is not CONNECT.")
    if (b":protocol" in pseudo or not connects) and not (pseudo.get(b":path") and pseudo.get(b":scheme")):
        raise malformed("The :path or the :scheme is missing.")
    if pseudo.get(b":scheme", b"https").lower() not in (b"http", b"https"):
        raise malformed("The :scheme is neither http nor https.")


def _check_fields(fields: Fields, limits: Limits) -> None:
    """Check the fields of a head or of a trailer section; raises ``HeadError``."""
    for name, value in fields:
        if not TOKEN.fullmatch(name) or _UPPER.search(name):
            raise malformed("The name of a header field is not a token in lower case.")
        if name in CONNECTION_SPECIFIC:
            raise malformed(f"HTTP/2 does not allow the header field {name.decode('ascii')}; leave it out.")
        if name == b"te" and value.lower() != b"trailers":
            raise malformed("The only value that HTTP/2 allows for the header field te is trailers.")
        if b"_" in name and limits.underscore_headers == "reject":
            raise HeadError(ErrorResponse(400, "The name of a header field has an underscore."))
        if not _VALUE.fullmatch(value):
            raise malformed("The value of a header field has a control character, or a blank at an end.")


def _host(authority: bytes | None, fields: Fields, hosts: Hosts) -> tuple[bytes, bool]:
    """The host of a request, and whether it is served.

    The host is ``:authority``, or ``host`` from a client that translates HTTP/1.1 (RFC 9113 section 8.3.1).

    Raises:
        HeadError: 400, it is missing or malformed, there is more than one, or the two differ.
    """
    values = [value for name, value in fields if name == b"host"]
    served = hosts.serve(values if authority is None else [authority], required=True)
    if authority is None:
        return values[0], served
    if len(values) > 1:
        raise HeadError(ErrorResponse(400, "The request has more than one host field."))
    if values and not hosts.are_equal(authority, values[0]):
        raise HeadError(ErrorResponse(400, "The :authority and the host field name different hosts."))
    return authority, served


def _joined(fields: Fields) -> Fields:
    """The fields without ``host``, and with all ``cookie`` fields joined to one (RFC 9113 section 8.2.3)."""
    cookies = [value for name, value in fields if name == b"cookie"]
    rest = [field for field in fields if field[0] not in (b"host", b"cookie")]
    return [*rest, (b"cookie", b"; ".join(cookies))] if cookies else rest


def _content_length(fields: Fields) -> int | None:
    """Content-Length; None without one. Raises ``HeadError`` if it is malformed."""
    lengths = [value for name, value in fields if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise malformed("Content-Length is not a single number.")
    return int(lengths[0])


def _expects_continue(fields: Fields) -> bool:
    """Whether Expect is ``100-continue``. Raises ``HeadError`` (417) for any other expectation."""
    expected = [value.lower() for name, value in fields if name == b"expect"]
    if any(value != b"100-continue" for value in expected):
        raise HeadError(ErrorResponse(417, "The only Expect that the server supports is 100-continue."))
    return bool(expected)
