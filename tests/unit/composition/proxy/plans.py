"""Plans of proxy routes for tests."""

from __future__ import annotations

from typing import Any

from umbel.composition.plan.compiler import check, compile_route
from umbel.composition.plan.plan import Plan
from umbel.composition.proxy.proxy_plan import ProxyPlan
from umbel.config.schema.sections import Config
from umbel.core.http.header_field import Field

UPSTREAMS: dict[str, Any] = {
    "up": {"urls": ["http://up.internal:9001"]},
    "based": {"urls": ["http://based.internal/v1/", "http://10.0.0.7:8080/v1"], "host": "api.internal"},
    "tls": {"urls": ["https://tls.internal"]},
}


def config_of(rule: str, /, *, route: dict[str, Any] | None = None, **proxy: Any) -> Config:
    """A configuration with one proxy route. ``route`` has further keys of the route, and ``upstreams``."""
    keys = {**(route or {})}
    upstreams = {**UPSTREAMS, **keys.pop("upstreams", {})}
    return Config.model_validate(
        {"upstreams": upstreams, "routes": [{"path": rule, **keys, "proxy": {"upstream": "up", **proxy}}]}
    )


def route_plan(rule: str, /, *, route: dict[str, Any] | None = None, **proxy: Any) -> Plan:
    return compile_route(config_of(rule, route=route, **proxy), 0)


def plan(rule: str = "/<path:rest>", /, *, route: dict[str, Any] | None = None, **proxy: Any) -> ProxyPlan:
    found = route_plan(rule, route=route, **proxy).proxy
    assert found is not None
    return found


def mistakes(rule: str = "/<path:rest>", /, *, route: dict[str, Any] | None = None, **proxy: Any) -> dict[str, str]:
    return {".".join(map(str, at)): reason for at, reason in check(config_of(rule, route=route, **proxy))}


def fields(*pairs: tuple[str, str]) -> list[Field]:
    return [(name.encode(), name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
