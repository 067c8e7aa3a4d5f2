"""Failover: how many lost attempts are repeated without retry budget, and when."""

from __future__ import annotations

from umbel.policy.failover import FAILOVERS_MIN, WINDOW_SECONDS, FailoverPolicy
from umbel.policy.replicas.replica_load import ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState


class Two:
    """A replica that fails, and another one."""

    def __init__(self, in_flight: int) -> None:
        self.dying, self.other = ReplicaState("dying"), ReplicaState("other")
        self.loads = ReplicaLoads([self.dying, self.other])
        self.failovers = FailoverPolicy(self.loads)
        self.begin(in_flight)

    def begin(self, count: int) -> None:
        for _ in range(count):
            self.dying.in_flight += 1

    def lose(self, now: float, count: int = 1) -> int:
        """The number of failovers granted for ``count`` lost attempts."""
        granted = 0
        for _ in range(count):
            self.loads.ended(now, self.dying, 0.0, True)
            granted += self.failovers.lost(now, self.dying, [self.other])
        return granted


def test_failover_is_granted_for_all_attempts_in_flight_at_a_failing_replica() -> None:
    two = Two(50)
    assert two.lose(1.0, 50) == two.failovers.granted == 50
    two.begin(1)
    assert two.lose(1.0) == 0


def test_an_idle_replica_has_as_many_failovers_as_failures_eject_a_replica() -> None:
    two = Two(1)
    assert two.lose(1.0) == 1
    two.begin(20)
    assert two.lose(1.1, 20) == FAILOVERS_MIN - 1


def test_failovers_of_a_replica_are_granted_once_per_window() -> None:
    two = Two(10)
    assert two.lose(1.0, 10) == 10
    for second in range(2, 11):
        two.begin(11)
        two.loads.ended(second, two.dying, 0.01, False)
        assert two.lose(second, 10) == 0
    two.begin(10)
    assert two.lose(1.0 + WINDOW_SECONDS, 10) == 10


def test_no_failover_without_another_replica_that_is_not_failing() -> None:
    two = Two(10)
    two.other.in_flight += 1
    two.loads.ended(1.0, two.other, 0.0, True)
    assert two.lose(1.0, 10) == 0
    # After a response the other replica is no longer failing.
    two.other.in_flight += 1
    two.loads.ended(1.0, two.other, 0.01, False)
    two.begin(1)
    assert two.lose(1.0) == 1
    assert not two.failovers.lost(1.0, two.dying, [])
