"""Coalescing: identical safe calls that overlap are made once, and each caller gets the answer.

It is no cache: an answer goes to the calls that wait when it comes, and is not kept.

Theory
------
Two calls ask the same if upstream, method, target, body, bound of the body, own policies, limits of steps and every
field are the same, but for the values of the fields that the gateway writes itself (``PreparedRequest.gateway``): they
identify the client and the proxies. The first of them begins a ``SharedCall``, which makes one ``UpstreamCall`` with
ids of its own: it keeps of ``Via`` the gateway's own step and names no client. The shared call belongs to the
upstream's nursery and not to a caller's task: a caller that leaves, by a cancel or its deadline, leaves the others
their call.

Each caller has a ``Waiter``, which is its ``Call``. When the shared call ends, each waiter ends with the same result.
A waiter whose own limit passes ends itself with ``CallTimedOut`` and leaves; one that is cancelled just leaves. The
deadline of the shared call is the latest of those who still wait. With the last waiter the shared call is cancelled,
for that waiter's reason. So a waiter that times out takes nothing from the others, and the deadline that the upstream
gets is the latest of all waiters.

Nobody joins a shared call whose first waiter's deadline has passed: an upstream that hangs must not be waited for
without end, by one caller after the other.

An answer with ``Set-Cookie``, with ``Cache-Control: private``, or whose ``Vary`` names a field of the gateway's or
``*`` goes to one of the waiters, the one that has waited the longest; each other makes a call of its own then. A
failure is everybody's, each with an exception of its own.

A waiter that finds a shared call takes no place of the bulkhead, but its request counts as one that the upstream holds
(``Bulkhead.join``). So where the upstream hangs, its waiters leave places of the server to requests without need of it.
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
"""Shared calls of an upstream under way at once; further calls are made each by itself."""
# What an attempt adds to each request by itself.
_OF_ATTEMPTS = frozenset({b"traceparent", b"tracestate"})


@dataclass(frozen=True, slots=True)
class CoalesceStatistics:
    """A snapshot. The last five count since the beginning."""

    in_flight: int
    """Shared calls under way."""
    waiting: int
    """Calls that wait for one."""
    made: int
    """Shared calls."""
    joined: int
    """Calls that found one under way."""
    unshared: int
    """Calls that waited for one and then had to make a call of their own."""
    abandoned: int
    """Shared calls that were cancelled because all waiters had left."""
    crowded: int
    """Calls that were made unshared because SHARED_MAX were under way."""


class Coalescing:
    """The shared calls of one upstream.

    Args:
        unshared_call: makes a call that serves one caller alone.
    """

    def __init__(
        self, client: ClientInterface, unshared_call: Callable[[PreparedRequest, CallContext], UpstreamCall]
    ) -> None:
        self.client = client
        self.unshared_call = unshared_call
        self.under_way: dict[Hashable, SharedCall] = {}
        # Counted by the shared calls and their waiters.
        self.made = self.joined = self.unshared = self.abandoned = self.crowded = 0

    def new_call(self, prepared: PreparedRequest, context: CallContext) -> Call:
        """A call that shares, if its method is safe; else one of its own."""
        if prepared.method not in SAFE:
            return self.unshared_call(prepared, context)
        return Waiter(self, prepared, context)

    def statistics(self) -> CoalesceStatistics:
        """A snapshot."""
        return CoalesceStatistics(
            len(self.under_way),
            sum(shared.waiting for shared in self.under_way.values()),
            self.made,
            self.joined,
            self.unshared,
            self.abandoned,
            self.crowded,
        )


def _key(prepared: PreparedRequest, context: CallContext) -> Hashable:
    """The key of a call: calls with equal keys ask for the same."""
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
    """The ``core.call.Call`` of one caller that waits for a shared call. See the module."""

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
        """How many joined the shared call before it."""
        self._shared: SharedCall | None = None
        self._own: UpstreamCall | None = None
        """The call that it makes by itself, where it cannot share."""
        self._timer: Timer | None = None

    def start(self, now: float) -> None:
        """See ``core.call.Call``."""
        coalescing, context = self._coalescing, self.context
        client = coalescing.client
        key = _key(self.prepared, context)
        shared = coalescing.under_way.get(key)
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
        coalescing.under_way[key] = shared
        coalescing.made += 1
        shared.join(self)
        shared.start(now)

    def send(self) -> None:
        """See ``core.call.Call``."""
        if self._own is not None:
            self._own.send()
        elif self._shared is not None:
            # Not only the first waiter's matter: it may have left before it was sent.
            self._shared.call.send()

    async def finish(self) -> None:
        """See ``core.call.Call``. Only a call of its own ever needs a task of its owner's."""
        if self._own is not None:
            await self._own.finish()

    def cancel(self, reason: str) -> None:
        """See ``core.call.Call``."""
        if self._own is not None:
            self._own.cancel(reason)
        elif not self.done:
            self.done = True
            self._leave(reason)

    def resolve(self) -> None:
        """End with the result of the shared call."""
        shared = self._shared
        if shared is None or self.done:
            return
        self._take_attempts(shared)
        self.status, self.fields, self.names = shared.call.status, shared.call.fields, shared.call.names
        self.content, self.head = shared.call.content, shared.call.head
        error = shared.call.error
        if error is not None and shared.several:
            # One that is raised in many tasks collects all their frames.
            copy = copy_of_failure(error)
            copy.__cause__ = error
            error = copy
        self._end(error)

    def make_own_call(self, now: float) -> None:
        """Make a call of its own: the answer of the shared call is for another waiter."""
        if self._shared is not None and not self.done:
            self._take_attempts(self._shared)
            self._shared = None
            self._coalescing.unshared += 1
            self._start_own_call(now)
            self.send()

    @property
    def _request_key(self) -> int:
        """As ``UpstreamCall.request_key``."""
        return id(self) if self.context.request is None else id(self.context.request)

    def _refused(self, error: Overflow) -> None:
        """End: the bulkhead refuses to hold the request any longer."""
        self._leave("the bulkhead")
        self._end(error)

    def _start_own_call(self, now: float) -> None:
        self._coalescing.client.bulkhead.leave_joined(self)
        if self._timer is not None:
            self._timer.cancel()  # The call of its own keeps the limit itself.
        # It has the same context, so its owner hears of it directly.
        self._own = self._coalescing.unshared_call(self.prepared, self.context)
        self.done = True
        self._own.start(now)

    def _limit_passed(self) -> None:
        limit = self.context.limit
        if self.done or limit is None:
            return
        self._leave("the call's own limit")
        self._end(CallTimedOut.after(limit))

    def _leave(self, reason: str) -> None:
        shared, self._shared = self._shared, None
        self._coalescing.client.bulkhead.leave_joined(self)
        if self._timer is not None:
            self._timer.cancel()
        if shared is not None:
            shared.leave(self, reason)

    def _take_attempts(self, shared: SharedCall) -> None:
        attempts = shared.context.attempts
        # Who found it under way shared what was another's; its attempts say so.
        self.context.attempts += [replace(each, coalesced=True) for each in attempts] if self.number else attempts

    def _end(self, error: Exception | None) -> None:
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
    """An entry of a heap whose first is the waiter with the latest deadline; of several, the one that came first."""

    minus_deadline: float
    number: int
    waiter: Waiter


class SharedCall:
    """One ``UpstreamCall`` that several waiters wait for, and that call's ``core.call.CallOwner``."""

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
        """The names of the fields that are not in the key, though the callers' own requests would have borne them."""
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
        )
        self.call = coalescing.unshared_call(_shared_request(prepared, request_id), self.context)
        if first.request is not None:
            # In the bulkhead it counts for the request that began it, as the other calls of that request do.
            self.call.request_key = id(first.request)
        self.joins_until = first.deadline
        self.several = False
        """Whether it had more than one waiter when it ended."""
        self._joined = 0
        self._waiters: dict[int, Waiter] = {}
        """By number, so in the order in which they came."""
        # By deadline, so that a crowd that leaves together costs no scan each. Who left is thrown out at the top.
        self._by_deadline: list[_HeapEntry] = []

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._waiters)

    def start(self, now: float) -> None:
        """Begin the upstream call."""
        self.call.start(now)

    def join(self, waiter: Waiter) -> None:
        """Add a waiter; the deadline is the latest of all waiters."""
        waiter.number = self._joined
        self._joined += 1
        self._waiters[waiter.number] = waiter
        heappush(self._by_deadline, _HeapEntry(-waiter.context.deadline, waiter.number, waiter))
        if waiter.number and self._by_deadline[0].number == waiter.number:
            self._extend_deadline()

    def leave(self, waiter: Waiter, reason: str) -> None:
        """Remove a waiter. With the last one the upstream call is cancelled for ``reason``."""
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
        """End all waiters with its result; if it is for one client alone, the first, and the others make own calls."""
        self._unregister()
        waiters = list(self._waiters.values())
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
        """Drop what refers back to this object: a cycle would wait for the garbage collector."""
        self._by_deadline.clear()
        del self.call, self.context.owner

    def call_waits(self, call: Call) -> None:
        """Give it a task, in the upstream's own nursery."""
        nursery = self._coalescing.client.nursery
        if nursery.running:
            nursery.start_soon(self._finish, call)
        else:
            # A call that ended as the upstream was closed has given it its place.
            self._closed()

    async def _finish(self, call: Call) -> None:
        try:
            await call.finish()
        except BaseException:
            self._closed()
            raise

    def _closed(self) -> None:
        """Fail all waiters: the upstream is closed, and no other event would end them."""
        if self._waiters:
            self.call.cancel("the upstream was closed")
            self.call.error = NotRunningError("the upstream was closed while the call was under way")
            self.call_ended(self.call)

    def _record_attempts(self, waiter: Waiter, reason: str, now: float) -> None:
        """Record, for a waiter that leaves, the attempts under way as cut at this moment."""
        attempts = list(self.context.attempts)
        for attempt in self.call.under_way:
            if attempt.slot is not None:
                kind = kind_of_cut(reason, waiter.context, attempt.started_at, now)
                attempts.append(
                    AttemptRecord(
                        len(attempts) + 1, attempt.slot.name, attempt.started_at, now, None, kind, False, attempt.cause
                    )
                )
        waiter.context.attempts += [replace(each, coalesced=True) for each in attempts] if waiter.number else attempts

    def _extend_deadline(self) -> None:
        """Take the deadline, and the request's times, of the waiter with the latest deadline."""
        context, longest = self.context, self._by_deadline[0].waiter.context
        context.deadline = longest.deadline
        if context.request is not None and longest.request is not None:
            context.request = _own_request(longest.request, context.request.request_id, context.request.trace)

    def _unregister(self) -> None:
        """Take it out of the table, so that new calls begin a new shared call."""
        if self._coalescing.under_way.get(self._key) is self:
            del self._coalescing.under_way[self._key]


def _own_request(whose: RequestFacts, request_id: str, trace: Trace) -> RequestFacts:
    """The times of ``whose`` with the shared call's own ids: the kind of a cut depends on when the request began."""
    return replace(whose, request_id=request_id, trace=trace)


def _shared_request(prepared: PreparedRequest, request_id: str) -> PreparedRequest:
    """The request of a shared call: of the gateway's fields only its own step of Via, and an id of its own."""
    own: list[Field] = []
    for block in prepared.gateway:
        for name, lower, value in block:
            if lower == VIA:
                own.append((name, lower, last_hop(value)))
            elif lower == REQUEST_ID:
                own.append((name, lower, request_id.encode("ascii")))
    return replace(prepared, gateway=(tuple(own),) if own else ())
