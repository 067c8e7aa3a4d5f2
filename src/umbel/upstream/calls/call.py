"""A call to an upstream: its admission, its attempt, and its result.

Theory
------
**Problem.** A call passes the policies of its upstream in a fixed order (``client.py`` says why). Nearly every call
meets no obstacle: it is admitted at once, finds a kept connection and has a response some milliseconds later. Such a
call must cost no task and no timer. Yet a call may also wait at each step, and it may be cancelled at each step without
a leak.

**Path of a call.** With *coalescing* the owner sees a ``Waiter`` (``coalesce.py``), which shares one ``UpstreamCall``
with others, or makes one by itself. Without it the owner sees the ``UpstreamCall``. An ``UpstreamCall`` has these
states::

    NEW ── start ──► breaker ──► limits, bulkhead ──► RUNNING ── attempt(s) ──► DONE
                        │               │ ╲               ▲
                   BreakerOpen      Overflow ►  QUEUED  ──┘  (the limits admit it, a place is granted)

- NEW: ``start`` asks the *breaker* for a ticket, then the *limits* of the upstream and the *bulkhead* for a place. A
  refusal ends the call with ``BreakerOpen`` or ``Overflow``. Breaker and bulkhead are asked once per call, not once per
  attempt; the limits for each attempt (``limit_queue.py``).
- QUEUED: the call waits in the bulkhead's queue and holds no place. The bulkhead ends this state by ``_granted``, in
  the task that released a place, or by ``_overflow``. httpx's ``pool`` timeout, the call's own limit and ``cancel`` end
  it as well. A call that finds a free place skips this state. With limits, the call first waits for its turn at them,
  without a place in the queue; ``turn_came`` and ``turn_refused`` end that. It spends when it becomes RUNNING.
- RUNNING: the call holds a place of the bulkhead until DONE, also between two attempts. An ``Attempt``
  (``attempt.py``) takes a replica from the *load balancer*, then a connection from the pool. ``UpstreamCall`` makes one
  attempt. ``RepeatableCall`` (``repeatable_call.py``) adds *retries* and *hedges*. ``StreamCall``
  (``stream_call.py``) passes the response on piece by piece.
- DONE: the call has its result: ``status`` with the response, or ``error``. After a cancel the call has neither.

**Invariants.**

- Only ``_close`` sets DONE, and it gives back everything that the call holds: its place in the queue or the bulkhead,
  its timers, the breaker's probe, and in subclasses the retry budget. ``_close`` runs once per call.
- The owner gets ``call_ended`` once, after ``_close``; after ``cancel`` it gets nothing. Only a ``StreamCall`` reports
  ``call_ended`` before ``_close``: when the head of the response is there.
- A call that is DONE has no attempt under way: ``_conclude`` runs when the last attempt has ended, and ``_abandon``
  cuts attempts before ``_close``.

**Who calls what.** The owner calls ``start``, then ``send``; it awaits ``finish`` once per ``call_waits``; and it may
call ``cancel`` at any time. Attempts call the functions of ``AttemptOwner``. Callbacks run in the reader's task, in the
task of the timers, or in the task of the call that released a place. Only ``finish`` waits. Every other function is one
step that no task interrupts, so the fields need no lock. An exception in a callback must not reach the task that runs
the callback, because that task serves other calls; ``crashed`` makes the exception the end of this call.

**Cancellation.** ``cancel`` closes the connections of the attempts, records the attempts and frees the place in one
step, and never waits. A task in ``finish`` is then only unwinding: the attempt's cancel scope ends its DNS look-up,
connect or handshake, and the dialer closes its socket. A cancel of the task in ``finish`` cancels the call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import trio

from ...core.call import CallBase, CallContext, Mode, PreparedRequest
from ...core.errors import UpstreamError
from ...core.events import LogMessage
from ...core.failure_kinds import Kind
from ..errors import BreakerOpen, BudgetSpent, CallTimedOut, Overflow
from ..limit_queue import MARGIN
from ..pool.request_head import IDEMPOTENT, is_idempotent
from .attempt import DONE, WAITING, Attempt
from .failure_kind import kind_of_cut, kind_of_error

if TYPE_CHECKING:
    from ...http1.response_head import Head
    from ...net.timers import Timer
    from ...policy.breaker import Ticket
    from ..limit_queue import CallLimits, Turn
    from .client_interface import ClientInterface

NEW, QUEUED, RUNNING = "new", "queued", "running"
"""States of a call. DONE is also a state of attempts."""


class UpstreamCall(CallBase):
    """A ``core.call.Call`` that makes one attempt. See the module for states and rules."""

    __slots__ = (
        "_attempt",
        "_limit_timer",
        "_placed_at",
        "_timer",
        "_turn",
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
    _turn: Turn
    """The call's turn at the limits of its upstream; exists only with limits, after ``start``."""

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        # As ``CallBase.__init__``, inlined: calling it would double the time that this function takes.
        self.prepared = prepared
        self.context = context
        self.status = None
        self.error = None
        self.ended_at = 0.0
        self.fields = ()
        self.names = None
        self.content = b""
        self.client = client
        self.head: Head | None = None
        """Head of the response as received; None if there is no response."""
        self.state = NEW
        self.idempotent = prepared.method in IDEMPOTENT or is_idempotent(prepared)
        """Whether the request may be sent twice."""
        self.request_key = id(self) if context.request is None else id(context.request)
        """Identity of the inbound request, for the bulkhead; the call's own identity if there is no inbound request."""
        self.ticket: Ticket | None = None
        """Admission by the breaker; None if the upstream has no breaker, or before ``start``."""
        self.tried: tuple[str, ...] = ()
        """Names of the replicas that the call's attempts took, in order."""
        self._placed_at: float | None = None
        """Time at which the call took its place of the bulkhead; None before that."""
        self._attempt: Attempt | None = None
        """The attempt under way; None if there is none."""
        self._waiting: list[Attempt] | None = None
        """Attempts that wait for ``finish`` to run them."""
        self._timer: Timer | None = None
        """Timer of httpx's ``pool`` timeout, while the call is QUEUED."""
        self._limit_timer: Timer | None = None
        """Timer of the call's own limit (``CallContext.limit``)."""

    @property
    def under_way(self) -> list[Attempt]:
        """Attempts of the call that have not ended."""
        return [] if self._attempt is None else [self._attempt]

    # Admission.

    def start(self, now: float) -> None:
        """Admit the call and make its request, without waiting; see ``core.call.Call``."""
        client = self.client
        if client.breaker is not None:
            self.ticket = client.breaker.admit(now)
            if self.ticket is None:
                left = client.breaker.retry_after(now)
                text = (
                    "the breaker is half-open and waits for the result of its probe"
                    if left is None
                    else f"the breaker is open for {left:.1f} s more"
                )
                self._refuse(BreakerOpen(text, retry_after=left), now)
                return
        if self.context.limit is not None:
            self._limit_timer = client.timers.add(self.context.deadline, self._limit_passed)
        bulkhead, request = client.bulkhead, self.request_key
        try:
            if client.limits is not None:
                admitted = self._admitted_by(client.limits, now)
            else:
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

    def _admitted_by(self, limits: CallLimits, now: float) -> bool:
        """Take a place and spend of the limits, if both is possible at once. Else the call waits.

        Raises:
            Overflow: the call may not wait, or its turn would come too late.
        """
        bulkhead, request = self.client.bulkhead, self.request_key
        turn = self._turn = limits.turn(self.context.request)
        if turn.is_due(now):
            if bulkhead.admit(request):
                self._take_turn(now)
                return True
            bulkhead.wait(self, request, self._granted, self._overflow)
            turn.hold(self)
        else:
            turn.check(self._patience(now), self.context.deadline, now)
            bulkhead.delay(self, request, self._overflow)
            turn.wait(self, now)
        return False

    def _patience(self, now: float) -> float:
        """Time until which a call that starts ``now`` may wait for its turn, apart from its deadline."""
        steps, limits = self.context.steps, self.context.stream_limits
        seconds = [] if limits is None else [limits.first_byte, limits.lifetime]
        if steps is not None:
            seconds.append(steps.pool)
        return min([now + each - MARGIN for each in seconds if each is not None], default=math.inf)

    def _take_turn(self, now: float) -> None:
        """Spend of the limits; but not for a call whose deadline has passed, since nothing of it is sent."""
        if now < self.context.deadline:
            self._turn.take(now)
        else:
            self._turn.leave(now)

    def turn_came(self, now: float) -> None:
        """Take a place of the bulkhead, or queue for one; see ``limit_queue.TurnOwner``."""
        if self.client.bulkhead.end_delay(self, self._granted):
            self._granted(now)

    def turn_refused(self, error: Exception, now: float) -> None:
        """End the call with ``error``; see ``limit_queue.TurnOwner``."""
        self._refuse(error, now)

    def _granted(self, now: float) -> None:
        """Callback of the bulkhead: a place was taken for the call. Begin, and send at once."""
        if self.client.limits is not None:
            if not self._turn.is_due(now):
                self.client.bulkhead.delay_again(self, self.request_key, self._overflow)
                self._turn.wait(self, now)
                return
            self._take_turn(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._begin(now)
            self.send()
        except Exception as error:  # noqa: BLE001  # an internal error must not reach the call that released the place
            self.crashed(error, now)

    def _overflow(self, error: Overflow) -> None:
        """Callback of the bulkhead: the call may wait no longer."""
        self._refuse(error, trio.current_time())

    def _queued_too_long(self) -> None:
        """Timer: end the call, because httpx's ``pool`` timeout has passed while the call is QUEUED."""
        steps = self.context.steps
        if self.state is QUEUED and steps is not None:
            self._refuse(
                Overflow(f"no place became free within the pool timeout of {steps.pool:g} s"), trio.current_time()
            )

    def _begin(self, now: float) -> None:
        """Become RUNNING and begin the attempt. The call has taken its place of the bulkhead."""
        self.state, self._placed_at = RUNNING, now
        attempt = self._attempt = Attempt(self, self.client.first_cause)
        attempt.begin(now)

    def send(self) -> None:
        """Send what ``start`` has made ready, if anything; see ``core.call.Call``."""
        attempt = self._attempt
        if attempt is not None:
            attempt.send()

    # Events of attempts; see ``attempt.AttemptOwner``.

    def attempt_waits(self, attempt: Attempt) -> None:
        """Keep the attempt for ``finish``, and report ``call_waits`` to the owner."""
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(attempt)
        self.context.owner.call_waits(self)

    async def finish(self) -> None:
        """Wait for what the call needs, and continue the call; see ``core.call.Call``."""
        attempt = self._waiting.pop(0) if self._waiting else None
        # Between ``call_waits`` and this task the attempt may have been cut.
        if attempt is not None and attempt.state is WAITING:
            await attempt.run()

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """End the call with the response or the error of its attempt."""
        if attempt.error is None or kind_of_error(attempt.error) is not Kind.TIMEOUT:
            self.client.bulkhead.completed_at = now
        self._attempt = None
        self._conclude(attempt, now)

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Do nothing: only a ``RepeatableCall`` can fail over to another replica."""

    # End.

    def _cut(self, reason: str, now: float) -> None:
        """Cut the attempt that is under way, if there is one."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cut(reason, now)

    def _conclude(self, attempt: Attempt, now: float) -> None:
        """End the call with the response or the error of ``attempt``, and report ``call_ended``."""
        self.error = attempt.error
        if attempt.answer is not None:
            self.status = attempt.status
            self.head, self.fields, self.names, self.content = attempt.answer
        if self.client.gradient is None:
            self._close(now)
        elif attempt.error is None:
            # The duration of a 5xx says nothing about the duration of a success.
            self._close(now, learns=attempt.status is not None and attempt.status < 500)
        else:
            # A timeout took at least as long as it lasted, unless the attempt was never made.
            late = isinstance(attempt.error, UpstreamError) and attempt.error.kind is Kind.TIMEOUT
            self._close(now, learns=late and not isinstance(attempt.error, BudgetSpent))
        self.context.owner.call_ended(self)

    def _refuse(self, error: Exception, now: float) -> None:
        """End the call with ``error`` before its first attempt, and report ``call_ended``."""
        self.error = error
        self._close(now)
        self.context.owner.call_ended(self)

    def _close(self, now: float, *, learns: bool = False) -> None:
        """Set DONE and give back everything that the call holds. See "Invariants" in the module.

        Args:
            learns: whether the learned concurrency limit counts the call's duration.
        """
        client = self.client
        if self.state is QUEUED:
            client.bulkhead.leave(self)
            if client.limits is not None:
                self._turn.leave(now)
        self.state, self.ended_at = DONE, now
        self._waiting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._limit_timer is not None:
            self._limit_timer.cancel()
        ticket = self.ticket
        if ticket is not None and ticket.is_probe:
            # The probe gave no result; without this the breaker would admit no further call.
            ticket.ended()
        # Last: releasing the place may begin a waiting call within this step, and that call finds all else given back.
        if self._placed_at is not None:
            if learns and client.gradient is not None:
                client.gradient.ended(now, now - self._placed_at, client.bulkhead.in_use)
                client.bulkhead.resize(client.gradient.limit)
            client.bulkhead.give_back(self.request_key)

    def cancel(self, reason: str) -> None:
        """End the call at once, in any state, and close its connection; see ``core.call.Call``."""
        if self.state is not DONE:
            self._abandon(reason, trio.current_time())

    def _abandon(self, reason: str, now: float) -> None:
        """Cut the attempts under way and ``_close``, without ``call_ended``."""
        late = False
        if self._placed_at is not None:
            late = kind_of_cut(reason, self.context, self._placed_at, now) is Kind.TIMEOUT
            self._cut(reason, now)
        self._close(now, learns=late)

    def crashed(self, error: Exception, now: float) -> None:
        """End the call with an internal error of a callback. If the call is DONE, record the error instead."""
        context = self.context
        if self.state is DONE:
            message, fields = f"internal error in call {context.call} after its end", {"call": context.call}
            context.recorder.record(LogMessage("error", "call.crashed", message, context.request, fields, error))
            return
        self._abandon("an internal error", now)
        self.error = error
        context.owner.call_ended(self)

    def _limit_passed(self) -> None:
        """Timer: end the call with ``CallTimedOut``, because its own limit has passed."""
        limit, now = self.context.limit, trio.current_time()
        if self.state is DONE or limit is None:
            return
        self._abandon("the call's own limit", now)
        self.error = CallTimedOut.after(limit)
        self.context.owner.call_ended(self)
