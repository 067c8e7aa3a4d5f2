"""The recorder over real files: paths, outside changes, full and hanging disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import trio

from tests.support.logs.event_factories import call_ended, log_message, request_ended
from tests.support.logs.sinks import FileLog
from umbel.config.schema.sections import Logs
from umbel.core.errors import ConfigError
from umbel.logs import ensure_writable, open_recorder
from umbel.logs.files.sink import FileSink


def logs(directory: Path) -> Logs:
    return Logs.model_validate({"dir": str(directory), "flush_every": "1ms"})


def events(file: Path) -> list[str]:
    return [json.loads(line)["event"] for line in file.read_text().splitlines()]


async def test_the_files_have_the_configured_paths(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "logs"

    async with open_recorder(logs(directory)) as recorder:
        recorder.record(request_ended())
        recorder.record(call_ended())

    assert events(directory / "access.jsonl") == ["request.end"]
    assert events(directory / "calls.jsonl") == ["call.end"]
    assert events(directory / "app.jsonl") == ["log.closed"]
    assert (directory / "access.jsonl").stat().st_mode & 0o007 == 0


async def test_a_second_start_appends(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_recorder(logs(tmp_path)) as recorder:
            recorder.record(request_ended())

    assert events(tmp_path / "access.jsonl") == ["request.end", "request.end"]


async def test_a_removed_directory_is_created_again(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    log = FileLog(directory)
    async with log.open() as recorder:
        recorder.record(log_message("lost with the directory"))
        await log.app.has_lines(1)
        shutil.rmtree(directory)

        recorder.record(log_message("kept"))
        await log.app.has_lines(2)

    assert events(directory / "app.jsonl") == ["test.note", "log.closed"]


async def test_a_file_renamed_from_outside_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    log = FileLog(tmp_path)
    async with log.open() as recorder:
        recorder.record(request_ended())
        await log.access.has_lines(1)
        file.rename(tmp_path / "access.1")
        recorder.record(request_ended())

    assert events(tmp_path / "access.1") == events(file) == ["request.end"]


async def test_a_path_that_cannot_be_written_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, not a directory")

    with pytest.raises(ConfigError, match=r"^logs\.dir: .*logs cannot be written: "):
        async with open_recorder(logs(tmp_path / "logs")):
            pytest.fail("it must not come this far")


async def test_a_ring_that_does_not_fit_into_memory_is_reported_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("umbel.logs.files.ring.MEMORY", tmp_path)
    monkeypatch.setattr("umbel.logs.files.ring.os.posix_fallocate", full)
    reason = rf"^logs\.ring: {tmp_path}/umbel-log-.*\.ring cannot be written: No space left on device; make room for "
    with pytest.raises(ConfigError, match=reason) as caught:
        async with open_recorder(logs(tmp_path / "logs").model_copy(update={"ring": True})):
            pytest.fail("it must not come this far")
    assert str(caught.value).endswith(f"bytes in {tmp_path}, lower max_queue_bytes, or set ring = false")
    assert [name for name in os.listdir(tmp_path) if name.endswith(".ring")] == []  # noqa: PTH208 - blocking either way


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("odd")])
async def test_an_error_at_the_start_without_a_file_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    async def fail(_: FileSink) -> None:
        raise error

    monkeypatch.setattr(FileSink, "open", fail)
    with pytest.raises(ConfigError, match=rf"^logs\.dir: {tmp_path} cannot be written: (Input/output error|odd)$"):
        await ensure_writable(logs(tmp_path))


async def test_ensure_writable_reports_files_that_cannot_be_opened(tmp_path: Path) -> None:
    await ensure_writable(logs(tmp_path / "new"))
    (tmp_path / "file").write_text("not a directory")

    with pytest.raises(ConfigError, match=r"^logs\.dir: .*file cannot be written: "):
        await ensure_writable(logs(tmp_path / "file"))


async def test_a_failed_start_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "app.jsonl").mkdir()
    before = os.dup(0)
    os.close(before)

    with pytest.raises(ConfigError, match="is a directory"):
        async with open_recorder(logs(tmp_path)):
            pytest.fail("it must not come this far")

    # No descriptor is left: the lowest free one is the same again.
    after = os.dup(0)
    os.close(after)
    assert after == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is what a full disk looks like on Linux only")
async def test_a_full_disk_does_not_fail_the_service(tmp_path: Path) -> None:
    (tmp_path / "access.jsonl").symlink_to("/dev/full")

    log = FileLog(tmp_path)
    async with log.open() as recorder:
        recorder.record(request_ended())
        recorder.record(call_ended())
        await log.access.failures.wait_value(lambda failures: failures >= 1)
        await log.calls.has_lines(1)
        assert recorder.statistics().streams["access"].last_error == os.strerror(errno.ENOSPC)
        (tmp_path / "access.jsonl").unlink()

    assert events(tmp_path / "access.jsonl") == ["request.end"]
    assert recorder.statistics().dropped == 0


async def test_a_write_that_hangs_in_its_thread_does_not_delay_the_end_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real_write = os.write

    def hanging_write(fd: int, data: bytes) -> int:
        released.wait(30)
        return real_write(fd, data)

    monkeypatch.setattr("umbel.logs.writer.DRAIN_S_MAX", 0.01)
    monkeypatch.setattr("umbel.logs.files.file.os.write", hanging_write)
    try:
        with trio.fail_after(10):
            async with open_recorder(logs(tmp_path)) as recorder:
                recorder.record(request_ended())
        assert recorder.statistics().dropped == 1
    finally:
        released.set()
