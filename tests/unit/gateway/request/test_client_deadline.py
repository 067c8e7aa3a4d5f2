"""The timeout that a client asks for."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from umbel.gateway.request.client_deadline import client_timeout


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Prefer": "wait=3"}, 3.0),
        ({"Prefer": 'respond-async, wait="3"; foo="a,b"'}, 3.0),
        ({"Prefer": "WAIT=3, wait=1"}, 3.0),
        ({"Prefer": "wait=0"}, None),
        ({"Prefer": "wait=soon"}, None),
        ({"Prefer": "wait=-1"}, None),
        ({"Prefer": "wait=1.5"}, None),
        ({"Prefer": "wait"}, None),
        ({"Prefer": "wait=" + "9" * 5000}, None),
        ({"X-Envoy-Upstream-Rq-Timeout-Ms": "250"}, 0.25),
        ({"X-Envoy-Upstream-Rq-Timeout-Ms": "0"}, None),
        ({"X-Envoy-Upstream-Rq-Timeout-Ms": "٣"}, None),
        ({"X-Envoy-Upstream-Rq-Timeout-Ms": "250", "Prefer": "wait=3"}, 0.25),
        ({"X-Envoy-Upstream-Rq-Timeout-Ms": "5000", "Prefer": "wait=3"}, 3.0),
    ],
)
def test_the_clients_timeout_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert client_timeout(Headers(headers)) == seconds


def test_a_prefer_that_is_too_long_is_ignored() -> None:
    assert client_timeout({"prefer": "wait=1" + ",a" * 500}) == 1.0
    assert client_timeout({"prefer": "wait=1" + ",a" * 600}) is None
