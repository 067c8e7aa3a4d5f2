"""The access of a route from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ...composition.plan.plan import request_context
from ...config.schema.sections import PUBLIC
from ...core.web_origins import WebOrigins
from ...limits.checks import upstreams_of
from .route_access import Condition, RouteAccess
from .route_admission import RouteAdmission, admission_of
from .trusted_origins import SAFE, TrustedOrigins

if TYPE_CHECKING:
    from ...composition.plan.plan import Plan
    from ...composition.text.expression import Expression
    from ...config.schema.browsers import Cors
    from ...core.model import Inputs
    from ..context import GatewayContext
    from ..request_context import RequestContext


def admission_of_route(
    context: GatewayContext, plan: Plan, read: Callable[[RequestContext, Mapping[str, Any]], Inputs]
) -> RouteAdmission | None:
    """The admission to a configured route; None: it has no limits, and no ``auth`` or is public.

    Args:
        context: the gateway context.
        plan: the compiled plan of the route.
        read: reads the inputs of a request whose body is not received.
    """
    return admission_of(context, _access_of(context, plan, read), plan.route.limits, upstreams_of(plan.route))


def _access_of(
    context: GatewayContext, plan: Plan, read: Callable[[RequestContext, Mapping[str, Any]], Inputs]
) -> RouteAccess | None:
    route = plan.route
    if route.auth is None or route.auth == PUBLIC:
        return None
    websockets = None if plan.proxy is None or plan.proxy.websocket is None else plan.proxy.websocket.origins
    pages = pages_of(context, route.cors)
    return RouteAccess(
        context,
        route.auth,
        origins=TrustedOrigins(pages, _without_star(websockets), changes=makes_unsafe_calls(plan)),
        scopes=route.scopes,
        scopes_any=route.scopes_any,
        condition=None if plan.allow is None else _condition(plan, plan.allow, read),
    )


def makes_unsafe_calls(plan: Plan) -> bool:
    """Whether a call of the route has an unsafe method, so that also a GET of a client may change something."""
    return any(call.request_template.method not in SAFE for call in plan.calls)


def _condition(plan: Plan, allow: Expression, read: Callable[[RequestContext, Mapping[str, Any]], Inputs]) -> Condition:
    lists = [name for name, param in plan.route.query_params.items() if param.item_type is not None]
    return Condition(allow, read, partial(request_context, plan), lists)


def pages_of(context: GatewayContext, own: Cors | Literal[False] | None) -> WebOrigins | None:
    """The origins whose pages may send credentials, by the CORS rules of a route (None: those of ``[cors]``)."""
    cors = context.config.cors if own is None else own
    return WebOrigins(cors.origins) if cors and cors.credentials else None


def _without_star(origins: WebOrigins | None) -> WebOrigins | None:
    """``origins``, or None if they are all: then no origin is a reason to trust a request."""
    return None if origins is None or origins.every else origins
