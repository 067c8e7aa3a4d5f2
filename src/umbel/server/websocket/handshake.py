"""The fields of a WebSocket's opening handshake (RFC 6455 sections 4.2 and 9.1), over HTTP/1.1 and HTTP/2. No I/O."""

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
# One piece of Sec-WebSocket-Extensions: a token, a quoted string, or a mark, with the blanks after it.
_PIECE = re.compile(rf"(?:(?P<token>[{TOKEN_CHARS}]+)|\"(?P<quoted>[^\"\\]*)\"|(?P<mark>[,;=]))[\t ]*")
# The kinds of pieces: a mark, the name of an extension (x), the name of a parameter (p), a value (v).
# _AFTER: the kind of a word after each mark. _BEFORE: the kinds of pieces that may precede each mark.
_AFTER = {",": "x", ";": "p", "=": "v"}
_BEFORE = {",": ",xpv", ";": "xpv", "=": "p"}


@dataclass
class OpeningHandshake:
    """The checked fields of a client's opening handshake."""

    subprotocols: list[str]
    """The offered subprotocols, in the client's order."""
    deflate: NegotiatedDeflate | None
    """The accepted compression, if any."""
    key: bytes | None
    """Sec-WebSocket-Key; None over HTTP/2, which has none (RFC 8441 section 5)."""

    def accept(
        self, subprotocol: str | None, additional: Iterable[Iterable[bytes]]
    ) -> tuple[int, list[Field], Connection]:
        """The status and the fields of the response that accepts the handshake, and wsproto's connection.

        ``additional``: header fields of the application. An Upgrade among them is left out.

        Raises:
            ApplicationError: the subprotocol was not offered, or the name of an additional field begins with
                ``sec-websocket-`` or a colon.
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
                raise ApplicationError(f"the application set the field {name!r}, which the server sets in a handshake")
            if name != b"upgrade":
                headers.append((name, value))
        extensions: list[Extension] = [] if self.deflate is None else [self.deflate.extension()]
        return (200 if self.key is None else 101), headers, Connection(ConnectionType.SERVER, extensions)


def read_opening_handshake(fields: Sequence[Field], *, keyed: bool) -> OpeningHandshake:
    """Check the fields of an opening handshake. ``keyed``: Sec-WebSocket-Key is required (HTTP/1.1).

    Raises:
        HeadError: 400, a field is missing or malformed, or the version is not 13.
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name.startswith(_PREFIX):
            if _PLAIN.fullmatch(value) is None:
                raise _refused("A field of the WebSocket handshake is not ASCII.")
            values.setdefault(name, []).append(value)
    if values.get(b"sec-websocket-version") != [b"13"]:
        # The response names the supported version (RFC 6455 section 4.4).
        spoken = ((b"sec-websocket-version", b"13"),)
        raise HeadError(ErrorResponse(400, "The server supports only version 13 of WebSocket.", fields=spoken))
    keys = values.get(b"sec-websocket-key", [])
    if keyed and (len(keys) != 1 or not _is_key(keys[0])):
        raise _refused("The handshake must have one Sec-WebSocket-Key of 16 bytes in base64.")
    subprotocols = _subprotocols(b",".join(values.get(b"sec-websocket-protocol", [])).decode("ascii"))
    offers = _offers(b",".join(values.get(b"sec-websocket-extensions", [])).decode("ascii"))
    return OpeningHandshake(subprotocols, negotiate(offers), keys[0] if keyed else None)


def _subprotocols(text: str) -> list[str]:
    """The members of Sec-WebSocket-Protocol; raises ``HeadError`` if they are not different tokens."""
    names = [name for part in text.split(",") if (name := part.strip(" \t"))]
    if any(TOKEN_TEXT.fullmatch(name) is None for name in names) or len(set(names)) != len(names):
        raise _refused("Sec-WebSocket-Protocol is not a list of different tokens.")
    return names


def _offers(text: str) -> list[tuple[str, Parameters]]:
    """The members of Sec-WebSocket-Extensions with their parameters, without empty members.

    Raises:
        HeadError: the value is malformed.
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
    """Whether ``value`` is base64 of 16 bytes."""
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def in_lower_case(fields: Iterable[Iterable[bytes]]) -> list[Field]:
    """An application's fields with names in lower case, as ``InboundRequest`` requires."""
    return [(bytes(name).lower(), bytes(value)) for name, value in fields]
