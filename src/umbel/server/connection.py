"""One accepted connection from its first byte to its end, whatever it speaks.

Called by ``listen.py`` for each socket, and by the guard in the place of Hypercorn's ``TCPServer.run``. Every exception
of a connection ends here.
"""

from __future__ import annotations

import trio

from .service import Service

AnyStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def serve_connection(service: Service, stream: AnyStream) -> None:
    """Serve ``stream`` to its end and close it. A TLS stream has not shaken hands yet.

    Never raises an ``Exception``: one that came up is logged once, with its class and its location. A cancel passes.
    """
    raise NotImplementedError
