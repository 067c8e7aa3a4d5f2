"""The function that answers the requests of an application, whichever interface the application has.

An ``InboundApplication`` has one of its own. Any other application is taken to speak ASGI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from ..core.inbound import InboundApplication
from .asgi import AsgiCycle


def handler_of(app: Any) -> Callable[[Any], Awaitable[None]]:
    """The function that answers an ``InboundRequest`` by ``app``: the application's own, or ``serve_asgi``."""
    return app.handle if isinstance(app, InboundApplication) else partial(serve_asgi, app)


def serve_asgi(app: Any, request: Any) -> Coroutine[Any, Any, None]:
    """Answer a request of one of our servers by an ASGI application.

    Raises:
        BaseException: what the application raised.
    """
    if request.websocket:
        from .websocket import serve_websocket

        return serve_websocket(request.server, app, request)
    return AsgiCycle(app, request.server, request).serve()
