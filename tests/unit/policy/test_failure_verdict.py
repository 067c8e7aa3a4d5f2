from __future__ import annotations

import pytest

from umbel.core.failure_kinds import CUT, KINDS, Kind
from umbel.policy.failure_verdict import failed


@pytest.mark.parametrize(("status", "verdict"), [(200, False), (404, False), (429, False), (500, True), (503, True)])
def test_a_response_is_judged_by_its_status_5xx_against_the_upstream(status: int, verdict: bool) -> None:
    assert failed(None, status) is verdict
    assert failed(Kind.STATUS, status) is verdict


@pytest.mark.parametrize("kind", [kind for kind, rule in KINDS.items() if rule.counts and kind is not Kind.STATUS])
def test_what_the_table_of_kinds_counts_is_a_failure_whatever_status_came_before(kind: Kind) -> None:
    assert failed(kind, None) is True
    assert failed(kind, 200) is True


def test_a_response_that_is_too_large_is_no_failure_of_the_upstream() -> None:
    assert failed(Kind.TOO_BIG, 200) is False
    assert failed(Kind.BAD_BODY, 200) is False


@pytest.mark.parametrize("kind", [*CUT, Kind.OVERFLOW, Kind.BREAKER_OPEN, Kind.BAD_REQUEST, Kind.INTERNAL])
def test_what_was_cut_or_never_sent_or_is_our_fault_says_nothing(kind: Kind) -> None:
    assert failed(kind, None) is None
