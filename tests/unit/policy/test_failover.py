from __future__ import annotations

from umbel.policy.failover import FAILOVERS_MIN, WINDOW_SECONDS, FailoverPolicy
from umbel.policy.replicas.replica_load import ReplicaLoads
from umbel.policy.replicas.replica_state import ReplicaState


class Two:
    """A replica that dies, and one to turn to."""

    def __init__(self, in_flight: int) -> None:
        self.dying, self.other = ReplicaState("dying"), ReplicaState("other")
        self.loads = ReplicaLoads([self.dying, self.other])
        self.failovers = FailoverPolicy(self.loads)
        self.begin(in_flight)

    def begin(self, count: int) -> None:
        for _ in range(count):
            self.loads.begun(self.dying)

    def lose(self, now: float, count: int = 1) -> int:
        """How many of ``count`` lost attempts are failed over."""
        granted = 0
        for _ in range(count):
            self.loads.ended(now, self.dying, 0.0, True)
            granted += self.failovers.lost(now, self.dying, [self.other])
        return granted


def test_all_attempts_in_flight_at_a_failing_replica_are_failed_over() -> None:
    two = Two(50)
    assert two.lose(1.0, 50) == two.failovers.granted == 50
    two.begin(1)
    assert two.lose(1.0) == 0


def test_an_idle_replica_has_as_many_failovers_as_failures_eject_it() -> None:
    two = Two(1)
    assert two.lose(1.0) == 1
    two.begin(20)
    assert two.lose(1.1, 20) == FAILOVERS_MIN - 1


def test_a_replica_has_failovers_once_per_window() -> None:
    two = Two(10)
    assert two.lose(1.0, 10) == 10
    for second in range(2, 11):
        two.begin(11)
        two.loads.ended(second, two.dying, 0.01, False)
        assert two.lose(second, 10) == 0
    two.begin(10)
    assert two.lose(1.0 + WINDOW_SECONDS, 10) == 10


def test_nothing_is_failed_over_to_replicas_that_fail_too_or_to_none() -> None:
    two = Two(10)
    two.loads.begun(two.other)
    two.loads.ended(1.0, two.other, 0.0, True)
    assert two.lose(1.0, 10) == 0
    # As soon as it answers, there is somebody to turn to.
    two.loads.begun(two.other)
    two.loads.ended(1.0, two.other, 0.01, False)
    two.begin(1)
    assert two.lose(1.0) == 1
    assert not two.failovers.lost(1.0, two.dying, [])
