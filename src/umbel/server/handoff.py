"""What a connection turns out to speak, where it is not HTTP/1.1 requests.

Returned by ``http1.py``; whoever drives the connection calls ``hand_over``, which calls the guarded protocol of
Hypercorn's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .peer import Peer
    from .reserve import Seat
    from .service import Service
    from .wire import AnyStream


@dataclass(frozen=True, slots=True)
class Handoff:
    """Another protocol has the connection from here on.

    ``received`` is all that has been read and not answered: the HTTP/2 preface, or the whole head of a WebSocket
    upgrade (which has passed every check of a request's head), and what came behind it.
    """

    protocol: Literal["h2", "websocket"]
    received: bytes

    @property
    def alpn(self) -> str:
        """The name by which Hypercorn knows the protocol that goes on reading."""
        return "h2" if self.protocol == "h2" else "http/1.1"


async def hand_over(
    service: Service, stream: AnyStream, peer: Peer, handoff: Handoff, seat: Seat | None = None
) -> None:
    """Let the other protocol serve ``stream`` to its end; it is left open. What its own code raises comes out.

    With a ``seat`` the connection is beyond the cap: only a probe over HTTP/2 is answered.
    """
    from .guard import serve_hypercorn  # The guard puts this server into Hypercorn, so it imports nearly all of it.

    await serve_hypercorn(service, stream, peer, handoff.alpn, handoff.received, seat)
