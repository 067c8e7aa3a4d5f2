"""Failovers never exceed the attempts in flight at a failing replica, however replicas fail and recover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.failover import FAILOVERS_MIN, WINDOW_SECONDS, FailoverPolicy
from umbel.policy.replicas.replica_load import ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState

STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["begin", "begin", "answer", "lose", "lose", "wait"])))


@given(steps=STEPS)
def test_failovers_of_a_replica_within_a_window_never_exceed_its_attempts_in_flight(
    steps: list[tuple[int, str]],
) -> None:
    members = [ReplicaState(str(number)) for number in range(3)]
    loads = ReplicaLoads(members)
    failovers = FailoverPolicy(loads)
    now = 0.0
    # Per replica its failures: time, attempts in flight, failovers granted since.
    deaths: dict[ReplicaState, list[list[float]]] = {member: [] for member in members}
    for which, step in steps:
        member = members[which]
        if step == "wait":
            now += 3.0
        elif step == "begin":
            member.in_flight += 1
        elif member.in_flight and step == "answer":
            loads.ended(now, member, 0.01, False)
        elif member.in_flight:
            if not deaths[member] or now >= deaths[member][-1][0] + WINDOW_SECONDS:
                deaths[member].append([now, member.in_flight, 0])
            loads.ended(now, member, 0.01, True)
            others = [each for each in members if each is not member]
            granted = failovers.lost(now, member, others)
            assert not granted or any(not loads.failing(now, each) for each in others)
            deaths[member][-1][2] += granted
    assert all(granted <= max(FAILOVERS_MIN, had) for each in deaths.values() for _, had, granted in each)
    assert failovers.granted == sum(granted for each in deaths.values() for _, _, granted in each)
