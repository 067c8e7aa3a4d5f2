"""A call with retries and hedges: it makes one or more rounds of attempts.

Theory
------
See ``call.py`` for calls and ``attempt.py`` for attempts.

**Rounds.** Without hedging a *round* is one attempt. With hedging a round is one attempt that may become a *race*
(``policy.hedge.Race``) of a first attempt and its hedges. Rounds follow one another: when a round ends with a retryable
result, the retry policy may grant another round after a pause. During the pause the call is RUNNING, has no attempt,
and keeps its place of the bulkhead; ``_fallback`` holds the ended attempt, whose result is the call's result if the
next round may not begin.

**Timers.** ``_timer`` has one of two meanings at a time, so one slot is enough: the limit of the wait for a place
(QUEUED), the next round (between rounds). A round after the first begins in its timer's callback. ``_hedge_timer`` is
set within a round.

**Races.** A race is made when the first hedge is due, or when the first attempt fails. So a first attempt that succeeds
before that, as nearly all do, ends its round as without hedging, but for its timer and its latency. A hedge begins in
the callback of its timer, or at once after a retryable failure, if race, budget and breaker permit it. The first
success wins. ``_cut`` then ends the other attempts within the same step, with the reason ``LOST``. It closes their
connections, and with that removes their handlers from the reader: a second response in the same batch of events is
never read. Without a success the result of the race is the first attempt's failure (``_fallback``). An internal error
of an attempt ends the race at once and is its result.

**Budget.** Retries and hedges draw on one budget per upstream. A retry is charged when it is granted, before its pause
(``_charged``), and given back when its round ends. A hedge is charged and given back by its ``Race``. Failover attempts
(``policy/failover.py``) replace lost attempts and are not charged. ``_cut`` gives back the hedges under way and
``_close`` the retry, so a cancel at any moment leaves the budget exact.

**Limits.** A retry and a hedge spend of the upstream's limits when they begin, and are not made if a limit does not
admit them at that time (``limit_queue.py``).

**Breaker.** If the breaker opens while the call runs, no further attempt is made (``_blocked``); attempts under way go
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ...core.call import CallContext, PreparedRequest
from ...core.failure_kinds import Kind
from ...core.model import Cause
from ...policy.hedge import HedgeRules, HedgeVerdict, Race, RaceEntry, hedge_verdict
from ...policy.retry import RetryRules
from .attempt import DONE, Attempt
from .call import RUNNING, UpstreamCall
from .failure_kind import LOST, kind_of_error
from .retry_safety import is_unsent

if TYPE_CHECKING:
    from ...net.timers import Timer
    from .client_interface import ClientInterface


class RepeatableCall(UpstreamCall):
    """A ``core.call.Call`` that may make further attempts: retries, hedges or both. See the module for the rules."""

    __slots__ = (
        "_charged",
        "_counted",
        "_failovers",
        "_fallback",
        "_hedge",
        "_hedge_timer",
        "_hedges",
        "_made",
        "_race",
        "_retry",
    )

    attempt_type: ClassVar[type[Attempt]] = Attempt
    """Class of the attempts."""

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(client, prepared, context)
        # ``_attempt`` is here the round's first attempt; for ``_timer`` see the module.
        self._retry: RetryRules | None = None
        self._hedge: HedgeRules | None = None
        self._counted = False
        """Whether the budget counts the call as active."""
        self._race: Race | None = None
        """The round's race; None before the first hedge is due, and between rounds."""
        self._hedge_timer: Timer | None = None
        """Timer of the next hedge; None if no hedge is to follow."""
        self._hedges: list[Attempt] | None = None
        """Hedges of the round that are under way; None before the first."""
        self._fallback: Attempt | None = None
        """Ended attempt that is the result if no further one succeeds: the race's first, or the last round's result."""
        self._made = 1
        """Rounds begun."""
        self._charged = False
        """Whether the budget is charged for this round, or for the round that the timer will begin."""
        self._failovers = 0
        """Attempts that may still be repeated on another replica without budget (``policy.failover``)."""

    @property
    def under_way(self) -> list[Attempt]:
        """Attempts of the call that have not ended."""
        return [*([] if self._attempt is None else [self._attempt]), *(self._hedges or ())]

    def _begin(self, now: float) -> None:
        client, context = self.client, self.context
        self.state, self._placed_at = RUNNING, now
        self._retry = context.retry or client.retry
        self._hedge = hedge = context.hedge or client.hedge
        if hedge is not None and (not hedge.max or not self.idempotent):
            self._hedge = None
        if self._retry is not None or self._hedge is not None:
            client.budget.enter(self)
            self._counted = True
        self._begin_round(now, client.first_cause)

    def _begin_round(self, now: float, cause: Cause) -> None:
        """Begin a round with its first attempt; with hedging, set the timer of the first hedge."""
        if self._hedge is not None:
            self._set_hedge_timer(now, self._hedge)
        attempt = self._attempt = self.attempt_type(self, cause)
        attempt.entry = RaceEntry.FIRST
        attempt.begin(now)

    # Events of attempts.

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """Process the end of ``attempt`` with a response or an error: end the round, or count it in its race."""
        if attempt.error is None or kind_of_error(attempt.error) is not Kind.TIMEOUT:
            self.client.bulkhead.completed_at = now
        if attempt is self._attempt:
            self._attempt = None
        elif self._hedges is not None:
            self._hedges.remove(attempt)
        hedge = self._hedge
        if hedge is not None:
            race = self._race
            if race is not None or attempt.error is not None or attempt.status is None or attempt.status >= 500:
                self._attempt_ended_in_race(attempt, race or self._begin_race(hedge), now)
                return
            self._count_latency(attempt, hedge, now)
            self._cancel_hedge_timer()
        if attempt.error is None and (self._retry is None or attempt.status not in self._retry.on.statuses):
            # A success without a race: nearly every call ends here, so nothing else is computed before.
            self._conclude(attempt, now)
        else:
            self._end_round(attempt, now)

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Count the lost attempt, and remember if it may be repeated without budget (``policy.failover``)."""
        if attempt.slot is not None and (self._retry is not None or self._hedge is not None):
            self._failovers += self.client.balance.lost(now, attempt.slot, self.tried)

    # Rounds.

    def _end_round(self, attempt: Attempt, now: float) -> None:
        """End the round with the result of ``attempt``: begin a pause if a retry is granted, else end the call.

        No attempt may be under way.
        """
        if self._charged:
            self._charged = False
            self.client.budget.give_back()
        self._race = None
        pause = None if self._retry is None else self._retry_pause(self._retry, attempt, now)
        if pause is None:
            self._conclude(attempt, now)
            return
        self._fallback = attempt
        self._timer = self.client.timers.add(now + pause, self._retry_due)

    def _retry_pause(self, rules: RetryRules, attempt: Attempt, now: float) -> float | None:
        """Pause before the next round in seconds; None if there is no next round.

        With a pause the next round is granted: the budget is charged, or a failover is used up.
        """
        if attempt.error is None and attempt.status not in rules.on.statuses:
            return None
        result = attempt.result
        if result is None or not rules.wants(self._made, result) or not (self.idempotent or is_unsent(result)):
            return None
        client = self.client
        if self._blocked:
            client.retries_blocked += 1
            return None
        pause = rules.pause(self._made, result, now, self.context.deadline, client.rng)
        if pause is None:
            client.retries_late += 1
            return None
        if self._failovers:
            self._failovers -= 1
        elif client.budget.take():
            self._charged = True
        else:
            return None
        return pause

    @property
    def _blocked(self) -> bool:
        """Whether the breaker has opened since it admitted the call. If so, no further attempt is made."""
        return self.ticket is not None and self.ticket.blocked

    def _retry_due(self) -> None:
        """Timer: begin the next round, or end the call if the breaker has opened, or a limit does not admit it."""
        now, failure = trio.current_time(), self._fallback
        assert failure is not None
        self._timer = self._fallback = None
        if self._blocked:
            self.client.retries_blocked += 1
            self._conclude(failure, now)
            return
        if self.client.limits is not None and not self.client.limits.take(self.context.request, now):
            self._conclude(failure, now)
            return
        failure.discard(now)
        self.client.retries += 1
        self._made += 1
        try:
            self._begin_round(now, "retry")
            self.send()
        except Exception as error:  # noqa: BLE001  # an internal error must not end the task of the timers
            self.crashed(error, now)

    # Races.

    def _begin_race(self, hedge: HedgeRules) -> Race:
        """Make the round's race, of its first attempt."""
        race = self._race = Race(hedge.max, self.client.budget)
        return race

    def _set_hedge_timer(self, now: float, hedge: HedgeRules) -> None:
        """Set the timer of the next hedge, unless it would be due at or after the call's deadline."""
        after = hedge.seconds
        if after is None:
            digest = self.client.digest(hedge.quantile)
            after = digest.percentile(now) if digest is not None else None
        if after is not None and now + after < self.context.deadline:
            self._hedge_timer = self.client.timers.add(now + after, self._hedge_due)
            self.client.hedges_pending += 1

    def _hedge_due(self) -> None:
        """Timer: start the next hedge."""
        hedge = self._hedge
        assert hedge is not None
        self._cancel_hedge_timer()
        now = trio.current_time()
        try:
            self._start_hedge(self._race or self._begin_race(hedge), hedge, now)
        except Exception as error:  # noqa: BLE001  # an internal error must not end the task of the timers
            self.crashed(error, now)

    def _cancel_hedge_timer(self) -> None:
        """Cancel the timer of the next hedge, if there is one."""
        if self._hedge_timer is not None:
            self._hedge_timer.cancel()
            self._hedge_timer = None
            self.client.hedges_pending -= 1

    def _start_hedge(self, race: Race, hedge: HedgeRules, now: float) -> None:
        """Start a hedge if race, limits, budget and breaker permit: its timer is due, or an attempt has failed."""
        if self._blocked or not race.may_grow:
            return
        limits = self.client.limits
        turn = None if limits is None else limits.turn(self.context.request)
        if turn is not None and not turn.is_due(now):
            turn.count_refusal(now)
            return
        failover = self._failovers > 0
        entry = race.another(failover=failover)
        if entry is None:
            return
        if turn is not None:
            turn.take(now)
        self._failovers -= failover
        self.client.hedges += 1
        self._cancel_hedge_timer()
        attempt = self.attempt_type(self, "hedge")
        attempt.entry = entry
        if self._hedges is None:
            self._hedges = []
        self._hedges.append(attempt)
        # The timer first: ``begin`` may end the attempt, and with it the race, which then finds the timer to cancel.
        if race.may_grow:
            self._set_hedge_timer(now, hedge)
        attempt.begin(now)
        attempt.send()

    def _attempt_ended_in_race(self, attempt: Attempt, race: Race, now: float) -> None:
        """Count the end of an attempt in its race: continue the race, start a hedge, or end the round."""
        result, hedge = attempt.result, self._hedge
        assert hedge is not None
        verdict = hedge_verdict(result) if result is not None else None
        if verdict is HedgeVerdict.SUCCESS or (result is not None and result.kind is Kind.TIMEOUT):
            self._count_latency(attempt, hedge, now)
        won = race.ended(verdict, attempt.entry)
        if won:
            self.client.hedges_won += attempt.entry is not RaceEntry.FIRST
        elif verdict is not None:
            if attempt.entry is RaceEntry.FIRST:
                self._fallback = attempt
            if verdict is HedgeVerdict.RETRYABLE:
                self._start_hedge(race, hedge, now)
                race.settle()
            if self.state is DONE or self._race is not race or race.running:
                # Other attempts are under way. Or ``_start_hedge`` began an attempt that has ended within this step,
                # and that end has already ended the race or the call: nothing must be ended twice.
                if attempt.entry is not RaceEntry.FIRST:
                    attempt.discard(now)
                return
        # The round is over. Its result is the success, the internal error, or else the first attempt's failure.
        failure, self._fallback = self._fallback, None
        stands = attempt if won or verdict is None or failure is None else failure
        for other in (failure, attempt):
            if other is not None and other is not stands:
                other.discard(now)
        race.stop()
        self._cut(LOST, now)
        self._cancel_hedge_timer()
        self._end_round(stands, now)

    def _count_latency(self, attempt: Attempt, hedge: HedgeRules, now: float) -> None:
        """Count the latency of an attempt for the hedging percentile.

        Counted are successes, timeouts, and first attempts that lost to a hedge; the last two would have taken at least
        so long. Without the attempts that lost, every hedge would lower the percentile, and a lower percentile would
        cause more hedges. For the same reason failures and cut hedges are not counted: they may be brief.
        """
        if hedge.quantile is None:
            return
        digest = self.client.digest(hedge.quantile)
        # An attempt that was never made (no time left, no replica) took no time.
        if digest is not None and attempt.slot is not None and now > attempt.started_at:
            digest.add(now, attempt.slot.name, now - attempt.started_at)

    def _cut(self, reason: str, now: float) -> None:
        """Cut all attempts that are under way."""
        attempts = self.under_way
        self._attempt = self._hedges = None
        for attempt in attempts:
            kind = attempt.cut(reason, now)
            race, hedge = self._race, self._hedge
            if race is not None:
                race.ended(None, attempt.entry)
            late = reason == LOST or kind is Kind.TIMEOUT
            if hedge is not None and late and attempt.entry is RaceEntry.FIRST:
                self._count_latency(attempt, hedge, now)

    # End.

    def _conclude(self, attempt: Attempt, now: float) -> None:
        self._count_mended(attempt)
        super()._conclude(attempt, now)

    def _count_mended(self, attempt: Attempt) -> None:
        """Count the call as mended if it was retried and its response is not one that is retried."""
        if self._made > 1 and attempt.error is None and self._retry is not None:
            self.client.retries_mended += attempt.status not in self._retry.on.statuses

    def _close(self, now: float, *, learns: bool = False) -> None:
        client = self.client
        self._fallback = None
        if self._hedge_timer is not None:
            self._cancel_hedge_timer()
        if self._charged:
            self._charged = False
            client.budget.give_back()
        if self._counted:
            client.budget.leave(self)
        super()._close(now, learns=learns)

    def _abandon(self, reason: str, now: float) -> None:
        if self._fallback is not None:
            self._fallback.discard(now)
        super()._abandon(reason, now)
