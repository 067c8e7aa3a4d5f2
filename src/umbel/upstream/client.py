"""The client of one upstream: the order in which each call passes the policies, and why.

A new policy takes its place in this list; its decision is a pure object in ``umbel.policy``, which ``Client.__init__``
makes and ``calls/call.py`` asks.

The order, from the first policy that a call passes:

1. **coalescing**: of identical calls only one goes on, so everything below counts what the upstream really gets.
2. **breaker**: admits once per call, before the call waits for anything, so that calls of an upstream that is down fail
   at once and fill no queue. It counts the end of each attempt.
3. **bulkhead**: counts calls, not attempts, and is the upstream's only queue. A retry therefore never queues again
   behind new calls, and a call that finds the queue full has cost nothing.
4. **retry**, then 5. **hedge**: each retry is a race of its own. Both draw on one budget, so that together they cannot
   add more load than it bears.
6. **load balancing**: takes a replica for each attempt, so that another attempt can take another replica.
7. **attempt**: sends the time that is left now, after the queue, and the trace; is recorded, and counted by the
   breaker, with whatever its end is, a late, broken or too big body included.
8. **pool**: connections. Without a limit of its own: the bulkhead has counted already, and two queues would hide one
   another.

A policy that is not configured is None, and costs a call one comparison.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, Self

import trio

from ..core.call import Call, CallContext, Mode, PreparedRequest
from ..core.events import NULL, Recorder
from ..core.product import PRODUCT
from ..net.timers import TimerQueue
from ..policy.breaker import BreakerPolicy, BreakerSnapshot
from ..policy.gradient_limit import GradientLimit, LimitStatistics
from ..policy.hedge import HedgeRules
from ..policy.hedge_delay import HedgeDelay
from ..policy.quantile import LatencyStatistics
from ..policy.replicas.ejection import EjectionRules
from ..policy.retry import RetryRules
from ..policy.retry_budget import Budget, BudgetStatistics
from .background_tasks import BackgroundNursery, TaskOwner
from .calls.bulkhead import Bulkhead, OverloadManager
from .calls.call import UpstreamCall
from .calls.coalesce import CoalesceStatistics, Coalescing
from .calls.repeatable_call import RepeatableCall
from .calls.stream_call import StreamCall
from .pool.pool import Pool, PoolStatistics
from .replicas.balance import BalanceStatistics, LoadBalancer, PolicyName
from .replicas.health import HealthChecker
from .state_events import StateEvents

if TYPE_CHECKING:
    from .calls.client_interface import LatestLines
    from .replicas.origin import Replica
    from .replicas.sources import ReplicaSource

DIGESTS_MAX = 8
"""Percentiles that are estimated at once; the configuration names one or two."""
_MAX_IDLE_LEARNED = 1000


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens (``policy.breaker.BreakerPolicy``)."""

    window: float = 10.0
    """Seconds in which attempts are counted."""
    min_requests: int = 20
    """Attempts in the window; with fewer it never opens."""
    failure_ratio: float = 0.5
    """The share of failed attempts, 0 to 1, at which it opens."""
    open_for: float = 5.0
    """Seconds until the first probe."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """What the health checks ask for, and how often (``health.HealthChecker``)."""

    path: str = "/"
    every: float = 5.0
    """Seconds between two checks of a replica."""
    healthy: int = 2
    """Good checks in a row that bring a replica back."""
    unhealthy: int = 3
    """Bad checks in a row that take it out."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of an upstream; a policy that is None is not applied."""

    coalesce: bool = False
    """Whether identical safe calls that overlap are made once, unless ``CallContext.coalesce`` says otherwise."""
    breaker: BreakerRules | None = None
    max_concurrency: int | Literal["auto"] = 100
    """Calls in flight; ``"auto"``: learned from how long calls take (``policy.gradient_limit.GradientLimit``)."""
    max_queue: int | None = None
    """Requests whose calls wait for a place; the calls of one more fail. None: ``OverloadManager.max_requests``, or 256
    without an overload manager."""
    retry: RetryRules | None = None
    hedge: HedgeRules | None = None
    budget: Budget = field(default_factory=Budget)
    """The retry budget, of retries and hedges together."""
    balance: PolicyName = "p2c"
    weights: Sequence[int] | None = None
    ejection: EjectionRules | None = None
    health: HealthRules | None = None
    user_agent: bytes = PRODUCT.encode("ascii")
    """The User-Agent of health checks; empty for none. Calls have their own."""
    deadline_header: str | None = "x-envoy-expected-rq-timeout-ms"
    """The request field with the milliseconds that are left until the deadline; None for none."""
    max_body: int | None = None
    """Bytes of a response's body after decoding; None: JSON_MAX or OTHER_MAX by its media type."""
    connect_timeout: float | None = 5.0
    """Seconds for name, address and TLS handshake together."""

    @property
    def max_idle(self) -> int:
        """Idle connections that are worth keeping: as many as there may be calls."""
        return _MAX_IDLE_LEARNED if self.max_concurrency == "auto" else self.max_concurrency


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """A snapshot of the retries, since the beginning."""

    retries: int
    """Attempts made beyond the first."""
    mended: int
    """Calls that got, by a retry, an answer that is not retried."""
    late: int
    """Retries that were not made because the pause before them would have passed the call's deadline."""
    blocked: int
    """Retries that were not made because the breaker had opened."""


@dataclass(frozen=True, slots=True)
class HedgeStatistics:
    """A snapshot of the hedges. The second and the third count since the beginning."""

    pending: int
    """Calls in flight that have a timer for their next hedge."""
    hedges: int
    """Hedges started."""
    won: int
    """Hedges whose answer became the call's."""
    latencies: Mapping[float, LatencyStatistics]
    """By quantile; empty where hedges start after a fixed time."""


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot of the bulkhead."""

    capacity: int
    in_flight: int
    waiting: int
    """Calls that wait for a place."""
    requests: int
    """Requests that have calls in flight or waiting."""
    stalled: bool
    """Whether the upstream is stalled; see ``calls/bulkhead.py``."""
    overflowed: int
    """Calls that were refused, since the beginning."""
    limit: LimitStatistics | None
    """The learned limit; None where the limit is a fixed number."""


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """A snapshot of an upstream."""

    coalesce: CoalesceStatistics
    breaker: BreakerSnapshot | None
    bulkhead: BulkheadStatistics
    retry: RetryStatistics
    hedge: HedgeStatistics
    budget: BudgetStatistics
    balance: BalanceStatistics
    pool: PoolStatistics


class Client(TaskOwner):
    """The client of one upstream: a ``core.call.Caller``, and an async context manager inside which calls are made.

    The same task may enter it again. The outermost exit closes every connection; calls that are still under way end
    with ``ConnectionReset``.

    Args:
        replicas: base URLs, or ``Replica`` objects, or a source of replicas.
        pool: its connections, without a limit of its own. The client enters and exits it.
        timers: a queue that runs as long as the client is entered; None: the client runs its own.
        overload_manager: shared with the other upstreams of a server; None: the queue's room never shrinks.
        rng: the source of all randomness.
        recorder: gets the records of state changes of the breaker and of replicas.

    Raises:
        ValueError: no replica, weights that do not fit, or numbers out of range.
    """

    def __init__(
        self,
        name: str,
        replicas: Sequence[Replica | str] | ReplicaSource,
        policies: Policies,
        pool: Pool,
        *,
        timers: TimerQueue | None = None,
        overload_manager: OverloadManager | None = None,
        rng: random.Random | None = None,
        recorder: Recorder = NULL,
    ) -> None:
        super().__init__(BackgroundNursery(f"the upstream {name}"), pool)
        self.name = name
        self.rng = rng or random.Random()
        self.pool = pool
        self._own_timers = timers is None
        self.timers = TimerQueue() if timers is None else timers
        self.policies = policies
        self.retry, self.hedge, self.budget = policies.retry, policies.hedge, policies.budget
        self._repeats = policies.retry is not None or policies.hedge is not None
        self.max_body, self.connect_timeout = policies.max_body, policies.connect_timeout
        self.deadline_header = policies.deadline_header.lower().encode("ascii") if policies.deadline_header else None
        self.attempt_prefixes = _attempt_prefixes(self.deadline_header)
        """How the lines of the fields begin that each attempt writes itself, in place of a call's own."""
        self.latest_lines: LatestLines = (None, None, 0.0, 0.0, None, b"", b"")
        """The lines that the latest attempt shares with others of its request; see ``attempt.lines_of_request``."""
        self.breaker = _breaker(policies.breaker, StateEvents(recorder, name))
        self.gradient = GradientLimit() if policies.max_concurrency == "auto" else None
        """Learns the limit of calls in flight; None where it is a fixed number."""
        capacity = policies.max_concurrency if policies.max_concurrency != "auto" else GradientLimit().limit
        self.bulkhead = Bulkhead(capacity, policies.max_queue, overload_manager, self.timers)
        self.balance = LoadBalancer(
            replicas,
            policy=policies.balance,
            weights=policies.weights,
            ejection=policies.ejection,
            health=self._health(replicas, recorder),
            rng=self.rng,
            name=name,
            recorder=recorder,
        )
        self.coalescing = Coalescing(self, self.unshared_call)
        # Not a cache: an estimate that is dropped would have to learn anew, so one more than DIGESTS_MAX gets none.
        self._digests: dict[float, HedgeDelay] = {}
        # Counted by the calls.
        self.retries = self.retries_mended = self.retries_late = self.retries_blocked = 0
        self.hedges = self.hedges_won = self.hedges_pending = 0

    def _health(self, replicas: Sequence[Replica | str] | ReplicaSource, recorder: Recorder) -> HealthChecker | None:
        rules = self.policies.health
        if rules is None:
            return None
        return HealthChecker(
            self.pool,
            replicas,
            path=rules.path,
            every=rules.every,
            healthy=rules.healthy,
            unhealthy=rules.unhealthy,
            user_agent=self.policies.user_agent,
            rng=self.rng,
            name=self.name,
            recorder=recorder,
        )

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self.balance.__aenter__()
        except BaseException:
            await super().__aexit__()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await self.balance.__aexit__(exc_type, exc_value, traceback)
        finally:
            await super().__aexit__(exc_type, exc_value, traceback)
        if self._own_timers and not self._nursery.running:
            # Calls that wait for a timer (of a retry, of their limit) would wait for ever: their timers run now, and
            # the calls end, because no attempt can be made any more.
            self.timers.run_all()

    async def _begin(self) -> None:
        if self._own_timers:
            self._nursery.start_soon(self.timers.run)

    @property
    def nursery(self) -> BackgroundNursery:
        """The nursery for tasks of shared calls."""
        return self._nursery

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """See ``core.call.Caller``."""
        if mode == "stream":
            return StreamCall(self, prepared, context)
        coalesce = context.coalesce
        if self.policies.coalesce if coalesce is None else coalesce:
            return self.coalescing.new_call(prepared, context)
        return self.unshared_call(prepared, context)

    def unshared_call(self, prepared: PreparedRequest, context: CallContext) -> UpstreamCall:
        """A call that serves one caller alone."""
        if self._repeats or context.retry is not None or context.hedge is not None:
            return RepeatableCall(self, prepared, context)
        return UpstreamCall(self, prepared, context)

    def digest(self, quantile: float | None) -> HedgeDelay | None:
        """The latencies by which hedges at this quantile are timed; None without a quantile, or beyond DIGESTS_MAX."""
        if quantile is None:
            return None
        found = self._digests.get(quantile)
        if found is None and len(self._digests) < DIGESTS_MAX:
            found = self._digests[quantile] = HedgeDelay(quantile)
        return found

    def statistics(self) -> ClientStatistics:
        """A snapshot."""
        now = trio.current_time()
        bulkhead = self.bulkhead
        return ClientStatistics(
            self.coalescing.statistics(),
            None if self.breaker is None else self.breaker.statistics(now),
            BulkheadStatistics(
                bulkhead.capacity,
                bulkhead.in_use,
                bulkhead.queued,
                len(bulkhead.requests),
                bulkhead.stalled,
                bulkhead.overflowed,
                None if self.gradient is None else self.gradient.statistics(),
            ),
            RetryStatistics(self.retries, self.retries_mended, self.retries_late, self.retries_blocked),
            HedgeStatistics(
                self.hedges_pending,
                self.hedges,
                self.hedges_won,
                MappingProxyType({quantile: each.statistics(now) for quantile, each in self._digests.items()}),
            ),
            self.budget.statistics(),
            self.balance.statistics(),
            self.pool.statistics(),
        )


@lru_cache(maxsize=64)
def _attempt_prefixes(deadline_header: bytes | None) -> tuple[bytes, ...]:
    """See ``Client.attempt_prefixes``. The same tuple for the same name: blocks of fields compare by identity."""
    own = (b"traceparent:", b"tracestate:")
    return own if deadline_header is None else (*own, deadline_header + b":")


def _breaker(rules: BreakerRules | None, changes: StateEvents) -> BreakerPolicy | None:
    if rules is None:
        return None
    return BreakerPolicy(
        window=rules.window,
        min_requests=rules.min_requests,
        failure_ratio=rules.failure_ratio,
        open_for=rules.open_for,
        changed=changes.breaker,
    )
