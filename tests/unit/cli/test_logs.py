"""``umbel logs``: its output for people and for programs, and its reading across rotation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from umbel.cli import main
from umbel.cli.records.log_files import Follower, LogFiles
from umbel.logs.files.reading import LINE_BYTES_MAX
from umbel.logs.files.retention import compress


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


def test_tail_reads_as_many_files_as_needed(log: Path) -> None:
    assert numbers(umbel("tail", log, "-n", "25", "--json")) == list(range(6, 31))
    assert numbers(umbel("tail", log, "-n", "3", "--json")) == [28, 29, 30]
    assert umbel("tail", log, "-n", "0").stdout == ""


def test_tail_prints_a_record_as_one_readable_line(log: Path) -> None:
    write(log, record(31, level="error", **{"http.response.status_code": 503}, kind="connect", msg="no one there"))

    [line] = umbel("tail", log, "-n", "1").stdout.splitlines()

    assert line.split() == [
        *("05:06:31.000", "error", "GET", "/users/31", "503", "31ms", "no", "one", "there"),
        *("http.route=/users/<id>", "kind=connect"),
    ]


def test_tail_reads_the_combined_format(tmp_path: Path) -> None:
    line = '::1 - - [30/Nov/2026:10:14:00 +0000] "GET /a\\x1B\\x20b HTTP/1.1" 503 0 "-" "curl"'
    log = write(tmp_path / "access.log", line)

    assert umbel("tail", log).stdout == (
        "10:14:00Z GET /a\\x1b b 503 http.response.body.size=0 network.protocol.version=1.1 user_agent.original=curl\n"
    )
    assert json.loads(umbel("tail", log, "--json").stdout) == {
        "ts": "2026-11-30T10:14:00Z",
        "client.address": "::1",
        "http.request.method": "GET",
        "url.path": "/a\x1b b",
        "network.protocol.version": "1.1",
        "http.response.status_code": 503,
        "http.response.body.size": 0,
        "user_agent.original": "curl",
    }


def test_stat_names_what_the_combined_format_lacks(tmp_path: Path) -> None:
    log = write(tmp_path / "access.log", '- - - [30/Nov/2026:10:14:00 +0000] "-" 400 0 "-" "-"')

    shown = umbel("stat", log).stdout
    assert shown.splitlines()[1:3] == [
        "lost     not known",
        "absent   1 lines in the combined format have no levels, durations, routes, calls and numbers",
    ]
    assert "levels " not in shown.splitlines()[3]
    by = umbel("stat", log, "--by", "http.route")
    assert (by.exit_code, by.stderr.partition(";")[0]) == (1, "Error: none of 1 records has a field http.route")


def test_colours_need_a_terminal_or_the_option(log: Path) -> None:
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


def test_tail_json_prints_the_lines_of_every_file_byte_for_byte(log: Path) -> None:
    write(log, text := '{"seq":31,  "msg":"caf\xe9"}')
    result = umbel("tail", "-n", "all", log, "--json")
    assert numbers(result) == list(range(1, 32))
    assert result.stdout.splitlines()[-1] == text


def test_json_output_holds_records_only_and_other_lines_go_to_stderr(tmp_path: Path) -> None:
    log = write(tmp_path / "app.jsonl", record(1), "\x1b[31m" + "x" * 1000, "[1]", record(2))
    result = umbel("tail", log, "--json")
    assert numbers(result) == [1, 2]
    assert result.stderr == f"not a record: \\x1b[31m{'x' * 195}\nnot a record: [1]\n"


@pytest.mark.parametrize("arguments", [[], ["x", "app"], ["-i", "x", "-w", "a=1", "--help"]])
def test_grep_names_the_command_that_replaces_it(arguments: list[str]) -> None:
    result = umbel("grep", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert "umbel logs tail -n all --json access | jq -c 'select(" in line


def test_an_invalid_count_or_path_is_a_usage_error() -> None:
    for arguments, said in (
        (("tail", "-n", "some"), 'not a valid integer or "all"'),
        (("tail", "-n", "-1"), "not in the range"),
        (("tail", "/nowhere/at/all.jsonl"), "no such directory"),
    ):
        result = umbel(*arguments)
        assert result.exit_code != 0
        assert said in result.output


def test_stat_counts_statuses_latencies_and_lost_records(log: Path) -> None:
    write(
        log,
        record(34, level="error", **{"http.response.status_code": 500}),
        {"event": "log.dropped", "count": 2, "seq": 35, "host.name": "h", "process.pid": 7, "level": "warning"},
        "not a record",
    )

    printed = json.loads(umbel("stat", log, "--json", "--by", "http.route").stdout)

    assert printed["records"] == 32
    assert printed["statuses"] == {"200": 30, "500": 1}
    assert printed["levels"] == {"info": 30, "error": 1, "warning": 1}
    assert (printed["dropped"], printed["missing"], printed["not_records"]) == (2, 1, 1)
    assert 15 <= printed["duration_ms"]["p50"] <= 21
    assert printed["duration_ms"]["max"] == 34
    assert printed["by"]["/users/<id>"]["errors"] == 1


def test_stat_counts_a_stream_once(tmp_path: Path) -> None:
    start = record(1, event="request.start")
    del start["http.response.status_code"], start["duration_ms"]
    log = write(tmp_path / "access.jsonl", start, record(2))
    printed = json.loads(umbel("stat", log, "--json", "--by", "http.route").stdout)
    assert printed["statuses"] == {"200": 1}
    assert printed["by"]["/users/<id>"]["records"] == 1


def test_stat_renders_a_histogram(log: Path) -> None:
    shown = umbel("stat", log, "--by", "http.route").stdout

    assert shown.startswith("30 records, 2026-03-04T05:06:01.000000Z to 2026-03-04T05:06:30.000000Z\nlost     none")
    assert "█" in shown
    assert "latency  p50" in shown
    assert shown.rstrip().endswith("/users/<id>")


def test_many_empty_rows_of_a_histogram_are_one_line(tmp_path: Path) -> None:
    durations = [0.001, 0.001, 1.0, 2.0]
    records = [record(number, duration_ms=ms) for number, ms in enumerate(durations, 1)]
    shown = umbel("stat", write(tmp_path / "access.jsonl", *records)).stdout
    rows = shown.partition("latency")[2].splitlines()[1:7]
    assert [row.split()[-1] for row in rows] == ["2", "…", "1", "1.58ms", "2ms", "1"]


def test_stat_of_an_empty_log_succeeds(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("command", ["tail", "stat"])
@pytest.mark.parametrize("name", ["none.jsonl", "nolog", "directory"])
def test_a_missing_log_is_one_sentence(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()

    result = umbel(command, name)

    assert result.exit_code == 1
    if name == "directory":
        assert "it is a directory" in result.stderr
    else:
        assert result.stderr == f"Error: {name}: there is no such log; LOG is a file, or one of access, calls, app\n"


def test_a_missing_configured_log_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "umbel.toml").write_text("")
    result = umbel("tail")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {tmp_path}/logs/access.jsonl: there is no such log\n"


@pytest.mark.parametrize("command", ["tail", "stat"])
def test_a_configured_log_on_stdout_is_reported(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "umbel.toml").write_text('[logs]\naccess = { file = "-" }\n')
    result = umbel(command, "access")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "access is written to stdout ([logs] access of umbel.toml" in result.stderr


def test_a_field_to_count_by_that_no_record_has_is_reported(log: Path) -> None:
    counted = umbel("stat", log, "--by", "nofield")
    assert (counted.exit_code, counted.stderr) == (1, "Error: none of 30 records has a field nofield\n")
    assert umbel("stat", log, "--by", "level").exit_code == 0


def test_a_field_to_count_by_may_be_nested(tmp_path: Path) -> None:
    log = write(tmp_path / "app.jsonl", record(1, fields={"line": {"number": 3}}), record(2))
    printed = json.loads(umbel("stat", log, "--json", "--by", "fields.line.number").stdout)
    assert {name: row["records"] for name, row in printed["by"].items()} == {"3": 1, "-": 1}


def test_tail_of_an_empty_log_succeeds(tmp_path: Path) -> None:
    log = write(tmp_path / "access.jsonl")
    result = umbel("tail", log)
    assert (result.exit_code, result.output) == (0, "")


class TestReadingWhileFilesChange:
    def seqs(self, files: LogFiles) -> list[int]:
        return [line.record["seq"] for line in files.lines()]

    def test_a_log_renamed_after_the_opening_is_read_once(self, log: Path) -> None:
        follower = Follower(log)
        log.rename(f"{log}.20260304T050630.000000Z")
        write(log, record(31))
        with LogFiles(log, follower) as files:
            assert self.seqs(files) == list(range(1, 31))
        assert [line.record["seq"] for line in follower.read()] == [31]

    def test_a_log_renamed_after_the_listing_is_read_to_its_end(self, log: Path) -> None:
        with LogFiles(log) as files:
            log.rename(f"{log}.20260304T050630.000000Z")
            write(log, record(31))
            assert self.seqs(files) == list(range(1, 31))

    def test_a_file_compressed_after_the_listing_is_read_and_one_removed_is_left_out(self, log: Path) -> None:
        with LogFiles(log) as files:
            compress(log.with_name("access.jsonl.20260304T050620.000000Z"), "gzip")
            log.with_name("access.jsonl.20260304T050610.000000Z.gz").unlink()
            assert self.seqs(files) == list(range(11, 31))
        assert not files.unreadable

    def test_a_line_appended_after_the_follower_opened_is_read_by_it(self, log: Path) -> None:
        follower = Follower(log)
        with LogFiles(log, follower) as files:
            write(log, record(31))
            assert [line.record["seq"] for line in files.last(2)] == [29, 30]
        assert [line.record["seq"] for line in follower.read()] == [31]


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize("command", ["tail", "stat"])
def test_a_damaged_file_is_named_and_the_others_are_read(log: Path, method: str, command: str) -> None:
    damaged = log.with_name("access.jsonl.20260304T050610.000000Z.gz")
    if method == "zstd":
        damaged.unlink()
        damaged = log.with_name("access.jsonl.20260304T050610.000000Z.zst")
        compress(write(damaged.with_suffix(""), *map(record, range(1, 11))), "zstd")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    damaged.write_bytes(data)

    result = umbel(command, log, "--json", *(("-n", "all") if command == "tail" else ()))

    assert result.exit_code == 1
    complaint, error = result.stderr.splitlines()
    assert complaint.startswith(f"{damaged}: the compressed file is damaged: ")
    assert error == "Error: not all files of this log can be read; the lines of the others are complete"
    if command == "tail":
        assert numbers(result)[-20:] == list(range(11, 31))
    else:
        assert json.loads(result.stdout)["records"] >= 20


def test_a_truncated_compressed_file_is_read_up_to_the_cut(log: Path) -> None:
    damaged = log.with_name("access.jsonl.20260304T050610.000000Z.gz")
    damaged.write_bytes(damaged.read_bytes()[:-10])
    result = umbel("tail", log, "-n", "all", "--json")
    assert (result.exit_code, numbers(result)[-20:]) == (1, list(range(11, 31)))
    assert f"{damaged}: the compressed file is damaged: Compressed file ended before" in result.stderr


class TestFollowing:
    def seqs(self, follower: Follower) -> list[int]:
        return [line.record["seq"] for line in follower.read()]

    def test_a_follower_begins_at_the_end_of_the_log(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl", record(1))
        follower = Follower(log)
        assert self.seqs(follower) == []
        write(log, record(2))
        assert self.seqs(follower) == [2]
        assert self.seqs(follower) == []

    def test_a_follower_yields_a_line_when_it_is_complete(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl")
        follower = Follower(log)
        text = json.dumps(record(1))
        with log.open("a") as file:
            file.write(text[:10])
        assert self.seqs(follower) == []
        with log.open("a") as file:
            file.write(text[10:] + "\n")
        assert self.seqs(follower) == [1]

    def test_a_follower_reads_a_line_above_the_limit_in_pieces(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl")
        follower = Follower(log)
        log.write_bytes(b"x" * (2 * LINE_BYTES_MAX + 1))
        assert [len(line.data) for line in follower.read()] == [LINE_BYTES_MAX] * 2

    def test_a_follower_loses_no_line_at_a_rotation(self, tmp_path: Path) -> None:
        log = write(tmp_path / "a.jsonl", record(1))
        follower = Follower(log)
        write(log, record(2))
        log.rename(tmp_path / "a.jsonl.1")
        write(tmp_path / "a.jsonl.1", record(3))
        write(log, record(4))
        assert self.seqs(follower) == [2, 3, 4]

    def test_a_follower_reads_a_log_created_later_and_a_truncated_one(self, tmp_path: Path) -> None:
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


def test_following_ends_when_the_reader_of_stdout_is_gone(tmp_path: Path) -> None:
    log = write(tmp_path / "a.jsonl", record(1))
    command = [sys.executable, "-m", "umbel", "logs", "tail", "-f", "--json", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(10), process.stderr.read()) == (1, "")
