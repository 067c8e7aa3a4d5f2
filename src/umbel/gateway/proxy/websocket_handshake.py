"""Opening handshake of a WebSocket that is passed on (RFC 6455 section 4, RFC 8441 section 5).

Over HTTP/1.1 the client's key goes to the upstream, and the upstream's proof of it comes back. Over HTTP/2 the client
has no key: the gateway makes one, and checks the proof itself.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from wsproto.utilities import generate_accept_token

from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...core.model import Failure
from ...server.http1.head_errors import HeadError
from ...server.websocket.handshake import read_opening_handshake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...composition.proxy.proxy_plan import WebSocketPlan
    from ...core.http.header_field import Field
    from ...core.inbound import InboundRequest

SWITCHED = 101
"""Switching Protocols: the connection is a WebSocket from now on."""
_OVER_HTTP2 = 200
_KEY, _ACCEPT = b"sec-websocket-key", b"sec-websocket-accept"
_UPGRADE = b"upgrade"
_WEBSOCKET = b"websocket"


def rules_of(plan: WebSocketPlan | None) -> WebSocketPlan:
    """The rules of a route for WebSocket connections.

    Raises:
        RequestError: 400, the route passes none on.
    """
    if plan is None:
        raise RequestError(400, "This path passes no WebSocket connections on.")
    return plan


def check_origin(rules: WebSocketPlan, origin: str | None) -> None:
    """Check the origin of a handshake.

    Raises:
        RequestError: 403, it is not allowed.
    """
    if not rules.allows(origin):
        raise RequestError(403, "A page of this origin may not open this WebSocket.")


class WebSocketHandshake:
    """The handshake of one request, which is checked when this object is made.

    Args:
        inbound: the request.
        rules: which connections are passed on.
        origin: the value of the request's Origin; None: it has none.

    Raises:
        RequestError: 400, the handshake is malformed, of another version, or has a body; or 403, the origin is not
            allowed.
    """

    def __init__(self, inbound: InboundRequest, rules: WebSocketPlan, origin: str | None) -> None:
        over_http2 = inbound.version == "2"
        try:
            read_opening_handshake(inbound.fields, keyed=not over_http2)
        except HeadError as error:
            refusal = error.error_response
            said = [(name.decode("ascii"), value.decode("latin-1")) for name, value in refusal.fields]
            raise RequestError(refusal.status, refusal.detail, fields=said) from error
        if not over_http2 and inbound.content_length != 0:
            raise RequestError(400, "The opening handshake of a WebSocket has no body.")
        check_origin(rules, origin)
        self._key = base64.b64encode(secrets.token_bytes(16)) if over_http2 else None
        """The gateway's own key; None: the client has sent one."""

    def complete(self, fields: list[Field]) -> list[Field]:
        """The fields of the request to the upstream, made of those of the client."""
        kept = [field for field in fields if field[1] != b"content-length"]
        kept.append((_UPGRADE, _UPGRADE, _WEBSOCKET))
        if self._key is not None:
            kept = [field for field in kept if field[1] != _KEY]
            kept.append((_KEY, _KEY, self._key))
        return kept

    def failure(self, status: int | None, fields: Sequence[Field]) -> Failure | None:
        """The failure of a response that opens no WebSocket, but would be taken for one that does; else None.

        To a client of HTTP/2 each 2xx says that the WebSocket is open (RFC 8441 section 4). So only a 101 with a proof
        of the gateway's key may become one, and any other 2xx is a failure: its content would be read as frames.
        """
        if self._key is None or status is None:
            return None
        if 200 <= status < 300:
            return Failure.of(Kind.MALFORMED, f"the upstream has answered a WebSocket handshake with {status}")
        proofs = [value for _, lower, value in fields if lower == _ACCEPT]
        if status != SWITCHED or proofs == [generate_accept_token(self._key)]:
            return None
        return Failure.of(Kind.MALFORMED, "the upstream has accepted a WebSocket without the proof of its key")

    def accepted(self, fields: list[tuple[bytes, bytes]]) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The status and the fields that accept the handshake of the client, made of those of the upstream."""
        if self._key is None:
            return SWITCHED, [*fields, (_UPGRADE, _WEBSOCKET)]
        return _OVER_HTTP2, [field for field in fields if field[0] != _ACCEPT]
