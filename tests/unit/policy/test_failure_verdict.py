"""The failure verdict on the end of an attempt, by kind and status."""

from __future__ import annotations

import pytest

from umbel.core.failure_kinds import CUT, KINDS, Kind
from umbel.policy.failure_verdict import failed


@pytest.mark.parametrize(("status", "verdict"), [(200, False), (404, False), (429, False), (500, True), (503, True)])
def test_a_response_with_a_5xx_status_is_a_failure_and_any_other_is_none(status: int, verdict: bool) -> None:
    assert failed(None, status) is verdict
    assert failed(Kind.STATUS, status) is verdict


@pytest.mark.parametrize("kind", [kind for kind, rule in KINDS.items() if rule.counts and kind is not Kind.STATUS])
def test_kinds_that_count_are_failures_with_any_status(kind: Kind) -> None:
    assert failed(kind, None) is True
    assert failed(kind, 200) is True


def test_a_response_that_is_too_large_is_no_failure_of_the_upstream() -> None:
    assert failed(Kind.TOO_BIG, 200) is False
    assert failed(Kind.BAD_BODY, 200) is False


@pytest.mark.parametrize("kind", [*CUT, Kind.OVERFLOW, Kind.BREAKER_OPEN, Kind.BAD_REQUEST, Kind.INTERNAL])
def test_cut_unsent_and_internal_ends_have_no_verdict(kind: Kind) -> None:
    assert failed(kind, None) is None
