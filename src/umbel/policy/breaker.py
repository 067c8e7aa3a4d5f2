"""Circuit breaker of an upstream: a state machine written as a table.

``admit`` is called once per call, ``Ticket.attempted`` once per attempt. It has no clock: ``now`` is handed in, in
seconds, and never runs backwards.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..core.failure_kinds import Kind
from .failure_verdict import failed

BUCKETS = 10
"""The window's parts: it moves on by a tenth of its length at a time."""


class BreakerState(enum.StrEnum):
    """State of a breaker: what it does with the next call."""

    CLOSED = "closed"
    """Admits it, and counts its attempts."""
    OPEN = "open"
    """Refuses it."""
    HALF_OPEN = "half-open"
    """Admits it if no other call is under way: one call at a time probes the upstream."""


class BreakerEvent(enum.StrEnum):
    """Event that changes the state of a breaker."""

    TRIPPED = "tripped"
    """Too many of the window's attempts failed."""
    WAITED = "waited"
    """A call asks for admission, and the breaker has been open for its time."""
    PROVED = "proved"
    """The probe was answered."""
    FAILED = "failed"
    """The probe failed."""


TABLE: Mapping[tuple[BreakerState, BreakerEvent], BreakerState] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerEvent.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.PROVED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    }
)
"""Every change there is."""


@dataclass(frozen=True, slots=True)
class BreakerTransition:
    """Change of the state of a breaker, with the counts of the window at that moment."""

    state: BreakerState
    """The new one."""
    event: BreakerEvent
    """Why."""
    requests: int
    """Attempts in the window at that moment that said something of the upstream."""
    failures: int
    """Those of them that failed by its fault."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A snapshot of one breaker. The last two count since the beginning."""

    state: BreakerState
    requests: int
    """Attempts in the window that said something of the upstream."""
    failures: int
    """Those of them that failed by its fault."""
    opened: int
    refused: int


class BreakerPolicy:
    """Breaker that opens when too many attempts of a sliding window failed, and closes when a probe succeeds.

    What came of an attempt counts in the period in which its call was admitted: a late end of a call from before the
    breaker opened says nothing of the upstream as it is after it has closed again.

    Args:
        window: seconds that are looked at, in ten buckets: the running one and the nine before it.
        min_requests: with fewer in the window it never opens.
        failure_ratio: the failed part of them (0 to 1) at which it opens.
        open_for: seconds that it stays open.
        changed: called with each change of the state, when it is made; it must not raise.
    """

    def __init__(
        self,
        *,
        window: float = 10.0,
        min_requests: int = 20,
        failure_ratio: float = 0.5,
        open_for: float = 5.0,
        changed: Callable[[BreakerTransition], None] | None = None,
    ) -> None:
        if window <= 0 or open_for <= 0 or min_requests < 1 or not 0 < failure_ratio <= 1:
            raise ValueError("a breaker needs a window, an open time, a request at least, and a ratio over 0 up to 1")
        self._window = Window(window)
        self._min_requests = min_requests
        self._failure_ratio = failure_ratio
        self._open_for = open_for
        self._changed = changed
        self._state = BreakerState.CLOSED
        self._period = 0
        self._open_until = 0.0
        self._probe: Ticket | None = None
        self._opened = 0
        self._refused = 0

    @property
    def state(self) -> BreakerState:
        """The current state. An open breaker turns half-open with the first call after its time."""
        return self._state

    def admit(self, now: float) -> Ticket | None:
        """The ticket of a call that is admitted, or None. ``Ticket.ended`` must be called when the call is over."""
        if self._state is BreakerState.CLOSED:
            return Ticket(self, self._period)
        if now >= self._open_until:
            self._change(BreakerEvent.WAITED, now)
        if self._state is BreakerState.HALF_OPEN and self._probe is None:
            self._probe = Ticket(self, self._period)
            return self._probe
        self._refused += 1
        return None

    def retry_after(self, now: float) -> float | None:
        """Seconds until a call may be admitted; None where that depends on a probe under way."""
        return max(0.0, self._open_until - now) if self._state is BreakerState.OPEN else None

    def statistics(self, now: float) -> BreakerSnapshot:
        """A snapshot."""
        self._window.advance(now)
        window = self._window
        return BreakerSnapshot(self._state, window.requests, window.failures, self._opened, self._refused)

    def _count(self, ticket: Ticket, now: float, has_failed: bool) -> None:
        """Count an attempt of the ticket's call."""
        if ticket is self._probe:
            self._probe = None
            self._change(BreakerEvent.FAILED if has_failed else BreakerEvent.PROVED, now)
        elif self._state is BreakerState.CLOSED and ticket.period == self._period:
            window = self._window
            window.add(now, has_failed)
            if window.requests >= self._min_requests and window.failures >= self._failure_ratio * window.requests:
                self._change(BreakerEvent.TRIPPED, now)

    def _leave(self, ticket: Ticket) -> None:
        if ticket is self._probe:
            self._probe = None

    def _change(self, event: BreakerEvent, now: float) -> None:
        state = TABLE.get((self._state, event))
        if state is None:
            return  # Half-open already: a probe gave its place back, and this call will be the next.
        self._state = state
        change = BreakerTransition(state, event, self._window.requests, self._window.failures)
        if state is BreakerState.OPEN:
            self._open_until = now + self._open_for
            self._opened += 1
        elif state is BreakerState.CLOSED:
            self._window.clear()
            self._period += 1
        if self._changed is not None:
            self._changed(change)


class Ticket:
    """Admission of one call by a breaker."""

    __slots__ = ("_breaker", "period", "reported")

    def __init__(self, breaker: BreakerPolicy, period: int) -> None:
        self._breaker = breaker
        self.period = period
        """Which of the breaker's closed periods it belongs to."""
        self.reported = False
        """Whether an attempt of the call was reported."""

    @property
    def is_probe(self) -> bool:
        """Whether the half-open breaker waits for this call to learn how its upstream is."""
        return self._breaker._probe is self

    @property
    def blocked(self) -> bool:
        """Whether the breaker would refuse the call now: attempts that are not under way are not made."""
        return self._breaker._state is not BreakerState.CLOSED and not self.is_probe

    def attempted(self, now: float, kind: Kind | None, status: int | None) -> None:
        """Count an attempt that failed with ``kind``, or had a response of ``status``. Never one that was cut."""
        self.reported = True
        verdict = failed(kind, status)
        if verdict is not None:
            self._breaker._count(self, now, verdict)

    def ended(self) -> None:
        """End the admission. A probe without a result (cut, never sent) gives its place to the next call."""
        self._breaker._leave(self)


class Window:
    """Sliding window: the attempts of the last ``seconds``, and how many failed. Each operation takes constant time."""

    __slots__ = ("_buckets", "_current", "_width", "failures", "requests")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._buckets = [[0, 0] for _ in range(BUCKETS)]
        self._current = 0
        """The number of the running bucket, counted from time 0; it stands at this number modulo BUCKETS."""
        self.requests = 0
        self.failures = 0

    def add(self, now: float, has_failed: bool) -> None:
        """Count one."""
        if int(now / self._width) > self._current:
            self.advance(now)
        bucket = self._buckets[self._current % BUCKETS]
        bucket[0] += 1
        bucket[1] += has_failed
        self.requests += 1
        self.failures += has_failed

    def advance(self, now: float) -> None:
        """Forget what has become too old."""
        current = int(now / self._width)
        for number in range(max(self._current + 1, current - BUCKETS + 1), current + 1):
            bucket = self._buckets[number % BUCKETS]
            self.requests -= bucket[0]
            self.failures -= bucket[1]
            bucket[0] = bucket[1] = 0
        self._current = max(self._current, current)

    def clear(self) -> None:
        """Forget everything."""
        for bucket in self._buckets:
            bucket[0] = bucket[1] = 0
        self.requests = self.failures = 0
