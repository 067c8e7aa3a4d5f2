"""permessage-deflate (RFC 7692): the negotiation of a client's offers, and the extension for wsproto. No I/O.

wsproto's own negotiation raises for malformed numbers, accepts offers that must be declined, and keeps the parameters
of an offer that it has declined.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol

NAME = "permessage-deflate"

Parameters = Sequence[tuple[str, str | None]]
"""The parameters of an offer: names and values; None for a name without a value."""

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = ("server_max_window_bits", "client_max_window_bits")
_NUMBER = re.compile(r"[89]|1[0-5]")
_BEHIND_MAX = 16
"""Bytes that may follow the last block of a message: the padding of RFC 7692 section 7.2.3.4."""
_BITS_MIN = 9
"""Least window bits that are accepted. RFC 7692 also allows 8, which zlib cannot do for raw deflate."""


class Deflate(PerMessageDeflate):
    """wsproto's extension, with a bound on the bytes after a message's last deflate block (BFINAL).

    zlib keeps such bytes in ``unused_data`` and copies them for each further piece, so a client could make the server
    hold and copy bytes without bound. Above ``_BEHIND_MAX`` the WebSocket is closed.
    """

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Decompress a piece of a message, or return the reason to close."""
        content = super().frame_inbound_payload_data(proto, data)
        decompressor: zlib._Decompress | None = self._decompressor
        if decompressor is not None and len(decompressor.unused_data) > _BEHIND_MAX:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return content

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """End a frame. After a message that ended with a last block, the next message gets a new decompressor."""
        content = super().frame_inbound_complete(proto, fin)
        decompressor: zlib._Decompress | None = self._decompressor
        if decompressor is not None and decompressor.eof and self._inbound_compressed is None:
            self._decompressor = None
        return content


@dataclass(frozen=True, slots=True)
class NegotiatedDeflate:
    """An accepted offer of permessage-deflate."""

    parameters: str
    """The value of Sec-WebSocket-Extensions in the response."""
    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_bits: int | None
    client_bits: int | None
    """``server_max_window_bits`` and ``client_max_window_bits``, 9 to 15; None if not negotiated (15)."""

    def extension(self) -> Deflate:
        """A new wsproto extension with these parameters. Each WebSocket needs one of its own."""
        extension = Deflate(
            client_no_context_takeover=self.client_no_context_takeover,
            client_max_window_bits=self.client_bits,
            server_no_context_takeover=self.server_no_context_takeover,
            server_max_window_bits=self.server_bits,
        )
        extension.finalize(self.parameters)
        return extension


def negotiate(offers: Iterable[tuple[str, Parameters]]) -> NegotiatedDeflate | None:
    """Accept the first acceptable offer (RFC 7692 section 5); None if there is none.

    ``offers``: the names and parameters of extensions, of which only permessage-deflate is considered. An offer with an
    unknown or repeated parameter, or with an invalid value, is declined (section 7).
    """
    for name, parameters in offers:
        if name == NAME and (negotiated := _accepted(parameters)) is not None:
            return negotiated
    return None


def _accepted(parameters: Parameters) -> NegotiatedDeflate | None:
    """Accept one offer; None to decline it."""
    offered: dict[str, str | None] = {}
    for name, value in parameters:
        if name in offered:
            return None
        offered[name] = value
        if name in _FLAGS:
            sound = value is None
        elif name in _BITS:
            alone = value is None and name == "client_max_window_bits"
            sound = alone or (value is not None and _NUMBER.fullmatch(value) is not None and int(value) >= _BITS_MIN)
        else:
            sound = False
        if not sound:
            return None
    answer = [NAME, *(flag for flag in _FLAGS if flag in offered)]
    bits: dict[str, int | None] = {}
    for name in _BITS:
        # client_max_window_bits without a value says that the client could limit its window. The server does not ask.
        value = offered.get(name)
        bits[name] = int(value) if value is not None else None
        if value is not None:
            answer.append(f"{name}={value}")
    server, client = (bits[name] for name in _BITS)
    return NegotiatedDeflate("; ".join(answer), _FLAGS[0] in offered, _FLAGS[1] in offered, server, client)
