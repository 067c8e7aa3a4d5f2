"""A call with retries and hedges: it may make more than one attempt, in rounds, in a race, or both.

Theory
------
See ``call.py`` for what a call and an attempt are.

**Rounds.** Without hedging a round is one attempt. With hedging it is a *race* (``policy.hedge.Race``) of the first
attempt and its hedges. A hedge is started by a timer or by a failure. When an attempt wins, ``_cut`` ends the others in
the same step, with the reason ``LOST``: their connections are closed, which also removes their handlers from the
reader. If the loser's answer is in the same batch of events as the winner's, it is therefore never read: the first one
in the batch has won. When a round has ended without a success, the retry policy may begin another round after a pause,
which is a timer too; its attempt is started in the timer's callback. Retries and hedges draw on one budget, which is
charged where an attempt is granted and given back where the round (or the hedge) ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ...core.call import CallContext, PreparedRequest
from ...core.failure_kinds import Kind
from ...policy.hedge import HedgeRules, HedgeVerdict, Race, RaceEntry, hedge_verdict
from ...policy.retry import RetryRules
from .attempt import DONE, Attempt, Cause
from .call import RUNNING, UpstreamCall
from .failure_kind import LOST, kind_of_error
from .retry_safety import is_unsent

if TYPE_CHECKING:
    from .client_interface import ClientInterface


class RepeatableCall(UpstreamCall):
    """A ``core.call.Call`` with retries or hedges. See the module."""

    __slots__ = (
        "_charged",
        "_counted",
        "_failovers",
        "_fallback",
        "_hedge",
        "_hedges",
        "_made",
        "_race",
        "_retry",
    )

    attempt_type: ClassVar[type[Attempt]] = Attempt

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(client, prepared, context)
        # ``_attempt`` is the round's first attempt, and ``_timer`` also that of the next hedge or of the next round.
        self._retry: RetryRules | None = None
        self._hedge: HedgeRules | None = None
        self._counted = False
        """Whether the budget counts it as active."""
        self._race: Race | None = None
        self._hedges: list[Attempt] | None = None
        """The round's hedges that are not DONE; None before the first."""
        self._fallback: Attempt | None = None
        """The result if nothing better comes: the end of the race's first attempt, or of the round that is retried."""
        self._made = 1
        """Rounds begun."""
        self._charged = False
        """Whether the budget was charged for this round, or for the one that the timer will begin."""
        self._failovers = 0
        """Attempts that were lost with a dying replica and may be made once more elsewhere without budget."""

    @property
    def under_way(self) -> list[Attempt]:
        """Its attempts that have not ended."""
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
        self._begin_round(now, "first")

    def _begin_round(self, now: float, cause: Cause) -> None:
        if self._hedge is not None:
            self._race = Race(self._hedge.max, self.client.budget)
            self._set_hedge_timer(now)
        attempt = self._attempt = self.attempt_type(self, cause)
        attempt.entry = RaceEntry.FIRST
        attempt.begin(now)

    # Events of attempts.

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """See ``UpstreamCall``."""
        if attempt.error is None or kind_of_error(attempt.error) is not Kind.TIMEOUT:
            self.client.bulkhead.completed_at = now
        if attempt is self._attempt:
            self._attempt = None
        elif self._hedges is not None:
            self._hedges.remove(attempt)
        if self._race is not None:
            self._attempt_ended_in_race(attempt, self._race, now)
        elif attempt.error is None and (self._retry is None or attempt.status not in self._retry.on.statuses):
            # Of nearly every call this is the end, so it comes before all that costs.
            self._conclude(attempt, now)
        else:
            self._end_round(attempt, now)

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """See ``UpstreamCall``."""
        if attempt.slot is not None and (self._retry is not None or self._hedge is not None):
            self._failovers += self.client.balance.lost(now, attempt.slot, self.tried)

    # Rounds.

    def _end_round(self, attempt: Attempt, now: float) -> None:
        """End a round, with no attempt under way: ``attempt``'s end is the call's, unless a retry is granted."""
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
        """Seconds until the next round, which the budget then has granted; None without another round."""
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
        """Whether the breaker has opened since the call was admitted: no further attempt is made then."""
        return self.ticket is not None and self.ticket.blocked

    def _retry_due(self) -> None:
        now, failure = trio.current_time(), self._fallback
        assert failure is not None
        self._timer = self._fallback = None
        if self._blocked:
            self.client.retries_blocked += 1
            self._conclude(failure, now)
            return
        failure.discard(now)
        self.client.retries += 1
        self._made += 1
        try:
            self._begin_round(now, "retry")
            self.send()
        except Exception as error:  # noqa: BLE001  # a bug must not end the timers of others
            self.crashed(error, now)

    # Races.

    def _set_hedge_timer(self, now: float) -> None:
        """Set the timer of the next hedge, if that would come before the call's deadline."""
        assert self._hedge is not None
        after = self._hedge.seconds
        if after is None:
            digest = self.client.digest(self._hedge.quantile)
            after = digest.percentile(now) if digest is not None else None
        if after is not None and now + after < self.context.deadline:
            self._timer = self.client.timers.add(now + after, self._hedge_due)
            self.client.hedges_pending += 1

    def _hedge_due(self) -> None:
        self._cancel_hedge_timer()
        now = trio.current_time()
        try:
            self._start_hedge(now)
        except Exception as error:  # noqa: BLE001  # a bug must not end the timers of others
            self.crashed(error, now)

    def _cancel_hedge_timer(self) -> None:
        """Cancel the timer of the next hedge, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.client.hedges_pending -= 1

    def _start_hedge(self, now: float) -> None:
        """Start a hedge, if race, budget and breaker permit: its time has come, or an attempt has failed early."""
        race = self._race
        if race is None or self._blocked or not race.may_grow:
            return
        failover = self._failovers > 0
        entry = race.another(failover=failover)
        if entry is None:
            return
        self._failovers -= failover
        self.client.hedges += 1
        self._cancel_hedge_timer()
        attempt = self.attempt_type(self, "hedge")
        attempt.entry = entry
        if self._hedges is None:
            self._hedges = []
        self._hedges.append(attempt)
        if race.may_grow:
            self._set_hedge_timer(now)
        attempt.begin(now)
        attempt.send()

    def _attempt_ended_in_race(self, attempt: Attempt, race: Race, now: float) -> None:
        """Decide what the end of an attempt means for the others of its race."""
        result = attempt.result
        verdict = hedge_verdict(result) if result is not None else None
        if verdict is HedgeVerdict.SUCCESS or (result is not None and result.kind is Kind.TIMEOUT):
            self._count_latency(attempt, now)
        won = race.ended(verdict, attempt.entry)
        if won:
            self.client.hedges_won += attempt.entry is not RaceEntry.FIRST
        elif verdict is not None:
            if attempt.entry is RaceEntry.FIRST:
                self._fallback = attempt
            if verdict is HedgeVerdict.RETRYABLE:
                self._start_hedge(now)
                race.settle()
            if self.state is DONE or self._race is not race or race.running:
                # Others are under way. Or the attempt that was just started has ended already, and all with it.
                if attempt.entry is not RaceEntry.FIRST:
                    attempt.discard(now)
                return
        # The round is over: by a success, by a bug of ours, which ends it at once, or with the first attempt's failure.
        failure, self._fallback = self._fallback, None
        stands = attempt if won or verdict is None or failure is None else failure
        for other in (failure, attempt):
            if other is not None and other is not stands:
                other.discard(now)
        race.stop()
        self._cut(LOST, now)
        self._cancel_hedge_timer()
        self._end_round(stands, now)

    def _count_latency(self, attempt: Attempt, now: float) -> None:
        """Count the latency of an attempt: an answer, or one that took at least so long (a timeout, or overtaken).

        Without the latter the percentile would sink with every hedge and so make more of them. For the same reason a
        failure, which may come at once, does not count, nor a hedge that was cut.
        """
        assert self._hedge is not None
        digest = self.client.digest(self._hedge.quantile)
        # What came too late to be made at all took no time.
        if digest is not None and attempt.slot is not None and now > attempt.started_at:
            digest.add(now, attempt.slot.name, now - attempt.started_at)

    def _cut(self, reason: str, now: float) -> None:
        """Cut the attempts that are under way."""
        attempts = self.under_way
        self._attempt = self._hedges = None
        for attempt in attempts:
            kind = attempt.cut(reason, now)
            race = self._race
            if race is not None:
                race.ended(None, attempt.entry)
                if attempt.entry is RaceEntry.FIRST and (reason == LOST or kind is Kind.TIMEOUT):
                    self._count_latency(attempt, now)

    # The end.

    def _conclude(self, attempt: Attempt, now: float) -> None:
        self._count_mended(attempt)
        super()._conclude(attempt, now)

    def _count_mended(self, attempt: Attempt) -> None:
        """Count the call if a retry has given it an answer that is not retried."""
        if self._made > 1 and attempt.error is None and self._retry is not None:
            self.client.retries_mended += attempt.status not in self._retry.on.statuses

    def _close(self, now: float, *, learns: bool = False) -> None:
        client = self.client
        self._fallback = None
        if self._race is not None:
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
