"""The handler of an application: the function that the server awaits for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from ..core.inbound import InboundApplication
from .asgi import AsgiCycle


def handler_of(app: Any) -> Callable[[Any], Awaitable[None]]:
    """The handler of ``app``: ``app.handle`` of an ``InboundApplication``, else ``serve_asgi`` with ``app``."""
    return app.handle if isinstance(app, InboundApplication) else partial(serve_asgi, app)


def serve_asgi(app: Any, request: Any) -> Coroutine[Any, Any, None]:
    """Have an ASGI application answer an ``InboundRequest``, or serve its WebSocket. Await the result at once.

    Raises:
        BaseException: what the application raises for an HTTP request, from this call or from the ``await``. What it
            raises for a WebSocket is logged.
    """
    if request.websocket:
        from .websocket import serve_websocket

        return serve_websocket(request.server, app, request)
    return AsgiCycle(app, request.server, request).serve()
