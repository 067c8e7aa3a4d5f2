"""The part of an upstream's client that its calls use: policies, replicas, connections, timers and counters.

A protocol, so that the modules of calls need not import ``client.py``, which makes the calls.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ...net.timers import TimerQueue
    from ...policy.breaker import BreakerPolicy
    from ...policy.gradient_limit import GradientLimit
    from ...policy.hedge import HedgeRules
    from ...policy.hedge_delay import HedgeDelay
    from ...policy.retry import RetryRules
    from ...policy.retry_budget import Budget
    from ..background_tasks import BackgroundNursery
    from ..pool.pool import Pool
    from ..replicas.balance import LoadBalancer
    from .bulkhead import Bulkhead

LatestLines = tuple[Any, Any, float, float, bytes | None, bytes | None, bytes]
"""A request, the gateway's fields of its calls, the time at which attempts of it were made, and the deadline of its
calls; then what ``attempt.lines_of_request`` returns for these."""


class ClientInterface(Protocol):
    """What a call needs of its upstream. Implemented by ``client.Client``."""

    name: str
    """Of the upstream."""
    rng: random.Random
    timers: TimerQueue
    pool: Pool
    balance: LoadBalancer
    bulkhead: Bulkhead
    # The policies that an upstream may be without, and what all of its retries and hedges draw on.
    breaker: BreakerPolicy | None
    gradient: GradientLimit | None
    retry: RetryRules | None
    hedge: HedgeRules | None
    budget: Budget
    # The limits of a call that brings none of its own, and how its requests are written.
    connect_timeout: float | None
    max_body: int | None
    deadline_header: bytes | None
    attempt_prefixes: tuple[bytes, ...]
    latest_lines: LatestLines
    # Counters; see ``client.RetryStatistics`` and ``client.HedgeStatistics``.
    retries: int
    retries_mended: int
    retries_late: int
    retries_blocked: int
    hedges: int
    hedges_won: int
    hedges_pending: int

    @property
    def nursery(self) -> BackgroundNursery:
        """For tasks of shared calls."""
        ...

    def digest(self, quantile: float | None) -> HedgeDelay | None:
        """The latencies that hedges at this quantile are timed by; None where they come after a duration."""
        ...
