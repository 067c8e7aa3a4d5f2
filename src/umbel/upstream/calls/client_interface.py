"""Interface of an upstream's client for its calls: policies, replicas, connections, timers and counters.

It is a protocol, because ``client.py`` imports the modules of calls, and they must not import ``client.py``.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ...core.model import Cause
    from ...net.timers import TimerQueue
    from ...policy.breaker import BreakerPolicy
    from ...policy.gradient_limit import GradientLimit
    from ...policy.hedge import HedgeRules
    from ...policy.hedge_delay import HedgeDelay
    from ...policy.retry import RetryRules
    from ...policy.retry_budget import Budget
    from ..background_tasks import BackgroundNursery
    from ..limit_queue import CallLimits
    from ..pool.pool import Pool
    from ..replicas.balance import LoadBalancer
    from .attempt_counts import AttemptCounts
    from .bulkhead import Bulkhead, StreamCount

LatestLines = tuple[Any, Any, float, float, bytes | None, bytes | None, bytes]
"""Arguments and result of the latest ``attempt_fields.lines_of_request``: inbound request, gateway fields, time of the
attempts, deadline; then the three values that the function returned."""


class ClientInterface(Protocol):
    """The attributes of ``client.Client`` that calls and attempts use."""

    name: str
    """Name of the upstream."""
    first_cause: Cause
    """Why the first attempt of a call is made: "first", or "mirror" if all calls are copies."""
    rng: random.Random
    timers: TimerQueue
    pool: Pool
    balance: LoadBalancer
    bulkhead: Bulkhead
    streams: StreamCount
    # Policies. None: the upstream does not have the policy.
    breaker: BreakerPolicy | None
    limits: CallLimits | None
    gradient: GradientLimit | None
    retry: RetryRules | None
    hedge: HedgeRules | None
    budget: Budget
    """Retry budget, of retries and hedges together."""
    # Limits of calls that have none of their own.
    connect_timeout: float | None
    """Seconds; None: no limit."""
    max_body: int | None
    """Bytes after decoding; None: by the media type."""
    # Encoding of requests; see ``client.Client``.
    deadline_header: bytes | None
    attempt_prefixes: tuple[bytes, ...]
    latest_lines: LatestLines
    # Counters; see ``client.RetryStatistics`` and ``client.HedgeStatistics``.
    attempt_counts: AttemptCounts
    retries: int
    retries_mended: int
    retries_late: int
    retries_blocked: int
    hedges: int
    hedges_won: int
    hedges_pending: int

    @property
    def nursery(self) -> BackgroundNursery:
        """Nursery for the tasks of shared calls."""
        ...

    def digest(self, quantile: float | None) -> HedgeDelay | None:
        """The hedge delay for ``quantile``, with its samples; the first use makes it.

        Returns:
            None if ``quantile`` is None, or if DIGESTS_MAX other quantiles are in use.
        """
        ...
