"""HTTP/1.1 on a connection beyond ``max_connections``: a probe is answered, everything else is refused, then it ends.

``reserve.py`` says how many such connections there are and how long each may last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..answer.error_response import NO_CONNECTION_LEFT
from .connection import Handoff, Http1Connection

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..limits.reserve import Seat
    from ..peer import Peer
    from ..state import Service
    from .request_head import Head


async def serve_probe(service: Service, stream: PlainStream, peer: Peer, seat: Seat) -> Handoff | None:
    """Serve one request if it is a probe. An HTTP/2 connection is handed on, with the same seat.

    The stream is left open. Cancelled, it cuts the request in flight and passes the cancel on.
    """
    return await _ProbeConnection(service, stream, peer, seat).serve()


class _ProbeConnection(Http1Connection):
    """A connection that serves one request at most, and only a probe."""

    def __init__(self, service: Service, stream: PlainStream, peer: Peer, seat: Seat) -> None:
        super().__init__(service, stream, peer)
        seat.awaits_answer = self._awaits_answer
        until = min(seat.head_until, trio.current_time() + service.limits.head_timeout)
        self._idle.last(until)
        self.head_began = until  # The head counts as begun: its first byte must not move the deadline.

    def keeps_alive(self) -> bool:
        """Never: the place is for the next probe."""
        return False

    async def give_up(self) -> None:
        """Nothing that can be answered has come in time."""
        await self.refuse_unseen(NO_CONNECTION_LEFT, "", "", keep=False)
        await self.part()

    async def _serve(self, head: Head) -> bool:
        websocket = head.meaning.websocket
        if websocket or not self.service.is_probe(head.method, head.target, head.meaning.length):
            return await self._refuse_request(NO_CONNECTION_LEFT, head)
        return await super()._serve(head)

    def _awaits_answer(self) -> bool:
        return self._cycle is not None and not self.answering
