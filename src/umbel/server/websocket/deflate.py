"""permessage-deflate (RFC 7692): which offer of a client is accepted, and the extension for wsproto.

The negotiation of wsproto raises for values that are no numbers, accepts offers that must be declined, and keeps the
parameters of an offer that it has declined. Pure; ``handshake.py`` reads the field.
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
"""Names and values as they stand in an offer; None where a name stands alone."""

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = ("server_max_window_bits", "client_max_window_bits")
_NUMBER = re.compile(r"[89]|1[0-5]")
_BEHIND_MAX = 16
"""Bytes that may stand behind a last block: the padding of RFC 7692 section 7.2.3.4."""
_BITS_MIN = 9
"""zlib has no raw deflate with a window of 2**8, which the RFC allows too: such an offer is declined."""


class Deflate(PerMessageDeflate):
    """wsproto's extension, which ends a connection whose compressed message goes on behind its last block.

    zlib keeps what stands behind a block that says it is the last (BFINAL), and copies it for every piece that comes: a
    client could make it hold and copy without bound.
    """

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Decompress a piece of a message."""
        content = super().frame_inbound_payload_data(proto, data)
        decompressor: zlib._Decompress | None = self._decompressor
        if decompressor is not None and len(decompressor.unused_data) > _BEHIND_MAX:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return content

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """End a frame; behind a message that ended with a last block, the next one begins anew."""
        content = super().frame_inbound_complete(proto, fin)
        decompressor: zlib._Decompress | None = self._decompressor
        if decompressor is not None and decompressor.eof and self._inbound_compressed is None:
            self._decompressor = None
        return content


@dataclass(frozen=True, slots=True)
class NegotiatedDeflate:
    """What both sides do, as the response says it."""

    parameters: str
    """The value of Sec-WebSocket-Extensions."""
    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_bits: int | None
    client_bits: int | None

    def extension(self) -> Deflate:
        """The extension that does so."""
        extension = Deflate(
            client_no_context_takeover=self.client_no_context_takeover,
            client_max_window_bits=self.client_bits,
            server_no_context_takeover=self.server_no_context_takeover,
            server_max_window_bits=self.server_bits,
        )
        extension.finalize(self.parameters)
        return extension


def negotiate(offers: Iterable[tuple[str, Parameters]]) -> NegotiatedDeflate | None:
    """Accept the first offer that can be (RFC 7692 section 5), or none.

    An offer with a parameter that is unknown, comes twice or has a value that it must not have is declined (section 7).
    """
    for name, parameters in offers:
        if name == NAME and (negotiated := _accepted(parameters)) is not None:
            return negotiated
    return None


def _accepted(parameters: Parameters) -> NegotiatedDeflate | None:
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
        # A client that only says that it can limit its window (no value) is not asked to.
        value = offered.get(name)
        bits[name] = int(value) if value is not None else None
        if value is not None:
            answer.append(f"{name}={value}")
    server, client = (bits[name] for name in _BITS)
    return NegotiatedDeflate("; ".join(answer), _FLAGS[0] in offered, _FLAGS[1] in offered, server, client)
