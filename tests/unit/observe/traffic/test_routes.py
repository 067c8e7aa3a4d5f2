"""The traffic of routes: sums of all processes, the last seconds, calls, and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.core.statistics.histogram import OWN_TIMES, new_cells
from umbel.observe.traffic import routes as module
from umbel.observe.traffic.routes import routes_of

from .figures_of import SERVER, cells, changed_from, figures_of, since_start


def own(*milliseconds: float) -> list[float]:
    made = new_cells(OWN_TIMES)
    for each in milliseconds:
        made[next(index for index, bound in enumerate((*OWN_TIMES, 1e9)) if each / 1000 <= bound)] += 1
    return made


def process(number: str, requests: int, errors: int = 0) -> Any:
    return figures_of(
        number,
        **{SERVER: [(("/a", "GET", "200"), cells(*[0.01] * requests)), (("/a", "GET", "502"), cells(*[0.2] * errors))]},
        umbel_answers_total=[(("/a", "complete"), requests - 1), (("/a", "partial"), 1), (("/a", "failed"), errors)],
        umbel_own_seconds=[(("/a",), own(*[0.5] * requests))],
        umbel_calls_total=[(("/a", "c", "ok", ""), requests), (("/a", "c", "failed", "timeout"), errors)],
    )


def test_the_requests_of_all_processes_are_added() -> None:
    answer = routes_of(since_start(process("1", 10, 2), process("2", 30)))
    [route] = answer["routes"]
    assert (answer["window_s"], answer["left_out"], route["route"], route["recent"]) == (None, 0, "/a", None)
    total = route["total"]
    assert {name: total[name] for name in ("requests", "errors", "answers", "partial")} == {
        "requests": 42, "errors": 2, "answers": 42, "partial": 2,
    }  # fmt: skip
    assert 5 < total["p50_ms"] <= 10
    assert 100 < total["p99_ms"] <= 250
    assert 0.25 < total["own_p50_ms"] <= 0.5
    assert route["calls"] == [
        {
            "call": "c",
            "recent": None,
            "total": {"ok": 40, "partial": 0, "failed": 2, "skipped": 0, "cancelled": 0},
            "kinds": {"timeout": 2},
        }
    ]


def test_the_last_seconds_are_the_difference_of_two_samples() -> None:
    answer = routes_of(changed_from(process("1", 10, 5), process("1", 30, 5)))
    [route] = answer["routes"]
    assert answer["window_s"] == 4
    assert (route["recent"]["requests"], route["recent"]["errors"], route["recent"]["partial"]) == (20, 0, 0)
    assert route["recent"]["p99_ms"] <= 10
    assert route["total"]["p99_ms"] > 100
    assert route["calls"][0]["recent"] == {"ok": 20, "partial": 0, "failed": 0, "skipped": 0, "cancelled": 0}


def test_a_route_without_requests_of_late_has_zeros_and_no_percentiles() -> None:
    [route] = routes_of(changed_from(process("1", 10), process("1", 10)))["routes"]
    assert (route["recent"]["requests"], route["recent"]["p50_ms"], route["recent"]["own_p50_ms"]) == (0, None, None)


def test_the_routes_with_the_most_requests_of_late_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUTES_MAX", 2)
    monkeypatch.setattr(module, "CALLS_MAX", 1)

    def sample(**requests: int) -> Any:
        return figures_of(
            "1",
            **{SERVER: [((name, "GET", "200"), cells(*[0.01] * count)) for name, count in requests.items()]},
            umbel_calls_total=[((name, "c", "ok", ""), 1) for name in requests],
        )

    answer = routes_of(changed_from(sample(old=100, new=0, some=0), sample(old=100, new=9, some=3)))
    assert [(route["route"], len(route["calls"])) for route in answer["routes"]] == [("new", 1), ("some", 0)]
    assert answer["left_out"] == 1
