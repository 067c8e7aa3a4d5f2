"""The hedge layer: a call that takes longer than usual gets another attempt beside the first, and the quicker one wins.

Stands inside of retry, whose attempts are each hedged, and outside of balance, so that a hedge takes another replica;
above the body layer, so that only a whole response wins. When to hedge and who wins is ``policy/hedge.py``'s to say.

The first attempt runs in the caller's own task, under a scope that a hedge which wins can cancel. One ``TimerQueue``
keeps the time for all calls together, so that a hedge that is not made costs no task and no deadline. A nursery of the
call, with the hedges as its children, would be simpler, but every call would pay for it (twice what the scope costs,
and one more turn of the scheduler), and nearly no call is hedged. So hedges are children of a nursery of the layer, and
``_Call`` owes what a nursery would do: a call never ends before its hedges have, and whatever ends it cancels them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx
import trio

from ..errors import NotRunningError
from ..kinds import Kind
from ..model import CallFacts, facts_of
from ..net.timers import Timer, TimerQueue
from ..policy.budget import Budget, BudgetStatistics
from ..policy.hedge import HEDGE, Entry, HedgeRules, Judgement, Race, judge
from ..policy.latencies import Latencies
from ..policy.latency import LatencyStatistics
from .again import FAILURES, discard, ending_of, repeatable
from .ending import LOST, kind_of_end, limit_of, overtaken
from .layer import Layer
from .ownnursery import OwnNursery
from .perorigin import PerOrigin, key_of
from .running import Running
from .state import CallState, opened

_KNOWN = (httpx.Response, *FAILURES)

_DIGESTS_MAX = 8
"""Percentiles of an origin that are watched at once; the configuration names one or two."""


@dataclass(frozen=True, slots=True)
class HedgeStatistics:
    """A snapshot of a hedge layer."""

    pending: int
    """Calls in flight whose time for a hedge is still to come."""
    hedges: int
    """Hedges started, since the beginning."""
    won: int
    """Those of them that brought the answer."""
    budgets: Mapping[str, BudgetStatistics]
    """By origin."""
    latencies: Mapping[str, Mapping[float, LatencyStatistics]]
    """By origin and quantile; nothing where hedges come after a duration."""


class _Upstream:
    """What is kept of an origin."""

    __slots__ = ("budget", "digests")

    def __init__(self, budget: Budget | None) -> None:
        self.budget = budget or Budget()
        self.digests: dict[float, Latencies] = {}

    def digest(self, quantile: float | None) -> Latencies | None:
        if quantile is None:
            return None
        found = self.digests.get(quantile)
        if found is None and len(self.digests) < _DIGESTS_MAX:
            found = self.digests[quantile] = Latencies(quantile)
        return found


class Hedge(Running, Layer):
    """Starts another attempt of a call that has not ended ``after`` a time, and keeps the first success.

    A success is a response below 500. A failure that a retry may mend (connect, dns, reset before the first byte, 502,
    503, 504) starts the next attempt at once, unless the upstream asks for a pause (Retry-After); any other failure
    only waits for what is under way. The first success is the answer, and the other attempts are cancelled with the
    reason ``LOST``: ours close their connections before the call returns. If all fail, the first attempt's failure
    stands (``policy.hedge.Race``). A bug below (an exception that is no FAILURES) ends the call at once.

    Hedged are GET, HEAD, OPTIONS, PUT and DELETE, and any method with an Idempotency-Key, if the body is in memory. A
    request with the extension ``stream`` passes as it is. **A response is read whole before it is judged**, so put a
    ``Body`` below to bound it. Hedging needs the layer's ``async with``. **Cancelled at any point**, a call cancels and
    awaits all of its attempts and gives the budget back.

    See "The Tail at Scale" (Dean and Barroso, 2013) and gRPC's proposal A6.

    Args:
        after: seconds, or a percentile (``"p95"``) of the time that attempts take at most of the replicas, of late
            (``policy.latencies``). Until there are 100 of them within a minute, only failures start hedges.
        max: hedges of a call, each ``after`` the one before; 0 for none.
        budget: shared with the ``Retry`` of the same upstream; None for one of its own, with the usual numbers, for
            each origin.

    Raises:
        ValueError: a percentile that is none, or numbers out of range.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        after: float | str = "p95",
        max: int = 1,
        budget: Budget | None = None,
    ) -> None:
        Layer.__init__(self, transport)
        Running.__init__(self, OwnNursery("the hedge layer"), transport)
        self._rules = HedgeRules.of(after, max)
        self._upstreams = PerOrigin(lambda _: _Upstream(budget))
        self._timers = TimerQueue()
        self._hedges = self._won = 0

    async def _begin(self) -> None:
        self._nursery.start_soon(self._timers.run)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below, more than once if need be. A call's own rules (``extensions[HEDGE]``) go first.

        Raises:
            UpstreamError, httpx.RequestError: all attempts failed; the first attempt's.
            NotRunningError: outside of the layer's ``async with``.
        """
        rules: HedgeRules = request.extensions.get(HEDGE, self._rules)
        if not rules.max or request.extensions.get("stream") or not repeatable(request):
            return await self._transport.handle_async_request(request)
        if not self._nursery.running:
            raise NotRunningError("the hedge layer is used outside of its `async with`")
        upstream = self._upstreams.of(key_of(request.url))
        request, state = opened(request)
        counted = upstream.budget.enter(state)
        try:
            return await _Call(self, request, rules, upstream, state).run()
        finally:
            if counted:
                upstream.budget.leave(state)

    def statistics(self) -> HedgeStatistics:
        """A snapshot."""
        now = trio.current_time()
        return HedgeStatistics(
            len(self._timers),
            self._hedges,
            self._won,
            self._upstreams.snapshot(lambda each: each.budget.statistics()),
            self._upstreams.snapshot(
                lambda each: MappingProxyType({q: digest.statistics(now) for q, digest in each.digests.items()})
            ),
        )


class _Call:
    """One call and its attempts."""

    __slots__ = (
        "_answer",
        "_bug",
        "_digest",
        "_failure",
        "_hedges",
        "_hedges_over",
        "_layer",
        "_race",
        "_request",
        "_rules",
        "_scope",
        "_started_at",
        "_state",
        "_timer",
    )

    def __init__(
        self, layer: Hedge, request: httpx.Request, rules: HedgeRules, upstream: _Upstream, state: CallState
    ) -> None:
        self._layer = layer
        self._request = request
        self._rules = rules
        self._state = state
        self._digest = upstream.digest(rules.quantile)
        self._race = Race(rules.max, upstream.budget)
        self._timer: Timer | None = None
        self._answer: httpx.Response | None = None
        self._failure: httpx.Response | Exception | None = None
        self._bug: Exception | None = None
        self._scope = trio.CancelScope()
        # The hedges under way, and an event for when there are none: both only once there has been one.
        self._hedges: set[trio.CancelScope] | None = None
        self._hedges_over: trio.Event | None = None
        self._started_at = trio.current_time()

    async def run(self) -> httpx.Response:
        facts = facts_of(self._request)
        self._remind(self._started_at, facts)
        try:
            with self._scope:
                await self._attempt(Entry.FIRST)
            if self._hedges:
                await self._hedges_ended()
        except BaseException as error:
            self._cut(_reason_of(error))
            with trio.CancelScope(shield=True):
                await self._hedges_ended()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return self._result()

    async def _hedges_ended(self) -> None:
        # In a loop: when an event is heard, the next hedge may have begun already.
        while self._hedges and self._hedges_over is not None:
            await self._hedges_over.wait()

    def _result(self) -> httpx.Response:
        if self._answer is not None and self._bug is None:
            return self._answer
        outcome = self._bug or self._failure
        self._bug = self._failure = None
        assert outcome is not None, "a race without an answer has the first attempt's failure"
        if isinstance(outcome, httpx.Response):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # Its traceback holds this frame: without this the two would wait for the garbage collector.

    # When

    def _remind(self, now: float, facts: CallFacts | None) -> None:
        """Have the next hedge started, if it would come before the call's deadline."""
        after = self._rules.seconds
        if after is None:
            after = self._digest.percentile(now) if self._digest is not None else None
        if after is not None and now + after < (facts.deadline if facts is not None else math.inf):
            self._timer = self._layer._timers.add(now + after, self._start_another)

    def _start_another(self) -> None:
        """It is time for another attempt, or an early failure asks for one."""
        ticket = self._state.ticket
        if (ticket is not None and ticket.blocked) or not self._layer._nursery.running or not self._race.may_grow:
            return
        entry = self._race.another(failover=self._state.fail_over())
        if entry is None:
            return
        self._state.hedged = True
        self._layer._hedges += 1
        self._begin(entry)
        if self._timer is not None:
            self._timer.cancel()
        if self._race.may_grow:
            self._remind(trio.current_time(), facts_of(self._request))

    # What

    def _begin(self, entry: Entry) -> None:
        if not self._hedges:
            self._hedges = set()
            self._hedges_over = trio.Event()
        scope = trio.CancelScope()
        self._hedges.add(scope)
        self._layer._nursery.start_soon(self._hedge, scope, entry)

    async def _hedge(self, scope: trio.CancelScope, entry: Entry) -> None:
        try:
            with scope:
                self._state.cause = "hedge"  # Read before the attempt's first checkpoint.
                await self._attempt(entry)
        finally:
            assert self._hedges is not None and self._hedges_over is not None
            self._hedges.remove(scope)
            if not self._hedges:
                self._hedges_over.set()

    async def _attempt(self, entry: Entry) -> None:
        """Make an attempt and see what it means for the others. Raises nothing but what cancels."""
        outcome: httpx.Response | Exception
        started_at = trio.current_time()
        # The replica that the attempt takes will be the next one there: nothing in between waits before it is taken.
        place = len(self._state.tried)
        try:
            outcome = await self._layer._transport.handle_async_request(self._request)
            if not outcome.is_closed:
                await _read(outcome)
        except Exception as error:  # noqa: BLE001 - `run` raises it, or another attempt of the call makes up for it
            outcome = error
        except BaseException as error:
            self._race.ended(None, entry)
            if self._digest is not None and entry is Entry.FIRST and self._was_slow(error, started_at):
                self._took(started_at, place)
            raise
        ending = ending_of(outcome) if isinstance(outcome, _KNOWN) else None
        judgement = judge(ending) if ending is not None else None
        if judgement is Judgement.SUCCESS or (ending is not None and ending.kind is Kind.TIMEOUT):
            self._took(started_at, place)
        self._judge(outcome, judgement, entry)

    def _was_slow(self, error: BaseException, started_at: float) -> bool:
        """Whether the first attempt, which ``error`` has cut, took at least as long as it is old."""
        return overtaken(error) or self._timed_out(error, started_at)

    def _timed_out(self, error: BaseException, started_at: float) -> bool:
        request = self._request
        return kind_of_end(error, facts_of(request), started_at, limit_of(request)) is Kind.TIMEOUT

    def _took(self, started_at: float, place: int) -> None:
        """Count an attempt: an answer, or one that took at least so long, which is a timeout or was overtaken.

        Without the latter the percentile would sink with every hedge and so make more of them. For the same reason a
        failure, which may come at once, does not count, nor a hedge that was cut.
        """
        now = trio.current_time()
        # What came too late to be made at all took no time.
        if self._digest is not None and now > started_at:
            tried = self._state.tried
            self._digest.add(now, tried[place] if place < len(tried) else None, now - started_at)

    def _judge(self, outcome: httpx.Response | Exception, judgement: Judgement | None, entry: Entry) -> None:
        won = self._race.ended(judgement, entry)
        if isinstance(outcome, httpx.Response) and won:
            self._answer = outcome
            self._layer._won += entry is not Entry.FIRST
            self._cut(LOST)
        elif isinstance(outcome, Exception) and judgement is None:
            self._bug = outcome
            self._cut(LOST)
        elif entry is Entry.FIRST:
            self._failure = outcome
        if judgement is Judgement.RETRYABLE:
            self._start_another()
            self._race.settle()

    def _cut(self, reason: str | None) -> None:
        """Cancel the attempts that are still under way. One that is over is not hurt by it."""
        self._race.stop()
        if self._race.running:
            for scope in self._hedges or ():
                scope.cancel(reason=reason)
            self._scope.cancel(reason=reason)


def _reason_of(error: BaseException) -> str | None:
    """The reason of a cancel, for those whom it is passed on to."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.reason if isinstance(error, trio.Cancelled) else None


async def _read(response: httpx.Response) -> None:
    """Read a response that no body layer has read, and leave nothing open."""
    try:
        await response.aread()
    finally:
        await discard(response)
