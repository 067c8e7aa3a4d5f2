"""Admission to one route: its limits and its access, in the one order that holds for every kind of route.

Limits that read nothing of ``auth`` (by the client's address, for example) are decided first: so attempts with wrong
credentials count, and cost no verification once they are refused. Then authentication and authorization
(``route_access.py``), then the limits of the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...limits.limiter import limiters_named
from .route_limits import RouteLimits

if TYPE_CHECKING:
    from ..context import GatewayContext
    from ..request_context import RequestContext
    from .route_access import RouteAccess


class RouteAdmission:
    """Admits the requests of one route, or refuses them. Holds no data of a request.

    Args:
        access: who may make requests; None: anybody.
        before: the limits that are decided before authentication; None: there is none.
        after: those that are decided after it.
    """

    __slots__ = ("_access", "_after", "_before", "fields")

    def __init__(self, access: RouteAccess | None, before: RouteLimits | None, after: RouteLimits | None) -> None:
        self._access = access
        self._before = before
        self._after = after
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


def admission_of(context: GatewayContext, access: RouteAccess | None, limits: Sequence[str]) -> RouteAdmission | None:
    """The admission to a route with this access and these limits; None: every request is admitted.

    Raises:
        ValueError: there is no section of a name, or it reads ``auth`` though the route has none.
    """
    if access is None and not limits:
        return None
    limiters = limiters_named(context.config.limits, limits)
    after = [limiter for limiter in limiters if limiter.reads_auth]
    if after and access is None:
        raise ValueError(f"the limit {after[0].name} reads auth, so it needs auth, such as auth = users")
    before = [limiter for limiter in limiters if not limiter.reads_auth]
    return RouteAdmission(
        access, RouteLimits(context, before) if before else None, RouteLimits(context, after) if after else None
    )
