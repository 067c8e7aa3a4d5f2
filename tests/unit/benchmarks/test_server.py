"""``make bench-server``: its report, without servers and without a load."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def server(script: Any) -> Any:
    return script("server")


def _samples(server: Any) -> dict[tuple[str, int], list[Any]]:
    every = {**server.SERVERS, **server.FRAMEWORKS, **server.SECURE}
    keys = [(name, level) for name in every for level in (32, server.HTTP2, server.WRK)]
    return {key: [server.Sample(1000.0, 0.001, 0.002, 10e-6)] * 2 for key in keys}


def test_https_is_compared_with_the_peer_over_tls_by_the_same_load(server: Any) -> None:
    samples = _samples(server)
    samples[server.OURS_TLS, server.WRK] = [server.Sample(rate, 0.001, 0.002, 5e-6) for rate in (1200.0, 1398.0)]
    rows = server.bars(samples, {}).splitlines()
    assert "| HTTPS, x uvicorn/httptools/uvloop, HTTPS, requests/s | ≥ 1.3 | 1.3 (1.2-1.4) | **no** |" in rows
    assert "| HTTPS, x uvicorn/httptools/uvloop, HTTPS, CPU | ≥ 1.3 | 2 (2-2) | yes |" in rows
    assert f"| {server.OURS_TLS} | 1,299 | 1.00 | 2.00 | 5.0 |" in server.wrk_table(samples)


def test_without_wrk_the_report_says_that_tls_was_not_measured(server: Any) -> None:
    samples = _samples(server) | {(name, server.WRK): [] for name in server.BY_WRK}
    rows = server.bars(samples, {}).splitlines()
    assert "| HTTPS, x uvicorn/httptools/uvloop, HTTPS, requests/s | ≥ 1.3 | no load for it |  |" in rows
    assert "no wrk here" in server.wrk_table(samples)
