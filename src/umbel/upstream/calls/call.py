"""A call to an upstream: its admission, its attempt, and its result.

Theory
------
**A call** (``UpstreamCall``) is admitted once: by the breaker, then by a place of the bulkhead, for which it may wait
in a queue. Then it makes an *attempt*; one that may make several is a ``RepeatableCall`` (``repeatable_call.py``).
``NEW → QUEUED → RUNNING → DONE``; a call that is admitted at once is never QUEUED. Only ``_close`` leaves to DONE, and
it is the one place that gives everything back: timers, place in the queue or in the bulkhead, breaker ticket, count of
the budget. It is reached when the call has its result (the owner gets ``call_ended``), or by ``cancel`` (the owner gets
nothing).

**An attempt** (``Attempt``) is one request to one replica. It is the listener of its connection's stream, so the bytes
of its response are pushed to it from the reader's task. ``WAITING | READY → SENT → HEAD → DONE``:

- WAITING: it needs a task, because it must connect, or send more than fits a socket, or because its stream cannot push
  (a ``dial`` of a test). It is kept in ``UpstreamCall._waiting``, the owner gets ``call_waits``, and ``finish`` runs
  it.
- READY: it has a connection and is sent by ``send``.
- SENT: the request is out, or being sent. HEAD: some of the response is there.
- Only ``_close`` of the attempt leaves to DONE. It gives its replica back, records the attempt, and reports to the
  breaker. Before that the connection has been given back to the pool or closed: an attempt that is DONE has none.

A kept connection that turns out to be dead before a byte of the response came is replaced within the same attempt: its
peer closed it while the request was on its way. This happens once at most, since the new connection is not a kept one.

**Tasks.** ``start`` and ``cancel`` run in the owner's task; ``finish`` in a task of the owner's nursery; the callbacks
in the tasks of the reader, of the timers, or of the call that gave a place back. None of them waits except ``finish``.
Each is one step that no other interrupts, so the fields need no lock. After an ``await`` in ``finish`` the attempt may
have been cut: its state is looked at again.

**A cancel** closes what is under way: an attempt with a connection closes it at once; one that connects (in DNS,
connect, or the TLS handshake) has a cancel scope around that, and the dialler leaves no socket open when it is
cancelled. The attempt is DONE and recorded at once; the task in ``finish`` only unwinds. A client that leaves during a
TLS handshake thus ends the call at once, and the handshake's socket is closed before the owner's nursery ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

from ...core.call import CallBase, CallContext, Mode, PreparedRequest
from ...core.errors import UpstreamError
from ...core.events import LogMessage
from ...core.failure_kinds import Kind
from ..errors import BreakerOpen, BudgetSpent, CallTimedOut, Overflow
from ..pool.request_head import IDEMPOTENT, is_idempotent
from .attempt import DONE, WAITING, Attempt
from .failure_kind import kind_of_cut, kind_of_error

if TYPE_CHECKING:
    from ...http1.response_head import Head
    from ...net.timers import Timer
    from ...policy.breaker import Ticket
    from .client_interface import ClientInterface

NEW, QUEUED, RUNNING = "new", "queued", "running"
"""States of a call; DONE it shares with attempts."""


class UpstreamCall(CallBase):
    """A ``core.call.Call`` that makes one attempt. See the module."""

    __slots__ = (
        "_attempt",
        "_limit_timer",
        "_placed_at",
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

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        # As CallBase.__init__ does: to call that costs as much as all of this.
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
        """The response's head as it came; None where there is no response."""
        self.state = NEW
        self.idempotent = prepared.method in IDEMPOTENT or is_idempotent(prepared)
        """Whether the request may be sent twice."""
        self.request_key = id(self) if context.request is None else id(context.request)
        """Key of the request that the bulkhead counts the call for; without one the call counts by itself."""
        self.ticket: Ticket | None = None
        self.tried: tuple[str, ...] = ()
        """The names of the replicas that its attempts took, in order."""
        self._placed_at: float | None = None
        """When it got its place; None while it has none."""
        self._attempt: Attempt | None = None
        """The attempt, until it is DONE."""
        self._waiting: list[Attempt] | None = None
        """Attempts that ``finish`` is to run."""
        self._timer: Timer | None = None
        """The timer of the wait for a place."""
        self._limit_timer: Timer | None = None

    @property
    def under_way(self) -> list[Attempt]:
        """Its attempts that have not ended."""
        return [] if self._attempt is None else [self._attempt]

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
            self.send()
        except Exception as error:  # noqa: BLE001  # a bug must not reach the call that gave the place back
            self.crashed(error, now)

    def _overflow(self, error: Overflow) -> None:
        self._refuse(error, trio.current_time())

    def _queued_too_long(self) -> None:
        steps = self.context.steps
        if self.state is QUEUED and steps is not None:
            self._refuse(Overflow(f"no place became free for {steps.pool:g} s"), trio.current_time())

    def _begin(self, now: float) -> None:
        """Begin the attempt: the call has its place."""
        self.state, self._placed_at = RUNNING, now
        attempt = self._attempt = Attempt(self, "first")
        attempt.begin(now)

    def send(self) -> None:
        """See ``core.call.Call``."""
        attempt = self._attempt
        if attempt is not None:
            attempt.send()

    # Events of the attempt; see ``attempt.AttemptOwner``.

    def attempt_waits(self, attempt: Attempt) -> None:
        """Note the attempt for ``finish``, and ask the owner for a task."""
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(attempt)
        self.context.owner.call_waits(self)

    async def finish(self) -> None:
        """See ``core.call.Call``."""
        attempt = self._waiting.pop(0) if self._waiting else None
        if attempt is not None and attempt.state is WAITING:
            await attempt.run()

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """End the call: its attempt has a response or an error."""
        if attempt.error is None or kind_of_error(attempt.error) is not Kind.TIMEOUT:
            self.client.bulkhead.completed_at = now
        self._attempt = None
        self._conclude(attempt, now)

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Do nothing: only a call that repeats attempts can fail over to another replica."""

    # The end.

    def _cut(self, reason: str, now: float) -> None:
        """Cut the attempt that is under way."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cut(reason, now)

    def _conclude(self, attempt: Attempt, now: float) -> None:
        """End the call with the result of ``attempt``."""
        self.error = attempt.error
        if attempt.answer is not None:
            self.status = attempt.status
            self.head, self.fields, self.names, self.content = attempt.answer
        if self.client.gradient is None:
            self._close(now)
        elif attempt.error is None:
            # How fast an upstream fails says nothing of how fast it works.
            self._close(now, learns=attempt.status is not None and attempt.status < 500)
        else:
            late = isinstance(attempt.error, UpstreamError) and attempt.error.kind is Kind.TIMEOUT
            self._close(now, learns=late and not isinstance(attempt.error, BudgetSpent))
        self.context.owner.call_ended(self)

    def _refuse(self, error: Exception, now: float) -> None:
        """End the call with ``error`` before it has made an attempt."""
        self.error = error
        self._close(now)
        self.context.owner.call_ended(self)

    def _close(self, now: float, *, learns: bool = False) -> None:
        """Leave to DONE and give everything back. The one place that does."""
        client = self.client
        if self.state is QUEUED:
            client.bulkhead.leave(self)
        self.state, self.ended_at = DONE, now
        self._waiting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._limit_timer is not None:
            self._limit_timer.cancel()
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
        """Cut everything and leave to DONE, without ``call_ended``."""
        late = False
        if self._placed_at is not None:
            late = kind_of_cut(reason, self.context, self._placed_at, now) is Kind.TIMEOUT
            self._cut(reason, now)
        self._close(now, learns=late)

    def crashed(self, error: Exception, now: float) -> None:
        """End the call with a bug of ours that came up in a callback. If the call has ended, the bug is recorded."""
        context = self.context
        if self.state is DONE:
            message, fields = f"call {context.call} crashed after its end", {"call": context.call}
            context.recorder.record(LogMessage("error", "call.crashed", message, context.request, fields, error))
            return
        self._abandon("a bug", now)
        self.error = error
        context.owner.call_ended(self)

    def _limit_passed(self) -> None:
        """Timer: end the call, because its own limit has passed."""
        limit, now = self.context.limit, trio.current_time()
        if self.state is DONE or limit is None:
            return
        self._abandon("the call's own limit", now)
        self.error = CallTimedOut.after(limit)
        self.context.owner.call_ended(self)
