"""What a connection turns out to speak, where it is not HTTP/1.1 requests.

Returned by ``http1.py`` to ``connection.py``, which calls the guarded protocol of Hypercorn's. Holds no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
