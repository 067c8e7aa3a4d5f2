"""HTTP/1.1 on a reserved connection (beyond ``max_connections``): one probe is answered, any other request is refused.

``limits/probe_reserve.py`` bounds the number and the duration of such connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..response.error_response import NO_CONNECTION_LEFT
from .connection import Http1Connection, SwitchToHttp2

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..limits.probe_reserve import ReservedConnection
    from ..peer import Peer
    from ..state import ServerState
    from .request_head import Head


async def serve_probe(
    server: ServerState, stream: PlainStream, peer: Peer, reserved: ReservedConnection
) -> SwitchToHttp2 | None:
    """Serve one request if it is a probe, else refuse it with 503. Otherwise as ``serve_http1``."""
    return await _ProbeConnection(server, stream, peer, reserved).serve()


class _ProbeConnection(Http1Connection):
    """A connection that serves at most one request, and only a probe."""

    def __init__(self, server: ServerState, stream: PlainStream, peer: Peer, reserved: ReservedConnection) -> None:
        super().__init__(server, stream, peer)
        reserved.awaits_response = self._awaits_response
        until = min(reserved.head_until, trio.current_time() + server.limits.head_timeout)
        self._idle.set(until)
        self.head_began = until  # As if the head had begun, so that its first byte does not move the deadline.

    def keeps_alive(self) -> bool:
        """False: the reserve is needed for the next probe."""
        return False

    async def give_up(self) -> None:
        """Refuse the connection with 503 at its deadline, even if no byte of a head has come."""
        await self.refuse_unseen(NO_CONNECTION_LEFT, "", "", keep=False)
        await self.linger()

    async def _serve(self, head: Head) -> bool:
        websocket = head.parsed.websocket
        if websocket or not self.server.is_probe(head.method, head.target, head.parsed.length):
            return await self._refuse_request(NO_CONNECTION_LEFT, head)
        return await super()._serve(head)

    def _awaits_response(self) -> bool:
        return self._cycle is not None and not self._cycle.begun
