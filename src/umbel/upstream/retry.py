"""The retry layer: a call whose attempt failed is attempted again, after a while, if that can help and hurts nobody.

Stands inside of the bulkhead, so that a retry keeps its call's place, and outside of hedge and balance, so that it is
raced anew and takes another replica. Whether and when is ``policy/retry.py``'s to say, how many ``policy/budget.py``'s.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import httpx
import trio

from ..kinds import Kind
from ..model import facts_of
from ..policy.budget import Budget, BudgetStatistics
from ..policy.retry import RETRY, RetryOn, RetryRules
from .again import FAILURES, discard, ending_of, repeatable, untold
from .layer import Layer
from .perorigin import PerOrigin, key_of
from .state import CallState, opened


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """A snapshot of a retry layer. All but ``budgets`` count since the beginning."""

    retries: int
    """Attempts made beyond the first."""
    mended: int
    """Calls that a retry gave an answer that is not retried."""
    late: int
    """Retries not made because the wait before them would not have ended before the call's deadline."""
    blocked: int
    """Retries not made because the breaker had opened."""
    budgets: Mapping[str, BudgetStatistics]
    """By origin; one, named ``*``, where the layer was given a budget."""


class Retry(Layer):
    """Makes up to ``attempts`` attempts of a call. When no more are made, the last response or error stands.

    Repeated are GET, HEAD, OPTIONS, PUT and DELETE (RFC 9110 section 9.2.2), and any method with an Idempotency-Key, if
    the body is in memory; and any method of which no byte was sent, because there was no connection. They are repeated
    after the failures that ``on`` names; if the ``budget`` grants it, the breaker above (if any)
    is not open, and the wait ends before the call's deadline (``model.CallFacts``; a call without one has none). An
    attempt that its replica took with it when it died needs no budget to be made elsewhere (``policy.failover``).
    Between two attempts it waits a random time (``RetryRules``), never less than the upstream's Retry-After.

    A response that is to be replaced stays open until the wait is over, since it stands if nothing comes of the retry.
    **Cancelled at any point** it makes no more attempts, closes what it holds and gives the budget back.

    Args:
        attempts: the first one included.
        on: kinds and statuses, such as ``["connect", "reset", 503]``; None for connect, dns, reset before the first
            byte, 502, 503 and 504.
        backoff: seconds; the random wait before the first retry is at most that, and twice as much before each next.
        max_backoff: seconds; no random wait is longer.
        budget: shared with the ``Hedge`` of the same upstream; None for one of its own, with the usual numbers, for
            each origin.
        rng: where the random times come from.

    Raises:
        ValueError: numbers out of range, or an ``on`` that cannot be retried on.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        attempts: int = 2,
        on: RetryOn | Iterable[Kind | str | int] | None = None,
        backoff: float = 0.025,
        max_backoff: float = 0.25,
        budget: Budget | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(transport)
        if on is None:
            on = RetryOn()
        elif not isinstance(on, RetryOn):
            on = RetryOn.of(on)
        self._rules = RetryRules(attempts, on, backoff, max_backoff)
        self._budget = budget
        self._budgets = PerOrigin(lambda _: Budget())
        self._rng = rng or random.Random()
        self._retries = self._mended = self._late = self._blocked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below, again if need be. A call's own rules (``extensions[RETRY]``) go before the layer's.

        Raises:
            UpstreamError, httpx.RequestError: the last attempt's.
        """
        rules: RetryRules = request.extensions.get(RETRY, self._rules)
        budget = self._budget or self._budgets.of(key_of(request.url))
        request, state = opened(request)
        counted = budget.enter(state)
        try:
            return await self._call(request, rules, budget, state)
        finally:
            if counted:
                budget.leave(state)

    def statistics(self) -> RetryStatistics:
        """A snapshot."""
        budgets = self._budgets.snapshot(Budget.statistics)
        if self._budget is not None:
            budgets = MappingProxyType({"*": self._budget.statistics()})
        return RetryStatistics(self._retries, self._mended, self._late, self._blocked, budgets)

    # For calls whose first attempt was made without a task of its own (``express.py``): only with a budget given.

    def enter(self, state: CallState) -> None:
        """Count a call as active, until it is told to ``leave``."""
        assert self._budget is not None
        self._budget.enter(state)

    def leave(self, state: CallState) -> None:
        """The call is over."""
        assert self._budget is not None
        self._budget.leave(state)

    def stands(self, status: int) -> bool:
        """Whether a response of this status is never retried by the layer's own rules."""
        return status not in self._rules.on.statuses

    async def resume(
        self, request: httpx.Request, state: CallState, outcome: httpx.Response | Exception
    ) -> httpx.Response:
        """Go on after a first attempt that ended so; an exception is one of ``again.FAILURES``.

        Raises:
            UpstreamError, httpx.RequestError: the last attempt's.
        """
        assert self._budget is not None
        return await self._repeated(request, self._rules, self._budget, state, outcome)

    async def _call(
        self, request: httpx.Request, rules: RetryRules, budget: Budget, state: CallState
    ) -> httpx.Response:
        return await self._repeated(request, rules, budget, state, await self._attempt(request))

    async def _repeated(
        self,
        request: httpx.Request,
        rules: RetryRules,
        budget: Budget,
        state: CallState,
        outcome: httpx.Response | Exception,
    ) -> httpx.Response:
        made = 1
        while (again := self._again(request, rules, outcome, made, budget, state)) is not None:
            try:
                if not await self._wait(again.pause, outcome, state):
                    break
                state.cause = "retry"
                self._retries += 1
                outcome = await self._attempt(request)
                made += 1
            finally:
                if again.charged:
                    budget.give_back()
        if isinstance(outcome, httpx.Response):
            self._mended += made > 1 and outcome.status_code not in rules.on.statuses
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # Its traceback holds this frame: without this the two would wait for the garbage collector.

    async def _attempt(self, request: httpx.Request) -> httpx.Response | Exception:
        try:
            return await self._transport.handle_async_request(request)
        except FAILURES as error:
            return error

    def _again(
        self,
        request: httpx.Request,
        rules: RetryRules,
        outcome: httpx.Response | Exception,
        made: int,
        budget: Budget,
        state: CallState,
    ) -> _Again | None:
        """When the next attempt is made, which is granted then; None if ``outcome`` stands."""
        # Of nearly every call this is the end, so it comes before all that costs.
        if isinstance(outcome, httpx.Response) and outcome.status_code not in rules.on.statuses:
            return None
        ending = ending_of(outcome)
        if not rules.wants(made, ending) or not (repeatable(request) or untold(request, ending)):
            return None
        if _blocked(state):
            self._blocked += 1
            return None
        facts = facts_of(request)
        deadline = facts.deadline if facts is not None else math.inf
        pause = rules.pause(made, ending, trio.current_time(), deadline, self._rng)
        if pause is None:
            self._late += 1
            return None
        charged = not state.fail_over()
        return _Again(pause, charged) if not charged or budget.take() else None

    async def _wait(self, pause: float, outcome: httpx.Response | Exception, state: CallState) -> bool:
        """Wait, and let go of ``outcome``. False if the breaker has opened meanwhile: then it is untouched."""
        response = outcome if isinstance(outcome, httpx.Response) else None
        try:
            await trio.sleep(pause)
        except BaseException:
            if response is not None:
                await discard(response)
            raise
        if _blocked(state):
            self._blocked += 1
            return False
        if response is not None:
            await discard(response)
        return True


class _Again(NamedTuple):
    """Another attempt that may be made."""

    pause: float
    """Seconds until then."""
    charged: bool
    """Whether the budget granted it; else it is failover."""


def _blocked(state: CallState) -> bool:
    return state.ticket is not None and state.ticket.blocked
