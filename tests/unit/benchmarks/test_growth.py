"""``make bench-growth``: its configurations, its numbered requests, and its verdicts on growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from umbel.cli import main

MIB = 2**20


@pytest.mark.parametrize(
    ("kind", "size", "counted"),
    [
        ("routes", 100, "1 upstream, 100 routes, 100 calls"),
        ("upstreams", 10, "10 upstreams, 10 routes, 10 calls"),
        ("calls", 200, "1 upstream, 5 routes, 361 calls"),
    ],
)
def test_the_configurations_are_valid(script: Any, tmp_path: Path, kind: str, size: int, counted: str) -> None:
    growth = script("growth")
    file = tmp_path / "umbel.toml"
    file.write_text(growth.configuration(growth.Step(kind, size), 9000))

    result = CliRunner().invoke(main, ["check", "--config", str(file)])

    assert (result.exit_code, result.stderr) == (0, "")
    assert counted in result.stdout


def test_numbered_requests_go_round_the_paths_and_have_the_asked_fields(script: Any) -> None:
    load = script("burst_load").BurstLoad(8000, "/n1/", 0, 3, 10)

    requests = [load.request().decode().split("\r\n") for _ in range(4)]

    assert [lines[0].split()[1] for lines in requests] == ["/n1/1/1", "/n1/2/2", "/n1/0/3", "/n1/1/4"]
    names = [line.partition(":")[0] for line in requests[0][1:-2]]
    assert len(names) == len(set(names)) == 10
    assert requests[0][-3:] == ["X-Number: 1", "", ""]


def test_the_report_names_each_step_that_grows_worse_than_linear(script: Any) -> None:
    growth = script("growth")
    results = [
        growth.Grown(growth.Step("routes", 1), [100.0, 120.0], 0, [growth.Start(1.0, 50 * MIB)]),
        growth.Grown(growth.Step("routes", 10), [110.0, 110.0], 2, [growth.Start(1.1, 600 * MIB)]),
        growth.Grown(growth.Step("calls", 10), [500.0], 0, []),
        growth.Grown(growth.Step("calls", 50), [2000.0], 0, []),
        growth.Grown(growth.Step("calls", 100), [4800.0], 0, []),
    ]

    text = growth.report(results, "nginx")

    assert (
        "| steps that grow worse than linear | none | routes, 1 to 10: the memory after the start takes 1.20 of linear "
        "growth; calls of a request, 50 to 100: the CPU of a request takes 1.20 of linear growth | **no** |"
    ) in text
    assert "| errors | 0 | 2 | **no** |" in text
    assert "| routes | 1 | 110 (100-120) |  |  |  | 0 | 1.00 | 50 |" in text
    assert "| routes | 10 | 110 (110-110) | 0.101 | 0.101 |  | 2 | 1.10 | 600 |" in text
    assert "| calls of a request | 100 | 4,800 | 0.960 | 1.200 | 48 | 0 |  |  |" in text


def test_growth_that_is_linear_or_less_reaches_the_bars(script: Any) -> None:
    growth = script("growth")
    results = [growth.Grown(growth.Step("clients", size), [4.0 * size], 0, []) for size in (16, 64)]

    text = growth.report(results, "nginx")

    assert "| steps that grow worse than linear | none | none | yes |" in text
    assert "| errors | 0 | 0 | yes |" in text
