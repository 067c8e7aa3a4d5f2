"""The circuit breaker: its table, its window, its probe, and what its tickets report."""

from __future__ import annotations

import itertools

import pytest

from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import TABLE, BreakerEvent, BreakerPolicy, BreakerState, Ticket


def call(breaker: BreakerPolicy, now: float, *, fails: bool) -> None:
    ticket = admitted(breaker, now)
    ticket.attempted(now, Kind.CONNECT if fails else None, None if fails else 200)
    ticket.ended()


def admitted(breaker: BreakerPolicy, now: float) -> Ticket:
    ticket = breaker.admit(now)
    assert ticket is not None
    return ticket


def opened_at(now: float) -> BreakerPolicy:
    breaker = BreakerPolicy()
    for _ in range(20):
        call(breaker, now, fails=True)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_the_table_has_every_transition() -> None:
    assert {
        (state, signal): TABLE.get((state, signal)) for state, signal in itertools.product(BreakerState, BreakerEvent)
    } == dict.fromkeys(itertools.product(BreakerState, BreakerEvent)) | {
        (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerEvent.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.PROVED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    }


def test_the_breaker_opens_with_the_twentieth_failure_not_with_the_nineteenth() -> None:
    breaker = BreakerPolicy()
    for _ in range(19):
        call(breaker, 1.0, fails=True)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, 1.0, fails=False)  # 19 of 20: the attempt that completes the number need not be a failure
    assert breaker.state is BreakerState.OPEN
    assert breaker.statistics(1.0).opened == 1


@pytest.mark.parametrize(("failures", "state"), [(9, BreakerState.CLOSED), (10, BreakerState.OPEN)])
def test_the_breaker_opens_if_half_of_the_requests_failed(failures: int, state: BreakerState) -> None:
    breaker = BreakerPolicy()
    for number in range(20):
        call(breaker, 1.0, fails=number < failures)
    assert breaker.state is state


def test_attempts_older_than_the_window_are_dropped_a_tenth_at_a_time() -> None:
    breaker = BreakerPolicy()
    for second in range(10):
        call(breaker, float(second), fails=True)
    assert breaker.statistics(9.9).requests == 10
    assert breaker.statistics(10.0).requests == 9
    assert breaker.statistics(14.0).requests == 5
    assert breaker.statistics(19.0).requests == breaker.statistics(19.0).failures == 0
    for _ in range(19):
        call(breaker, 1e6, fails=True)
    assert breaker.state is BreakerState.CLOSED


def test_an_open_breaker_refuses_for_five_seconds_and_gives_the_rest_of_the_time() -> None:
    breaker = opened_at(100.0)
    assert breaker.admit(100.0) is None
    assert breaker.retry_after(101.5) == 3.5
    assert breaker.admit(104.999) is None
    assert admitted(breaker, 105.0).is_probe
    assert breaker.statistics(105.0).refused == 2


def test_a_half_open_breaker_admits_one_probe_and_refuses_other_calls() -> None:
    breaker = opened_at(0.0)
    probe = admitted(breaker, 5.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(5.0) is None
    assert breaker.admit(500.0) is None  # however long the probe takes: it has a deadline of its own
    assert breaker.retry_after(5.0) is None
    assert not probe.blocked


def test_a_successful_probe_closes_the_breaker_with_an_empty_window() -> None:
    breaker = opened_at(0.0)
    probe = admitted(breaker, 5.0)
    probe.attempted(5.1, None, 404)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.statistics(5.1).requests == 0
    probe.attempted(5.2, Kind.RESET, None)  # a second attempt of the probe's call, begun before it closed
    assert breaker.statistics(5.2).requests == 0
    probe.ended()
    for _ in range(19):
        call(breaker, 5.3, fails=True)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(("kind", "status"), [(None, 500), (Kind.TIMEOUT, None), (Kind.TLS, None)])
def test_a_failed_probe_opens_the_breaker_again_and_blocks_the_probes_retries(
    kind: Kind | None, status: int | None
) -> None:
    breaker = opened_at(0.0)
    probe = admitted(breaker, 6.0)
    probe.attempted(7.0, kind, status)
    assert breaker.state is BreakerState.OPEN
    assert probe.blocked
    probe.ended()
    assert breaker.retry_after(7.0) == 5.0
    assert breaker.admit(11.9) is None
    assert admitted(breaker, 12.0).is_probe
    assert breaker.statistics(12.0).opened == 2


@pytest.mark.parametrize("kind", [None, Kind.BAD_REQUEST, Kind.OVERFLOW])
def test_after_a_probe_without_a_result_the_next_call_is_the_probe(kind: Kind | None) -> None:
    breaker = opened_at(0.0)
    probe = admitted(breaker, 5.0)
    if kind is not None:
        probe.attempted(5.1, kind, None)
    assert breaker.admit(5.1) is None
    probe.ended()
    assert breaker.state is BreakerState.HALF_OPEN
    following = admitted(breaker, 5.2)
    assert following.is_probe
    assert not probe.is_probe
    probe.ended()  # the late end of the old probe does not affect the new one
    assert following.is_probe


def test_an_opening_breaker_blocks_further_attempts_of_calls_under_way() -> None:
    breaker = BreakerPolicy()
    under_way = admitted(breaker, 0.0)
    assert not under_way.blocked
    for _ in range(20):
        call(breaker, 0.0, fails=True)
    assert under_way.blocked
    admitted(breaker, 5.0)
    assert under_way.blocked  # half-open, but it is not the probe


def test_an_attempt_of_an_earlier_closed_period_does_not_count() -> None:
    breaker = BreakerPolicy()
    stragglers = [admitted(breaker, 0.0) for _ in range(40)]
    for _ in range(20):
        call(breaker, 0.0, fails=True)
    stragglers[0].attempted(1.0, None, 200)
    assert breaker.state is BreakerState.OPEN
    probe = admitted(breaker, 5.0)
    stragglers[1].attempted(5.0, None, 200)
    assert breaker.state is BreakerState.HALF_OPEN  # only the probe decides
    probe.attempted(5.0, None, 200)
    for straggler in stragglers[2:]:
        straggler.attempted(5.0, Kind.TIMEOUT, None)
        straggler.ended()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.statistics(5.0).requests == 0


def test_window_requests_ratio_and_open_time_can_be_set() -> None:
    breaker = BreakerPolicy(window=1.0, min_requests=2, failure_ratio=1.0, open_for=0.5)
    call(breaker, 0.0, fails=True)
    call(breaker, 0.95, fails=False)
    call(breaker, 1.05, fails=True)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, 2.0, fails=True)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, 2.0, fails=True)
    assert breaker.state is BreakerState.OPEN
    assert admitted(breaker, 2.5).is_probe


@pytest.mark.parametrize("bad", [{"window": 0}, {"min_requests": 0}, {"failure_ratio": 1.5}, {"open_for": 0}])
def test_invalid_numbers_of_a_breaker_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        BreakerPolicy(**bad)
