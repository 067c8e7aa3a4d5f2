"""Balance and ejection: fairness, bounds, and that a replica that fails fast does not draw traffic to itself."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.policy.balance import Picker, PowerOfTwo, RoundRobin, Weighted, usable
from umbel.policy.ejection import Ejection, EjectionRules
from umbel.policy.load import Loads

PLACES = st.sets(st.integers(0, 7), min_size=1).map(sorted)


@given(st.lists(PLACES, max_size=60))
def test_turns_go_round_whoever_is_left_out(turns: list[list[int]]) -> None:
    policy = RoundRobin()
    before = -1
    for places in turns:
        place = policy.pick(0.0, places)
        # The next one behind the last that is there, else the first of all.
        assert place == next((each for each in places if each > before), places[0])
        before = place


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_in_each_round_everyone_has_as_many_turns_as_its_weight(weights: list[int], rounds: int) -> None:
    policy = Weighted(weights)
    for _ in range(rounds):
        taken = Counter(policy.pick(0.0, range(len(weights))) for _ in range(sum(weights)))
        assert taken == dict(enumerate(weights))


@given(
    st.integers(1, 8),
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
    st.lists(st.integers(0, 7), max_size=8),
)
def test_there_is_always_one_to_take_and_never_one_tried_while_another_is_usable(
    replicas: int, down: set[int], out: set[int], tried: list[int]
) -> None:
    left = usable(range(replicas), down, out, tried)
    assert left
    everyone = set(range(replicas))
    if everyone - down:
        assert not down & set(left)
        if everyone - down - out:
            assert not out & set(left)
    if everyone - down - out - set(tried):
        assert not set(tried) & set(left)


def flown(
    picker: Picker, loads: Loads, seconds: list[float], failing: set[int], *, rate: float, number: int
) -> Counter[int]:
    """How many of ``number`` attempts each replica gets, at ``rate`` a second."""
    taken: Counter[int] = Counter()
    ends: list[tuple[float, int, int, float]] = []
    order = count()
    for attempt in range(number):
        now = attempt / rate
        while ends and ends[0][0] <= now:
            ended_at, _, place, began_at = heapq.heappop(ends)
            loads.ended(ended_at, place, ended_at - began_at, place in failing)
        place = picker.pick(now, range(len(seconds)))
        loads.begun(place)
        taken[place] += 1
        heapq.heappush(ends, (now + seconds[place], next(order), place, now))
    return taken


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32), st.floats(1.0, 20.0))
def test_equal_replicas_get_equal_shares(replicas: int, seed: int, busy: float) -> None:
    loads = Loads(replicas)
    policy = PowerOfTwo(loads, random.Random(seed))
    seconds = 0.1
    taken = flown(policy, loads, [seconds] * replicas, set(), rate=busy * replicas / seconds, number=2000)
    assert max(taken.values()) - min(taken[place] for place in range(replicas)) < 2000 / replicas * 0.25


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32), st.floats(1.0, 20.0), st.floats(0.0, 0.01))
def test_one_that_fails_fast_gets_no_more_than_its_share(replicas: int, seed: int, busy: float, fails: float) -> None:
    loads = Loads(replicas)
    policy = PowerOfTwo(loads, random.Random(seed))
    seconds = [fails, *[0.1] * (replicas - 1)]
    taken = flown(policy, loads, seconds, {0}, rate=busy * replicas / 0.1, number=2000)
    assert taken[0] < 2000 / replicas * 1.25


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32))
def test_one_that_is_ten_times_as_slow_gets_less_than_half_of_its_share(replicas: int, seed: int) -> None:
    loads = Loads(replicas)
    policy = PowerOfTwo(loads, random.Random(seed))
    taken = flown(policy, loads, [1.0, *[0.1] * (replicas - 1)], set(), rate=50.0 * replicas, number=2000)
    assert taken[0] < 2000 / replicas / 2


@given(
    st.integers(1, 6),
    st.floats(0.0, 1.0),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 1.0, 29.0, 70.0, 400.0])), max_size=150),
)
def test_ejection_keeps_to_its_rules(
    replicas: int, share: float, failures: int, ends: list[tuple[int, bool, float]]
) -> None:
    rules = EjectionRules(failures=failures, share=share)
    ejection = Ejection(replicas, rules)
    now = 0.0
    streaks = [0] * replicas
    for place, has_failed, passed in ends:
        now += passed
        place %= replicas
        before = set(ejection.out(now))
        ejection.ended(now, place, has_failed)
        out = set(ejection.out(now))
        if place not in before:
            streaks[place] = streaks[place] + 1 if has_failed else 0
        assert len(out) <= share * replicas + 1e-6
        assert len(out) < replicas
        assert out - before <= {place}
        if out - before:
            assert streaks[place] >= failures
            assert rules.base <= ejection.left(now, place) <= rules.maximum
            assert ejection.left(now, place) % rules.base == 0
            streaks[place] = 0
