"""Logs of several processes on real disks: sharing, rotation, full disks, kills; no line is torn or lost unreported."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.support.gateway.configs import GOOD, write
from tests.support.process.processes import PYTHON, Child, ended, started
from umbel.logs import LogOptions, open_log, recover
from umbel.logs.files.reading import lines_of, log_files
from umbel.logs.files.ring import directory_of, prefix_of
from umbel.logs.options import QUEUE_BYTES_MIN

ROOT = Path(__file__).parents[2]


def writer(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.logs.log_writer", str(path), *options]


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Return all records of all files of a log; a torn line fails the test."""
    for file in log_files(path):
        for line in lines_of(file):
            assert line.endswith(b"\n")
            yield json.loads(line)


def by_process(path: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for record in records(path):
        found.setdefault(record["process.pid"], []).append(record)
    return found


def assert_whole(mine: list[dict[str, Any]]) -> None:
    """Check that each number occurs once and in order, and that the last line, ``log.closed``, counts them."""
    assert [record["seq"] for record in mine] == list(range(1, len(mine) + 1))
    assert mine[-1]["event"] == "log.closed"
    assert (mine[-1]["written"], mine[-1]["dropped"]) == (len(mine), 0)


async def last_number(child: Child, at_least: int) -> int:
    """Read until the child has reported that many records."""
    while (number := int(await child.line(""))) < at_least:
        pass
    return number


@pytest.mark.parametrize("ring", [False, True], ids=["without ring", "with ring"])
async def test_four_processes_share_a_file_that_is_rotated_and_one_is_killed(tmp_path: Path, ring: bool) -> None:
    path = tmp_path / "app.jsonl"
    options = ["--rotate-size", "2000000", "--compress", "gzip", *(["--ring"] if ring else [])]
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(
                started(*writer(path, "--worker", str(number), "--count", "20000", *options), cwd=ROOT)
            )
            for number in range(3)
        ]
        victim = await stack.enter_async_context(started(*writer(path, "--worker", "v", *options), cwd=ROOT))
        promised = await last_number(victim, 20000)
        await victim.stop(signal.SIGKILL)
        for child in children:
            assert await child.end() == 0
    if ring:
        recover(path)
    else:  # The victim may have been the last one to write. The next writer truncates the line that it has torn.
        async with started(*writer(path, "--worker", "next", "--count", "1", *options), cwd=ROOT) as child:
            assert await child.end() == 0

    found = by_process(path)
    victims = next(mine for mine in found.values() if mine[0]["worker"] == "v")
    others = [mine for mine in found.values() if mine is not victims]
    for mine in others:
        assert_whole(mine)
    # A process that starts after the victim's end recovers its ring.
    assert sum(record["event"] != "log.recovered" for mine in others for record in mine) == 3 * 20001 + 2 * (not ring)
    numbers = sorted(record["seq"] for record in victims)
    assert numbers == list(range(1, len(numbers) + 1))
    if ring:
        assert len(numbers) >= promised
        assert list(directory_of(path).glob(f"{prefix_of(path)}*")) == []
    assert len(log_files(path)) >= 5


@pytest.mark.parametrize("how", ["TERM", "INT", "exception", "to the end"])
async def test_each_way_to_end_writes_log_closed_with_the_right_counts(tmp_path: Path, how: str) -> None:
    path = tmp_path / "app.jsonl"
    options = {
        "TERM": [],
        "INT": [],
        "exception": ["--count", "500", "--end", "raise"],
        "to the end": ["--count", "500"],
    }
    async with started(*writer(path, "--pause", "0.001", *options[how]), cwd=ROOT) as child:
        await last_number(child, 100)
        if how in ("TERM", "INT"):
            status = await child.stop(getattr(signal, f"SIG{how}"))
        else:
            status = await child.end()

    [mine] = by_process(path).values()
    assert_whole(mine)
    assert status == (1 if how == "exception" else 0)
    told = [record for record in mine if record["event"] == "log.block_failed"]
    assert [record["level"] for record in told] == (["critical"] if how == "exception" else [])


@pytest.mark.parametrize("with_signal", [True, False], ids=["rename and signal", "rename without signal"])
async def test_a_file_renamed_from_outside_loses_nothing(tmp_path: Path, with_signal: bool) -> None:
    path = tmp_path / "app.jsonl"
    async with started(*writer(path, "--pause", "0.002", "--flush-every", "0.01"), cwd=ROOT) as child:
        for turn in range(10):
            await last_number(child, 1)
            await trio.Path(path).rename(tmp_path / f"app.jsonl-{turn}")
            if with_signal:
                child.send(signal.SIGUSR1)
            while not path.exists():
                await last_number(child, 1)
        await child.stop(signal.SIGTERM)

    [mine] = by_process(path).values()
    seen = {record["seq"]: record for record in mine}
    assert_whole([seen[number] for number in sorted(seen)])
    assert len(log_files(path)) == 11


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(directory)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("mounting a file system takes root")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


async def test_a_full_disk_drops_only_records_without_room_and_counts_them(small_disk: Path) -> None:
    path, filler = small_disk / "app.jsonl", small_disk / "filler"
    filler.write_bytes(b"x" * 150_000)
    options = LogOptions(flush_every=0.01, max_queue_bytes=QUEUE_BYTES_MIN, rotate_size=None, service="test")
    async with open_log(path, options) as log:
        total = 0
        with trio.fail_after(30):
            while log.statistics().dropped < 100 or log.statistics().last_error is None:
                for _ in range(100):
                    log.info("test.line", number=total, filling="x" * 80)
                    total += 1
                await trio.lowlevel.checkpoint()
        assert log.statistics().last_error == os.strerror(errno.ENOSPC)
        data = path.read_bytes()
        assert data.endswith(b"\n")  # A line without room was truncated as a whole.
        filler.unlink()
        path.rename(small_disk / "gone")
        (small_disk / "gone").unlink()
        # There is room for a part of the queue; then more room is made again and again.
        with trio.fail_after(30):
            while log.statistics().queued:
                await trio.sleep(0.01)
                if log.statistics().last_error is not None:
                    path.unlink(missing_ok=True)
                    log.reopen()
        log.info("test.after")

    last = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert last[-1]["event"] == "log.closed"
    assert last[-1]["dropped"] >= 100
    assert "test.after" in [record["event"] for record in last]
    gaps = [record["count"] for record in last if record["event"] == "log.dropped"]
    assert sum(gaps) <= last[-1]["dropped"]
    assert gaps


async def test_compression_and_retention_never_touch_a_file_that_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "app.jsonl"
    options = ["--rotate-size", "100000", "--compress", "gzip", "--count", "5000"]
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(started(*writer(path, "--worker", str(number), *options), cwd=ROOT))
            for number in range(3)
        ]
        for child in children:
            assert await child.end() == 0

    found = by_process(path)
    assert len(found) == 3
    for mine in found.values():
        assert_whole(mine)


@pytest.mark.parametrize("command", ["tail", "stat"])
async def test_a_pipe_in_the_place_of_a_log_is_reported_and_blocks_no_command(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    _, output = await ended(PYTHON, "-m", "umbel", "logs", command, str(tmp_path / "app.jsonl"), cwd=tmp_path)
    assert "app.jsonl: it is a named pipe, not a regular file\n" in output


async def test_a_pipe_in_the_place_of_a_log_is_one_sentence_at_the_start(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs" / "calls.jsonl")
    for more in ([], ["-w", "1"]):
        command = (PYTHON, "-m", "umbel", "serve", *more, "--bind", "127.0.0.1:0")
        status, output = await ended(*command, cwd=tmp_path)
        assert status == 78
        assert "calls.jsonl cannot be written: it is a named pipe, not a regular file" in output
        assert "Traceback" not in output
