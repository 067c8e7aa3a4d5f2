"""WebSocket (RFC 6455) between an ASGI application and the bytes of a connection, or of a stream (RFC 8441).

The connection or stream is known as an ``InboundRequest`` alone: the handshake is a request that ``take`` accepts; then
it gives the bytes of both directions. ``session.py`` opens with the theory. ``handshake.py`` reads the fields,
``deflate.py`` negotiates compression, and ``frame_tracker.py`` follows the boundaries of frames.
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
    """Answer the handshake of a WebSocket, and serve it to its end with the ASGI application ``app``.

    ``request`` has the head of a handshake: in HTTP/1.1 a GET without a body whose fields ask for an upgrade to
    ``websocket``, in HTTP/2 an extended CONNECT with that ``:protocol``. Its ``Sec-WebSocket-`` fields are checked
    here; one that opens no WebSocket is answered with 400 and recorded. Whatever the application raises ends here, and
    is logged once; a cancel passes, and leaves it to the server to answer a handshake that has no response yet.
    """
    try:
        opening = read_opening_handshake(request.fields, keyed=request.version != "2")
    except HeadError as error:
        await reject_handshake(server, request, error.error_response)
        return
    await WebSocketSession(server, app, request, opening).run()
