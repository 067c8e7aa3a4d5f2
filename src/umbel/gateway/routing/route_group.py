"""Routes with the same host and path in Quart: one view, which takes a route for each request (``match``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import NotFound

from ..request_context import current_request_context
from .choice import Choice

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse

    from ...composition.plan.plan import Plan
    from ..proxy.proxy_view import ProxyView
    from ..routes import RouteView
    from ..static_routes import StaticView


class RouteGroup:
    """Configured routes of one host and path, of which a ``Choice`` takes one for each request.

    Args:
        routes: the routes with their plans, in the order of the configuration.
    """

    def __init__(self, routes: Sequence[tuple[RouteView | StaticView | ProxyView, Plan]]) -> None:
        self.rule = routes[0][0].rule
        self.passes_on = any(route.passes_on for route, _ in routes)
        """Whether one of them is a proxy route."""
        self.choose = Choice(routes).choose

    async def view(self, **path: Any) -> TrioResponse:
        """Quart's view: answer the current request of Quart.

        Raises:
            NotFound: the request fulfils no ``match``.
            RequestError: as the view of the route.
        """
        ctx = current_request_context()
        route = self.choose(ctx.facts.method, ctx.origin.fields, ctx.query)
        if route is None:
            raise NotFound
        return await route.view(**path)
