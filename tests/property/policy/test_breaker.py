"""The breaker against a model that keeps every attempt and examines all of them each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.core.failure_kinds import CUT, Kind
from umbel.policy.breaker import BreakerPolicy, BreakerState, Ticket
from umbel.policy.failure_verdict import failed

WINDOW, MIN_REQUESTS, RATIO, OPEN_FOR = 10.0, 5, 0.5, 5.0
ENDS: list[tuple[Kind | None, int | None]] = [
    (None, 200),
    (None, 404),
    (None, 500),
    (Kind.CONNECT, None),
    (Kind.TIMEOUT, None),
    (Kind.MALFORMED, 200),
    (Kind.TOO_BIG, 200),
    (Kind.BAD_REQUEST, None),
    (Kind.OVERFLOW, None),
]


@dataclass
class ModelTicket:
    period: int
    probe: bool = False


@dataclass
class Model:
    """A direct implementation of the breaker's rules, without regard to its cost."""

    state: BreakerState = BreakerState.CLOSED
    opened_at: float = 0.0
    period: int = 0
    attempts: list[tuple[int, bool]] = field(default_factory=list)
    """Bucket and result of each attempt of the present closed period."""
    probe: ModelTicket | None = None

    def admit(self, now: float) -> ModelTicket | None:
        if self.state is BreakerState.CLOSED:
            return ModelTicket(self.period)
        if self.state is BreakerState.OPEN and now >= self.opened_at + OPEN_FOR:
            self.state = BreakerState.HALF_OPEN
        if self.state is BreakerState.HALF_OPEN and self.probe is None:
            self.probe = ModelTicket(self.period, probe=True)
            return self.probe
        return None

    def attempted(self, ticket: ModelTicket, now: float, has_failed: bool) -> None:
        if ticket is self.probe:
            self.probe = None
            self.state, self.opened_at = (BreakerState.OPEN, now) if has_failed else (BreakerState.CLOSED, 0.0)
            if not has_failed:
                self.attempts, self.period = [], self.period + 1
        elif self.state is BreakerState.CLOSED and ticket.period == self.period:
            self.attempts.append((bucket(now), has_failed))
            recent = self.recent(now)
            if len(recent) >= MIN_REQUESTS and sum(recent) >= RATIO * len(recent):
                self.state, self.opened_at = BreakerState.OPEN, now

    def ended(self, ticket: ModelTicket) -> None:
        if ticket is self.probe:
            self.probe = None

    def recent(self, now: float) -> list[bool]:
        return [has_failed for number, has_failed in self.attempts if number > bucket(now) - 10]


def bucket(now: float) -> int:
    return math.floor(now / (WINDOW / 10))


# Time that passes, whether a call is admitted, which call under way (if any) has an attempt end, and its result.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5, 5.0, 11.0]),
        st.sampled_from(["admit", "attempt", "attempt", "cut", "end"]),
        st.integers(0, 30),
        st.sampled_from(ENDS),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_the_breaker_behaves_as_the_model(steps: list[tuple[float, str, int, tuple[Kind | None, int | None]]]) -> None:
    breaker = BreakerPolicy(window=WINDOW, min_requests=MIN_REQUESTS, failure_ratio=RATIO, open_for=OPEN_FOR)
    model = Model()
    now = 0.0
    under_way: list[tuple[Ticket, ModelTicket]] = []
    for passed, what, index, (kind, status) in steps:
        now += passed
        if what == "admit" or not under_way:
            ticket, expected = breaker.admit(now), model.admit(now)
            assert (ticket is None) == (expected is None)
            if ticket is not None and expected is not None:
                under_way.append((ticket, expected))
        else:
            ticket, expected = under_way[index % len(under_way)]
            verdict = failed(kind, status)
            if what == "attempt":
                ticket.attempted(now, kind, status)
                if verdict is not None:
                    model.attempted(expected, now, verdict)
            else:
                if what == "cut":
                    assert all(failed(each, None) is None for each in CUT)
                ticket.ended()
                model.ended(expected)
                under_way.remove((ticket, expected))
        assert breaker.state is model.state
        blocked = [ticket.blocked for ticket, _ in under_way]
        assert blocked == [model.state is not BreakerState.CLOSED and each is not model.probe for _, each in under_way]
        if breaker.state is BreakerState.CLOSED:
            seen = breaker.statistics(now)
            assert (seen.requests, seen.failures) == (len(model.recent(now)), sum(model.recent(now)))
        # One probe at a time, and only half-open.
        probes = [ticket for ticket, _ in under_way if ticket.is_probe]
        assert len(probes) <= (breaker.state is BreakerState.HALF_OPEN)
