"""The fields of a WebSocket handshake (RFC 6455 sections 4.2 and 9.1), over HTTP/1.1 and HTTP/2.

It sends nothing: it returns what to answer.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import Extension
from wsproto.utilities import generate_accept_token

from ...core.http.syntax import TOKEN_CHARS, TOKEN_TEXT
from ...core.inbound import Field
from ..http1.head_errors import HeadError
from ..response.error_response import ErrorResponse
from ..response.response_head import ApplicationError
from .deflate import NegotiatedDeflate, Parameters, negotiate

_PREFIX = b"sec-websocket-"
_PLAIN = re.compile(rb"[\t\x20-\x7e]*")
# One piece of Sec-WebSocket-Extensions: a token, a quoted string, or a mark, with the blanks behind it.
_PIECE = re.compile(rf"(?:(?P<token>[{TOKEN_CHARS}]+)|\"(?P<quoted>[^\"\\]*)\"|(?P<mark>[,;=]))[\t ]*")
# What a piece is: a mark, the name of an extension (x) or of a parameter (p), or a value (v); and what may precede it.
_AFTER = {",": "x", ";": "p", "=": "v"}
_BEFORE = {",": ",xpv", ";": "xpv", "=": "p"}


@dataclass
class OpeningHandshake:
    """What a client's handshake says."""

    subprotocols: list[str]
    deflate: NegotiatedDeflate | None
    key: bytes | None
    """None over HTTP/2, which needs none (RFC 8441 section 5)."""

    def accept(
        self, subprotocol: str | None, additional: Iterable[Iterable[bytes]]
    ) -> tuple[int, list[Field], Connection]:
        """The status, the fields and the protocol of an accepted handshake, with fields of the application's.

        Raises:
            ApplicationError: a subprotocol that was not offered, or a field that is not the application's to set.
        """
        headers: list[Field] = []
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                raise ApplicationError(f"the application chose the subprotocol {subprotocol!r}, which was not offered")
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.deflate is not None:
            headers.append((b"sec-websocket-extensions", self.deflate.parameters.encode()))
        if self.key is not None:
            headers.append((b"upgrade", b"websocket"))
            headers.append((b"sec-websocket-accept", generate_accept_token(self.key)))
        for name, value in in_lower_case(additional):
            if name.startswith((b":", _PREFIX)):
                raise ApplicationError(f"the application set the field {name!r} of a WebSocket's handshake")
            if name != b"upgrade":
                headers.append((name, value))
        extensions: list[Extension] = [] if self.deflate is None else [self.deflate.extension()]
        return (200 if self.key is None else 101), headers, Connection(ConnectionType.SERVER, extensions)


def read_opening_handshake(fields: Sequence[Field], *, keyed: bool) -> OpeningHandshake:
    """Read the handshake's fields. With HTTP/1.1 a key is needed (``keyed``).

    Raises:
        HeadError: 400, they open no WebSocket.
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name.startswith(_PREFIX):
            if _PLAIN.fullmatch(value) is None:
                raise _refused("A field of the WebSocket handshake is not ASCII.")
            values.setdefault(name, []).append(value)
    if values.get(b"sec-websocket-version") != [b"13"]:
        # RFC 6455 section 4.4: the versions that are spoken are named.
        spoken = ((b"sec-websocket-version", b"13"),)
        raise HeadError(ErrorResponse(400, "The only version of WebSocket that is spoken is 13.", fields=spoken))
    keys = values.get(b"sec-websocket-key", [])
    if keyed and (len(keys) != 1 or not _is_key(keys[0])):
        raise _refused("The handshake needs one Sec-WebSocket-Key of 16 bytes.")
    subprotocols = _subprotocols(b",".join(values.get(b"sec-websocket-protocol", [])).decode("ascii"))
    offers = _offers(b",".join(values.get(b"sec-websocket-extensions", [])).decode("ascii"))
    return OpeningHandshake(subprotocols, negotiate(offers), keys[0] if keyed else None)


def _subprotocols(text: str) -> list[str]:
    names = [name for part in text.split(",") if (name := part.strip(" \t"))]
    if any(TOKEN_TEXT.fullmatch(name) is None for name in names) or len(set(names)) != len(names):
        raise _refused("Sec-WebSocket-Protocol is not a list of different tokens.")
    return names


def _offers(text: str) -> list[tuple[str, Parameters]]:
    """The members of Sec-WebSocket-Extensions with their parameters; empty members count for nothing.

    Raises:
        HeadError: it is no such list.
    """
    offers: list[tuple[str, Parameters]] = []
    parameters: list[tuple[str, str | None]] = []
    text, position, before = text.strip(" \t"), 0, ","
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            raise _refused(_NO_EXTENSIONS)
        position, mark = piece.end(), piece["mark"]
        if mark is not None:
            kind, sound = mark, before in _BEFORE[mark]
        else:
            kind = _AFTER.get(before, "")
            word = piece["token"] or piece["quoted"] or ""
            sound = (
                kind != "" and TOKEN_TEXT.fullmatch(word) is not None and (kind == "v" or piece["token"] is not None)
            )
        if not sound:
            raise _refused(_NO_EXTENSIONS)
        if kind == "x":
            parameters = []
            offers.append((word, parameters))
        elif kind == "p":
            parameters.append((word, None))
        elif kind == "v":
            parameters[-1] = (parameters[-1][0], word)
        before = kind
    if before in (";", "="):
        raise _refused(_NO_EXTENSIONS)
    return offers


_NO_EXTENSIONS = "Sec-WebSocket-Extensions is not a list of extensions with parameters."


def _refused(why: str) -> HeadError:
    return HeadError(ErrorResponse(400, why))


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def in_lower_case(fields: Iterable[Iterable[bytes]]) -> list[Field]:
    """An application's fields with the names as ``InboundRequest`` wants them."""
    return [(bytes(name).lower(), bytes(value)) for name, value in fields]
