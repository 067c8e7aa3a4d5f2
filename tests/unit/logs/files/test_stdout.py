"""The sink of stdout: whole lines, and bounded waits for the reader."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from umbel.config.schema.sections import Logs
from umbel.logs import ensure_writable, open_recorder, recover_all
from umbel.logs.files import stdout as stdout_module
from umbel.logs.files.stdout import Stdout, StdoutSink

LONG = b"x" * (2 * select.PIPE_BUF) + b"\n"
EVERY = Logs.model_validate({name: {"file": "-"} for name in ("access", "calls", "app")})
WORKER = """
import sys
from umbel.logs.files.stdout import Stdout
out = Stdout()
line = sys.argv[1].encode() * 9000 + b"\\n"
for _ in range(40):
    out.append(line + sys.argv[1].encode() * 10 + b"\\n")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # The test has closed the descriptor.
            os.close(end)


def written(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, lines: bytes) -> list[bytes]:
    """The single writes by which ``lines`` are written."""
    writes: list[bytes] = []
    monkeypatch.setattr(stdout_module.os, "write", lambda fd, data: writes.append(data) or len(data))
    Stdout(pipe[1]).append(lines)
    return writes


def test_each_write_holds_whole_lines_that_a_pipe_does_not_mix(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"y" * 999 + b"\n"
    writes = written(pipe, monkeypatch, line * 10 + LONG + line)
    full = select.PIPE_BUF
    assert writes == [line * 4, line * 4, line * 2, LONG[:full], LONG[full : 2 * full], LONG[2 * full :] + line]


def test_a_file_takes_a_batch_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("wb") as file:
        assert written((0, file.fileno()), monkeypatch, LONG * 3) == [LONG * 3]


def test_long_lines_of_several_processes_stay_whole() -> None:
    command = [sys.executable, "-c", WORKER]
    read, write = os.pipe()
    processes = [subprocess.Popen([*command, mark], stdout=write) for mark in "abc"]
    os.close(write)
    with os.fdopen(read, "rb") as file:
        lines = file.read().splitlines()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(lines) == 240
    assert all(len(set(line)) == 1 and len(line) in (10, 9000) for line in lines)


@pytest.mark.parametrize(
    "lines", [b"".join(b"%05d\n" % number for number in range(30_000)), b"x" * 200_000 + b"\n"], ids=["short", "long"]
)
def test_a_full_pipe_is_an_error_after_the_limit_and_no_line_is_lost(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, lines: bytes
) -> None:
    monkeypatch.setattr(stdout_module, "WRITE_S_MAX", 0.01)
    out = Stdout(pipe[1])
    with pytest.raises(BlockingIOError, match="nobody reads stdout"):
        out.append(lines)
    received: list[bytes] = []

    def read() -> None:
        while sum(map(len, received)) < len(lines):
            received.append(os.read(pipe[0], 65536))

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setattr(stdout_module, "WRITE_S_MAX", 10)
    out.append(lines)
    reader.join(10)
    assert b"".join(received) == lines


def test_a_long_line_that_waits_for_its_reader_leaves_other_logs_their_limit(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdout_module, "WRITE_S_MAX", 0.01)
    with pytest.raises(BlockingIOError, match="nobody reads stdout"):
        Stdout(pipe[1]).append(b"x" * 200_000 + b"\n")
    # The lock was given back: the reason is the full pipe, not the other log.
    with pytest.raises(BlockingIOError, match="nobody reads stdout"):
        Stdout(pipe[1]).append(b"line\n")


def test_a_reader_that_has_gone_is_an_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        Stdout(pipe[1]).append(b"line\n")


def test_without_stdout_nothing_is_written_to_descriptor_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(OSError, match="stdout is closed"):
        Stdout().append(b"line\n")


async def test_a_log_on_stdout_has_no_file_to_rename_sync_or_keep(pipe: tuple[int, int]) -> None:
    sink = StdoutSink(Stdout(pipe[1]))
    await sink.open()
    assert await sink.append(b"line\n") is False
    assert await sink.rotate() is False
    await sink.reopen()
    await sink.sync()
    await sink.apply_retention()
    sink.close()
    assert os.read(pipe[0], 100) == b"line\n"


async def test_streams_on_stdout_make_no_directory_no_file_and_no_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = EVERY.model_copy(update={"dir": str(tmp_path / "logs"), "ring": True})
    await ensure_writable(logs)
    async with open_recorder(logs) as recorder:
        recorder.app.info("hello")
        recorder.reopen()
        recorder.rotate()
        with trio.fail_after(5):
            await recorder.flush()
    assert recover_all(logs) == 0
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - blocking either way
    out = capfd.readouterr().out.splitlines()
    assert '"event":"hello"' in out[0]
    assert '"event":"log.closed"' in out[-1]
