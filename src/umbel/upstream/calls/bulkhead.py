"""Bulkhead of an upstream: a limit of calls in flight, one queue, and the rules by which requests are refused.

Calls that have become streams do not count here, but in a ``StreamCount``.

Theory
------
**Problem.** A limited number of calls may be in flight to an upstream; further calls wait. If the upstream hangs, the
requests that wait for it would fill the server, and requests that do not need this upstream would be refused.

**Places and queue.** An upstream has ``capacity`` places for calls in flight. A call that finds no free place waits in
one queue, first come, first served. The queue's room is counted in inbound *requests*, not in calls: further calls of a
request that the upstream holds (see below) may always wait. So a request with fifty calls takes as much room as a
request with one call, and its calls do not take the room from one another. The default room is ``max_requests``, the
number of requests that the server serves at a time (``[server] max_in_flight``). With this room, no call of a served
request is refused while the upstream completes calls.

**Delayed.** A call that waits for a limit of the upstream (``limit_queue.py``) holds no place and is not in the queue,
so calls of other keys pass it. In everything else it is a waiting call of its request: it takes room in the queue, may
be refused like the others, and an upstream for which only such calls wait is watched too. For a server whose requests
all wait, it makes no difference why the upstream completes no calls.

**Holding.** An upstream *holds* a request while a call of it is in flight, waits, or has *joined*: it waits for the
response of another call (coalescing) and takes neither a place nor room in the queue.

**Stalled.** An upstream is *watched* while a call waits or has joined, or while the number of calls in flight is at
least WATCHED_SHARE of ``max_requests``. (Without an ``OverloadManager`` it is never watched, stalled or pressed.) A
watched upstream that completes no call for STALL_SECONDS becomes *stalled*. A call counts as completed as soon as one
of its attempts ends with a response or with any error but a timeout, because such an upstream does free its places. The
consequences of the state:

- The first EACH_SHARE of ``max_requests`` stay in its queue. The requests behind them are refused (``Overflow``), and
  so are new ones while the queue is that long.
- All stalled upstreams together take no further request once they hold ALL_SHARE of ``max_requests``. If they hold
  more when the state of one begins, waiting and then joined calls of this one are refused, the last first. The rest of
  the server's room is left for requests that need none of these upstreams.
- Calls in flight go on. The first completed call ends the state, and so does the end of the last held request. This is
  noticed when the state is examined next (see "Cost").

**Pressed.** A full server asks for room (``OverloadManager.make_room``) before it refuses a new request, because an
upstream may hold most of the requests and not be stalled yet. Candidates are the upstreams where calls wait or have
joined, that hold more than EACH_SHARE of ``max_requests``, and that have completed no call for QUIET_SECONDS. Of these,
the upstream that holds the most requests is chosen. The waiting calls of the request that came into its queue last are
refused, or else the call that joined last, and the server takes the new request instead. The chosen upstream is
*pressed*: until a call completes, a request without a call at this upstream may not wait there if EACH_SHARE wait, and
may not join if the upstream holds EACH_SHARE: its call would be refused for the next new request.

**Cost.** A call that finds a free place costs two counts. A timer examines a watched upstream until it is stalled. The
state of a stalled one is examined by each new call to it, and when ``stalled`` is read.

**Batches.** A place that is given back within a batch of the socket reader (``net.epoll``) is granted at the end of the
batch. So the calls that wait begin at one time, and their requests are sent one right after the other: the calls of one
inbound request share the lines that depend on the time, and the upstream is woken once.

**Tasks.** No function waits. The callbacks ``granted`` and ``refused`` run in the task that frees a place, examines the
state or asks for room; they may call back into the bulkhead. The calls that are refused are therefore removed from all
tables before the first callback runs.
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
"""Seconds without a completed call after which a watched upstream is stalled."""
QUIET_SECONDS = 0.25
"""Seconds without a completed call after which an upstream may be pressed."""
EACH_SHARE = 0.4
"""Share of ``max_requests`` that may wait for one stalled or pressed upstream."""
ALL_SHARE = 0.8
"""Share of ``max_requests`` that all stalled upstreams together may hold."""
WATCHED_SHARE = 0.1
"""Number of calls in flight, as a share of ``max_requests``, from which an upstream is watched although no call waits:
several such upstreams could fill the server."""
MAX_REQUESTS = 256
"""Number of requests at a time without an overload manager: the default of ``[server] max_in_flight``."""

_FULL = "the server is full, and the upstream completes no call"

Refused = Callable[[Overflow], object]
"""Callback for a waiting or joined call that is refused. Called once. Must not raise and must not wait."""


def _at_once(callback: Callable[[], object]) -> None:
    callback()


class OverloadManager:
    """The state that the upstreams of a process share: the limit of requests, and the set of stalled upstreams.

    The name is Envoy's.

    Args:
        max_requests: number of requests that the server serves at a time.
    """

    def __init__(self, max_requests: int = MAX_REQUESTS) -> None:
        self.max_requests = max_requests
        self.room_each = int(max_requests * EACH_SHARE)
        self.watched_from = max(1, int(max_requests * WATCHED_SHARE))
        self._room_all = int(max_requests * ALL_SHARE)
        self._bulkheads: list[Bulkhead] = []
        self.stalled: dict[Bulkhead, None] = {}

    def add(self, bulkhead: Bulkhead) -> None:
        """Add the bulkhead of an upstream."""
        self._bulkheads.append(bulkhead)

    @property
    def excess(self) -> int:
        """Number of requests that stalled upstreams hold, less ALL_SHARE; negative if they may take another request."""
        if len(self.stalled) == 1:
            held = sum(len(bulkhead.requests) for bulkhead in self.stalled)
        else:
            # A request that several upstreams hold counts once.
            held = len(set().union(*(bulkhead.requests for bulkhead in self.stalled)))
        return held - self._room_all

    def make_room(self) -> bool:
        """Refuse calls of one request, because the server is full; see "Pressed" in the module.

        Returns:
            False if there is no upstream whose calls may be refused.
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
    """A ``QueueLimiter`` of one upstream's calls whose room is counted in requests. See the module for the rules.

    ``request`` is the key of an inbound request; it must be unique among the requests that the upstream holds.

    Args:
        capacity: limit of calls in flight.
        max_queue: number of requests that may wait; None: ``max_requests`` of ``manager``, or MAX_REQUESTS without one.
        manager: None: the upstream is never stalled or pressed.
        timers: a running queue, for the stall timer.
        after_batch: calls a function at the end of the socket reader's batch, or at once outside of a batch.
    """

    __slots__ = (
        "_after_batch",
        "_grant_is_due",
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
        self,
        capacity: int,
        max_queue: int | None,
        manager: OverloadManager | None,
        timers: TimerQueue,
        after_batch: Callable[[Callable[[], object]], object] = _at_once,
    ) -> None:
        most = MAX_REQUESTS if manager is None else manager.max_requests
        super().__init__(capacity, most if max_queue is None else max_queue)
        self._overload_manager, self._timers, self._after_batch = manager, timers, after_batch
        self._grant_is_due = False
        """Whether ``_grant_after_batch`` will be called at the end of the batch."""
        self.requests: dict[Hashable, int] = {}
        """Number of calls of each held request: in flight, waiting and joined."""
        self.waiting: dict[Hashable, dict[object, Refused]] = {}
        """Waiting calls of each request, in the order in which the requests came."""
        self._request_of: dict[object, Hashable] = {}
        """Request of each waiting call, delayed ones included; ``_queue`` has only those that wait for a place."""
        self.joined: dict[object, tuple[Hashable, Refused]] = {}
        """Joined calls with their requests, in the order in which they joined."""
        self.completed_at = -math.inf
        """Time of the last completed call; set by calls."""
        self._watched_from: float = math.inf if manager is None else manager.watched_from
        """Number of calls in flight from which the stall timer runs although no call waits."""
        self._watched_since = 0.0
        """Time at which watching began; see ``_is_watched``."""
        self._stalled_at: float | None = None
        """Time at which the upstream became stalled; None: it is not stalled."""
        self._pressed_at = -math.inf
        """Time of the last ``press``. Pressed means: later than ``completed_at``."""
        self._timer: Timer | None = None
        """Stall timer; None while it is not set."""
        if manager is not None:
            manager.add(self)

    def admit(self, request: Hashable) -> bool:
        """Take a place for a call of ``request`` if one is free. Return whether one was.

        Raises:
            Overflow: the upstream is stalled, does not hold ``request``, and the stalled upstreams hold ALL_SHARE.
        """
        if self._stalled_at is not None:
            self._check_room(request)
        # A place can be free while calls wait: within ``_grant_free_places``, and until the end of a batch. A call that
        # starts meanwhile must not overtake the calls that wait.
        if self.in_use < self._capacity and not self._queue:
            self.in_use += 1
            self.requests[request] = self.requests.get(request, 0) + 1
            if self.in_use == self._watched_from and not (self.joined or self._request_of):
                self._watch()
            return True
        return False

    def wait(self, call: object, request: Hashable, granted: Granted, refused: Refused) -> None:
        """Put ``call`` into the queue, after ``admit`` returned False.

        The call waits until ``granted`` is called, with a place taken for it, until ``refused`` is called, or until
        ``leave`` removes it.

        Raises:
            Overflow: the queue has no room for one more request.
        """
        self._count_waiting(call, request, refused)
        self._queue[call] = granted

    def delay(self, call: object, request: Hashable, refused: Refused) -> None:
        """Count ``call`` as waiting, without a place in the queue: it waits for a limit of the upstream.

        This ends with ``end_delay``, with ``leave``, or when ``refused`` is called.

        Raises:
            Overflow: as ``admit`` and ``wait``.
        """
        if self._stalled_at is not None:
            self._check_room(request)
        self._count_waiting(call, request, refused)

    def end_delay(self, call: object, granted: Granted) -> bool:
        """Take a place for a delayed call if one is free. Return whether one was; if not, the call is in the queue."""
        if self.in_use < self._capacity and not self._queue:
            self.in_use += 1
            self._stopped_waiting(call)
            return True
        self._queue[call] = granted
        return False

    def delay_again(self, call: object, request: Hashable, refused: Refused) -> None:
        """Undo a grant within the callback ``granted``: release the place, and count ``call`` as delayed."""
        self.in_use -= 1
        self.waiting.setdefault(request, {})[call] = refused
        self._request_of[call] = request

    def _count_waiting(self, call: object, request: Hashable, refused: Refused) -> None:
        """Count ``call`` as waiting.

        Raises:
            Overflow: the queue has no room for one more request.
        """
        if request not in self.requests:
            room = self._max_waiting
            if self._overload_manager is not None and (
                self._stalled_at is not None or self._pressed_at > self.completed_at
            ):
                room = min(room, self._overload_manager.room_each)
            if len(self.waiting) >= room:
                self._overflowed += 1
                raise Overflow(
                    f"the queue is full: {self.in_use} calls in flight, {len(self.waiting)} requests waiting"
                )
        if not self._is_watched:
            self._watch()
        self.waiting.setdefault(request, {})[call] = refused
        self._request_of[call] = request
        self.requests[request] = self.requests.get(request, 0) + 1

    def leave(self, key: object) -> bool:
        """Remove a waiting or delayed call. Return False if it does not wait: it has a place, or was refused."""
        request = self._request_of.get(key)
        if key not in self._request_of:
            return False
        self._queue.pop(key, None)
        self._stopped_waiting(key)
        self._uncount(request)
        return True

    def join(self, call: object, request: Hashable, refused: Refused) -> None:
        """Count ``request`` as held while its ``call`` waits for the response of another call.

        This ends with ``leave_joined``, or when ``refused`` is called.

        Raises:
            Overflow: the upstream is stalled or pressed and may hold no further request.
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
        """Undo ``join``. Does nothing if ``call`` has not joined."""
        found = self.joined.pop(call, None)
        if found is not None:
            self._uncount(found[0])

    def give_back(self, request: Hashable) -> None:
        """Release the place of a call of ``request``, and grant it to the first waiting call; see "Batches"."""
        # As ``_uncount`` and ``release``, inlined: this runs for every call.
        count = self.requests[request]
        if count == 1:
            del self.requests[request]
        else:
            self.requests[request] = count - 1
        self.in_use -= 1
        if self._queue and not self._grant_is_due:
            self._grant_is_due = True
            self._after_batch(self._grant_after_batch)

    def _grant_after_batch(self) -> None:
        """Grant the places that were given back within the batch that has ended."""
        self._grant_is_due = False
        self._grant_free_places()

    def press(self) -> bool:
        """Become pressed, and refuse the waiting request that came last, or else the call that joined last.

        Returns:
            False if there is neither.
        """
        self._pressed_at = trio.current_time()
        return self.refuse_last(_FULL) or self._refuse_joined(_FULL)

    def _refuse_joined(self, why: str) -> bool:
        """Refuse the call that joined last. Return False if no call has joined."""
        if not self.joined:
            return False
        _, (request, refused) = self.joined.popitem()
        self._uncount(request)
        self._overflowed += 1
        refused(Overflow(why))
        return True

    def refuse_last(self, why: str) -> bool:
        """Refuse all waiting calls of the request that came last. Return False if no call waits."""
        if not self.waiting:
            return False
        request = next(reversed(self.waiting))
        # All calls are removed before the first callback: the end of one call may cancel the others, and their
        # ``leave`` must then find nothing.
        calls = self.waiting.pop(request)
        for call in calls:
            self._queue.pop(call, None)
            del self._request_of[call]
            self._uncount(request)
        self._overflowed += len(calls)
        for refused in calls.values():
            refused(Overflow(why))
        return True

    @property
    def overflowed(self) -> int:
        """Number of calls that were refused, since the bulkhead was created."""
        return self._overflowed

    @property
    def queued(self) -> int:
        """Number of waiting calls, those included that wait for a limit."""
        return len(self._request_of)

    @property
    def stalled(self) -> bool:
        """Whether the upstream is stalled; see the module."""
        self._recover_if_due()
        return self._stalled_at is not None

    def _stopped_waiting(self, key: object) -> None:
        request = self._request_of.pop(key)
        calls = self.waiting[request]
        del calls[key]
        if not calls:
            del self.waiting[request]

    def _uncount(self, request: Hashable) -> None:
        """Subtract one from the calls of ``request``."""
        count = self.requests[request]
        if count == 1:
            del self.requests[request]
        else:
            self.requests[request] = count - 1

    # Stalls.

    def _watch(self) -> None:
        """Watch the upstream from now on: start the stall timer. Does nothing without an overload manager."""
        if self._overload_manager is not None:
            self._watched_since = trio.current_time()
            if self._timer is None:
                self._timer = self._timers.add(self._watched_since + STALL_SECONDS, self._check_stall)

    @property
    def _is_watched(self) -> bool:
        """Whether calls wait or have joined, or so many are in flight that the upstream can become stalled."""
        return bool(self._request_of or self.joined) or self.in_use >= self._watched_from

    def _check_stall(self) -> None:
        """Timer: become stalled if no call has completed for STALL_SECONDS while the upstream was watched."""
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
        """End the stalled state if a call has completed since it began, or if no request is held."""
        manager = self._overload_manager
        if manager is None or self._stalled_at is None:
            return
        if self.completed_at > self._stalled_at or not self.requests:
            self._stalled_at = None
            manager.stalled.pop(self, None)
            if self._is_watched and self._timer is None:
                self._timer = self._timers.add(self.completed_at + STALL_SECONDS, self._check_stall)

    def _check_room(self, request: Hashable) -> None:
        """Check whether a stalled upstream may hold ``request``.

        Raises:
            Overflow: the stalled upstreams hold ALL_SHARE, and ``request`` is not among the requests held here.
        """
        self._recover_if_due()
        manager = self._overload_manager
        if (
            manager is not None
            and self._stalled_at is not None
            and request not in self.requests
            and manager.excess >= 0
        ):
            self._overflowed += 1
            quiet_for = trio.current_time() - self.completed_at
            raise Overflow(
                "the upstream is stalled and takes no further request: it has completed no call "
                + ("yet" if quiet_for == math.inf else f"for {quiet_for:.1f} s")
            )


class StreamCount:
    """The calls to an upstream that count as streams, up to a limit.

    Raises:
        ValueError: ``limit`` is less than 1.
    """

    __slots__ = ("limit", "open", "refused")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("max_streams must be at least 1")
        self.limit = limit
        self.open = 0
        """Streams that are open."""
        self.refused = 0
        """Streams that were refused because of the limit."""

    def take(self) -> bool:
        """Count a further stream; return False, and change nothing, if the limit is reached."""
        if self.open >= self.limit:
            self.refused += 1
            return False
        self.open += 1
        return True

    def give_back(self) -> None:
        """Count one stream less."""
        self.open -= 1
