"""The bulkhead of an upstream: its limit of calls in flight, its queue, and which requests are refused.

Theory
------
An upstream has ``capacity`` places for calls in flight. Calls that find none wait in one queue, first come, first
served. The queue's room is counted in *requests* and not in calls: once one call of a request is in flight or waits,
its other calls may wait too. So a request that makes fifty calls at once takes no more room than one that makes a
single call, and is never refused half-way because of its own calls.

The server serves ``max_requests`` requests at a time (``[server] max_in_flight``). The room is as large as that unless
it was configured: while an upstream works, no call of a served request is refused, however many wait.

A call may also wait for the answer of another's call and take no place (coalescing): it has *joined*. Its request is
held by the upstream as one in flight is, and takes no room in the queue.

**Stalled.** An upstream at which a call waits, has joined, or is one of WATCHED_SHARE of ``max_requests`` in flight,
while none has completed for ``STALL_SECONDS``, is *stalled*. Its queue keeps EACH_SHARE of ``max_requests``, the
requests that came first; the others are refused (``Overflow``), and so are later ones. All stalled upstreams
together hold at most ALL_SHARE of ``max_requests``, in flight, joined and waiting, so that requests which do not need
them find room in the server. Calls in flight are never ended for this. The first call that completes ends the state,
and so does the end of the last request there. "Completed" is an attempt with a response, or with an error that came
sooner than a timeout: both give their place to the next call.

**A full server** asks for room (``OverloadManager.make_room``) before it refuses a request: it would refuse requests
that need no slow upstream, in the second before a stall is known. Then the request that came last to the upstream with
the most requests is refused in the newcomer's place, if that upstream holds over EACH_SHARE and has completed nothing
for QUIET_SECONDS. Either way one request is refused. Such an upstream is *pressed*: until a call completes it takes no
further request beyond EACH_SHARE, or those would be refused in turn for the next.

The state is checked by a timer that runs while calls wait, have joined or are many, and by each call that comes while
the upstream is stalled. A call that finds a place costs no more than the count of its request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import trio

from ..errors import Overflow
from ..queue_limiter import Granted, QueueLimiter

if TYPE_CHECKING:
    from ...net.timers import Timer, TimerQueue

STALL_SECONDS = 1.0
"""Without a completed call for so long, while some wait, an upstream is stalled."""
QUIET_SECONDS = 0.25
"""Without a completed call for so long an upstream gives up requests for those that a full server would refuse."""
EACH_SHARE = 0.4
"""Of ``max_requests``: what may wait for one stalled upstream."""
ALL_SHARE = 0.8
"""Of ``max_requests``: what all stalled upstreams together may hold, in flight, joined and waiting."""
WATCHED_SHARE = 0.1
"""Of ``max_requests``: so many calls in flight that several upstreams like that could take the server's places."""
MAX_REQUESTS = 256
"""Requests at a time without an overload manager: the default of ``[server] max_in_flight``."""

_FULL = "the server is full, and no call completes"

Refused = Callable[[Overflow], object]
"""Called once, for a call that waits no longer because it is refused. Must not raise and must not wait."""


class OverloadManager:
    """The limit of requests that the upstreams of a process share, and which upstreams are stalled (Envoy's term)."""

    def __init__(self, max_requests: int = MAX_REQUESTS) -> None:
        self.max_requests = max_requests
        self.room_each = int(max_requests * EACH_SHARE)
        self.watched_from = max(1, int(max_requests * WATCHED_SHARE))
        self._room_all = int(max_requests * ALL_SHARE)
        self._bulkheads: list[Bulkhead] = []
        self.stalled: dict[Bulkhead, None] = {}

    def add(self, bulkhead: Bulkhead) -> None:
        """Count the requests of one more upstream."""
        self._bulkheads.append(bulkhead)

    @property
    def excess(self) -> int:
        """How many requests stalled upstreams hold beyond ALL_SHARE; negative where there is room."""
        if len(self.stalled) == 1:
            held = sum(len(bulkhead.requests) for bulkhead in self.stalled)
        else:
            # A request that several of them hold counts once.
            held = len(set().union(*(bulkhead.requests for bulkhead in self.stalled)))
        return held - self._room_all

    def make_room(self) -> bool:
        """Refuse the calls of one request that waits or has joined, so that a full server can take another.

        False where none may be.
        """
        now = trio.current_time()
        largest: Bulkhead | None = None
        for bulkhead in self._bulkheads:
            if (bulkhead.waiting or bulkhead.joined) and now - bulkhead.completed_at >= QUIET_SECONDS:
                held = len(bulkhead.requests)
                if held > self.room_each and (largest is None or held > len(largest.requests)):
                    largest = bulkhead
        return largest is not None and largest.press()


class Bulkhead(QueueLimiter):
    """A ``QueueLimiter`` of one upstream's calls whose room is counted in requests. See the module.

    A request is named by a key of its own for as long as a call of it is in flight, waits or has joined.
    """

    __slots__ = (
        "_overload_manager", "_pressed_at",
        "_refused",
        "_request_of",
        "_stalled_at",
        "_timer",
        "_timers",
        "_watched_from",
        "_watched_since",
        "completed_at",
        "joined",
        "requests",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, capacity: int, max_queue: int | None, manager: OverloadManager | None, timers: TimerQueue
    ) -> None:
        most = MAX_REQUESTS if manager is None else manager.max_requests
        super().__init__(capacity, most if max_queue is None else max_queue)
        self._overload_manager, self._timers = manager, timers
        self.requests: dict[Hashable, int] = {}
        """How many calls each request has, in flight, joined and waiting."""
        self.waiting: dict[Hashable, dict[object, Refused]] = {}
        """The waiting calls of each request, in the order in which the requests came."""
        self._request_of: dict[object, Hashable] = {}
        """Of waiting calls."""
        self.joined: dict[object, tuple[Hashable, Refused]] = {}
        """Calls that wait for the answer of another's, in the order in which they came, each with its request."""
        self.completed_at = -math.inf
        """When the last call completed. Set by calls."""
        self._watched_from: float = math.inf if manager is None else manager.watched_from
        """With so many calls in flight the stall timer runs though none waits."""
        self._watched_since = 0.0
        self._stalled_at: float | None = None
        self._pressed_at = -math.inf
        self._timer: Timer | None = None
        if manager is not None:
            manager.add(self)

    def admit(self, request: Hashable) -> bool:
        """Take a place for a call of ``request``, if one is free.

        Raises:
            Overflow: stalled upstreams hold as many requests as they may.
        """
        if self._stalled_at is not None:
            self._check_room(request)
        # A place is free while others wait only inside of a grant; a caller in there must not overtake them.
        if self.in_use < self._capacity and not self._queue:
            self.in_use += 1
            self.requests[request] = self.requests.get(request, 0) + 1
            if self.in_use == self._watched_from and not self.joined:
                self._watch()
            return True
        return False

    def wait(self, call: object, request: Hashable, granted: Granted, refused: Refused) -> None:
        """Call ``granted`` once a place is taken for ``call``, or ``refused`` if it may wait no longer.

        Raises:
            Overflow: there is no room for one more request.
        """
        if request not in self.requests:
            room = self._max_waiting
            if self._overload_manager is not None and (
                self._stalled_at is not None or self._pressed_at > self.completed_at
            ):
                room = min(room, self._overload_manager.room_each)
            if len(self.waiting) >= room:
                self._overflowed += 1
                raise Overflow(f"{self.in_use} calls in flight and {len(self.waiting)} requests waiting")
        if not self._is_watched:
            self._watch()
        self._queue[call] = granted
        self.waiting.setdefault(request, {})[call] = refused
        self._request_of[call] = request
        self.requests[request] = self.requests.get(request, 0) + 1

    def leave(self, key: object) -> bool:
        """Wait no longer; False if it does not wait (any more): then it holds a place, or was refused."""
        request = self._request_of.get(key)
        if not super().leave(key):
            return False
        self._uncount(request)
        return True

    def join(self, call: object, request: Hashable, refused: Refused) -> None:
        """Hold ``request`` while its ``call`` waits for the answer of another's. ``refused``: it may do so no longer.

        Raises:
            Overflow: the upstream may hold no further request.
        """
        if self._stalled_at is not None:
            self._check_room(request)
        manager = self._overload_manager
        pressed = manager is not None and self._pressed_at > self.completed_at and request not in self.requests
        if manager is not None and pressed and len(self.requests) >= manager.room_each:
            self._overflowed += 1
            raise Overflow(_FULL)
        if not self._is_watched:
            self._watch()
        self.joined[call] = request, refused
        self.requests[request] = self.requests.get(request, 0) + 1

    def leave_joined(self, call: object) -> None:
        """Count ``call`` no longer as one that has joined, if it has."""
        found = self.joined.pop(call, None)
        if found is not None:
            self._uncount(found[0])

    def give_back(self, request: Hashable) -> None:
        """Give the place of a call of ``request`` back: to the first that waits, if there is one."""
        # As ``_uncount`` and ``release``, inlined: this runs for every call.
        count = self.requests[request]
        if count == 1:
            del self.requests[request]
        else:
            self.requests[request] = count - 1
        self.in_use -= 1
        if self._queue:
            self._grant_free_places()

    def press(self) -> bool:
        """Refuse the request that came last, for a full server; False if none waits or has joined."""
        self._pressed_at = trio.current_time()
        return self.refuse_last(_FULL) or self._refuse_joined(_FULL)

    def _refuse_joined(self, why: str) -> bool:
        """Refuse the call that joined last; False if there is none."""
        if not self.joined:
            return False
        _, (request, refused) = self.joined.popitem()
        self._uncount(request)
        self._overflowed += 1
        refused(Overflow(why))
        return True

    def refuse_last(self, why: str) -> bool:
        """Refuse the waiting calls of the request that came last; False if none waits."""
        if not self.waiting:
            return False
        request = next(reversed(self.waiting))
        # Taken out before the first is refused: its end may cancel the others, which then leave nothing.
        calls = self.waiting.pop(request)
        for call in calls:
            del self._queue[call], self._request_of[call]
            self._uncount(request)
        self._overflowed += len(calls)
        for refused in calls.values():
            refused(Overflow(why))
        return True

    @property
    def overflowed(self) -> int:
        """Calls that were refused, since the beginning."""
        return self._overflowed

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return len(self._queue)

    @property
    def stalled(self) -> bool:
        """Whether calls wait, have joined or are many, or were, and none has completed since."""
        self._recover_if_due()
        return self._stalled_at is not None

    def _stopped_waiting(self, key: object) -> None:
        request = self._request_of.pop(key)
        calls = self.waiting[request]
        del calls[key]
        if not calls:
            del self.waiting[request]

    def _uncount(self, request: Hashable) -> None:
        """Count one call of ``request`` less."""
        count = self.requests[request]
        if count == 1:
            del self.requests[request]
        else:
            self.requests[request] = count - 1

    # Stalls.

    def _watch(self) -> None:
        """Start the stall timer, with an overload manager: see from now on whether the upstream completes calls."""
        if self._overload_manager is not None:
            self._watched_since = trio.current_time()
            if self._timer is None:
                self._timer = self._timers.add(self._watched_since + STALL_SECONDS, self._check_stall)

    @property
    def _is_watched(self) -> bool:
        return bool(self._queue or self.joined) or self.in_use >= self._watched_from

    def _check_stall(self) -> None:
        """Timer: mark the upstream as stalled if it completes no call while some wait, have joined, or are many."""
        self._timer = None
        self._recover_if_due()
        manager = self._overload_manager
        if manager is None or not self._is_watched or self._stalled_at is not None:
            return
        now, due = trio.current_time(), max(self.completed_at, self._watched_since) + STALL_SECONDS
        if now < due:
            self._timer = self._timers.add(due, self._check_stall)
            return
        self._stalled_at = now
        manager.stalled[self] = None
        why = f"no call has completed for {STALL_SECONDS:g} s"
        while len(self.waiting) > manager.room_each:
            self.refuse_last(why)
        while manager.excess > 0 and (self.refuse_last(why) or self._refuse_joined(why)):
            pass

    def _recover_if_due(self) -> None:
        """End the state if a call has completed since it began, or the upstream holds no request any more."""
        manager = self._overload_manager
        if manager is None or self._stalled_at is None:
            return
        if self.completed_at > self._stalled_at or not self.requests:
            self._stalled_at = None
            manager.stalled.pop(self, None)
            if self._is_watched and self._timer is None:
                self._timer = self._timers.add(self.completed_at + STALL_SECONDS, self._check_stall)

    def _check_room(self, request: Hashable) -> None:
        """Raise ``Overflow`` if a stalled upstream may hold no further request."""
        self._recover_if_due()
        manager = self._overload_manager
        if (
            manager is not None
            and self._stalled_at is not None
            and request not in self.requests
            and manager.excess >= 0
        ):
            self._overflowed += 1
            raise Overflow(f"no call has completed for {trio.current_time() - self.completed_at:.1f} s")
