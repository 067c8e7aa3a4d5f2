"""Admission to one route: its limits and its access, in the one order that holds for every kind of route.

Limits that read nothing of ``auth`` (by the client's address, for example) are decided first: so attempts with wrong
credentials count, and cost no verification once they are refused. Then authentication and authorization
(``route_access.py``), then the limits of the identity. Last, what the limits of upstreams read of the request is kept
for its calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ...core.model import LimitValues
from ...limits.limiter import limiters_named
from .limit_values import ValuesRead
from .route_limits import RouteLimits

if TYPE_CHECKING:
    from ...config.schema.sections import Config
    from ..context import GatewayContext
    from ..request_context import RequestContext
    from .route_access import RouteAccess


class RouteAdmission:
    """Admits the requests of one route, or refuses them. Holds no data of a request.

    Args:
        access: who may make requests; None: anybody.
        before: the limits that are decided before authentication; None: there is none.
        after: those that are decided after it.
        values: what the limits of the route's upstreams read of a request; None: they have none.
    """

    __slots__ = ("_access", "_after", "_before", "_values", "fields")

    def __init__(
        self,
        access: RouteAccess | None,
        before: RouteLimits | None,
        after: RouteLimits | None,
        values: ValuesRead | None,
    ) -> None:
        self._access = access
        self._before = before
        self._after = after
        self._values = values
        self.fields = () if access is None else access.fields
        """The header fields, in lower case, in which credentials may be: responses depend on them."""

    async def admit(self, ctx: RequestContext, path: Mapping[str, Any]) -> None:
        """Admit a request, and set its identity. Waits only while keys are fetched.

        Args:
            ctx: the request context.
            path: the values of the rule's variables.

        Raises:
            RequestError: the request is refused, by ``RouteAccess.admit`` or ``RouteLimits.admit``.
        """
        if self._before is not None:
            self._before.admit(ctx, path)
        if self._access is not None:
            await self._access.admit(ctx, path)
        if self._after is not None:
            self._after.admit(ctx, path)
        if self._values is not None:
            ctx.facts = replace(ctx.facts, limit_values=LimitValues(self._values.read(ctx, path)))


def admission_of(
    context: GatewayContext, access: RouteAccess | None, limits: Sequence[str], upstreams: Iterable[str] | None = None
) -> RouteAdmission | None:
    """The admission to a route with this access and these limits; None: every request is admitted.

    Args:
        context: the gateway context.
        access: who may make requests; None: anybody.
        limits: the names of the route's limits.
        upstreams: the upstreams that get calls of the route; None: any of the configuration may.

    Raises:
        ValueError: there is no section of a name, or it reads ``auth`` though the route has none.
    """
    values = _values_of(context.config, context.config.upstreams if upstreams is None else upstreams)
    if access is None and not limits and values is None:
        return None
    limiters = limiters_named(context.config.limits, limits)
    after = [limiter for limiter in limiters if limiter.reads_auth]
    if after and access is None:
        raise ValueError(f"the limit {after[0].name} reads auth, so it needs auth, such as auth = users")
    before = [limiter for limiter in limiters if not limiter.reads_auth]
    return RouteAdmission(
        access,
        RouteLimits(context, before) if before else None,
        RouteLimits(context, after) if after else None,
        values,
    )


def _values_of(config: Config, upstreams: Iterable[str]) -> ValuesRead | None:
    """What the limits of these upstreams read of a request; None: they have no limits."""
    names = [name for upstream in upstreams for name in config.upstreams[upstream].limits]
    if not names:
        return None
    return ValuesRead(each for limiter in limiters_named(config.limits, names) for each in limiter.expressions)
