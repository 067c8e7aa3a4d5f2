"""The limits of one route that are decided together: ``[limits.NAME]``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...limits.limiter import ROUNDING, Limiter
from .limit_values import ValuesRead

if TYPE_CHECKING:
    from ...policy.gcra import Decision
    from ..context import GatewayContext
    from ..request.request_fields import Field
    from ..request_context import RequestContext

_POLICY, _LIMIT = b"ratelimit-policy", b"ratelimit"


class LimitError(RequestError):
    """A limit refuses the request."""


class RouteLimits:
    """Limits that a request must conform to, each of them. One that is refused spends nothing of any of them.

    Args:
        context: the gateway context.
        limiters: the limiters, of which the configuration decides the names and expressions; the present ones are those
            of the runtime.
    """

    def __init__(self, context: GatewayContext, limiters: Sequence[Limiter]) -> None:
        self._context = context
        self._names = tuple(limiter.name for limiter in limiters)
        self._policy = ", ".join(limiter.policy for limiter in limiters).encode()
        self._values = ValuesRead(each for limiter in limiters for each in limiter.expressions)

    def admit(self, ctx: RequestContext, path: Mapping[str, Any]) -> None:
        """Admit a request and spend its costs. Add the fields of the limits to its response. Never waits.

        Args:
            ctx: the request context.
            path: the values of the rule's variables.

        Raises:
            LimitError: 429, a limit refuses the request.
            RequestError: 503, the application has not started or has stopped.
        """
        limiters = (ctx.serving.runtime or self._context.require_runtime()).limiters
        now, context = trio.current_time(), self._values.read(ctx, path)
        decided = []
        for name in self._names:
            limiter = limiters[name]
            key, decision = limiter.decide(context, now)
            decided.append((limiter, key, decision))
        refused = [each for each in decided if not each[2].admitted]
        ctx.limit_fields = _added(ctx.limit_fields, self._policy, decided)
        if refused:
            limiter, _, decision = max(refused, key=lambda each: each[2].retry_after)
            limiter.refuse()
            ctx.kind, ctx.of_client, ctx.limit = Kind.QUOTA_EXCEEDED, True, limiter.name
            raise _refusal(decision)
        for limiter, key, decision in decided:
            limiter.spend(key, decision, now)


def _added(before: Sequence[Field], policy: bytes, decided: Sequence[tuple[Limiter, Any, Decision]]) -> list[Field]:
    """The fields about limits: those of ``before``, with one more member for each limit that has decided."""
    items = ", ".join([limiter.item(decision) for limiter, _, decision in decided]).encode()
    if before:
        (_, policies), (_, others) = before
        policy, items = policies + b", " + policy, others + b", " + items
    return [(_POLICY, policy), (_LIMIT, items)]


def _refusal(decision: Decision) -> LimitError:
    problem = str(Kind.QUOTA_EXCEEDED)
    if decision.retry_after == math.inf:
        detail = "The request costs more than its limit ever admits at once; a smaller one may be admitted."
        error = LimitError(429, detail, problem=problem)
        error.may_succeed_later = False
        return error
    detail = "The limit of requests is reached; Retry-After says when to come again."
    fields = [("retry-after", str(max(1, math.ceil(decision.retry_after - ROUNDING))))]
    return LimitError(429, detail, fields=fields, problem=problem)
