"""The client of one upstream: its policies in their order, its replicas and its connections.

Theory
------
**Problem.** Each policy counts something, admits or refuses, and may make a call wait. The order of the policies
decides what each one counts, what a call has cost when it is refused, and where a call waits. A wrong order shows only
under load or failure.

**The order**, from the first policy that a call passes:

1. **coalescing**: of identical calls that overlap, only one goes on. It is first, because all other policies must count
   what the upstream really receives. A call whose response is streamed skips this policy.
2. **breaker**: admits or refuses once per call, and counts the end of each attempt. It is before the bulkhead, so that
   calls to an upstream that is down fail at once and fill no queue. An admitted call asks again before each retry and
   hedge, so an open breaker stops further attempts too.
3. **limits**: how many attempts the upstream gets in the long run (``limit_queue.py``). A call waits for its turn, and
   spends only when it also has a place of the bulkhead; retries, hedges and redirects spend too. It is behind the
   breaker, so that calls that fail at once do not wait, and before the bulkhead, so that a call that waits for a turn
   keeps no place from calls of other keys. Copies (mirrors) and health checks are no calls, and spend nothing.
4. **bulkhead**: a limit of calls in flight, and the upstream's only queue. A call holds one place until its end. The
   bulkhead is before retry and hedge, so that a retry does not wait again behind new calls. A call that is refused here
   has sent nothing and holds nothing. A call whose response has become a stream leaves the bulkhead and counts in
   ``streams`` (``calls/stream_call.py``).
5. **retry**: makes rounds of attempts, one after the other.
6. **hedge**: makes several attempts in one round. It is within retry, so that each retry is a race of its own. Retries
   and hedges draw on one budget, which bounds the load that they add together.
   A call that follows redirects makes a further round for each (``calls/following_call.py``), with retries and hedges
   of its own, the same place and the same admission.
7. **load balancing**: takes a replica for each attempt. It is within retry and hedge, so that each attempt can take a
   replica that the call has not tried.
8. **attempt**: encodes the request, with the time that is left after all waiting, and sends it. Its end is recorded and
   reported to the load balancer, and to the breaker unless its kind is client-gone or cancelled. (An attempt that a
   time limit cut may have the kind timeout, and is reported.) An attempt ends with the body of its response, so a body
   that breaks off is a failure.
9. **pool**: gives the attempt a connection. It is last, because connections are kept by the replica's origin. The pool
   has no limit of its own: the bulkhead has counted the call, and a second queue would hide the state of the first.

**One place per decision.** The rules of breaker, retry, hedge, load balancing and the learned limit are objects of
``umbel.policy`` without clock and I/O, and the modules in ``calls/`` and ``replicas/`` ask them. Coalescing and the
bulkhead are in ``calls/``, because they hold waiting calls; the pool is in ``pool/``. A breaker, retry or hedge that is
not configured is None, and costs a call one comparison. A new policy gets a line in the list above, an object in
``umbel.policy`` and a question in ``calls/``.

**Lifetime.** A client is an async context manager. Its nursery has the tasks that serve many calls: shared calls, and
timers if the client has its own. Health checks and DNS look-ups run in nurseries of their own. The order of entry is
pool, nursery, load balancer; the exit is the reverse. The owners of calls have nurseries of their own, so a call may
still exist at the exit. If it has a connection, this is closed, and the call ends with ``ConnectionReset``; a call
without one ends with ``NotRunningError``. A call that waits for a timer ends because the exit runs all timers of the
client (``run_all``): its next attempt fails at once.

**Tasks.** ``new_call`` does not wait and starts nothing. One client is used by all tasks of one event loop; no function
but entry and exit waits, so its state needs no lock.
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
from .calls.attempt_counts import AttemptCounts
from .calls.bulkhead import Bulkhead, OverloadManager, StreamCount
from .calls.call import UpstreamCall
from .calls.coalesce import CoalesceStatistics, Coalescing
from .calls.following_call import FollowingCall
from .calls.repeatable_call import RepeatableCall
from .calls.stream_call import StreamCall, UpgradeCall
from .limit_queue import CallLimits, LimitQueue
from .pool.pool import Pool, PoolStatistics, check_connect_timeout
from .replicas.balance import BalanceStatistics, LoadBalancer, PolicyName
from .replicas.health import HealthChecker
from .state_events import StateEvents

if TYPE_CHECKING:
    from ..core.model import Cause
    from .calls.client_interface import LatestLines
    from .replicas.origin import Replica
    from .replicas.sources import ReplicaSource

DIGESTS_MAX = 8
"""Bound on the hedging percentiles that are estimated; a configuration has one or two."""
_MAX_IDLE_LEARNED = 1000
"""Idle connections that are kept with a learned limit: as many as its maximum."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """Rules of a circuit breaker (``policy.breaker.BreakerPolicy``)."""

    window: float = 10.0
    """Seconds for which the end of an attempt counts."""
    min_requests: int = 20
    """Number of attempts in the window below which the breaker does not open."""
    failure_ratio: float = 0.5
    """Share of failed attempts in the window, above 0 and up to 1, at which the breaker opens."""
    open_for: float = 5.0
    """Seconds for which an open breaker refuses all calls. The next call is admitted as a probe."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """Rules of health checks (``replicas.health.HealthChecker``)."""

    path: str = "/"
    """Path and query that a check requests, relative to the replica's base URL."""
    every: float = 5.0
    """Seconds between two checks of a replica, and the time limit of a check."""
    healthy: int = 2
    """Number of checks in a row that pass before a replica is up again."""
    unhealthy: int = 3
    """Number of checks in a row that fail before a replica is down."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Settings of all policies of an upstream. None: the policy is off, unless its comment says otherwise.

    Raises:
        ValueError: ``max_body`` is negative, or ``connect_timeout`` is not above 0. Other numbers are checked by the
            policies that take them.
    """

    coalesce: bool = False
    """Whether identical safe calls that overlap are made once; ``CallContext.coalesce`` takes precedence."""
    breaker: BreakerRules | None = None
    max_concurrency: int | Literal["auto"] = 100
    """Limit of calls in flight; ``"auto"``: learned from the durations of calls (``policy.gradient_limit``)."""
    max_queue: int | None = None
    """Number of inbound requests whose calls may wait for a place. None: ``OverloadManager.max_requests``, or 256
    without an overload manager."""
    max_streams: int = 1000
    """Limit of responses at a time that have become streams (``StreamingCall.become_stream``)."""
    retry: RetryRules | None = None
    """Rules of retries; ``CallContext.retry`` takes precedence."""
    hedge: HedgeRules | None = None
    """Rules of hedging; ``CallContext.hedge`` takes precedence."""
    budget: Budget = field(default_factory=Budget)
    """Retry budget of retries and hedges together."""
    balance: PolicyName = "p2c"
    """Load-balancing policy; see ``replicas.balance.LoadBalancer``."""
    weights: Sequence[int] | None = None
    """One weight per replica, for the load-balancing policy ``weighted`` only."""
    ejection: EjectionRules | None = None
    health: HealthRules | None = None
    user_agent: bytes = PRODUCT.encode("ascii")
    """User-Agent of health checks; empty: no such field."""
    deadline_header: str | None = "x-envoy-expected-rq-timeout-ms"
    """Name of the request field with the milliseconds until the deadline; None: no such field."""
    max_body: int | None = None
    """Limit of a response's body in bytes after decoding; None: 1 MB of JSON, 10 MB of any other media type."""
    connect_timeout: float | None = 5.0
    """Seconds for name resolution, connect and TLS handshake together; None: no limit."""

    def __post_init__(self) -> None:
        check_connect_timeout(self.connect_timeout)
        if self.max_body is not None and self.max_body < 0:
            raise ValueError("max_body must be at least 0 bytes")

    @property
    def max_idle(self) -> int:
        """Number of idle connections to keep: as many as calls may be in flight."""
        return _MAX_IDLE_LEARNED if self.max_concurrency == "auto" else self.max_concurrency


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """Counters of retries since the client was created."""

    retries: int
    """Retries made."""
    mended: int
    """Calls that were retried and then had a response that is not retried."""
    late: int
    """Retries that were not made because their pause would have ended after the call's deadline. Without a deadline:
    because the upstream's Retry-After was over ``policy.retry.RETRY_AFTER_MAX``."""
    blocked: int
    """Retries that were not made because the breaker had opened."""


@dataclass(frozen=True, slots=True)
class HedgeStatistics:
    """A snapshot of the hedges. ``hedges`` and ``won`` count since the client was created."""

    pending: int
    """Calls in flight that have a timer for their next hedge."""
    hedges: int
    """Hedges started."""
    won: int
    """Hedges that had the first success among the attempts of their round."""
    latencies: Mapping[float, LatencyStatistics]
    """For each hedging quantile that is in use: the samples and the delay. Empty if hedges start after a fixed time."""


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot of the bulkhead."""

    capacity: int
    """Present limit of calls in flight."""
    in_flight: int
    """Calls in flight."""
    waiting: int
    """Calls that wait for a place."""
    requests: int
    """Inbound requests with a call that is in flight, waits for a place, or waits for the response of another call."""
    stalled: bool
    """Whether the upstream completes no calls although calls wait or many are in flight; see ``calls/bulkhead.py``."""
    overflowed: int
    """Calls that were refused, since the client was created."""
    limit: LimitStatistics | None
    """The learned limit; None if the limit is fixed."""


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A snapshot of the calls whose responses have become streams."""

    limit: int
    """The most streams at a time."""
    open: int
    """Streams that are open."""
    refused: int
    """Responses that did not become streams because of the limit, since the client was created."""


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """A snapshot of an upstream: one member per policy, and the pool."""

    coalesce: CoalesceStatistics
    breaker: BreakerSnapshot | None
    bulkhead: BulkheadStatistics
    retry: RetryStatistics
    hedge: HedgeStatistics
    budget: BudgetStatistics
    balance: BalanceStatistics
    pool: PoolStatistics
    streams: StreamStatistics


class Client(TaskOwner):
    """The client of one upstream: it makes the upstream's calls and applies its policies. An async context manager.

    Outside of the context, calls end with ``NotRunningError``. The same task may enter the client again. The outermost
    exit closes every connection. Calls under way then end with ``ConnectionReset``. A call that has no connection yet,
    or waits for a shared call that has none, ends with ``NotRunningError``.

    Args:
        name: name of the upstream, for messages and records.
        replicas: base URLs, ``Replica`` objects, or a source of replicas.
        policies: settings of the policies.
        pool: connections, without a limit of its own. The client enters and exits the pool.
        timers: a queue that runs as long as the client is entered; None: the client runs one of its own.
        overload_manager: shared by the upstreams of a server; None: the upstream is never stalled.
        rng: source of all randomness; None: a generator of the client's own.
        recorder: receives the records of state changes of the breaker and the replicas.
        first_cause: why the first attempt of a call is made: "mirror" if all calls are copies.
        limits: the limits of which each attempt spends; empty: none.

    Raises:
        ValueError: no replica, an unknown load-balancing policy, weights that do not fit the replicas, or a number of a
            policy out of range.
        BadRequest: as ``Replica.parse``; or ``HealthRules.path`` is no path with an optional query.
        httpx.InvalidURL: as ``Replica.parse``.
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
        first_cause: Cause = "first",
        limits: Sequence[LimitQueue] = (),
    ) -> None:
        super().__init__(BackgroundNursery(f"the upstream {name}"), pool)
        self.name = name
        self.first_cause = first_cause
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
        """Beginnings of the field lines that each attempt writes; a call's own fields with these names are replaced."""
        self.latest_lines: LatestLines = (None, None, 0.0, 0.0, None, b"", b"")
        """Field lines of the latest attempt, for other attempts of its request; see ``attempt_fields.py``."""
        self.breaker = _breaker(policies.breaker, StateEvents(recorder, name))
        self.gradient = GradientLimit() if policies.max_concurrency == "auto" else None
        """Learned limit of calls in flight; None if the limit is fixed."""
        capacity = policies.max_concurrency if policies.max_concurrency != "auto" else GradientLimit().limit
        self.bulkhead = Bulkhead(capacity, policies.max_queue, overload_manager, self.timers, pool.after_batch)
        self.limits = CallLimits(limits, self.timers) if limits else None
        """The limits of which each attempt spends; None: there are none."""
        self.streams = StreamCount(policies.max_streams)
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
        # Not a cache: a dropped estimate would lose its samples. A quantile beyond DIGESTS_MAX has no estimate.
        self._digests: dict[float, HedgeDelay] = {}
        # Counters; calls add to them.
        self.attempt_counts = AttemptCounts()
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
            # Calls that wait for a timer (a retry, their limit) would wait for ever, because nothing runs the timers
            # any more. All timers run now, and the calls end, because no further attempt can be made.
            self.timers.run_all()

    async def _begin(self) -> None:
        if self._own_timers:
            self._nursery.start_soon(self.timers.run)

    @property
    def nursery(self) -> BackgroundNursery:
        """Nursery for the tasks of shared calls."""
        return self._nursery

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """Make a call, without starting it; see ``core.call.Caller``."""
        if mode != "whole":
            return (StreamCall if mode == "stream" else UpgradeCall)(self, prepared, context)
        if context.follows:
            return FollowingCall(self, prepared, context)
        coalesce = context.coalesce
        if self.policies.coalesce if coalesce is None else coalesce:
            return self.coalescing.new_call(prepared, context)
        return self.unshared_call(prepared, context)

    def unshared_call(self, prepared: PreparedRequest, context: CallContext) -> UpstreamCall:
        """Return a new call that is not coalesced: an ``UpstreamCall``, or a ``RepeatableCall`` for retry or hedge."""
        if self._repeats or context.retry is not None or context.hedge is not None:
            return RepeatableCall(self, prepared, context)
        return UpstreamCall(self, prepared, context)

    def digest(self, quantile: float | None) -> HedgeDelay | None:
        """The hedge delay for ``quantile``, with its samples; the first use makes it.

        Returns:
            None if ``quantile`` is None, or if DIGESTS_MAX other quantiles are in use.
        """
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
            StreamStatistics(self.streams.limit, self.streams.open, self.streams.refused),
        )


@lru_cache(maxsize=64)
def _attempt_prefixes(deadline_header: bytes | None) -> tuple[bytes, ...]:
    """The value of ``Client.attempt_prefixes``. Cached, because ``FieldBlock.lines_for`` is compared by identity."""
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
