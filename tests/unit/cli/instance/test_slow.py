from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tests.support.logs.records import Records
from tests.support.observe.timelines import partial_answer
from tests.unit.cli.instance.test_ctl import answering, ok
from umbel.cli import main
from umbel.cli.instance.slow import waterfall
from umbel.core.diagnostics.redact import Redactor
from umbel.observe.kept_requests import Listing, as_answer
from umbel.observe.request_counts import CountingRecorder
from umbel.observe.timeline import timeline_of


def timeline(**more: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(timeline_of(partial_answer(), Redactor(), epoch=0.0))
    )
    return {**made, **more}


def listing() -> dict[str, Any]:
    counts = CountingRecorder(Records())
    counts.record(partial_answer())
    counts.record(partial_answer(status=502, kind="connect", detail="bad\x1b[2Jscreen"))
    return as_answer({"worker 1": counts.kept.listing(), "worker 2": None, "worker 3": Listing(dropped=2)})


def shown(path: Path, answer: Any, *arguments: str) -> tuple[int, str]:
    body = msgspec.json.encode(answer)
    with answering(path, ok(body)):
        result = CliRunner().invoke(main, ["slow", "--socket", str(path), *arguments])
    return result.exit_code, result.output


def test_each_call_and_attempt_has_a_lane_with_its_phases_and_its_end() -> None:
    lines = waterfall(timeline(), 120)
    assert lines[0] == "GET /dashboard/42  200 partial in 1002 ms"
    assert lines[2] == "the route's deadline passed"
    lanes = {line[2:25].strip(): line for line in lines[5:-2]}
    assert list(lanes) == [
        "user",
        "first http://users-1",
        "retry http://users-2",
        "offers",
        "first http://offers-1",
        "hedge http://offers-2",
        "news",
        "first http://news-1",
        "extra",
    ]
    assert " .----- " in lanes["first http://users-1"]
    assert "===" in lanes["retry http://users-2"]
    assert lanes["first http://offers-1"].rstrip().endswith("cancelled: lost-hedge")
    assert "x " in lanes["first http://offers-1"]
    assert lanes["news"].endswith("failed: timeout (unfinished at the route's deadline)")
    assert lanes["offers"].endswith("ok, needs user")
    assert lanes["extra"].endswith("- skipped, needs user")


def test_the_critical_path_and_the_deadline_are_marked() -> None:
    lines = waterfall(timeline(), 120)
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["news", "first"]
    assert lines[-1] == "deadline 1000 ms (reached)"
    columns = {line.index("|") for line in lines if "|" in line}
    assert len(columns) == 1


def test_a_deadline_far_away_does_not_shrink_the_lanes() -> None:
    lines = waterfall(timeline(deadline_ms=60_000.0, deadline_reached=False), 120)
    assert "|" not in "".join(lines)
    assert lines[-1] == "deadline 60.0 s (not reached)"


def test_an_answer_that_ended_after_the_deadline_without_a_cut_says_so() -> None:
    lines = waterfall(timeline(deadline_ms=1.0, deadline_reached=False), 120)
    assert lines[-1] == "deadline 1.0 ms (nothing was cut, but the answer ended later)"


def test_a_request_without_calls_or_of_no_duration_is_shown() -> None:
    lines = waterfall(timeline(calls=[], calls_total=0, duration_ms=0.0, deadline_ms=None, route="", reason=""), 60)
    assert lines[1].startswith("route (none)")
    assert len(lines) == 4


def test_control_characters_of_a_client_do_not_reach_the_terminal(tmp_path: Path) -> None:
    made = timeline(path="/\x1b[2J\n", reason="a\x9bb")
    made["calls"][0]["attempts"][0]["replica"] = "http://\x07"
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for line in waterfall(made, 100) for char in line)
    assert "\x1b" not in shown(tmp_path / "a.sock", listing())[1]


def test_the_list_names_requests_drops_and_silent_processes(tmp_path: Path) -> None:
    status, output = shown(tmp_path / "a.sock", listing())
    assert status == 0
    lines = output.splitlines()
    assert lines[0].split() == ["ID", "AT", "TOOK", "BUCKET", "STATUS", "OUTCOME", "REQUEST", "REASON"]
    assert lines[-2:] == [
        "2 more were dropped, because the kept requests took too much memory",
        "worker 2 has not answered: its event loop is probably blocked",
    ]
    assert sum("GET /dashboard/42" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("arguments", "number"),
    [(("--bucket", "error"), 1), (("--bucket", "10 s"), 0), (("--route", "/x"), 0), (("--bucket", "partial"), 1)],
)
def test_the_list_is_filtered_by_route_and_bucket(tmp_path: Path, arguments: tuple[str, ...], number: int) -> None:
    _, output = shown(tmp_path / "a.sock", listing(), *arguments)
    assert output.count("GET /dashboard/42") == number
    assert ("no such request is kept" in output) is (number == 0)


def test_a_request_is_shown_by_its_id_and_as_json(tmp_path: Path) -> None:
    answer = {"id": "1-1", "process": "main", "timeline": timeline()}
    status, output = shown(tmp_path / "a.sock", answer, "1-1")
    assert (status, output.splitlines()[0]) == (0, "GET /dashboard/42  200 partial in 1002 ms")
    status, output = shown(tmp_path / "b.sock", answer, "1-1", "--json")
    assert json.loads(output) == {"ok": True, **answer}
