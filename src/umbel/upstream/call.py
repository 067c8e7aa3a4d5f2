"""A call to an upstream: its attempts, from the first to the one that stands.

Theory
------
**A call** (``UpstreamCall``) is admitted once: by the breaker, then by a place of the bulkhead, for which
it may wait in a queue. Then it makes *attempts*. ``NEW → QUEUED → RUNNING → DONE``; a call that is admitted at once is
never QUEUED. Only ``_close`` leaves to DONE, and it is the one place that gives everything back: timers, place in the
queue or in the bulkhead, breaker ticket, count of the budget. It is reached by ``_end`` (the call has its result, and
its owner is told), or by ``cancel`` (the owner has ended it, and is told nothing).

**An attempt** (``Attempt``) is one request to one replica. It is the listener of its connection's stream, so the bytes
of its response are pushed to it from the reader's task. ``WAITING | READY → SENT → HEAD → DONE``:

- WAITING: it needs a task, because it must connect, or send more than fits a socket, or because its stream cannot push
  (a ``dial`` of a test). It is noted in ``UpstreamCall._waiting`` and the owner is told; ``finish`` carries it on.
- READY: it has a connection and is sent by ``depart``.
- SENT: the request is out, or being sent. HEAD: some of the response is there.
- Only ``_close`` of the attempt leaves to DONE. It gives its replica back, records the attempt, and tells the breaker.
  Before that the connection has been given back to the pool or closed: an attempt that is DONE has none.

A kept connection that turns out to be dead before a byte of the response came is replaced within the same attempt: its
peer closed it while the request was on its way. This happens once at most, since the new connection is not a kept one.

**Rounds.** Without hedging a round is one attempt. With hedging it is a *race* (``policy.hedge.Race``) of the first
attempt and its hedges. A hedge is started by a timer or by a failure. When an attempt wins, ``_cut`` ends the others in
the same step, with the reason ``LOST``: their connections are closed, which also removes their handlers from the
reader. If the loser's answer is in the same batch of events as the winner's, it is therefore never read: the first one
in the batch has won. When a round has ended without a success, the retry policy may begin another round after a pause,
which is a timer too; its attempt is started in the timer's callback. Retries and hedges draw on one budget, which is
charged where an attempt is granted and given back where the round (or the hedge) ends.

**Who runs this.** ``start`` and ``cancel`` run in the owner's task; ``finish`` in a task of the owner's nursery; the
callbacks in the tasks of the reader, of the timers, or of whoever gave a place back. None of them waits except
``finish``. Each is one step that no other interrupts, so the fields need no lock. After an ``await`` in ``finish`` the
attempt may have been cut: its state is looked at again.

**A cancel** closes what is under way: an attempt with a connection closes it without a goodbye; one that connects (in
DNS, connect, or the TLS handshake) has a cancel scope around that, which the dialler leaves no socket behind in. The
attempt is DONE and recorded at once; the task in ``finish`` only unwinds. A client that leaves during a TLS handshake
thus ends the call at once, and the handshake's socket is closed before the owner's nursery ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ..core.call import CallBase, CallContext, Mode, Prepared
from ..errors import UpstreamError
from ..events import Noted
from ..kinds import Kind
from ..policy.hedge import Entry, HedgeRules, Judgement, Race, judge
from ..policy.retry import RetryRules
from .again import untold
from .attempt import DONE, WAITING, Attempt, Cause
from .ending import LOST, kind_of_cut, kind_of_error
from .errors import BreakerOpen, BudgetSpent, CallTimedOut, Overflow
from .outgoing import IDEMPOTENT, is_idempotent

if TYPE_CHECKING:
    from ..net.timers import Timer
    from ..policy.breaker import Ticket
    from .client import Client
    from .head import Head

NEW, QUEUED, RUNNING = "new", "queued", "running"
"""States of a call; DONE it shares with attempts."""


class UpstreamCall(CallBase):
    """See the module, and ``core.call.Call``."""

    __slots__ = (
        "_attempt",
        "_charged",
        "_counted",
        "_failovers",
        "_failure",
        "_hedge",
        "_hedges",
        "_limit_timer",
        "_made",
        "_placed_at",
        "_race",
        "_retry",
        "_timer",
        "_waiting",
        "client",
        "head",
        "idempotent",
        "request_key",
        "state",
        "ticket",
        "tried",
    )

    mode: ClassVar[Mode] = "whole"
    attempt_type: ClassVar[type[Attempt]] = Attempt

    def __init__(self, client: Client, prepared: Prepared, context: CallContext) -> None:
        CallBase.__init__(self, prepared, context)  # Not super(): it costs as much as all of this.
        self.client = client
        self.head: Head | None = None
        """The response's head as it came; None where there is no response."""
        self.state = NEW
        self.idempotent = prepared.method in IDEMPOTENT or is_idempotent(prepared)
        """Whether the request may be sent twice."""
        self.request_key = id(self) if context.request is None else id(context.request)
        """The request that it counts for in the bulkhead: that of its composition; without one it counts by itself."""
        self.ticket: Ticket | None = None
        self.tried: tuple[str, ...] = ()
        """The names of the replicas that its attempts took, in order."""
        self._placed_at: float | None = None
        """When it got its place; None while it has none."""
        self._retry: RetryRules | None = None
        self._hedge: HedgeRules | None = None
        self._counted = False
        """Whether the budget counts it as active."""
        self._race: Race | None = None
        self._attempt: Attempt | None = None
        """The round's first attempt, until it is DONE."""
        self._hedges: list[Attempt] | None = None
        """The round's hedges that are not DONE; None before the first."""
        self._failure: Attempt | None = None
        """What stands if nothing better comes: the end of the race's first attempt, or of the round that is retried."""
        self._made = 1
        """Rounds begun."""
        self._charged = False
        """Whether the budget was charged for this round, or for the one that the timer will begin."""
        self._failovers = 0
        """Attempts that a dying replica took with it and that may be made once more elsewhere without budget."""
        self._waiting: list[Attempt] | None = None
        """Attempts that ``finish`` is to carry on."""
        self._timer: Timer | None = None
        """Of the next hedge, or of the next round."""
        self._limit_timer: Timer | None = None

    @property
    def under_way(self) -> list[Attempt]:
        """Its attempts that have not ended."""
        return [*([] if self._attempt is None else [self._attempt]), *(self._hedges or ())]

    # Admission.

    def start(self, now: float) -> None:
        """See ``core.call.Call``."""
        client = self.client
        if client.breaker is not None:
            self.ticket = client.breaker.admit(now)
            if self.ticket is None:
                left = client.breaker.retry_after(now)
                text = "a probe is on its way" if left is None else f"the breaker is open for {left:.1f} s more"
                self._refuse(BreakerOpen(text, retry_after=left), now)
                return
        if self.context.limit is not None:
            self._limit_timer = client.timers.add(self.context.deadline, self._limit_passed)
        bulkhead, request = client.bulkhead, self.request_key
        try:
            admitted = bulkhead.admit(request)
            if not admitted:
                bulkhead.wait(self, request, self._granted, self._overflow)
        except Overflow as error:
            error.forget_frames()
            self._refuse(error, now)
            return
        if admitted:
            self._begin(now)
            return
        self.state = QUEUED
        steps = self.context.steps
        if steps is not None and steps.pool is not None:
            self._timer = client.timers.add(now + steps.pool, self._queued_too_long)

    def _granted(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = trio.current_time()
        try:
            self._begin(now)
            self.depart()
        except Exception as error:  # noqa: BLE001  # a bug must not reach whoever gave the place back
            self.crashed(error, now)

    def _overflow(self, error: Overflow) -> None:
        self._refuse(error, trio.current_time())

    def _queued_too_long(self) -> None:
        steps = self.context.steps
        if self.state is QUEUED and steps is not None:
            self._refuse(Overflow(f"no place became free for {steps.pool:g} s"), trio.current_time())

    def _begin(self, now: float) -> None:
        """It has its place: make the first attempt."""
        client, context = self.client, self.context
        self.state, self._placed_at = RUNNING, now
        self._retry = context.retry or client.retry
        self._hedge = hedge = context.hedge or client.hedge
        if hedge is not None and (not hedge.max or not self.idempotent):
            self._hedge = None
        if self._retry is not None or self._hedge is not None:
            client.budget.enter(self)
            self._counted = True
        if self._hedge is not None:
            self._begin_round(now, "first")
            return
        attempt = self._attempt = self.attempt_type(self, "first", Entry.FIRST)
        attempt.begin(now)

    def depart(self) -> None:
        """See ``core.call.Call``."""
        attempt = self._attempt
        if attempt is not None:
            attempt.depart()

    def _begin_round(self, now: float, cause: Cause) -> None:
        if self._hedge is not None:
            self._race = Race(self._hedge.max, self.client.budget)
            self._remind(now)
        attempt = self._attempt = self.attempt_type(self, cause, Entry.FIRST)
        attempt.begin(now)

    # What attempts say.

    def attempt_waits(self, attempt: Attempt) -> None:
        """It needs a task."""
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(attempt)
        self.context.owner.call_waits(self)

    async def finish(self) -> None:
        """See ``core.call.Call``."""
        attempt = self._waiting.pop(0) if self._waiting else None
        if attempt is not None and attempt.state is WAITING:
            await attempt.carry_on()

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """It has a response or an error, and nobody cut it."""
        if attempt.error is None or kind_of_error(attempt.error) is not Kind.TIMEOUT:
            self.client.bulkhead.completed_at = now
        if attempt is self._attempt:
            self._attempt = None
        elif self._hedges is not None:
            self._hedges.remove(attempt)
        if self._race is not None:
            self._judge(attempt, self._race, now)
        elif attempt.error is None and (self._retry is None or attempt.status not in self._retry.on.statuses):
            # Of nearly every call this is the end, so it comes before all that costs.
            self._stand(attempt, now)
        else:
            self._end_round(attempt, now)

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Its connection failed before the upstream had answered at all: the repeat elsewhere may be failover."""
        if attempt.seat is not None and (self._retry is not None or self._hedge is not None):
            self._failovers += self.client.balance.lost(now, attempt.seat, self.tried)

    # Rounds.

    def _end_round(self, attempt: Attempt, now: float) -> None:
        """No attempt is under way: ``attempt``'s end stands, unless another round is granted."""
        if self._charged:
            self._charged = False
            self.client.budget.give_back()
        self._race = None
        pause = None if self._retry is None else self._pause(self._retry, attempt, now)
        if pause is None:
            self._stand(attempt, now)
            return
        self._failure = attempt
        self._timer = self.client.timers.add(now + pause, self._retry_due)

    def _pause(self, rules: RetryRules, attempt: Attempt, now: float) -> float | None:
        """Seconds until the next round, which the budget has granted then; None if there is to be none."""
        if attempt.error is None and attempt.status not in rules.on.statuses:
            return None
        ending = attempt.ending
        if ending is None or not rules.wants(self._made, ending) or not (self.idempotent or untold(ending)):
            return None
        client = self.client
        if self._blocked:
            client.retries_blocked += 1
            return None
        pause = rules.pause(self._made, ending, now, self.context.deadline, client.rng)
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
        """Whether the breaker has opened since: attempts that are not under way are not made."""
        return self.ticket is not None and self.ticket.blocked

    def _retry_due(self) -> None:
        now, failure = trio.current_time(), self._failure
        assert failure is not None
        self._timer = self._failure = None
        if self._blocked:
            self.client.retries_blocked += 1
            self._stand(failure, now)
            return
        failure.discard(now)
        self.client.retries += 1
        self._made += 1
        try:
            self._begin_round(now, "retry")
            self.depart()
        except Exception as error:  # noqa: BLE001  # a bug must not end the timers of others
            self.crashed(error, now)

    # Races.

    def _remind(self, now: float) -> None:
        """Have the next hedge started, if it would come before the call's deadline."""
        assert self._hedge is not None
        after = self._hedge.seconds
        if after is None:
            digest = self.client.digest(self._hedge.quantile)
            after = digest.percentile(now) if digest is not None else None
        if after is not None and now + after < self.context.deadline:
            self._timer = self.client.timers.add(now + after, self._hedge_due)
            self.client.hedges_pending += 1

    def _hedge_due(self) -> None:
        self._forget_reminder()
        now = trio.current_time()
        try:
            self._start_another(now)
        except Exception as error:  # noqa: BLE001  # a bug must not end the timers of others
            self.crashed(error, now)

    def _forget_reminder(self) -> None:
        """The timer of the next hedge has run, or is not wanted any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.client.hedges_pending -= 1

    def _start_another(self, now: float) -> None:
        """It is time for another attempt, or an early failure asks for one."""
        race = self._race
        if race is None or self._blocked or not race.may_grow:
            return
        failover = self._failovers > 0
        entry = race.another(failover=failover)
        if entry is None:
            return
        self._failovers -= failover
        self.client.hedges += 1
        self._forget_reminder()
        attempt = self.attempt_type(self, "hedge", entry)
        if self._hedges is None:
            self._hedges = []
        self._hedges.append(attempt)
        if race.may_grow:
            self._remind(now)
        attempt.begin(now)
        attempt.depart()

    def _judge(self, attempt: Attempt, race: Race, now: float) -> None:
        """An attempt of a race has ended: see what it means for the others."""
        ending = attempt.ending
        judgement = judge(ending) if ending is not None else None
        if judgement is Judgement.SUCCESS or (ending is not None and ending.kind is Kind.TIMEOUT):
            self._took(attempt, now)
        won = race.ended(judgement, attempt.entry)
        if won:
            self.client.hedges_won += attempt.entry is not Entry.FIRST
        elif judgement is not None:
            if attempt.entry is Entry.FIRST:
                self._failure = attempt
            if judgement is Judgement.RETRYABLE:
                self._start_another(now)
                race.settle()
            if self.state is DONE or self._race is not race or race.running:
                # Others are under way. Or the attempt that was just started has ended already, and all with it.
                if attempt.entry is not Entry.FIRST:
                    attempt.discard(now)
                return
        # The round is over: by a success, by a bug of ours, which ends it at once, or with the first attempt's failure.
        failure, self._failure = self._failure, None
        stands = attempt if won or judgement is None or failure is None else failure
        for other in (failure, attempt):
            if other is not None and other is not stands:
                other.discard(now)
        race.stop()
        self._cut(LOST, now)
        self._forget_reminder()
        self._end_round(stands, now)

    def _took(self, attempt: Attempt, now: float) -> None:
        """Count an attempt: an answer, or one that took at least so long, which is a timeout or was overtaken.

        Without the latter the percentile would sink with every hedge and so make more of them. For the same reason a
        failure, which may come at once, does not count, nor a hedge that was cut.
        """
        assert self._hedge is not None
        digest = self.client.digest(self._hedge.quantile)
        # What came too late to be made at all took no time.
        if digest is not None and attempt.seat is not None and now > attempt.started_at:
            digest.add(now, attempt.seat.name, now - attempt.started_at)

    def _cut(self, reason: str, now: float) -> None:
        """Cut the attempts that are under way."""
        attempts = self.under_way
        self._attempt = self._hedges = None
        for attempt in attempts:
            kind = attempt.cut(reason, now)
            race = self._race
            if race is not None:
                race.ended(None, attempt.entry)
                if attempt.entry is Entry.FIRST and (reason == LOST or kind is Kind.TIMEOUT):
                    self._took(attempt, now)

    # The end.

    def _stand(self, attempt: Attempt, now: float) -> None:
        """``attempt``'s end is the call's."""
        error = attempt.error
        if error is None and self._made == 1:
            # The same as _adopt: this is the plain way of nearly every call.
            self.status, self.head, self.content = attempt.status, attempt.head, attempt.content
            self.fields, self.names = attempt.fields, attempt.names
        else:
            self._adopt(attempt)
        if self.client.gradient is None:
            self._close(now)
        elif attempt.error is None:
            # How fast an upstream fails says nothing of how fast it works.
            self._close(now, learns=attempt.status is not None and attempt.status < 500)
        else:
            late = isinstance(attempt.error, UpstreamError) and attempt.error.kind is Kind.TIMEOUT
            self._close(now, learns=late and not isinstance(attempt.error, BudgetSpent))
        self.context.owner.call_ended(self)

    def _adopt(self, attempt: Attempt) -> None:
        """Take over the response or the error of ``attempt``."""
        self.status, self.error, self.head = attempt.status, attempt.error, attempt.head
        self.fields, self.names, self.content = attempt.fields, attempt.names, attempt.content
        if attempt.error is not None:
            self.status = None
        elif self._made > 1 and self._retry is not None and attempt.status not in self._retry.on.statuses:
            self.client.retries_mended += 1

    def _refuse(self, error: Exception, now: float) -> None:
        """The call ends before it has made an attempt."""
        self.error = error
        self._close(now)
        self.context.owner.call_ended(self)

    def _close(self, now: float, *, learns: bool = False) -> None:
        """Leave to DONE and give everything back. The one place that does."""
        client = self.client
        if self.state is QUEUED:
            client.bulkhead.leave(self)
        self.state, self.ended_at = DONE, now
        self._waiting = self._failure = None
        if self._timer is not None:
            if self._race is not None:
                self._forget_reminder()
            else:
                self._timer.cancel()
                self._timer = None
        if self._limit_timer is not None:
            self._limit_timer.cancel()
        if self._charged:
            self._charged = False
            client.budget.give_back()
        if self._counted:
            client.budget.leave(self)
        ticket = self.ticket
        if ticket is not None and ticket.is_probe:
            ticket.ended()
        if self._placed_at is not None:
            if learns and client.gradient is not None:
                client.gradient.ended(now, now - self._placed_at, client.bulkhead.in_use)
                client.bulkhead.resize(client.gradient.limit)
            client.bulkhead.give_back(self.request_key)

    def cancel(self, reason: str) -> None:
        """See ``core.call.Call``."""
        if self.state is not DONE:
            self._abandon(reason, trio.current_time())

    def _abandon(self, reason: str, now: float) -> None:
        """Cut everything and leave to DONE, without a word to the owner."""
        if self._failure is not None:
            self._failure.discard(now)
        late = False
        if self._placed_at is not None:
            late = kind_of_cut(reason, self.context, self._placed_at, now) is Kind.TIMEOUT
            self._cut(reason, now)
        self._close(now, learns=late)

    def crashed(self, error: Exception, now: float) -> None:
        """A bug of ours came up in a callback: the call ends with it. After the call's end it is recorded."""
        context = self.context
        if self.state is DONE:
            message, fields = f"call {context.call} crashed after its end", {"call": context.call}
            context.recorder.record(Noted("error", "call.crashed", message, context.request, fields, error))
            return
        self._abandon("a bug", now)
        self.error = error
        context.owner.call_ended(self)

    def _limit_passed(self) -> None:
        """The call's own limit is over."""
        limit, now = self.context.limit, trio.current_time()
        if self.state is DONE or limit is None:
            return
        self._abandon("the call's own limit", now)
        self.error = CallTimedOut.after(limit)
        self.context.owner.call_ended(self)
