"""``make bench``: parsing of load reports, its configuration and its report, without wrk and without peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from umbel.cli import main

# The output of wrk 4.1.0 for a server that responds 503 to a third of the requests and breaks off another third.
TROUBLED = """\
Running 1s test @ http://127.0.0.1:37587/n10
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    23.30ms   21.43ms  50.79ms   44.76%
    Req/Sec   249.00     20.79   280.00     60.00%
  Latency Distribution
     50%  760.00us
     75%   43.92ms
     90%   46.33ms
     99%    1.22s
  248 requests in 1.00s, 30.02KB read
  Socket errors: connect 0, read 126, write 0, timeout 2
  Non-2xx or 3xx responses: 124
Requests/sec:    247.89
Transfer/sec:     30.00KB
"""
# The output for a server that accepts and never responds.
SILENT = """\
Running 1s test @ http://127.0.0.1:43717/n10
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.00us    0.00us   0.00us    -nan%
    Req/Sec     0.00      0.00     0.00      -nan%
  Latency Distribution
     50%    0.00us
     75%    0.00us
     90%    0.00us
     99%    0.00us
  0 requests in 1.01s, 0.00B read
Requests/sec:      0.00
Transfer/sec:       0.00B
"""


def test_responses_errors_and_latencies_are_parsed_from_wrks_output(script: Any) -> None:
    seen = script("wrk").parsed(TROUBLED)

    assert (seen.seconds, seen.answers, seen.bad, seen.failed) == (1.0, 248, 124, 128)
    assert seen.good == 124
    assert (seen.p50, seen.p99) == (pytest.approx(760e-6), pytest.approx(1.22))


def test_a_server_without_responses_has_no_latency(script: Any) -> None:
    assert script("wrk").parsed(SILENT) == (1.01, 0, 0, 0, None, None)


def test_text_that_is_not_wrks_output_is_refused(script: Any) -> None:
    with pytest.raises(ValueError, match="no sum of its requests: 'Usage: wrk"):
        script("wrk").parsed("Usage: wrk <options> <url>\n")


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
    ],
)
def test_the_load_generator_recognises_the_end_of_a_response(script: Any, answer: bytes, whole: bool) -> None:
    assert script("burst_load").whole(answer) is whole


def test_the_measured_configuration_of_umbel_is_valid(script: Any, tmp_path: Path) -> None:
    lineup = script("lineup")
    command = lineup.GATEWAYS[0].command(lineup.Spot(tmp_path, 8000, 9000))
    file = command[command.index("--config") + 1]

    result = CliRunner().invoke(main, ["check", "--config", file])

    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 upstream, 3 routes, 61 calls" in result.stdout


def test_the_report_has_bars_collapses_and_the_peers_left_out(script: Any) -> None:
    reports = script("results")
    results = reports.Results(2, 3, "wrk", "nginx", 170, left_out={reports.NODE: "there is no node here"})
    rates = {
        (reports.UMBEL, 1): (4000.0, 3000.0),
        (reports.UMBEL, 10): (500.0, 700.0),
        (reports.AIOHTTP, 1): (1000.0, 1000.0),
        (reports.AIOHTTP, 10): (250.0, 350.0),
        (reports.SEED, 10): (0.0, 0.0),
    }
    for name in (reports.UMBEL, reports.AIOHTTP, reports.SEED):
        results.made_of[name] = "made well"
        results.lines[name], results.notes[name] = reports.Lines(100, 100, 16), []
        for count in reports.COUNTS:
            results.samples[name, count] = [
                reports.Sample(rate, *((0.001, 0.002, 0, 1 / rate, 0.5) if rate else (None, None, 7, None, 0.1)))
                for rate in rates.get((name, count), (1.0, 1.0))
            ]
    results.lines[reports.SEED] = reports.Lines(90, 100, 16)

    text = reports.report(results)

    assert f"| {reports.AIOHTTP} | 1 | ≥ 3 | 3.5 (3-4) | reached |" in text
    assert f"| {reports.AIOHTTP} | 10 | ≥ 3.5 | 2 (2-2) | **missed** |" in text
    assert f"| {reports.SEED} | 10 | ≥ 80 | ∞ (∞-∞) | reached |" in text
    assert f"| {reports.NODE} | 10 | ≥ 1.3 | - | not measured |" in text
    assert f"| 10 | {reports.SEED} | 0 (0-0) | - | - | 14 | - | - | 10% |" in text
    assert "**90 lines for 100 answers**; **at n = 10 it answered nothing good in 2 of 2 rounds**" in text
    assert f"- **{reports.NODE}** is left out: there is no node here." in text
    assert results.document()["bars"][0] == {"peer": reports.AIOHTTP, "n": 1, "bar": 3.0, "ratios": [4.0, 3.0]}


def test_the_table_of_bars_has_the_same_figures_in_both_languages(script: Any) -> None:
    reports = script("results")
    results = reports.Results(1, 3, "wrk")
    for name, rate in ((reports.UMBEL, 800.0), (reports.NODE, 400.0), (reports.KRAKEND, 600.0)):
        results.samples[name, 10] = [reports.Sample(rate, 0.001, 0.002, 0, 0.001, 0.5)]

    english, chinese = (reports.bars(results, words).splitlines() for words in (reports.ENGLISH, reports.CHINESE))

    assert f"| {reports.NODE} | 10 | ≥ 1.3 | 2 | reached |" in english
    assert f"| {reports.NODE} | 10 | ≥ 1.3 | 2 | 达到 |" in chinese
    assert f"| {reports.KRAKEND} | 10 | ≥ 1.7 | 1.3 | **未达到** |" in chinese
    assert len(chinese) == len(english) == 2 + len(reports.BARS)
