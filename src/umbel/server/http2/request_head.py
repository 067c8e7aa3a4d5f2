"""The parser of HTTP/2 request heads: as strict as for HTTP/1.1, before any application sees the request.

Header lists and trailer sections are checked here alone. The protocol library ends the connection for a malformed list,
where RFC 9113 (section 8.1.1) wants an error of one stream. So the library is given a list that is always sound
(``CapturingDecoder``), and checks frames, streams and the compression alone. Nothing is sent here.
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

# RFC 7541 section 6.3, three in a row: a prefix of five bits, and the bytes of a number that does not fit into it.
_RESIZED = re.compile(rb"\A(?:[\x20-\x3e]|\x3f[\x80-\xff]*+[\x00-\x7f]){3}")

_UPPER = re.compile(rb"[A-Z]")
# RFC 9113 section 8.2.1: no control character but the tab, and no space at either end.
_VALUE = bytes_pattern(f"(?:[{FIELD_VISIBLE_CHARS}](?:[{FIELD_CHARS}]*[{FIELD_VISIBLE_CHARS}])?)?")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""They belong to one hop of HTTP/1.1, and make a message of HTTP/2 malformed (RFC 9113 section 8.2.2)."""
# RFC 7541 sections 6.1 and 6.3: an index that fits into one byte, and a change of the table's size.
_FIRST_INDEX, _LAST_INDEX, _SIZE_UPDATE = 0x81, 0xFE, 0x20
_OVERHEAD = 32
"""What a field costs beside its bytes (RFC 7541 section 4.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. ``fields`` begin with ``host``, and hold one ``cookie`` at most."""

    method: str
    path: bytes
    fields: Sequence[tuple[bytes, bytes]]
    protocol: bytes | None = None
    """``:protocol``, of an extended CONNECT (RFC 8441)."""
    content_length: int | None = None
    expects_continue: bool = False
    takes_trailers: bool = False
    """Whether ``te`` says so; it may say nothing else (RFC 9113 section 8.2.2)."""


_STAND_IN = (HeaderTuple(b":method", b"GET"),)


class HeadDecoder(Decoder):
    """HPACK's decoder; a block that begins with more than two changes of the table's size is no block.

    None needs more (RFC 7541 section 4.2), each is a byte, and 64 KiB of them would hold the loop for 50 ms.
    """

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a header block.

        Raises:
            HPACKDecodingError: it is none.
        """
        if _RESIZED.match(data) is not None:
            raise HPACKDecodingError("more than two changes of the table's size")
        return super().decode(data, raw)


class CompressionError(ProtocolError):
    """A header block that cannot be decoded: from here on the connection's table is unknown (RFC 9113 section 4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class CapturingDecoder(HeadDecoder):
    """Keeps what it decodes for us, and shows the protocol library a list of one sound field."""

    fields: Fields
    """The list of the last block."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a header block.

        Raises:
            CompressionError: it is none.
            OversizedHeaderListError: it unpacks to more than ``max_header_list_size``.
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
        """The fields that ``data`` begins with, as far as they are indices of one byte; where it goes on; their size.

        Most heads are nothing else from a connection's second request on, and the library takes long for each.
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
        """The fields behind the first ``at`` bytes, which were fields of ``size`` bytes in all."""
        if at and data[at] & 0xE0 == _SIZE_UPDATE:
            raise HPACKDecodingError("a change of the table's size behind a field")
        size_max = self.max_header_list_size
        self.max_header_list_size = size_max - size
        try:
            decoded = super().decode(data[at:], raw=True)
        finally:
            self.max_header_list_size = size_max
        return [(bytes(name), bytes(value)) for name, value in decoded]


def read_head(raw: Fields, limits: Limits, hosts: Hosts) -> Head:
    """Check a header list and take it apart.

    Raises:
        HeadError: with the status that the table of raw requests in docs/server.md promises.
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
        raise HeadError(ErrorResponse(400, "The method is not one."))
    if method == b"CONNECT" and protocol != b"websocket":
        raise HeadError(ErrorResponse(501, "CONNECT is served for WebSocket only."))
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
    """What an unchecked header list says of its method, its path and its sender, for a record or an error response."""
    pseudo = {name: value for name, value in raw if name[:1] == b":"}
    fields = [(name, value) for name, value in raw if name[:1] != b":"]
    return Head(pseudo.get(b":method", b"").decode("latin-1"), pseudo.get(b":path", b""), fields)


def check_trailers(raw: Fields, limits: Limits) -> None:
    """Check the trailer section of a request.

    Raises:
        HeadError: with the status that the request is refused with.
    """
    if len(raw) > limits.max_fields or sum(len(name) + len(value) for name, value in raw) > limits.max_head:
        raise HeadError(ErrorResponse(431, "The trailer section of the body is too large."))
    if any(name[:1] == b":" for name, _ in raw):
        raise malformed("A trailer section has a pseudo-header field.")
    _check_fields(raw, limits)


def malformed(reason: str) -> HeadError:
    """The error response to a request that is malformed (RFC 9113 section 8.1.1)."""
    return HeadError(ErrorResponse(400, f"The request is malformed: {reason}"), malformed=True)


def list_size_max(limits: Limits) -> int:
    """The size of a header list (as HPACK counts) from which on a connection ends: four times what is answered."""
    return 4 * limits.max_head + _OVERHEAD * limits.max_fields


def _check_pseudo(raw: Fields, pseudo: dict[bytes, bytes]) -> None:
    """RFC 9113 sections 8.3 and 8.3.1, RFC 8441 section 4.

    Raises:
        HeadError: they are not those of a request.
    """
    count = len(pseudo)
    if not pseudo.keys() <= _PSEUDO:
        raise malformed("It has a pseudo-header field that no request has.")
    if sum(1 for name, _ in raw if name[:1] == b":") != count:
        raise malformed("It has a pseudo-header field twice.")
    if any(name[:1] != b":" for name, _ in raw[:count]):
        raise malformed("A pseudo-header field stands behind a header field.")
    if not all(_VALUE.fullmatch(value) for value in pseudo.values()):
        raise malformed("The value of a pseudo-header field has a control character or a space at its end.")
    if not pseudo.get(b":method"):
        raise malformed("It has no :method.")
    connects = pseudo[b":method"] == b"CONNECT"
    if b":protocol" in pseudo and not connects:
        raise malformed("It has a :protocol, and its method is not CONNECT.")
    if (b":protocol" in pseudo or not connects) and not (pseudo.get(b":path") and pseudo.get(b":scheme")):
        raise malformed("It has no :path or no :scheme.")


def _check_fields(fields: Fields, limits: Limits) -> None:
    for name, value in fields:
        if not TOKEN.fullmatch(name) or _UPPER.search(name):
            raise malformed("The name of a header field has a character that none may have.")
        if name in CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
            raise malformed("It has a header field that belongs to a connection of HTTP/1.1.")
        if b"_" in name and limits.underscore_headers == "reject":
            raise HeadError(ErrorResponse(400, "The name of a header field has an underscore."))
        if not _VALUE.fullmatch(value):
            raise malformed("The value of a header field has a control character, or a space at its end.")


def _host(authority: bytes | None, fields: Fields, hosts: Hosts) -> tuple[bytes, bool]:
    """The one host, and whether it is served.

    It is ``:authority``, or ``host`` from a client that translates HTTP/1.1 (RFC 9113 section 8.3.1).
    """
    values = [value for name, value in fields if name == b"host"]
    served = hosts.serve(values if authority is None else [authority], required=True)
    if authority is None:
        return values[0], served
    if len(values) > 1 or (values and not hosts.are_equal(authority, values[0])):
        raise HeadError(ErrorResponse(400, "The request names two hosts."))
    return authority, served


def _joined(fields: Fields) -> Fields:
    """Without ``host``, and with the crumbs of ``cookie`` put together (RFC 9113 section 8.2.3)."""
    cookies = [value for name, value in fields if name == b"cookie"]
    rest = [field for field in fields if field[0] not in (b"host", b"cookie")]
    return [*rest, (b"cookie", b"; ".join(cookies))] if cookies else rest


def _content_length(fields: Fields) -> int | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise malformed("Content-Length is not one number.")
    return int(lengths[0])


def _expects_continue(fields: Fields) -> bool:
    expected = [value.lower() for name, value in fields if name == b"expect"]
    if any(value != b"100-continue" for value in expected):
        raise HeadError(ErrorResponse(417, "The only expectation that is known is 100-continue."))
    return bool(expected)
