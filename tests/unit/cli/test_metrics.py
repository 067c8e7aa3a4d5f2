"""``umbel metrics``: the list of metrics, as text, as JSON and as docs/metrics.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from umbel.cli import main
from umbel.observe.catalogue import METRICS

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def output(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["metrics", *arguments])
    assert result.exit_code == 0
    return result.output


def test_the_page_of_metrics_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == output("--markdown"), "make it again: umbel metrics --markdown > docs/metrics.md"


@pytest.mark.parametrize("columns", [40, 60, 300])
def test_the_list_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    long = [line for line in output().splitlines() if len(line) > min(columns, 110)]
    assert [line for line in long if "_" not in line.split()[0]] == []  # A name is not broken.


def test_the_list_has_each_metric_with_its_labels_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = output().splitlines()
    for metric in METRICS:
        labels = "{" + ", ".join(metric.labels) + "}" if metric.labels else ""
        assert f"{metric.name}{labels}  {metric.type}" in lines
    assert max(map(len, lines)) <= 120


def test_the_json_output_has_each_metric_with_buckets_of_histograms() -> None:
    listed = json.loads(output("--json"))
    assert [each["name"] for each in listed] == [metric.name for metric in METRICS]
    assert {bool(each["buckets"]) for each in listed if each["type"] == "histogram"} == {True}
