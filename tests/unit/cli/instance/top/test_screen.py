"""The screen of ``umbel top``: what it shows of samples, and that nothing of them moves the cursor."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.cli.instance.top.screen import ROWS_MAX, fitted, lines_of

PROCESS: dict[str, Any] = {
    "process": {
        "pid": 7,
        "uptime_s": 65.0,
        "state": "serving",
        "summary": "the event loop runs",
        "blocked": None,
        "lag_s": 0.004,
        "rss": 50 * 2**20,
        "tasks": 12,
    },
    "server": {"requests_total": 40, "requests_in_flight": 2, "streams": 1, "connections": 5},
}


def lint(**more: Any) -> dict[str, Any]:
    return {
        "process": "worker 1",
        "title": "A queue is full",
        "where": "shop/app.py:17 in parse",
        "detail": "3 of 3",
        "count": 4,
        "first": 60.0,
        "last": 2.0,
        "ongoing": False,
        **more,
    }


def traffic(**more: Any) -> dict[str, Any]:
    times = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "own_p50_ms"), 12.4)
    return {"requests": 50, "errors": 5, "answers": 40, "partial": 10, **times, **more}


def tree(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    root = {"name": "<init>", "state": "waiting", "nurseries": [{"size": len(tasks), "tasks": list(tasks)}]}
    return {"trees": [{"process": "main", "pid": 7, "root": root, **more}]}


def test_a_process_has_one_row_and_the_first_line_says_how_to_leave() -> None:
    lines = lines_of({"workers": PROCESS}, keys=True)
    assert lines[0].endswith("serving: the event loop runs, up 1m 5s  (q ends)")
    assert lines[3].split() == ["serving", "7", "1m", "5s", "4", "ms", "50", "MiB", "12", "40", "2", "1", "5"]
    assert "(q ends)" not in lines_of({"workers": PROCESS})[0]


def test_without_samples_it_says_that_it_waits() -> None:
    assert [line[21:] for line in lines_of({})] == ["waiting for the first sample"]


def test_lints_that_go_on_come_first_and_more_than_ten_are_counted() -> None:
    found = [lint(last=number) for number in range(11)] + [lint(ongoing=True, title="A step held the event loop")]
    lines = lines_of({"lints": {"lints": found}})
    assert lines[2] == "LINTS: 12"
    assert lines[3].startswith("  worker 1  A step held the event loop: shop/app.py:17 in parse (3 of 3; now)")
    assert lines[4].endswith("(3 of 3; 0 ms ago, 4x)")
    assert lines[-1] == f"  and {12 - ROWS_MAX} more"
    assert lines_of({"lints": {"lints": []}})[2] == "LINTS: none"


def test_routes_and_upstreams_have_rates_of_the_window_and_else_only_totals() -> None:
    route = {"route": "/a/<id>", "recent": traffic(), "total": traffic(requests=500)}
    upstream = {
        "name": "up",
        "recent": {"attempts": {"first": 60, "retry": 20}, "answered": 80, **traffic(errors=8)},
        "total": {},
        "bulkhead": {"in_use": 3.0, "limit": 100.0, "waiting": 0.0},
        "breaker": "open",
    }
    samples = {
        "routes": {"window_s": 10.0, "routes": [route]},
        "upstreams": {"window_s": 10.0, "upstreams": [upstream]},
    }
    lines = [line.split("  ") for line in lines_of(samples)]
    assert [cell.strip() for cell in lines[3] if cell] == ["/a/<id>", "5.0", "10.0 %", "25.0 %", *["12 ms"] * 4]
    assert [cell.strip() for cell in lines[6] if cell.strip()] == [
        *("up", "8.0", "10.0 %", "12 ms", "12 ms", "12 ms", "3/100", "0", "open")
    ]
    samples["routes"] = {"window_s": None, "routes": [{**route, "recent": None}]}
    assert lines_of(samples)[3].split()[:3] == ["/a/<id>", "1.0", "%"]


def test_requests_are_shown_with_their_calls_and_tasks_by_their_number() -> None:
    request = {"id": "r1", "method": "GET", "path": "/slow", "age": 0.8, "left": 0.2}
    calls = [{"name": "user", "state": "running"}, {"name": "done", "state": "value"}]
    below = {"name": "x", "state": "waiting", "calls": calls}
    handler = {"name": "serve", "state": "waiting", "request": request, "nurseries": [{"size": 1, "tasks": [below]}]}
    workers = {"name": "shop.<locals>.work", "state": "waiting", "waits": "time", "at": "shop/app.py:3", "count": 997}
    lines = lines_of({"tree": tree(handler, workers, blocked={"seconds": 1.5, "at": "shop/app.py:9 in parse"})})
    assert lines[3].split() == ["800", "ms", "200", "ms", "GET", "/slow", "user", "running", "main", "r1"]
    assert lines[5] == "main has been blocked for 1.5 s at shop/app.py:9 in parse"
    assert lines[7].split() == ["997", "shop.work", "time", "shop/app.py:3", "main"]


def test_control_characters_of_a_request_do_not_reach_the_terminal() -> None:
    request = {"id": "r", "method": "GET", "path": "/\x1b[2J\n", "age": 1.0}
    lines = lines_of({"tree": tree({"name": "t\x07", "state": "waiting", "request": request})})
    assert not any(character < " " for line in lines for character in line)


@pytest.mark.parametrize(("rows", "last"), [(3, "c" * 9 + "…"), (2, "… 2 more l…")])
def test_lines_are_cut_to_the_terminal_and_the_rest_is_counted(rows: int, last: str) -> None:
    shown = fitted(["a", "b", "c" * 20], len(last), rows)
    assert (len(shown), shown[-1]) == (rows, last)
