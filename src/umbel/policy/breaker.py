"""Circuit breaker of an upstream: a state machine written as a table (``TABLE``).

A call asks ``BreakerPolicy.admit`` once. If it gets a ``Ticket``, the end of each attempt that was not cut is reported
to ``Ticket.attempted``, and the end of the call to ``Ticket.ended``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..core.failure_kinds import Kind
from .failure_verdict import failed

BUCKETS = 10
"""Number of parts of the sliding window, which advances by one part at a time."""


class BreakerState(enum.StrEnum):
    """State of a breaker: which calls it admits."""

    CLOSED = "closed"
    """All calls are admitted, and their attempts are counted."""
    OPEN = "open"
    """No call is admitted."""
    HALF_OPEN = "half-open"
    """One call at a time is admitted: the probe."""


class BreakerEvent(enum.StrEnum):
    """Event that changes the state of a breaker."""

    TRIPPED = "tripped"
    """Too many attempts in the window have failed."""
    WAITED = "waited"
    """A call asks for admission after the breaker was open for ``open_for`` seconds."""
    PROVED = "proved"
    """The upstream answered the probe's attempt."""
    FAILED = "failed"
    """The probe's attempt failed."""


TABLE: Mapping[tuple[BreakerState, BreakerEvent], BreakerState] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerEvent.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.PROVED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    }
)
"""All transitions."""


@dataclass(frozen=True, slots=True)
class BreakerTransition:
    """Change of the state of a breaker, with the counts of the window at that moment."""

    state: BreakerState
    """The new state."""
    event: BreakerEvent
    """The cause."""
    requests: int
    """Attempts in the window with a verdict (``failure_verdict.failed``)."""
    failures: int
    """Those of them that failed by the upstream's fault."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A snapshot of a breaker. The last two count since the breaker was created."""

    state: BreakerState
    requests: int
    """Attempts in the window with a verdict (``failure_verdict.failed``)."""
    failures: int
    """Those of them that failed by the upstream's fault."""
    opened: int
    """Times that the breaker opened."""
    refused: int
    """Calls that were not admitted."""


class BreakerPolicy:
    """Circuit breaker: opens when too many attempts in a sliding window have failed, closes when a probe succeeds.

    Only attempts of calls that were admitted in the present closed period count. An attempt that ends late, of a call
    from before the breaker opened, says nothing about the upstream after the breaker has closed again.

    Args:
        window: seconds; the window has ten parts, the present one and the nine before it.
        min_requests: number of attempts in the window below which the breaker does not open.
        failure_ratio: share of failed attempts, above 0 and up to 1, at which the breaker opens.
        open_for: seconds for which an open breaker admits no call; the next call is the probe.
        changed: called with each transition, at once; must not raise.

    Raises:
        ValueError: a number is out of range.
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
            raise ValueError(
                "window and open_for must be more than 0, min_requests at least 1, failure_ratio above 0 and up to 1"
            )
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
        """The present state. An open breaker becomes half-open at the first call after ``open_for``."""
        return self._state

    def admit(self, now: float) -> Ticket | None:
        """Return a ticket if the call is admitted, else None. A probe's ``Ticket.ended`` must be called at its end."""
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
        """Seconds until an open breaker may admit a call; None if the breaker is closed or half-open."""
        return max(0.0, self._open_until - now) if self._state is BreakerState.OPEN else None

    def statistics(self, now: float) -> BreakerSnapshot:
        """A snapshot."""
        self._window.advance(now)
        window = self._window
        return BreakerSnapshot(self._state, window.requests, window.failures, self._opened, self._refused)

    def _count(self, ticket: Ticket, now: float, has_failed: bool) -> None:
        """Count an attempt of the ticket's call. The first verdict on the probe changes the state."""
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
            return  # WAITED while half-open: the previous probe ended without a result, and this call is the next.
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
    """Admission of one call by a breaker. The ends of the call's attempts, and of the call, are reported to it."""

    __slots__ = ("_breaker", "period")

    def __init__(self, breaker: BreakerPolicy, period: int) -> None:
        self._breaker = breaker
        self.period = period
        """Number of the closed period in which the call was admitted."""

    @property
    def is_probe(self) -> bool:
        """Whether the call is the probe, and the half-open breaker waits for its result."""
        return self._breaker._probe is self

    @property
    def blocked(self) -> bool:
        """Whether the call must make no further attempt: the breaker is not closed, and the call is not the probe."""
        return self._breaker._state is not BreakerState.CLOSED and not self.is_probe

    def attempted(self, now: float, kind: Kind | None, status: int | None) -> None:
        """Count the end of an attempt whose kind is not in ``CUT``.

        The first verdict on a probe closes or opens the breaker.

        Args:
            kind: kind of the failure; None for a response.
            status: status of the response, if there was one.
        """
        verdict = failed(kind, status)
        if verdict is not None:
            self._breaker._count(self, now, verdict)

    def ended(self) -> None:
        """End the call. After a probe without a result (cut, never sent) the next call becomes the probe."""
        self._breaker._leave(self)


class Window:
    """Sliding window: the numbers of attempts and failures of the last ``seconds``, in constant time per operation."""

    __slots__ = ("_buckets", "_current", "_width", "failures", "requests")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._buckets = [[0, 0] for _ in range(BUCKETS)]
        self._current = 0
        """Number of the present bucket, counted from time 0. Its index is this number modulo BUCKETS."""
        self.requests = 0
        self.failures = 0

    def add(self, now: float, has_failed: bool) -> None:
        """Count one attempt."""
        if int(now / self._width) > self._current:
            self.advance(now)
        bucket = self._buckets[self._current % BUCKETS]
        bucket[0] += 1
        bucket[1] += has_failed
        self.requests += 1
        self.failures += has_failed

    def advance(self, now: float) -> None:
        """Drop the buckets that are older than the window."""
        current = int(now / self._width)
        for number in range(max(self._current + 1, current - BUCKETS + 1), current + 1):
            bucket = self._buckets[number % BUCKETS]
            self.requests -= bucket[0]
            self.failures -= bucket[1]
            bucket[0] = bucket[1] = 0
        self._current = max(self._current, current)

    def clear(self) -> None:
        """Drop all counts."""
        for bucket in self._buckets:
            bucket[0] = bucket[1] = 0
        self.requests = self.failures = 0
