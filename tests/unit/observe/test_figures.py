"""Figures of several processes: their sums, what ended processes leave, and the text for scrapers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from umbel.core.statistics.histogram import DURATIONS, new_cells
from umbel.observe import figures as figures_module
from umbel.observe.catalogue import METRICS, Type
from umbel.observe.exposition import render
from umbel.observe.figures import Exemplar, ProcessFigures, Totals, add

DURATION = "http_server_request_duration_seconds"
LABELS = ("/a", "GET", "200")


def cells(*values: float) -> list[float]:
    made = new_cells(DURATIONS)
    for value in values:
        made[next(index for index, bound in enumerate((*DURATIONS, 1e9)) if value <= bound)] += 1
        made[-1] += value
    return made


def figures(process: str = "1", exemplars: Any = None, **values: Any) -> ProcessFigures:
    return ProcessFigures(process=process, pid=1, values=values, exemplars=exemplars or {})


def samples(text: bytes, parse: Any = parse_openmetrics) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def test_values_with_equal_labels_are_added_and_states_take_the_highest() -> None:
    one = figures(umbel_in_flight=[((), 2)], umbel_breaker_state=[(("up",), 2)], **{DURATION: [(LABELS, cells(0.2))]})
    two = figures(umbel_in_flight=[((), 3)], umbel_breaker_state=[(("up",), 1)], **{DURATION: [(LABELS, cells(0.3))]})
    sums: figures_module.Sums = {}
    for each in (one, two):
        assert add(sums, each.values) == 0
    assert sums["umbel_in_flight"] == {(): 5}
    assert sums["umbel_breaker_state"] == {("up",): 2}
    assert sums[DURATION] == {LABELS: cells(0.2, 0.3)}


def test_adding_figures_does_not_change_them() -> None:
    one = figures(**{DURATION: [(LABELS, cells(0.2))]})
    sums: figures_module.Sums = {}
    add(sums, one.values)
    add(sums, one.values)
    assert one.values[DURATION] == [(LABELS, cells(0.2))]


def test_an_ended_process_leaves_its_counters_and_histograms_but_no_gauges() -> None:
    totals = Totals()
    totals.add(figures(umbel_in_flight=[((), 2)], umbel_answers_total=[(("/a", "complete"), 5)]))
    totals.add(figures(umbel_answers_total=[(("/a", "complete"), 7)], **{DURATION: [(LABELS, cells(0.2))]}))
    assert totals.figures() == {
        "umbel_answers_total": [(("/a", "complete"), 12)],
        DURATION: [(LABELS, cells(0.2))],
    }


def test_time_series_beyond_the_bound_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "SERIES_MAX", 10)
    totals = Totals()
    totals.add(figures(umbel_answers_total=[((f"/{n}", "complete"), 1) for n in range(12)]))
    totals.add(figures(umbel_answers_total=[((f"/{n}", "complete"), 1) for n in range(12)]))
    assert totals.dropped == 4
    assert totals.figures()["umbel_answers_total"] == [((f"/{n}", "complete"), 2) for n in range(10)]


def test_metrics_that_the_catalogue_does_not_have_are_skipped() -> None:
    sums: figures_module.Sums = {}
    assert add(sums, {"umbel_unknown": [((), 1)]}) == 0
    assert sums == {}


def test_figures_are_the_same_after_a_transfer_as_json() -> None:
    exemplars = {DURATION: [(LABELS, [Exemplar(3, "ab" * 16, 0.04, 1e9)])]}
    before = figures(exemplars=exemplars, umbel_in_flight=[((), 2)], **{DURATION: [(LABELS, cells(0.2))]})
    assert msgspec.json.decode(msgspec.json.encode(before), type=ProcessFigures) == before


@pytest.mark.parametrize(("openmetrics", "parse"), [(True, parse_openmetrics), (False, parse_classic)])
def test_the_official_parser_reads_the_sums(openmetrics: bool, parse: Any) -> None:
    summed = [
        figures(process, umbel_answers_total=[(('/"\\\n', "complete"), 5)], **{DURATION: [(LABELS, cells(0.2, 20))]})
        for process in ("1", "2")
    ]
    read = samples(render(summed, openmetrics=openmetrics), parse)
    found = {(name, frozenset(labels)): value for (name, labels), value in read.items()}
    assert found["umbel_answers_total", frozenset(('/"\\\n', "complete"))] == 10
    assert found[f"{DURATION}_bucket", frozenset((*LABELS, "0.25"))] == 2
    assert found[f"{DURATION}_bucket", frozenset((*LABELS, "+Inf"))] == 4
    assert found[f"{DURATION}_count", frozenset(LABELS)] == 4
    assert found[f"{DURATION}_sum", frozenset(LABELS)] == pytest.approx(40.4)


@pytest.mark.parametrize(("openmetrics", "parse"), [(True, parse_openmetrics), (False, parse_classic)])
@given(route=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_label_with_any_text_is_read_back(openmetrics: bool, parse: Any, route: str) -> None:
    text = render([figures(umbel_answers_total=[((route, "complete"), 5)])], openmetrics=openmetrics)
    read = [
        sample.labels["route"]
        for family in parse(text.decode())
        for sample in family.samples
        if sample.name == "umbel_answers_total"
    ]
    assert read == [route]


def test_openmetrics_has_the_latest_exemplar_of_each_bucket() -> None:
    several = [
        figures(exemplars={DURATION: [(LABELS, [Exemplar(6, trace, 0.2, at)])]}, **{DURATION: [(LABELS, cells(0.2))]})
        for trace, at in (("a" * 32, 1e9), ("b" * 32, 2e9), ("c" * 32, 1.5e9))
    ]
    shown = [
        sample.exemplar.labels
        for family in parse_openmetrics(render(several, openmetrics=True).decode())
        for sample in family.samples
        if sample.exemplar
    ]
    assert shown == [{"trace_id": "b" * 32}]


def test_every_metric_has_a_family_also_without_a_value() -> None:
    families = {family.name: family.type for family in parse_openmetrics(render([], openmetrics=True).decode())}
    assert families == {metric.name.removesuffix("_total"): str(metric.type) for metric in METRICS}


def test_each_metric_is_in_the_catalogue_once() -> None:
    names = [metric.name for metric in METRICS]
    assert sorted(names) == sorted(set(names))
    assert {"umbel_streams", "umbel_upstream_streams"} <= set(names)


def test_names_follow_the_rules_of_openmetrics() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") is (metric.type is Type.COUNTER)
        assert bool(metric.bounds) is (metric.type is Type.HISTOGRAM)
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.meaning.endswith(".")
