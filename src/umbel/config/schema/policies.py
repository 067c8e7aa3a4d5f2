"""The sections of an upstream's policies: retry, hedge, breaker, ejection and health checks.

``docs/upstream.md`` names the sources of the numbers; the policies themselves are in ``umbel.policy``.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from .section import Section
from .types import BaseUrl, RetryOn, Target
from .units import Duration, Ratio, parse_duration

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")


def parse_after(value: object) -> float | str:
    """Return the seconds of a duration, or a percentile unchanged.

    Raises:
        ValueError: it is neither.
    """
    try:
        found = _PERCENTILE.fullmatch(value) if isinstance(value, str) else None
        return parse_duration(value) if found is None or not float(found[1]) else found[0]
    except ValueError as error:
        raise ValueError('a hedge comes after a duration or a percentile, such as "200ms" or "p95"') from error


HedgeAfter = Annotated[
    float | str,
    BeforeValidator(parse_after),
    WithJsonSchema({"type": "string", "title": "duration or percentile", "examples": ["p95", "200ms"]}),
]


class WeightedUrl(Section):
    """A replica with its share of the traffic, for balance = "weighted"."""

    url: BaseUrl
    """The replica."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Its share, against the other replicas' weights."""


class Retry(Section):
    """Further attempts of a call that failed. Only of GET, HEAD, OPTIONS, PUT and DELETE, and of calls with an
    Idempotency-Key."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """Attempts in all, the first included."""
    on: Annotated[tuple[RetryOn, ...] | None, Field(strict=False, min_length=1)] = None
    """The failure kinds and statuses worth another attempt. Default: connect, dns, reset before the first byte, and
    502, 503, 504."""
    backoff: Duration = 0.025
    """The base of the wait: before the n-th retry a random time up to backoff * 2^(n-1)."""
    max_backoff: Duration = 0.25
    """The longest such wait."""


class Hedge(Section):
    """A second attempt beside a slow first one; the first success wins."""

    after: HedgeAfter
    """When: a duration, or a percentile of the attempts of late, such as "p95"."""
    max: Annotated[int, Field(ge=1, le=3)] = 1
    """Attempts beside the first."""


class Breaker(Section):
    """Calls fail at once while most of them would fail anyway."""

    window: Duration = 10.0
    """How far back calls count."""
    min_requests: Annotated[int, Field(ge=1)] = 20
    """Attempts in the window below which it never opens."""
    failure_ratio: Ratio = 0.5
    """The share of failed attempts at which it opens."""
    open_for: Duration = 5.0
    """How long it stays open before one call may probe."""


class Ejection(Section):
    """A replica that fails in a row gets no traffic for a while."""

    failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row."""
    base: Duration = 30.0
    """How long it is out, times how often it was."""
    max: Duration = 300.0
    """The longest time out."""
    share: Ratio = 0.5
    """The largest share of the replicas that may be out; never all of them."""


class Health(Section):
    """Regular checks of each replica; one that is down gets no traffic."""

    path: Target
    """What is asked for with GET; a 2xx is healthy."""
    every: Duration = 5.0
    """The time between checks."""
    healthy: Annotated[int, Field(ge=1)] = 2
    """Good checks in a row that bring a replica back."""
    unhealthy: Annotated[int, Field(ge=1)] = 3
    """Bad checks in a row that take it out."""
