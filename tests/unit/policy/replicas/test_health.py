"""The health state of a replica: thresholds of passed and failed checks."""

from __future__ import annotations

import pytest

from umbel.policy.replicas.health import HealthState


def test_a_replica_is_down_after_three_failed_checks_and_up_after_two_passed_checks() -> None:
    standing = HealthState()
    seen = []
    for passed in (False, False, True, False, False, False, True, False, True, True, False):
        changed = standing.checked(passed)
        seen.append((changed, standing.up))
    steady_up, steady_down = (False, True), (False, False)
    assert seen == [*[steady_up] * 5, (True, False), *[steady_down] * 3, (True, True), steady_up]


def test_thresholds_of_one_check_change_the_state_at_once() -> None:
    standing = HealthState(healthy=1, unhealthy=1)
    assert [(standing.checked(passed), standing.up) for passed in (False, True)] == [(True, False), (True, True)]
    for bad in ({"healthy": 0}, {"unhealthy": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            HealthState(**bad)
