"""The fields of a WebSocket's handshake (RFC 6455 section 4.2.1), checked before Hypercorn reads them.

Used for both protocols that carry WebSockets. It answers nothing: it says what to answer.
"""

from __future__ import annotations

import base64
import binascii
import re

from .h2head import Fields
from .refusal import Refusal

_PREFIX = b"sec-websocket-"
_PLAIN = re.compile(rb"[\t\x20-\x7e]*")


def refusal_of(fields: Fields, *, keyed: bool) -> Refusal | None:
    """Why these fields open no WebSocket, or None. With HTTP/1.1 a key is needed (``keyed``)."""
    said = [(name, value) for name, value in fields if name.startswith(_PREFIX)]
    if any(_PLAIN.fullmatch(value) is None for _, value in said):
        return Refusal(400, "A field of the WebSocket handshake is not ASCII.")
    if [value for name, value in said if name == b"sec-websocket-version"] != [b"13"]:
        return Refusal(400, "The only version of WebSocket that is spoken is 13.")
    keys = [value for name, value in said if name == b"sec-websocket-key"]
    if keyed and (len(keys) != 1 or not _is_key(keys[0])):
        return Refusal(400, "The handshake needs one Sec-WebSocket-Key of 16 bytes.")
    return None


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
