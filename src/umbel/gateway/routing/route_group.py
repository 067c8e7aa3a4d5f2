"""Routes with the same host and path, of which a request chooses one by its header fields and query (``match``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import NotFound

from ...composition.text.expression import ExpressionError, is_false
from ...core.http.header_field import text_of
from ..request.urlencoded import BadFieldError, Names, read_fields
from ..request_context import current_request_context

if TYPE_CHECKING:
    from quart_trio.wrappers import TrioResponse

    from ...composition.plan.plan import Plan
    from ...composition.text.expression import Expression
    from ...core.model import Json
    from ..request.request_fields import RequestFields
    from ..routes import RouteView
    from ..static_routes import StaticView


class RouteGroup:
    """Configured routes of one host and path that differ in their ``match``: a request goes to the first that matches.

    The expressions read header fields, and query parameters as texts (of repeated ones the last). A route without
    ``match`` is the last one. An expression that exceeds a bound does not match, and neither does a parameter that is
    not UTF-8: it counts as absent.

    Args:
        routes: the routes with their plans, in the order of the configuration.
    """

    def __init__(self, routes: Sequence[tuple[RouteView | StaticView, Plan]]) -> None:
        ordered = sorted(routes, key=lambda each: each[1].match is None)  # Stable: only the default moves.
        self.rule = routes[0][0].rule
        methods = {"HEAD", *(method for _, plan in routes for method in plan.methods)}
        self._by_method = {
            method: tuple((plan.match, view) for view, plan in ordered if _answers(plan, method)) for method in methods
        }
        read = {name for _, plan in routes if plan.match is not None for name in plan.match.names}
        self._headers = [each.field for each in read if each.root == "headers" and each.field is not None]
        self._params = Names(each.field for each in read if each.root == "query" and each.field is not None)

    def choose(self, method: str, fields: RequestFields, query: bytes) -> RouteView | StaticView | None:
        """The route for a request with ``fields`` and a raw ``query``; None: no route matches."""
        get = fields.end_to_end.get
        context: dict[str, Json] = {
            "headers": {name: text_of(get(name.replace("_", "-"), "")) or None for name in self._headers},
            "query": dict(self._texts(query)) if self._params else {},
        }
        for expression, view in self._by_method.get(method, ()):
            if expression is None or _holds(expression, context):
                return view
        return None

    def _texts(self, query: bytes) -> Iterator[tuple[str, str]]:
        for piece in query.split(b"&"):
            with suppress(BadFieldError):
                yield from read_fields(piece, self._params)

    async def view(self, **path: Any) -> TrioResponse:
        """Quart's view: answer the current request of Quart.

        Raises:
            NotFound: no route matches.
            RequestError: as the view of the route.
        """
        ctx = current_request_context()
        route = self.choose(ctx.facts.method, ctx.origin.fields, ctx.query)
        if route is None:
            raise NotFound
        return await route.view(**path)


def _answers(plan: Plan, method: str) -> bool:
    return method in plan.methods or (method == "HEAD" and "GET" in plan.methods)


def _holds(expression: Expression, context: Mapping[str, Json]) -> bool:
    try:
        return not is_false(expression.evaluate(context))
    except ExpressionError:
        return False
