"""``umbel logs stat``: the same traffic has the same figures, whatever records and formats are configured."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from tests.support.logs.event_factories import attempt, request_ended, request_facts
from umbel.cli import main
from umbel.config.schema.sections import Logs
from umbel.core.events import CallEnded, RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.core.http.client_head import ClientHead
from umbel.core.model import Failure, Outcome
from umbel.logs import open_recorder

CONFIGURATIONS = {
    "notable": "",
    "all": '[logs.calls]\nwhich = "all"\n',
    "off": '[logs.calls]\nwhich = "off"\n',
    "combined": '[logs.access]\nformat = "combined"\n',
}
JSON = [name for name in CONFIGURATIONS if name != "combined"]


def outcome(random: Random, call: str) -> Outcome:
    seconds = random.choice([0.001, 0.02, 0.3, 2.5])
    attempts = tuple(attempt(number + 1) for number in range(random.randint(1, 3)))
    if random.random() < 0.2:
        kind = random.choice([Kind.TIMEOUT, Kind.CONNECT, Kind.CANCELLED])
        return Outcome(call, "failed", None, Failure(kind, 502, "failed"), 10.0, 10.0 + seconds, attempts)
    if random.random() < 0.1:
        return Outcome(call, "skipped", None, None, None, 10.0, ())
    return Outcome(call, "value", 1, None, 10.0, 10.0 + seconds, attempts)


def traffic() -> list[RequestEnded]:
    random = Random(7)
    head = ClientHead("1.1", "/from", "agent")
    requests = []
    for _ in range(60):
        facts = request_facts(path=random.choice(["/a", "/b"]), route=random.choice(["/a", "/b"]))
        calls = tuple(outcome(random, call) for call in random.sample(["user", "orders", "offers"], 2))
        status = random.choice([200, 200, 404, 502])
        requests.append(request_ended(status, request=facts, ended_at=10.0 + random.random(), calls=calls, head=head))
    return requests


async def record(directory: Path, configuration: str) -> None:
    """Record the traffic in the logs of ``directory``, with the records of calls that the engine gives a recorder."""
    keys = {"access": {"format": "combined"}} if configuration == "combined" else {"calls": {"which": configuration}}
    async with open_recorder(Logs.model_validate({"dir": str(directory / "logs"), **keys})) as recorder:
        for request in traffic():
            for call in request.calls:
                took = 0.0 if call.started_at is None else call.ended_at - call.started_at
                if call.failure is not None or len(call.attempts) > 1 or took >= recorder.slow_call:
                    recorder.record(CallEnded(request.request, "upstream", call))
            recorder.record(request)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a configuration of each kind, and the logs of the same traffic beside each."""
    directory = tmp_path_factory.mktemp("recorded")
    for name, text in CONFIGURATIONS.items():
        (directory / name).mkdir()
        (directory / name / "umbel.toml").write_text(text)
        trio.run(record, directory / name, name)
    return directory


@pytest.fixture
def stat(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``stat(configuration, arguments)`` gives the figures of the traffic without the times of the records."""

    def run(configuration: str, *arguments: str) -> dict[str, Any]:
        monkeypatch.chdir(recorded / configuration)
        result = CliRunner().invoke(main, ["logs", "stat", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        figures: dict[str, Any] = json.loads(result.stdout)
        return {name: value for name, value in figures.items() if name not in ("first", "last")}

    return run


@pytest.mark.parametrize("by", ["http.route", "url.path"])
def test_the_figures_of_access_do_not_depend_on_the_log_of_calls(stat: Any, by: str) -> None:
    figures = [stat(name, "access", "--by", by) for name in JSON]
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["records"] == 60
    assert sum(row["calls"] for row in figures[0]["calls"].values()) == 120


def test_combined_lines_have_the_same_figures_as_far_as_they_have_any(stat: Any) -> None:
    figures, others = stat("combined", "access", "--by", "url.path"), stat("all", "access", "--by", "url.path")

    assert (figures["records"], figures["combined"]) == (60, 60)
    assert figures["statuses"] == others["statuses"]
    rows = {path: {"records": row["records"], "errors": row["errors"]} for path, row in others["by"].items()}
    assert figures["by"] == rows
    assert (figures["levels"], figures["dropped"], figures["missing"]) == ({}, None, None)
    assert "duration_ms" not in figures
    assert "calls" not in figures


@pytest.mark.parametrize("by", ["call", "http.route", "outcome", "kind"])
def test_the_figures_of_calls_are_those_of_all_calls(stat: Any, by: str) -> None:
    figures = [stat(name, "calls", "--by", by) for name in JSON]
    names = ("calls", "duration_ms", "by")
    assert [[each[name] for name in names] for each in figures] == [[figures[0][name] for name in names]] * 3
    assert figures[0]["calls"] == stat("all", "access")["calls"]
    assert sum(row["records"] for row in figures[0]["by"].values()) == 120
    assert [each["records"] for each in figures] != [figures[0]["records"]] * 3  # Records of their own do differ.


def test_cancelled_calls_are_no_failures_and_long_names_are_cut(tmp_path: Path) -> None:
    outcomes = ("cancelled", "client-gone", "client-gone", "timeout")
    calls = [{"name": "n" * 1500, "ms": 1.5, "outcome": outcome, "attempts": 1} for outcome in outcomes]
    (tmp_path / "access.jsonl").write_text(json.dumps({"event": "request.end", "calls": calls}))

    result = CliRunner().invoke(main, ["logs", "stat", str(tmp_path / "access.jsonl")])

    assert result.exit_code == 0
    table = result.stdout.partition("\ncalls\n")[2].splitlines()
    assert table[0].split() == ["calls", "failed", "cancelled", "attempts", "p50", "p99"]
    assert table[1].split()[:4] == ["4", "1", "3", "4"]
    assert max(map(len, table)) < 130


def test_without_calls_in_the_access_log_a_note_says_what_the_figures_are_of(stat: Any) -> None:
    figures = stat("combined", "calls", "--by", "call")
    assert figures["note"].startswith('only of the calls that have a record of their own (which = "notable")')
    # The table has these calls, as the records of their requests name them.
    named = stat("notable", "access")["calls"]
    assert set(figures["calls"]) == set(named)
    for name, row in figures["calls"].items():
        assert row["calls"] == figures["by"][name]["records"]
        assert row["outcomes"].items() - {("ok", row["outcomes"].get("ok"))} <= named[name]["outcomes"].items()
        assert (row["failed"], row["max"]) == (named[name]["failed"], named[name]["max"])
    assert stat("combined", "logs/calls.jsonl")["calls"] == figures["calls"]
