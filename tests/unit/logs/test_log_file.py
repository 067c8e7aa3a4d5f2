"""``LogFile``: its content after full disks, renames, torn lines, stopped processes and rotation."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from umbel.logs.files import file as file_module
from umbel.logs.files.file import LogFile
from umbel.logs.files.retention import rotated_files
from umbel.logs.files.rotation import Rotation, began_at, rotated_at, rotated_path
from umbel.logs.records.encode import RECORD_BYTES_MAX


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    file = LogFile(path, Rotation())
    yield file
    file.close()


class ShortWrites:
    """An ``os.write`` on a disk with ``room`` bytes, which takes some bytes at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, at_once: int = 10**9) -> None:
        self.room = room
        self._at_once = at_once
        self._write = os.write
        monkeypatch.setattr(file_module.os, "write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        count = min(self.room, self._at_once, len(data))
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= count
        return self._write(fd, data[:count])


def test_open_creates_directories_and_others_cannot_read_the_file(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a" / "b" / "app.jsonl", Rotation())
    log.append(b"one\n")
    log.close()

    assert log.path.read_bytes() == b"one\n"
    assert log.path.stat().st_mode & 0o007 == 0
    assert log.path.parent.stat().st_mode & 0o007 == 0


def test_short_writes_are_continued(log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ShortWrites(monkeypatch, room=1000, at_once=3)
    log.append(b"one\ntwo\n")

    assert path.read_bytes() == b"one\ntwo\n"


def test_after_a_full_disk_whole_lines_are_kept_and_the_rest_written_later(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = ShortWrites(monkeypatch, room=6)
    with pytest.raises(OSError, match="No space"):
        log.append(b"one\ntwo\n")
    assert path.read_bytes() == b"one\n"
    other = LogFile(path, Rotation())
    disk.room = 1000
    other.append(b"from another process\n")
    other.close()

    log.append(b"one\ntwo\n")

    assert path.read_bytes() == b"one\nfrom another process\ntwo\n"


def test_a_torn_line_of_a_removed_file_is_written_whole_to_the_new_file(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = ShortWrites(monkeypatch, room=6)
    monkeypatch.setattr(file_module.os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    with pytest.raises(OSError, match="No space"):
        log.append(b"one\ntwo\n")
    path.rename(path.with_name("old"))
    disk.room = 1000

    log.append(b"one\ntwo\n")

    assert path.with_name("old").read_bytes() == b"one\ntw"
    assert path.read_bytes() == b"two\n"


@pytest.mark.parametrize("holder", ["appends", "truncates", "truncates and appends"])
def test_a_torn_line_that_another_process_changed_is_written_whole(
    holder: str, log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LOCK_S_MAX", 0.0)
    log.append(b"first\n")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # The holder is stopped: the line is written without the lock.
        disk = ShortWrites(monkeypatch, room=4)
        with pytest.raises(OSError, match="No space"):
            log.append(b"torn line\n")
    disk.room = 1000
    if "truncates" in holder:
        os.truncate(path, len(b"first\n"))
    if "appends" in holder:
        with path.open("ab") as other:
            other.write(b"other\n")
    log.append(b"torn line\n")

    rest = path.read_bytes().removeprefix(b"first\n")
    assert (
        rest
        == {
            "appends": b"tornother\ntorn line\n",
            "truncates": b"torn line\n",
            "truncates and appends": b"other\ntorn line\n",
        }[holder]
    )


def test_the_torn_line_of_a_killed_process_is_truncated(log: LogFile, path: Path) -> None:
    path.write_bytes(b'{"a":1}\n{"b":')
    log.append(b'{"c":3}\n')

    assert path.read_bytes() == b'{"a":1}\n{"c":3}\n'


def test_a_file_of_only_a_torn_line_is_truncated_to_nothing(log: LogFile, path: Path) -> None:
    path.write_bytes(b'{"b":')
    log.append(b"whole\n")

    assert path.read_bytes() == b"whole\n"


def test_an_unfinished_line_longer_than_any_record_is_kept(log: LogFile, path: Path) -> None:
    path.write_bytes(b"x" * (RECORD_BYTES_MAX + 10))
    log.append(b"mine\n")

    assert path.read_bytes() == b"x" * (RECORD_BYTES_MAX + 10) + b"mine\n"


def test_a_file_renamed_or_removed_from_outside_is_replaced_by_a_new_one(log: LogFile, path: Path) -> None:
    log.append(b"one\n")
    path.rename(path.with_name("old"))
    log.append(b"two\n")
    path.unlink()
    log.append(b"three\n")

    assert path.with_name("old").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


def test_lines_are_written_again_if_the_file_is_renamed_during_the_write(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def renaming(fd: int, data: bytes) -> int:
        monkeypatch.setattr(file_module.os, "write", real)
        path.rename(path.with_name("old"))
        return real(fd, data)

    log.append(b"one\n")
    monkeypatch.setattr(file_module.os, "write", renaming)
    log.append(b"two\n")

    # The old file may have been compressed meanwhile: a line in both files is better than a lost one.
    assert path.with_name("old").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"two\n"


def test_a_truncated_file_is_continued_at_its_new_end(log: LogFile, path: Path) -> None:
    log.append(b"one\n")
    os.truncate(path, 0)
    log.append(b"two\n")
    os.truncate(path, 2)
    log.append(b"three\n")

    assert path.read_bytes() == b"three\n"


def test_a_directory_removed_from_outside_is_created_again(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "app.jsonl", Rotation())
    log.append(b"one\n")
    log.path.unlink()
    log.path.parent.rmdir()
    log.append(b"two\n")
    log.close()

    assert log.path.read_bytes() == b"two\n"


def test_a_stopped_holder_of_the_lock_delays_a_write_by_its_limit(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LOCK_S_MAX", 0.01)
    path.touch()
    stopped = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        log.append(b"one\n")
    finally:
        os.close(stopped)

    assert path.read_bytes() == b"one\n"


def test_the_file_is_renamed_before_it_exceeds_its_size(path: Path) -> None:
    log = LogFile(path, Rotation(size=10))
    for line in (b"1234\n", b"5678\n", b"9\n", b"longer than the size\n", b"x\n"):
        log.append(line)
    log.close()

    found = [file.read_bytes() for file in [*reversed(rotated_files(path)), path]]
    assert found == [b"1234\n5678\n", b"9\n", b"longer than the size\n", b"x\n"]
    assert log.rotations == 3


def test_the_file_is_renamed_when_the_period_of_its_first_record_is_over(path: Path) -> None:
    path.write_bytes(b'{"ts":"2020-01-01T00:00:00.000000Z","level":"info"}\n')
    log = LogFile(path, Rotation(every=86400))
    log.append(b'{"ts":"2999-01-01T00:00:00.000000Z"}\n')
    log.append(b"more\n")
    log.close()

    assert len(rotated_files(path)) == 1
    assert path.read_bytes().count(b"\n") == 2


def test_two_processes_rename_a_file_once(path: Path) -> None:
    one, two = LogFile(path, Rotation(size=10)), LogFile(path, Rotation(size=10))
    one.append(b"12345678\n")
    two.append(b"abcdefgh\n")
    one.append(b"A\n")
    two.append(b"ABCDEFGH\n")
    one.close()
    two.close()

    found = [file.read_bytes() for file in [*reversed(rotated_files(path)), path]]
    assert found == [b"12345678\n", b"abcdefgh\n", b"A\n", b"ABCDEFGH\n"]
    assert b"".join(found).count(b"\n") == 4
    assert one.rotations + two.rotations == len(rotated_files(path))


def test_lines_are_written_once_if_another_process_rotates_right_afterwards(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LogFile(path, Rotation(size=10))
    log.append(b"first\n")
    real = fcntl.flock

    def unlocking(fd: int, operation: int) -> None:
        real(fd, operation)
        if operation == fcntl.LOCK_UN:
            monkeypatch.setattr(file_module.fcntl, "flock", real)
            other.append(b"another\n")

    monkeypatch.setattr(file_module.fcntl, "flock", unlocking)
    log.append(b"second\n")
    (old,) = rotated_files(path)
    assert (old.read_bytes(), path.read_bytes()) == (b"first\nsecond\n", b"another\n")
    other.close()


def test_rotate_renames_the_file_unless_it_is_empty(log: LogFile, path: Path) -> None:
    assert not log.rotate()
    log.append(b"one\n")
    assert log.rotate()
    assert path.read_bytes() == b""
    assert [file.read_bytes() for file in rotated_files(path)] == [b"one\n"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is what a full disk looks like on Linux only")
def test_a_device_is_written_to_and_never_renamed() -> None:
    log = LogFile(Path("/dev/null"), Rotation(size=1))
    log.append(b"one\n")
    assert not log.rotate()
    log.append(b"two\n")
    log.close()
    full = LogFile(Path("/dev/full"), Rotation(size=1))
    with pytest.raises(OSError, match="No space"):
        full.append(b"one\n")
    full.close()


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory"])
def test_a_path_that_is_no_regular_file_is_refused_without_waiting(kind: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            sock.bind(str(path))
        else:
            path.mkdir()
        log = LogFile(path, Rotation(size=1))
        for act in (log.open, lambda: log.append(b"one\n"), log.rotate, log.reopen):
            with pytest.raises(OSError, match=f"it is a (named )?{kind}"):
                act()
        path.rmdir() if kind == "directory" else path.unlink()
        log.append(b"one\n")
        log.close()
    assert path.read_bytes() == b"one\n"


def test_a_pipe_that_takes_the_place_of_the_open_file_is_refused(log: LogFile, path: Path) -> None:
    log.append(b"one\n")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is a named pipe"):
        log.append(b"two\n")
    path.unlink()
    log.append(b"two\n")
    assert path.read_bytes() == b"two\n"


def test_own_stdout_is_written_although_it_is_a_pipe_and_fails_if_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "WRITE_S_MAX", 0.01)
    reading, writing = os.pipe()
    before = os.dup(1)
    os.dup2(writing, 1)
    try:
        (tmp_path / "app.jsonl").symlink_to("/dev/stdout")
        log = LogFile(tmp_path / "app.jsonl", Rotation(size=1))
        log.append(b"one\n")
        assert os.read(reading, 100) == b"one\n"
        lines = b"a line\n" * 100_000
        with pytest.raises(BlockingIOError):
            log.append(lines)
        log.close()
    finally:
        os.dup2(before, 1)
        for descriptor in (reading, writing, before):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("size", "more", "began", "now", "due"),
    [
        (0, 1000, 0.0, 1e9, False),
        (50, 50, 0.0, 1.0, False),
        (50, 51, 0.0, 1.0, True),
        (50, 1, 86399.0, 86400.0, True),
        (50, 1, 86400.0, 172799.0, False),
        (50, 1, None, 1e9, False),
        (50, 1, 86400.0, 0.0, False),
    ],
)
def test_a_rotation_is_due_by_size_or_period(size: int, more: int, began: float | None, now: float, due: bool) -> None:
    assert Rotation(size=100, every=86400).due(size, more, began, now) is due


def test_a_renamed_file_is_recognised_by_its_name(path: Path) -> None:
    name = rotated_path(path, 1_772_600_767.5)

    assert name.name == "app.jsonl.20260304T050607.500000Z"
    assert rotated_at(name, path) == 1_772_600_767.5
    assert rotated_at(name.with_name(name.name + ".gz"), path) == 1_772_600_767.5
    for other in ("app.jsonl", "app.jsonl.1", "app.jsonl-20260304", "other.jsonl.20260304T050607.500000Z"):
        assert rotated_at(path.with_name(other), path) is None


def test_a_file_without_a_first_record_begins_now() -> None:
    assert began_at(b'{"ts":"2020-01-01T00:00:00.000000Z"') == 1577836800.0
    assert began_at(b"something else\n") > 1.7e9
