"""Coalescing: identical safe calls that overlap in time are sent to the upstream once, and share the response.

Coalescing is no cache: a response goes to the calls that wait at that moment, and is not stored.

Theory
------
**Problem.** Several callers may wait for one response. Each caller has its own deadline, may be cancelled at any time,
and must not affect the other callers by that. The upstream must see one ordinary request.

**Objects.** ``Coalescing`` (one per upstream) has a table from key to ``SharedCall``, and the set of all shared calls
under way, which the bound and the statistics count. A ``SharedCall`` owns one ``UpstreamCall`` and has the ``Waiter``
of each caller. A ``Waiter`` is the ``Call`` that the caller's owner sees.

**Key.** Two calls are identical if method, target, body, header fields, body limit, own policies and step timeouts are
equal, and the same gateway fields are present. The values of the gateway fields (``PreparedRequest.gateway``) are not
compared: they identify the client. So the shared request names no client: of the gateway fields it keeps only
``X-Request-ID``, with an id of its own, and the gateway's own hop of ``Via``. Its trace is its own as well.

**States of a waiter.** ``start`` leads to one of three states:

- *waiting*: the waiter belongs to a shared call, one that exists or a new one.
- *own call*: none can be joined and SHARED_MAX shared calls are under way, so the waiter makes a call of its own. A
  waiting waiter gets here as well if the response is private (below). The own call has the waiter's context, so it
  reports to the owner.
- *done*: the client is closed, the bulkhead refuses the request, or the new shared call ends within ``start``.

A waiting waiter becomes done in one of four ways: by ``resolve``, when the shared call has ended; by its own limit
(``CallTimedOut``); by the bulkhead, which may refuse a joined waiter later as well (``Overflow``); or by ``cancel``.
The owner gets ``call_ended``, except after ``cancel``.

**Leaving.** A waiter that becomes done before the shared call leaves it. The other waiters keep the shared call, and
its deadline becomes the latest deadline among them. When the last waiter leaves, the shared call is cancelled with that
waiter's reason. A heap orders the waiters by deadline. An entry of a waiter that has left is removed when it reaches
the top, so a leave takes amortized logarithmic time.

**Joining ends** at the first waiter's deadline (``joins_until``). Otherwise a steady flow of callers could wait for an
upstream that hangs without end, because each new waiter extends the deadline. A later identical call begins a new
shared call, which replaces the old one in the table; ``_unregister`` compares identities for that reason. The old one
remains in the set until it ends.

**Private responses.** A response with ``Set-Cookie``, with ``Cache-Control: private``, or whose ``Vary`` is ``*`` or
names a field that the key leaves out belongs to one client. The earliest waiter that has not left gets it, and every
other waiter makes an own call. An error goes to all waiters; if there are several, each gets its own copy of the
exception.

**Bulkhead.** A waiter takes no place of the bulkhead: the shared call does, or an own call. A waiter that joins counts
its inbound request as held by the upstream (``Bulkhead.join``), so that waiters for an upstream that hangs do not fill
the server.

**Tasks and cancellation.** If the shared call needs a task, the task runs in the client's own nursery, so no caller's
cancel reaches it. Only ``SharedCall._finish`` waits, and ``Waiter.finish`` for an own call. A cancel of ``_finish``
means that the client is being closed: all waiters then end with ``NotRunningError``. All other functions are single
steps. While ``call_ended`` ends the waiters one by one, the end of one may cancel another; ``done`` makes the later
``resolve`` do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ...core.call import Call, CallBase, CallContext, PreparedRequest
from ...core.errors import NotRunningError
from ...core.http.header_field import Field
from ...core.model import Attempt as AttemptRecord
from ...core.model import RequestFacts, Trace
from ...policy.coalescing_key import REQUEST_ID, SAFE, VIA, is_private, last_hop
from ..errors import CallTimedOut, Overflow, copy_of_failure
from .failure_kind import kind_of_cut

if TYPE_CHECKING:
    from ...http1.response_head import Head
    from ...net.timers import Timer
    from .call import UpstreamCall
    from .client_interface import ClientInterface

SHARED_MAX = 1000
"""Bound on the shared calls of an upstream that are under way. Beyond it, no shared call is begun."""
# Names of the fields that each attempt writes.
_OF_ATTEMPTS = frozenset({b"traceparent", b"tracestate"})


@dataclass(frozen=True, slots=True)
class CoalesceStatistics:
    """A snapshot of an upstream's shared calls. The last five members count since the client was created."""

    in_flight: int
    """Shared calls under way."""
    waiting: int
    """Calls that wait for one of these shared calls."""
    made: int
    """Shared calls begun."""
    joined: int
    """Calls that joined a shared call under way."""
    unshared: int
    """Calls that waited for a shared call, whose response was private, and then made an own call."""
    abandoned: int
    """Shared calls that were cancelled because all waiters had left."""
    crowded: int
    """Calls that were not coalesced because SHARED_MAX other shared calls were under way."""


class Coalescing:
    """The shared calls of one upstream, and counters of them.

    Args:
        unshared_call: makes a call that is not coalesced.
    """

    def __init__(
        self, client: ClientInterface, unshared_call: Callable[[PreparedRequest, CallContext], UpstreamCall]
    ) -> None:
        self.client = client
        self.unshared_call = unshared_call
        self.under_way: set[SharedCall] = set()
        self.joinable: dict[Hashable, SharedCall] = {}
        """The latest shared call of each key that is under way. ``SharedCall.joins_until`` limits the joining."""
        # Counted by the shared calls and their waiters.
        self.made = self.joined = self.unshared = self.abandoned = self.crowded = 0

    def new_call(self, prepared: PreparedRequest, context: CallContext) -> Call:
        """Return a new call: a ``Waiter`` if the method is safe, else a call that is not coalesced."""
        if prepared.method not in SAFE:
            return self.unshared_call(prepared, context)
        return Waiter(self, prepared, context)

    def statistics(self) -> CoalesceStatistics:
        """A snapshot."""
        return CoalesceStatistics(
            len(self.under_way),
            sum(shared.waiting for shared in self.under_way),
            self.made,
            self.joined,
            self.unshared,
            self.abandoned,
            self.crowded,
        )


def _key(prepared: PreparedRequest, context: CallContext) -> Hashable:
    """The key of a call within its upstream; see the module."""
    return (
        prepared.method,
        prepared.target,
        prepared.content,
        tuple(prepared.headers),
        prepared.gateway_names,
        context.max_body,
        context.retry,
        context.hedge,
        context.steps,
    )


class Waiter(CallBase):
    """The ``core.call.Call`` of one caller that waits for a shared call. See the module for its states."""

    __slots__ = (
        "_coalescing",
        "_own",
        "_shared",
        "_timer",
        "done",
        "head",
        "number",
    )

    def __init__(self, coalescing: Coalescing, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(prepared, context)
        self._coalescing = coalescing
        self.head: Head | None = None
        self.done = False
        self.number = 0
        """Number of waiters that joined the shared call earlier; 0 for the waiter that began it."""
        self._shared: SharedCall | None = None
        """The shared call, while the waiter is waiting."""
        self._own: UpstreamCall | None = None
        """The waiter's own call, in the state *own call*."""
        self._timer: Timer | None = None
        """Timer of the call's own limit; the own call has its own timer."""

    def start(self, now: float) -> None:
        """Join a shared call, begin one, or start an own call, without waiting; see ``core.call.Call``."""
        coalescing, context = self._coalescing, self.context
        client = coalescing.client
        key = _key(self.prepared, context)
        shared = coalescing.joinable.get(key)
        if shared is not None and now < shared.joins_until:
            coalescing.joined += 1
        elif len(coalescing.under_way) >= SHARED_MAX:
            coalescing.crowded += 1
            self._start_own_call(now)
            return
        elif not client.nursery.running:
            self._end(NotRunningError(f"the upstream {client.name} is used outside of its `async with`"))
            return
        else:
            shared = None
        if context.limit is not None:
            self._timer = client.timers.add(context.deadline, self._limit_passed)
        if shared is not None:
            try:
                client.bulkhead.join(self, self._request_key, self._refused)
            except Overflow as error:
                error.forget_frames()
                self._end(error)
                return
            self._shared = shared
            shared.join(self)
            return
        shared = self._shared = SharedCall(coalescing, key, self.prepared, context)
        coalescing.joinable[key] = shared
        coalescing.under_way.add(shared)
        coalescing.made += 1
        shared.join(self)
        shared.start(now)

    def send(self) -> None:
        """Send what ``start`` has made ready, if anything; see ``core.call.Call``."""
        if self._own is not None:
            self._own.send()
        elif self._shared is not None:
            # Every waiter sends: the waiter that began the shared call may have left between ``start`` and ``send``.
            # A second ``send`` of the same call does nothing.
            self._shared.call.send()

    async def finish(self) -> None:
        """Wait for what an own call needs, and continue that call; see ``core.call.Call``.

        A waiter that waits for a shared call needs no task, so this returns at once.
        """
        if self._own is not None:
            await self._own.finish()

    def cancel(self, reason: str) -> None:
        """End the call at once. A shared call is cancelled only with its last waiter."""
        if self._own is not None:
            self._own.cancel(reason)
        elif not self.done:
            self.done = True
            self._leave(reason)

    def resolve(self) -> None:
        """End with the result of the shared call. Does nothing if the waiter is done."""
        shared = self._shared
        if shared is None or self.done:
            return
        self._take_attempts(shared)
        self.status, self.fields, self.names = shared.call.status, shared.call.fields, shared.call.names
        self.content, self.head = shared.call.content, shared.call.head
        error = shared.call.error
        if error is not None and shared.several:
            # An exception that is raised in several tasks would collect the frames of all of them.
            copy = copy_of_failure(error)
            copy.__cause__ = error
            error = copy
        self._end(error)

    def make_own_call(self, now: float) -> None:
        """Start and send an own call: the response of the shared call belongs to another waiter."""
        if self._shared is not None and not self.done:
            self._take_attempts(self._shared)
            self._shared = None
            self._coalescing.unshared += 1
            self._start_own_call(now)
            self.send()

    @property
    def _request_key(self) -> int:
        """Identity of the inbound request, for the bulkhead; see ``UpstreamCall.request_key``."""
        return id(self) if self.context.request is None else id(self.context.request)

    def _refused(self, error: Overflow) -> None:
        """Callback of the bulkhead: leave the shared call and end with ``error``."""
        self._leave("the bulkhead")
        self._end(error)

    def _start_own_call(self, now: float) -> None:
        """Start an own call with the waiter's context, so that it reports to the owner directly."""
        self._coalescing.client.bulkhead.leave_joined(self)
        if self._timer is not None:
            self._timer.cancel()  # The own call has a timer for the same limit.
        self._own = self._coalescing.unshared_call(self.prepared, self.context)
        self.done = True
        self._own.start(now)

    def _limit_passed(self) -> None:
        """Timer: leave and end with ``CallTimedOut``, because the call's own limit has passed."""
        limit = self.context.limit
        if self.done or limit is None:
            return
        self._leave("the call's own limit")
        self._end(CallTimedOut.after(limit))

    def _leave(self, reason: str) -> None:
        """Leave the shared call before its end, and the bulkhead."""
        shared, self._shared = self._shared, None
        self._coalescing.client.bulkhead.leave_joined(self)
        if self._timer is not None:
            self._timer.cancel()
        if shared is not None:
            shared.leave(self, reason)

    def _take_attempts(self, shared: SharedCall) -> None:
        """Add the attempts of the shared call to the waiter's own; marked as coalesced unless the waiter began it."""
        attempts = shared.context.attempts
        self.context.attempts += [_joined(each, self.context) for each in attempts] if self.number else attempts

    def _end(self, error: Exception | None) -> None:
        """Become done and report ``call_ended``."""
        self.done = True
        self._shared = None
        self._coalescing.client.bulkhead.leave_joined(self)
        if self._timer is not None:
            self._timer.cancel()
        self.error, self.ended_at = error, trio.current_time()
        if error is not None:
            self.status = None
        self.context.owner.call_ended(self)


class _HeapEntry(NamedTuple):
    """Entry of the heap of waiters. First is the latest deadline; of equal ones, that of the earliest waiter."""

    minus_deadline: float
    number: int
    waiter: Waiter


class SharedCall:
    """One ``UpstreamCall`` for several waiters; the ``core.call.CallOwner`` of that call. See the module."""

    __slots__ = (
        "_by_deadline",
        "_coalescing",
        "_joined",
        "_key",
        "_varying",
        "_waiters",
        "call",
        "context",
        "joins_until",
        "several",
    )

    def __init__(self, coalescing: Coalescing, key: Hashable, prepared: PreparedRequest, first: CallContext) -> None:
        self._coalescing = coalescing
        self._key = key
        rng = coalescing.client.rng
        ids = f"{rng.getrandbits(256):064x}"
        request_id, trace_id = ids[:32], ids[32:]
        self._varying = _OF_ATTEMPTS | prepared.gateway_names
        """Names of the request fields whose values the key leaves out."""
        self.context = CallContext(
            self,
            first.call,
            first.upstream,
            _own_request(first.request, request_id, Trace(trace_id, flags=first.request.trace.flags))
            if first.request is not None
            else None,
            first.deadline,
            first.recorder,
            max_body=first.max_body,
            retry=first.retry,
            hedge=first.hedge,
            steps=first.steps,
            takes_attempts=first.takes_attempts,
            started_at=first.started_at,
            item=first.item,
        )
        self.call = coalescing.unshared_call(_shared_request(prepared, request_id), self.context)
        if first.request is not None:
            # The bulkhead counts the shared call for the inbound request that began it, whose other calls it counts
            # under the same key. ``context.request`` has another identity.
            self.call.request_key = id(first.request)
        self.joins_until = first.deadline
        """Time from which no further waiter may join."""
        self.several = False
        """Whether there was more than one waiter when the shared call ended."""
        self._joined = 0
        """Number of waiters that have joined."""
        self._waiters: dict[int, Waiter] = {}
        """Present waiters by number, in the order in which they joined."""
        # Heap by deadline. It may hold entries of waiters that have left, but never at its top after ``leave``.
        self._by_deadline: list[_HeapEntry] = []

    @property
    def waiting(self) -> int:
        """Number of present waiters."""
        return len(self._waiters)

    def start(self, now: float) -> None:
        """Start the upstream call. The first waiter has joined before, because the call may end within this step."""
        self.call.start(now)

    def join(self, waiter: Waiter) -> None:
        """Add a waiter. If its deadline is the latest, the upstream call gets that deadline."""
        waiter.number = self._joined
        self._joined += 1
        self._waiters[waiter.number] = waiter
        heappush(self._by_deadline, _HeapEntry(-waiter.context.deadline, waiter.number, waiter))
        if waiter.number and self._by_deadline[0].number == waiter.number:
            self._extend_deadline()

    def leave(self, waiter: Waiter, reason: str) -> None:
        """Remove a waiter before the end. If it was the last, cancel the upstream call with ``reason``."""
        if self._waiters.pop(waiter.number, None) is None:
            return
        now = trio.current_time()
        if self._waiters:
            self._record_attempts(waiter, reason, now)
            followed = self._by_deadline[0].number
            while self._by_deadline[0].number not in self._waiters:
                heappop(self._by_deadline)
            if self._by_deadline[0].number != followed:
                self._extend_deadline()
            return
        self._coalescing.abandoned += 1
        self._unregister()
        self.call.cancel(reason)
        waiter._take_attempts(self)
        self._drop_references()

    # Events of the upstream call; see ``core.call.CallOwner``.

    def call_ended(self, call: Call) -> None:
        """End all waiters with the result of ``call``; after a private response, all but the first make own calls."""
        self._unregister()
        waiters = list(self._waiters.values())
        # Emptied first: a waiter that is cancelled by the end of another one then finds nothing to leave.
        self._waiters.clear()
        self.several = len(waiters) > 1
        alone = self.several and call.error is None and is_private(call.fields, self._varying)
        now = trio.current_time()
        for place, waiter in enumerate(waiters):
            if alone and place:
                waiter.make_own_call(now)
            else:
                waiter.resolve()
        self._drop_references()

    def _drop_references(self) -> None:
        """Drop the references that form cycles with this object: cycles would wait for the garbage collector."""
        self._by_deadline.clear()
        del self.call, self.context.owner

    def call_waits(self, call: Call) -> None:
        """Run ``call.finish`` in a task of the client's nursery."""
        nursery = self._coalescing.client.nursery
        if nursery.running:
            nursery.start_soon(self._finish, call)
        else:
            # The client is being closed, and another call that ended for that reason has released its place to this
            # call.
            self._closed()

    async def _finish(self, call: Call) -> None:
        try:
            await call.finish()
        except BaseException:
            self._closed()
            raise

    def _closed(self) -> None:
        """Fail all waiters: the client is closed, and no other event would end them."""
        if self._waiters:
            self.call.cancel("the upstream was closed")
            self.call.error = NotRunningError("the upstream was closed while the call was under way")
            self.call_ended(self.call)

    def _record_attempts(self, waiter: Waiter, reason: str, now: float) -> None:
        """Add to a waiter that leaves the ended attempts, and those under way as if they were cut ``now``."""
        attempts = list(self.context.attempts)
        for attempt in self.call.under_way:
            if attempt.slot is not None:
                kind = kind_of_cut(reason, waiter.context, attempt.started_at, now)
                attempts.append(
                    AttemptRecord(
                        len(attempts) + 1,
                        attempt.slot.name,
                        attempt.started_at,
                        now,
                        None,
                        kind,
                        False,
                        attempt.cause,
                        item=waiter.context.item,
                        asked_at=waiter.context.started_at,
                        span_id=attempt.span_id,
                        trace=None if self.context.request is None else self.context.request.trace,
                        cancelled=reason,
                        method=attempt.call.prepared.method,
                        dial=attempt.dial,
                    )
                )
        waiter.context.attempts += [_joined(each, waiter.context) for each in attempts] if waiter.number else attempts

    def _extend_deadline(self) -> None:
        """Give the upstream call the deadline, and the request times, of the waiter with the latest deadline."""
        context, longest = self.context, self._by_deadline[0].waiter.context
        context.deadline = longest.deadline
        if context.request is not None and longest.request is not None:
            context.request = _own_request(longest.request, context.request.request_id, context.request.trace)

    def _unregister(self) -> None:
        """Remove the shared call from the set, and from the table if it is still there: no waiter may join any more."""
        self._coalescing.under_way.discard(self)
        if self._coalescing.joinable.get(self._key) is self:
            del self._coalescing.joinable[self._key]


def _joined(attempt: AttemptRecord, context: CallContext) -> AttemptRecord:
    """The record of a shared call's attempt for a waiter that did not begin the call."""
    return replace(attempt, coalesced=True, item=context.item, asked_at=context.started_at)


def _own_request(whose: RequestFacts, request_id: str, trace: Trace) -> RequestFacts:
    """The facts of ``whose`` with the shared call's ids. ``kind_of_cut`` needs the request's times."""
    return replace(whose, request_id=request_id, trace=trace)


def _shared_request(prepared: PreparedRequest, request_id: str) -> PreparedRequest:
    """The request of a shared call: of the gateway fields only the last hop of Via, and X-Request-ID with a new id."""
    own: list[Field] = []
    for block in prepared.gateway:
        for name, lower, value in block:
            if lower == VIA:
                own.append((name, lower, last_hop(value)))
            elif lower == REQUEST_ID:
                own.append((name, lower, request_id.encode("ascii")))
    return replace(prepared, gateway=(tuple(own),) if own else ())
