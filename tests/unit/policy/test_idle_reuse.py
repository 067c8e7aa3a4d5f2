"""The idle time up to which a connection carries a request that is sent once."""

from __future__ import annotations

import pytest

from umbel.policy.idle_reuse import idle_max


@pytest.mark.parametrize(
    ("hint", "shortest", "limit"),
    [
        (None, None, 0.5),
        (5.0, None, 4.0),
        (75.0, None, 4.0),
        (2.0, None, 1.0),
        (1.0, None, 0.0),
        (0.0, None, -1.0),
        (None, 5.0, 4.0),
        (None, 1.0, 0.8),
        (75.0, 2.0, 1.6),
        (1.5, 2.0, 0.5),
    ],
)
def test_the_idle_time_for_a_request_that_is_sent_once(
    hint: float | None, shortest: float | None, limit: float
) -> None:
    assert idle_max(hint, shortest) == limit
