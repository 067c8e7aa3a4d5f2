"""An upstream's policies in a few words each.

Says what is in force, with every number, and no more.
"""

from __future__ import annotations

from ...config.schema.policies import Breaker, Ejection, Health, Hedge, Retry
from ...config.schema.units import format_duration, format_ratio


def shown_retry(retry: Retry) -> str:
    """Such as ``2 attempts, back-off 25ms to 250ms``."""
    on = f" on {', '.join(map(str, retry.on))}" if retry.on is not None else ""
    waits = f"back-off {format_duration(retry.backoff)} to {format_duration(retry.max_backoff)}"
    return f"{retry.attempts} attempts{on}, {waits}"


def shown_hedge(hedge: Hedge) -> str:
    """Such as ``after p95, 1 more``."""
    after = hedge.after if isinstance(hedge.after, str) else format_duration(hedge.after)
    return f"after {after}, {hedge.max} more"


def shown_breaker(breaker: Breaker) -> str:
    """Such as ``opens for 5s at 50% of at least 20 in 10s``."""
    opens = f"opens for {format_duration(breaker.open_for)} at {format_ratio(breaker.failure_ratio)}"
    return f"{opens} of at least {breaker.min_requests} in {format_duration(breaker.window)}"


def shown_ejection(ejection: bool | Ejection) -> str:
    """Such as ``after 5 failures for 30s to 5m, at most 50% out``."""
    rules = ejection if isinstance(ejection, Ejection) else Ejection()
    times = f"{format_duration(rules.base)} to {format_duration(rules.max)}"
    return f"after {rules.failures} failures for {times}, at most {format_ratio(rules.share)} out"


def shown_health(health: Health) -> str:
    """Such as ``GET /healthz every 5s, back after 2, out after 3``."""
    counts = f"back after {health.healthy}, out after {health.unhealthy}"
    return f"GET {health.path} every {format_duration(health.every)}, {counts}"
