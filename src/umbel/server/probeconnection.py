"""HTTP/1.1 on a connection beyond ``max_connections``: a probe is answered, everything else is refused, then it ends.

``reserve.py`` says how many such connections there are and how long each may last.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .handoff import Handoff
from .http1 import Http1Connection
from .refusal import NO_CONNECTION_LEFT

if TYPE_CHECKING:
    from .head import Head
    from .peer import Peer
    from .reserve import Seat
    from .service import Service
    from .wire import Wire


async def serve_probe(service: Service, wire: Wire, peer: Peer, seat: Seat) -> Handoff | None:
    """Serve one request if it is a probe. An HTTP/2 connection is handed on, with the same seat.

    The wire is left open. Cancelled, it cuts the request in flight and passes the cancel on.
    """
    connection = _ProbeConnection(service, wire, peer, seat)
    try:
        with connection.scope, suppress(trio.BrokenResourceError, trio.TooSlowError):
            handoff = await connection.run()
            if handoff is None or handoff.protocol == "h2":
                return handoff
            await connection.give_up()
    finally:
        connection.forget()
    return None


class _ProbeConnection(Http1Connection):
    """A connection that serves one request at most, and only a probe."""

    def __init__(self, service: Service, wire: Wire, peer: Peer, seat: Seat) -> None:
        super().__init__(service, wire, peer, wire.interrupt)
        self._seat = seat
        until = min(seat.head_until, trio.current_time() + service.limits.head_timeout)
        self._patience.last(until)
        self.head_began = until  # The head counts as begun: its first byte must not move the deadline.

    def keeps_alive(self) -> bool:
        """Never: the place is for the next probe."""
        return False

    async def give_up(self) -> None:
        """Nothing that can be answered has come in time."""
        if self._exchange is None:
            await self.refuse_unseen(NO_CONNECTION_LEFT, "", "", keep=False)
            await self.part()

    async def _serve(self, head: Head) -> bool:
        if not self.service.is_probe(head.method, head.target, head.meaning.length):
            return await self._refuse_request(NO_CONNECTION_LEFT, head)
        self._seat.kept = True
        return await super()._serve(head)
