"""``make bench-proxy``: its upstream's and its load's parsing, its bars and its report, without peers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from umbel.cli import main

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a module of the benchmark, and forget what was imported from its directory after the test."""
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *path])
    yield lambda name: importlib.import_module(f"proxy.{name}")
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__spec__", "")):
            del sys.modules[name]


def test_frames_of_a_websocket_are_sent_back_whole_and_unmasked(bench: Any) -> None:
    origin, streams = bench("origin"), bench("streams")

    assert origin.echoes(streams.FRAME * 2) == (streams.ECHO * 2, b"")
    for cut in range(len(streams.FRAME)):
        assert origin.echoes(streams.FRAME + streams.FRAME[:cut]) == (streams.ECHO, streams.FRAME[:cut])


def test_a_websocket_is_accepted_with_the_value_of_the_rfcs_example(bench: Any) -> None:
    head = b"GET /sockets/socket HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="

    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in bench("origin").accepted(head)
    assert bench("origin").accepted(b"GET / HTTP/1.1").startswith(b"HTTP/1.1 400 ")


def test_an_event_is_found_in_its_chunk(bench: Any) -> None:
    found = bench("streams").EVENT.findall(bench("origin").event() * 2)

    assert len(found) == 2
    assert int(found[0]) <= int(found[1])


def test_the_length_of_a_response_is_taken_only_from_a_200(bench: Any) -> None:
    declared = bench("transfers").declared

    assert declared(b"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 12") == 12
    for head in (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 12", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"):
        with pytest.raises(OSError, match="not what was asked for"):
            declared(head)


def test_latencies_are_those_of_the_sorted_times(bench: Any) -> None:
    streams = bench("streams")

    assert streams.latencies([0.2, 0.1, 0.3], 1.0, 2) == (1.0, 3, 2, 0.2, 0.3, 0.3)
    assert streams.latencies([], 1.0, 100) == (1.0, 0, 100, None, None, None)


def test_the_measured_configuration_of_umbel_is_valid(bench: Any, tmp_path: Path) -> None:
    file = tmp_path / "umbel.toml"
    file.write_text(bench("contestants").proxy_configuration(9000, 9001), encoding="utf-8")

    result = CliRunner().invoke(main, ["check", "--config", str(file)])

    assert (result.exit_code, result.stderr) == (0, "")
    assert "2 upstreams, 3 routes, 0 calls" in result.stdout


def test_a_configuration_that_umbel_refuses_leaves_out_its_row(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contestants = bench("contestants")
    monkeypatch.setattr(contestants, "proxy_configuration", lambda *_: "[[routes]]\npath = '/'\nproxying = true\n")

    with pytest.raises(contestants.Absent, match=r"Umbel refuses the configuration: .*routes\[0\].proxying"):
        contestants.PROXIES[0].command(contestants.ProxySpot(tmp_path, 8000, 9000, 9001))


def test_the_small_response_has_the_size_that_the_report_states(bench: Any) -> None:
    checks = bench("checks")

    assert 1650 <= len(checks.BODY) < 1750
    assert b"'" not in checks.BODY, "nginx's configuration quotes the body with it"
    assert len(checks.large()) == checks.LARGE


def test_the_report_has_bars_figures_and_the_proxies_left_out(bench: Any) -> None:
    reports, cases, memory = bench("report"), bench("cases"), bench("memory")
    results = reports.Results(2, 3, "wrk", "nginx", left_out={reports.NGINX: "there is no nginx here"})
    rates = {(cases.SMALL, reports.UMBEL): (2000.0, 3000.0), (cases.EVENTS, reports.UMBEL): (990.0, 1000.0)}
    for name in (reports.UMBEL, reports.AIOHTTP):
        results.made_of[name], results.notes[name] = "made well", []
        for case in (cases.SMALL, cases.DOWNLOAD, cases.EVENTS):
            results.samples[case.name, name] = [
                reports.Sample(rate, 1 / rate, 0.001, 0.006, 7, 0.5) for rate in rates.get((case, name), (1000.0,) * 2)
            ]
    results.notes[reports.AIOHTTP].append("ended during the bench")
    results.held["WebSockets", reports.UMBEL] = [memory.Held(1000, 2**20, 2**20 + 1000 * 8192)]

    text = reports.report(results)

    assert f"{cases.SMALL.what}: requests/s by those of {reports.AIOHTTP} | ≥ 2 | 2.5 (2-3) | reached |" in text
    assert f"{cases.DOWNLOAD.what}: bytes/s by those of {reports.NGINX} | ≥ 0.5 | - | not measured |" in text
    assert "p99 from the upstream to the client | ≤ 5.00 ms | 6.00 (6.00-6.00) | **missed** |" in text
    assert (
        f"| {cases.SMALL.what} | {reports.AIOHTTP} | 1,000 (1,000-1,000) | 1,000 | 2.4 | 1.00 | 6.00 | 14 | 50% |"
        in text
    )
    assert f"| WebSockets | {reports.UMBEL} | 1,000 | 8.0 | 1 |" in text
    assert f"- **{reports.AIOHTTP}**: made well; **ended during the bench**." in text
    assert f"- **{reports.NGINX}** is left out: there is no nginx here." in text
    assert results.document()["held"][0]["each"] == 8192
