"""h2load (of nghttp2) against the server: no request fails."""

from __future__ import annotations

import re

import pytest

from tests.external.conftest import Target, output

LOADS = {
    "10 connections of 10 HTTP/2 streams": (2000, ["-c", "10", "-m", "10"], False),
    "10 connections of 10 HTTP/2 streams over TLS": (2000, ["-c", "10", "-m", "10"], True),
    # The server closes a connection after 1000 requests (keep_alive_max_requests), and h2load opens no other.
    "1 connection of 100 HTTP/2 streams": (900, ["-c", "1", "-m", "100"], False),
    "10 connections of HTTP/1.1": (2000, ["--h1", "-c", "10"], False),
}


@pytest.mark.parametrize("load", LOADS)
def test_every_request_succeeds(target: Target, load: str) -> None:
    count, options, secure = LOADS[load]
    base = target.secure if secure else target.plain
    said = output(["h2load", "-n", str(count), *options, f"{base}/livez"])
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    assert counts is not None, said
    assert counts.groups() == (str(count), "0", "0", "0")
