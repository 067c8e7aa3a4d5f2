"""WebSocket (RFC 6455) for ASGI applications, over an HTTP/1.1 connection or an HTTP/2 stream (RFC 8441).

The opening handshake is an ``InboundRequest``; ``take`` accepts it, and gives the bytes of both directions.
``session.py`` opens with the theory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..http1.head_errors import HeadError
from .handshake import read_opening_handshake
from .rejected_handshake import reject_handshake
from .session import WebSocketSession

if TYPE_CHECKING:
    from ..state import ServerState
    from .rejected_handshake import Handshake

__all__ = ["serve_websocket"]


async def serve_websocket(server: ServerState, app: Any, request: Handshake) -> None:
    """Serve a WebSocket by the ASGI application ``app``, from the opening handshake to the end.

    ``request.websocket`` must be true. A handshake with invalid ``Sec-WebSocket-`` fields gets 400 and is recorded;
    the application does not see it. What the application raises is logged here. A cancel is raised again; then the
    caller must respond to a handshake that has no response yet.
    """
    try:
        opening = read_opening_handshake(request.fields, keyed=request.version != "2")
    except HeadError as error:
        await reject_handshake(server, request, error.error_response)
        return
    await WebSocketSession(server, app, request, opening).run()
