"""The plans of a route as plain data, for the graph of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...composition.plan.compiler import compile_route
from ...composition.proxy.any_method import ANY_METHOD
from ...config.schema.access.credential_names import logs_of
from ...core.diagnostics.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...composition.plan.plan import CallPlan, Plan
    from ...config.schema.sections import Config, KeyPath

PLANS_MAX = 20
"""The bound on configured routes with one path that are shown."""
CALLS_MAX = 200
"""The bound on calls of a plan that are shown."""


def plans_of(config: Config, path: str) -> dict[str, Any] | None:
    """The plans of the configured routes with a path, as their requests are counted; None: there are none.

    Compiles them anew, which takes some milliseconds each. Values of variables and secrets are hidden.

    Returns:
        ``route``: the path. ``plans``: of each route ``kind`` (composition, proxy or response), ``methods``, ``host``,
        ``match``, ``combine``, ``deadline_s``, ``at`` (``file:line``), ``calls`` and ``calls_total``. Of each call:
        ``name``, ``upstreams`` (more than one with a split; empty: the call has a response of its own), ``path``,
        ``needs`` (calls), ``each``, ``when`` (expressions, or null), ``optional``, ``answers`` (whether ``combine``
        counts it), and ``at``.
    """
    indexes = [index for index, route in enumerate(config.routes) if route.path == path][:PLANS_MAX]
    if not indexes:
        return None
    redactor = Redactor(logs_of(config).redact)

    def hide(text: str) -> str:
        return redactor.text(config.hide(text))

    return {"route": path, "plans": [_plan(config, index, hide) for index in indexes]}


def _plan(config: Config, index: int, hide: Callable[[str], str]) -> dict[str, Any]:
    plan, at = compile_route(config, index), ("routes", index)
    route = plan.route
    kind = "composition" if plan.static is None else "response"
    calls = [_call(config, plan, call, (*at, "calls", call.name), hide) for call in plan.calls[:CALLS_MAX]]
    if route.proxy is not None:
        kind = "proxy"
        calls = [_proxied(config, plan, (*at, "proxy"))]
    return {
        "kind": kind,
        "methods": [] if plan.methods is ANY_METHOD else list(plan.methods),
        "host": route.host,
        "match": None if route.match is None else hide(route.match),
        "combine": f"quorum of {route.quorum}" if route.combine == "quorum" else route.combine,
        "deadline_s": plan.deadline,
        "at": config.where((*at, "path")),
        "calls": calls,
        "calls_total": max(len(calls), len(plan.calls)),
    }


def _call(config: Config, plan: Plan, call: CallPlan, at: KeyPath, hide: Callable[[str], str]) -> dict[str, Any]:
    own = call.config
    return {
        "name": call.name,
        "upstreams": list(own.upstreams) if own.respond is None else [],
        "path": hide(own.path or ""),
        "needs": list(call.needs),
        "each": None if own.each is None else hide(own.each),
        "when": None if own.when is None else hide(own.when),
        "optional": own.optional,
        "answers": call.name in plan.candidates,
        "at": config.where(at),
    }


def _proxied(config: Config, plan: Plan, at: KeyPath) -> dict[str, Any]:
    """The request of a proxy route to its upstream, as the only call of its plan."""
    proxy = plan.route.proxy
    upstreams = [] if proxy is None else [proxy.upstream, *proxy.split]
    return {
        "name": "proxy",
        "upstreams": upstreams,
        "path": "",
        "needs": [],
        "each": None,
        "when": None,
        "optional": False,
        "answers": True,
        "at": config.where(at),
    }
