"""docs/operate.md, the alerts and the dashboard: each alert has its section, and each metric exists with its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

import pytest

from tests.support.observe.queries import CASES, DASHBOARD, PAGE, PANELS, VARIABLES, alerts, everywhere, of_alerts
from umbel.observe.catalogue import BY_NAME, METRICS, Type

SCRAPED = {"job", "instance"}
"""The labels that Prometheus adds."""
LABELS = {label for metric in METRICS for label in metric.labels}
URL = "https://umbel.example/umbel/blob/main/docs/operate.md#"


@pytest.mark.parametrize("place", everywhere())
def test_a_query_names_metrics_of_the_catalogue_with_their_labels(place: str) -> None:
    query = everywhere()[place]

    for _ in _metrics(query):
        pass  # Each name is looked up.
    for name, selectors in re.findall(r"\b((?:umbel|http)_\w+|up)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)(?:=|!)", selectors)) <= _labels(name)
    for labels, inner in _aggregations(query):
        for name in _metrics(inner):
            assert labels <= _labels(name), f"{name} has no {labels - _labels(name)}"


def test_each_alert_has_a_section_of_its_severity_and_a_link_to_it() -> None:
    for name, rule in alerts().items():
        severity = re.findall(r"severity: (\w+)", rule)[0]
        assert severity in {"critical", "warning"}
        assert f"\n### {name}\n\n*{severity.capitalize()}.* " in PAGE
        assert f"runbook_url: {URL}{name.lower()}" in rule
        assert "summary: " in rule
        assert "description: " in rule
    assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == list(alerts())


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    fires = re.findall(r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:", CASES)
    assert fires == list(alerts())


def test_annotations_and_legends_name_labels_of_their_query() -> None:
    for name, rule in alerts().items():
        known = SCRAPED if name == "UmbelDown" else _grouping(of_alerts()[name])
        assert set(re.findall(r"\$labels\.(\w+)", rule)) <= known
    for panel in PANELS:
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= _grouping(target["expr"])


def test_all_alerts_are_about_one_job() -> None:
    for query in of_alerts().values():
        selectors = re.findall(r"\{([^}]*)\}", query)
        assert selectors
        assert all('job="umbel"' in each for each in selectors)


def test_the_dashboard_has_every_metric() -> None:
    queries = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert {metric.name for metric in METRICS} - set(_metrics(queries)) == set()


def test_each_panel_has_a_description_a_unit_and_its_own_place_and_needs_no_plugin() -> None:
    assert {panel["type"] for panel in PANELS} <= {"timeseries", "stat", "heatmap"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["type"] == "heatmap" or panel["fieldConfig"]["defaults"]["unit"]
        assert all(each["datasource"] == source for each in (panel, *panel["targets"]))
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_the_dashboard_chooses_by_source_job_instance_route_and_upstream() -> None:
    assert list(VARIABLES) == ["datasource", "job", "instance", "route", "upstream"]
    for panel in PANELS:
        for target in panel["targets"]:
            selectors = re.findall(r"\{([^}]*)\}", target["expr"])
            assert all('job=~"$job", instance=~"$instance"' in each for each in selectors)


def _metrics(query: str) -> Iterator[str]:
    """Yield the names of the metrics in a query, as the catalogue has them."""
    for name in re.findall(r"\b(?:umbel|http)_\w+", re.sub(r'"[^"]*"', "", query)):
        if name not in LABELS:
            yield _known(name)


def _known(name: str) -> str:
    base = re.sub(r"_(?:bucket|count|sum)$", "", name)
    if base in BY_NAME and BY_NAME[base].type is Type.HISTOGRAM:
        return base
    assert name in BY_NAME, f"there is no metric {name}"
    return name


def _labels(name: str) -> set[str]:
    return SCRAPED if name == "up" else {*BY_NAME[_known(name)].labels, *SCRAPED, "le"}


def _aggregations(query: str) -> Iterator[tuple[set[str], str]]:
    """Yield the labels of each ``by (...)`` with the expression that is aggregated."""
    for found in re.finditer(r"\bby \(([^)]*)\) \(", query):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(query[end], 0)
            end += 1
        yield set(found[1].split(", ")), query[found.end() : end]


def _grouping(query: str) -> set[str]:
    return {label for labels, _ in _aggregations(query) for label in labels}
