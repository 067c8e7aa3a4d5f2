"""Load balancing and ejection: fairness, bounds, and no traffic drawn by a replica that fails at once."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.policy.replicas.balance import PowerOfTwo, RoundRobin, WeightedRoundRobin, usable
from umbel.policy.replicas.ejection import Ejection, EjectionRules
from umbel.policy.replicas.replica_load import ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState

NAMES = "abcdefgh"
SOME = st.sets(st.sampled_from(NAMES), min_size=1).map(sorted)


@given(st.lists(SOME, max_size=60))
def test_round_robin_takes_each_usable_replica_in_turn(turns: list[list[str]]) -> None:
    everyone = {name: ReplicaState(name) for name in NAMES}
    policy = RoundRobin()
    policy.follow(list(everyone.values()))
    before = ""
    for names in turns:
        picked = policy.pick(0.0, [everyone[name] for name in names])
        # The next usable replica after the last one, else the first.
        assert picked.name == next((each for each in names if each > before), names[0])
        before = picked.name


@given(st.lists(st.tuples(SOME, st.integers(0, 9)), max_size=30))
def test_round_robin_keeps_the_order_of_turns_across_changes_of_the_set(sets: list[tuple[list[str], int]]) -> None:
    everyone = {name: ReplicaState(name) for name in NAMES}
    policy = RoundRobin()
    due: list[str] = []
    for names, picks in sets:
        replicas = [everyone[name] for name in names]
        policy.follow(replicas)
        # The first due replica that stays begins; the others follow in the order of the set.
        first = names.index(next((name for name in due if name in names), names[0]))
        due = names[first:] + names[:first]
        for _ in range(picks):
            assert policy.pick(0.0, replicas).name == due[0]
            due = [*due[1:], due[0]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_each_replica_has_as_many_turns_per_round_as_its_weight(weights: list[int], rounds: int) -> None:
    replicas = [ReplicaState(name, weight) for name, weight in zip(NAMES, weights, strict=False)]
    policy = WeightedRoundRobin()
    policy.follow(replicas)
    for _ in range(rounds):
        taken = Counter(policy.pick(0.0, replicas) for _ in range(sum(weights)))
        assert taken == {each: each.weight for each in replicas}


@given(
    st.lists(st.sampled_from([1, 2, 5, 100]), min_size=8, max_size=8),
    st.lists(st.tuples(SOME, st.integers(0, 150)), min_size=1, max_size=12),
)
def test_weights_hold_again_soon_after_changes_of_the_set(
    weights: list[int], sets: list[tuple[list[str], int]]
) -> None:
    everyone = {name: ReplicaState(name, weight) for name, weight in zip(NAMES, weights, strict=True)}
    policy = WeightedRoundRobin()
    replicas: list[ReplicaState] = []
    for names, picks in sets:
        replicas = [everyone[name] for name in names]
        policy.follow(replicas)
        for _ in range(picks):
            policy.pick(0.0, replicas)
    policy.follow(replicas)
    rounds = 4
    taken = Counter(policy.pick(0.0, replicas) for _ in range(rounds * sum(each.weight for each in replicas)))
    for each in replicas:
        assert abs(taken[each] - rounds * each.weight) <= 3


@given(
    st.integers(1, 8),
    st.frozensets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
    st.lists(st.sampled_from(NAMES), max_size=8),
)
def test_a_tried_replica_is_taken_only_without_another_usable_replica(
    replicas: int, down: frozenset[str], out: set[str], tried: list[str]
) -> None:
    everyone = set(NAMES[:replicas])
    left = {member.name for member in usable([ReplicaState(name) for name in sorted(everyone)], down, out, tried)}
    assert left
    if everyone - down:
        assert not down & left
        if everyone - down - out:
            assert not out & left
    if everyone - down - out - set(tried):
        assert not set(tried) & left


def flown(seed: int, seconds: list[float], failing: set[int], *, rate: float, number: int) -> list[int]:
    """How many of ``number`` attempts each replica gets by the power of two choices, at ``rate`` a second."""
    replicas = [ReplicaState(str(place)) for place in range(len(seconds))]
    loads = ReplicaLoads(replicas)
    picker = PowerOfTwo(loads, random.Random(seed))
    taken: Counter[ReplicaState] = Counter()
    ends: list[tuple[float, int, ReplicaState, float]] = []
    order = count()
    for attempt in range(number):
        now = attempt / rate
        while ends and ends[0][0] <= now:
            ended_at, _, member, began_at = heapq.heappop(ends)
            loads.ended(ended_at, member, ended_at - began_at, replicas.index(member) in failing)
        member = picker.pick(now, replicas)
        member.in_flight += 1
        taken[member] += 1
        heapq.heappush(ends, (now + seconds[replicas.index(member)], next(order), member, now))
    return [taken[member] for member in replicas]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32), st.floats(1.0, 20.0))
def test_equal_replicas_get_equal_shares(replicas: int, seed: int, busy: float) -> None:
    seconds = 0.1
    taken = flown(seed, [seconds] * replicas, set(), rate=busy * replicas / seconds, number=2000)
    assert max(taken) - min(taken) < 2000 / replicas * 0.25


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32), st.floats(1.0, 20.0), st.floats(0.0, 0.01))
def test_a_replica_that_fails_at_once_gets_no_more_than_its_share(
    replicas: int, seed: int, busy: float, fails: float
) -> None:
    seconds = [fails, *[0.1] * (replicas - 1)]
    taken = flown(seed, seconds, {0}, rate=busy * replicas / 0.1, number=2000)
    assert taken[0] < 2000 / replicas * 1.25


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32))
def test_a_replica_ten_times_as_slow_gets_less_than_half_of_its_share(replicas: int, seed: int) -> None:
    taken = flown(seed, [1.0, *[0.1] * (replicas - 1)], set(), rate=50.0 * replicas, number=2000)
    assert taken[0] < 2000 / replicas / 2


END = st.tuples(st.sampled_from(NAMES[:6]), st.booleans())
CHANGE = st.sets(st.sampled_from(NAMES[:6])).map(sorted)


@given(
    st.floats(0.0, 1.0),
    st.integers(1, 4),
    st.lists(st.tuples(st.one_of(END, END, END, CHANGE), st.sampled_from([0.0, 1.0, 29.0, 70.0, 400.0])), max_size=150),
)
def test_ejections_follow_their_rules(
    share: float, failures: int, steps: list[tuple[tuple[str, bool] | list[str], float]]
) -> None:
    rules = EjectionRules(failures=failures, share=share)
    ejection = Ejection(rules)
    everyone = {name: ReplicaState(name) for name in NAMES[:6]}
    present = set(everyone)
    ejection.follow(0.0, list(everyone.values()))
    now = 0.0
    streaks = dict.fromkeys(everyone, 0)
    for step, passed in steps:
        now += passed
        before = set(ejection.out(now))
        if isinstance(step, list):
            for name in present - set(step):  # A replica that comes back is new.
                del everyone[name], streaks[name]
            for name in set(step) - everyone.keys():
                everyone[name], streaks[name] = ReplicaState(name), 0
            present = set(step)
            ejection.follow(now, [everyone[name] for name in step])
            out = set(ejection.out(now))
            assert out <= before & present
            room = max(0, min(int(share * len(present) + 1e-9), len(present) - 1))
            assert len(out) == min(len(before & present), room), "nobody is back without need"
            continue
        name, has_failed = step
        member = everyone.get(name) or ReplicaState(name)  # Else: an attempt in flight at a replica that has left.
        ejection.ended(now, member, has_failed)
        out = set(ejection.out(now))
        assert len(out) <= share * len(present) + 1e-6
        assert len(out) < max(1, len(present))
        assert out - before <= {name} & present
        if name in present and name not in before:
            streaks[name] = streaks[name] + 1 if has_failed else 0
        if out - before:
            assert streaks[name] >= failures
            assert rules.base <= ejection.left(now, member) <= rules.maximum
            assert ejection.left(now, member) % rules.base == 0
            streaks[name] = 0
