"""``umbel logs``: what a person sees of the records, and what a program gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from umbel.cli import main
from umbel.cli.logreading import Follower
from umbel.cli.logwhere import parse
from umbel.logs.upkeep import compress


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "ts": f"2026-03-04T05:06:{number % 60:02d}.000000Z",
        "level": "info",
        "severity": 9,
        "event": "request.end",
        "http.request.method": "GET",
        "url.path": f"/users/{number}",
        "http.route": "/users/<id>",
        "http.response.status_code": 200,
        "duration_ms": float(number),
        "host.name": "h",
        "process.pid": 7,
        "seq": number,
        **fields,
    }


def write(path: Path, *records: dict[str, Any] | str) -> Path:
    with path.open("a") as file:
        for each in records:
            file.write((each if isinstance(each, str) else json.dumps(each)) + "\n")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Thirty records: ten compressed, ten renamed, ten in the log itself."""
    compress(write(tmp_path / "access.jsonl.20260304T050610.000000Z", *map(record, range(1, 11))), "gzip")
    write(tmp_path / "access.jsonl.20260304T050620.000000Z", *map(record, range(11, 21)))
    return write(tmp_path / "access.jsonl", *map(record, range(21, 31)))


def umbel(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["logs", *map(str, arguments)])


def numbers(result: Result) -> list[int]:
    return [json.loads(line)["seq"] for line in result.stdout.splitlines()]


def test_tail_shows_the_last_from_as_many_files_as_it_takes(log: Path) -> None:
    assert numbers(umbel("tail", log, "-n", "25", "--json")) == list(range(6, 31))
    assert numbers(umbel("tail", log, "-n", "3", "--json")) == [28, 29, 30]
    assert umbel("tail", log, "-n", "0").stdout == ""


def test_tail_reads_like_a_sentence(log: Path) -> None:
    write(log, record(31, level="error", **{"http.response.status_code": 503}, kind="connect", msg="no one there"))

    [line] = umbel("tail", log, "-n", "1").stdout.splitlines()

    assert line.split() == [
        *("05:06:31.000", "error", "GET", "/users/31", "503", "31ms", "no", "one", "there"),
        *("http.route=/users/<id>", "kind=connect"),
    ]


def test_colours_are_for_terminals_or_whoever_asks(log: Path) -> None:
    assert "\x1b[" not in umbel("tail", log).stdout
    assert "\x1b[32m200" in umbel("tail", log, "--color").stdout


def test_nothing_in_a_record_reaches_the_terminal_as_a_control_sequence(tmp_path: Path) -> None:
    evil = {
        "event": "\x1b[2J",
        "msg": "\x9b31m\r\n",
        "level": "\x07",
        "\x1b]0;": "\x1b",
        "exception.stacktrace": "\x1b",
    }
    log = write(tmp_path / "app.jsonl", evil, "\x1b[31m no record")

    shown = umbel("tail", log, "--no-color").stdout

    assert not {char for char in shown if not char.isprintable()} - {"\n"}


def test_grep_searches_every_file_and_says_by_its_status_whether_it_found_anything(log: Path) -> None:
    found = umbel("grep", r"/users/(5|15|25)\b", log, "--json")
    assert numbers(found) == [5, 15, 25]
    assert found.exit_code == 0
    assert umbel("grep", "nothing like it", log).exit_code == 1
    assert umbel("grep", "/USERS/5", log).exit_code == 1
    assert umbel("grep", "-i", "/USERS/5", log).exit_code == 0


def test_a_pattern_or_a_condition_that_is_none_is_told(log: Path) -> None:
    for arguments, said in (
        (("grep", "(", log), "no regular expression"),
        (("tail", log, "-w", "a b"), "no condition"),
        (("tail", log, "-w", "a~("), "no regular expression"),
        (("tail", "/nowhere/at/all.jsonl"), "no such directory"),
    ):
        result = umbel(*arguments)
        assert result.exit_code != 0
        assert said in result.output


def test_where_filters_by_field(log: Path) -> None:
    assert numbers(umbel("grep", "", log, "--json", "-w", "duration_ms>=29")) == [29, 30]
    assert numbers(umbel("tail", log, "--json", "-w", "duration_ms<4", "-w", "url.path!=/users/2")) == [1, 3]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("status>=500", True),
        ("status>503", False),
        ("status<=503", True),
        ("status=503", True),
        ("status==503.0", True),
        ("status!=503", False),
        ("status=5", False),
        ("status~^5", True),
        ("kind=timeout", True),
        ("kind!=timeout", False),
        ("kind!~^time", False),
        ("kind>=a", True),
        ("kind>=5", True),
        ("absent=x", False),
        ("absent!=x", True),
        ("absent>=1", False),
        ("absent~", True),
        ("absent!~x", True),
        ("absent", False),
        ("!absent", True),
        ("kind", True),
        ("!kind", False),
        ("completed=false", True),
        ("completed!=true", True),
        ("completed>0", False),
        ("fields.line=3", True),
        ("fields.more.deep=x", True),
        ("a.b=1", True),
        ("text=1", True),
    ],
)
def test_a_condition_means(condition: str, holds: bool) -> None:
    fields = {"line": 3, "more": {"deep": "x"}}
    seen = {"status": 503, "kind": "timeout", "completed": False, "fields": fields, "a.b": 1, "text": "1"}
    assert parse(condition)(seen) is holds


def test_stat_counts_statuses_latencies_and_what_is_lost(log: Path) -> None:
    write(
        log,
        record(34, level="error", **{"http.response.status_code": 500}),
        {"event": "log.dropped", "count": 2, "seq": 35, "host.name": "h", "process.pid": 7, "level": "warning"},
        "not a record",
    )

    told = json.loads(umbel("stat", log, "--json", "--by", "http.route").stdout)

    assert told["records"] == 32
    assert told["statuses"] == {"200": 30, "500": 1}
    assert told["levels"] == {"info": 30, "error": 1, "warning": 1}
    assert (told["dropped"], told["missing"], told["not_records"]) == (2, 1, 1)
    assert 15 <= told["duration_ms"]["p50"] <= 21
    assert told["duration_ms"]["max"] == 34
    assert told["by"]["/users/<id>"]["errors"] == 1


def test_stat_draws_for_people(log: Path) -> None:
    shown = umbel("stat", log, "--by", "http.route").stdout

    assert shown.startswith("30 records, 2026-03-04T05:06:01.000000Z to 2026-03-04T05:06:30.000000Z\nlost     none")
    assert "█" in shown
    assert "latency  p50" in shown
    assert shown.rstrip().endswith("/users/<id>")


def test_stat_of_nothing_is_no_mistake(tmp_path: Path) -> None:
    log = write(tmp_path / "access.jsonl")
    assert umbel("stat", log).stdout.startswith("0 records")


def test_records_that_come_late_are_not_missing(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", *map(record, (1, 2, 5, 6, 3, 4)), record(1), record(2))
    assert json.loads(umbel("stat", log, "--json").stdout)["missing"] == 0


def test_the_configured_logs_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "umbel.toml").write_text('[logs.calls]\nfile = "mine.jsonl"\n')
    write(tmp_path / "logs" / "mine.jsonl", record(1))

    assert numbers(umbel("tail", "calls", "--json")) == [1]
    (tmp_path / "umbel.toml").write_text("[logs\n")
    assert umbel("tail", "calls").exit_code == 78


@pytest.mark.parametrize("command", [("tail",), ("grep", "x"), ("stat",)], ids=["tail", "grep", "stat"])
@pytest.mark.parametrize("name", ["none.jsonl", "nolog", "directory"])
def test_a_log_that_is_not_there_is_told_in_a_sentence(
    command: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()

    result = umbel(*command, name)

    assert result.exit_code == 1
    if name == "directory":
        assert "it is a directory" in result.stderr
    else:
        assert result.stderr == f"Error: {name}: there is no such log; LOG is a file, or one of access, calls, app\n"


def test_a_configured_log_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "umbel.toml").write_text("")
    result = umbel("tail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {tmp_path}/logs/access.jsonl: there is no such log\n"


@pytest.mark.parametrize("command", ["tail", "stat"])
def test_a_configured_log_on_stdout_is_told(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "umbel.toml").write_text('[logs]\naccess = { file = "-" }\n')
    result = umbel(command, "access")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "access goes to stdout ([logs] access of umbel.toml" in result.stderr


def test_conditions_that_no_record_meets_are_told(log: Path) -> None:
    for command in (("tail",), ("grep", ""), ("stat",)):
        unknown = umbel(*command, log, "-w", "foo")
        assert (unknown.exit_code, unknown.stderr) == (1, "Error: none of 30 records has a field foo\n")
        unmet = umbel(*command, log, "-w", "level=error")
        assert (unmet.exit_code, unmet.stderr) == (1, "Error: none of 30 records meets every condition\n")


def test_a_field_to_count_by_that_no_record_has_is_told(log: Path) -> None:
    counted = umbel("stat", log, "--by", "nofield")
    assert (counted.exit_code, counted.stderr) == (1, "Error: none of 30 records has a field nofield\n")
    assert umbel("stat", log, "--by", "level").exit_code == 0


def test_an_empty_log_is_no_mistake(tmp_path: Path) -> None:
    log = write(tmp_path / "access.jsonl")
    result = umbel("tail", log, "-w", "foo")
    assert (result.exit_code, result.output) == (0, "")


class TestFollowing:
    def seqs(self, follower: Follower) -> list[int]:
        return [line.record["seq"] for line in follower.read()]

    def test_it_begins_where_the_log_ends(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl", record(1))
        follower = Follower(log)
        assert self.seqs(follower) == []
        write(log, record(2))
        assert self.seqs(follower) == [2]
        assert self.seqs(follower) == []

    def test_a_line_is_shown_when_it_is_whole(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl")
        follower = Follower(log)
        text = json.dumps(record(1))
        with log.open("a") as file:
            file.write(text[:10])
        assert self.seqs(follower) == []
        with log.open("a") as file:
            file.write(text[10:] + "\n")
        assert self.seqs(follower) == [1]

    def test_it_goes_on_across_rotation_and_loses_nothing(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl", record(1))
        follower = Follower(log)
        write(log, record(2))
        log.rename(tmp_path / "a.jsonl.1")
        write(tmp_path / "a.jsonl.1", record(3))
        write(log, record(4))
        assert self.seqs(follower) == [2, 3, 4]

    def test_a_log_that_comes_later_and_one_that_is_truncated(self, tmp_path: Path) -> None:
        log = tmp_path / "a.jsonl"
        follower = Follower(log)
        assert self.seqs(follower) == []
        write(log, record(1), record(2))
        assert self.seqs(follower) == [1, 2]
        log.write_text("")
        write(log, record(3))
        assert self.seqs(follower) == [3]


def test_following_in_a_terminal_ends_with_ctrl_c(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", record(1))
    with subprocess.Popen(
        [sys.executable, "-m", "umbel", "logs", "tail", "-f", "--json", str(log)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["seq"] == 1
        write(log, record(2))
        assert json.loads(process.stdout.readline())["seq"] == 2
        process.send_signal(2)
        assert process.wait(10) == 130
