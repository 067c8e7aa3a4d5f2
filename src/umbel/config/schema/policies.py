"""The sections for the policies of an upstream: retry, hedge, breaker, ejection and health checks.

``docs/upstream.md`` names the sources of the numbers. The policies are in ``umbel.policy``.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from .section import Section
from .values.types import BaseUrl, RetryOn, Target
from .values.units import Duration, Ratio, parse_duration

_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")


def parse_after(value: object) -> float | str:
    """Return the seconds of a duration, or a percentile such as ``"p95"`` unchanged.

    Raises:
        ValueError: ``value`` is neither.
    """
    try:
        found = _PERCENTILE.fullmatch(value) if isinstance(value, str) else None
        return parse_duration(value) if found is None or not float(found[1]) else found[0]
    except ValueError as error:
        raise ValueError('needs a duration or a percentile, such as "200ms" or "p95"') from error


HedgeAfter = Annotated[
    float | str,
    BeforeValidator(parse_after),
    WithJsonSchema({"type": "string", "title": "duration or percentile", "examples": ["p95", "200ms"]}),
]


class WeightedUrl(Section):
    """A replica with its weight, for balance = "weighted"."""

    url: BaseUrl
    """The base URL of the replica."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """The weight of the replica: its share of the attempts in proportion to the other weights."""


class Retry(Section):
    """Further attempts of a failed call. Only calls with the method GET, HEAD, OPTIONS, PUT or DELETE, or with an
    Idempotency-Key, are retried, and of the requests of proxy routes only those without a body. If no connection was
    made, any call is."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """The most attempts of a call, with the first one."""
    on: Annotated[tuple[RetryOn, ...] | None, Field(strict=False, min_length=1)] = None
    """The failure kinds and statuses that are retried. Default: connect, dns, reset before the first byte, and 502,
    503, 504."""
    backoff: Duration = 0.025
    """The base of the wait before a retry: the n-th retry waits a random time of at most backoff * 2^(n-1)."""
    max_backoff: Duration = 0.25
    """The longest wait before a retry."""


class Hedge(Section):
    """Hedging: a second attempt beside a slow first one. The first success counts.
    Only calls that may be retried after they were sent are hedged."""

    after: HedgeAfter
    """The time after which another attempt is made beside the latest one: a duration, or a percentile of the latest
    latencies such as "p95"."""
    max: Annotated[int, Field(ge=1, le=3)] = 1
    """The most attempts beside the first one, and again beside each retry."""


class Breaker(Section):
    """A circuit breaker: it opens when many attempts fail, and while it is open, calls fail at once."""

    window: Duration = 10.0
    """The time for which an attempt counts."""
    min_requests: Annotated[int, Field(ge=1)] = 20
    """The fewest attempts in the window with which the breaker may open."""
    failure_ratio: Ratio = 0.5
    """The share of failed attempts in the window from which on the breaker opens."""
    open_for: Duration = 5.0
    """The time after which an open breaker admits one call as a probe."""


class Ejection(Section):
    """Outlier ejection: a replica with several failures in a row gets no attempts for a while."""

    failures: Annotated[int, Field(ge=1)] = 5
    """The failures in a row after which a replica is ejected."""
    base: Duration = 30.0
    """The time of the first ejection of a replica. The n-th ejection lasts n times as long."""
    max: Duration = 300.0
    """The longest time of an ejection."""
    share: Ratio = 0.5
    """The largest share of the replicas that may be ejected at once; never all of them."""


class Health(Section):
    """Regular health checks of each replica. A replica that is down gets no attempts, unless all replicas are down."""

    path: Target
    """The path of the GET request. A 2xx response means healthy."""
    every: Duration = 5.0
    """The time between two checks of a replica."""
    healthy: Annotated[int, Field(ge=1)] = 2
    """The passed checks in a row after which a replica is up."""
    unhealthy: Annotated[int, Field(ge=1)] = 3
    """The failed checks in a row after which a replica is down."""
