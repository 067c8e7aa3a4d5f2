"""Compression and retention of renamed files."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from umbel.logs.files import retention as retention_module
from umbel.logs.files.reading import lines_of, log_files
from umbel.logs.files.retention import Retention, apply_retention, compress, rotated_files
from umbel.logs.files.rotation import rotated_path
from umbel.logs.options import Compression

NOW = 1_772_600_767.0
DAY = 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.jsonl"
    path.write_bytes(b"newest\n")
    return path


def old(log: Path, age: float, data: bytes = b"old\n") -> Path:
    path = rotated_path(log, NOW - age)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_a_renamed_file_is_replaced_by_its_compressed_form(log: Path, compression: Compression, suffix: str) -> None:
    path = old(log, 10, b"line\n" * 1000)
    modified = path.stat().st_mtime_ns

    apply_retention(log, Retention(compress=compression), NOW)

    [packed] = rotated_files(log)
    assert packed.name == path.name + suffix
    assert packed.stat().st_size < 1000
    assert packed.stat().st_mtime_ns == modified
    assert list(lines_of(packed)) == [b"line\n"] * 1000
    assert log_files(log) == [packed, log]


def test_a_locked_file_is_left_alone(log: Path) -> None:
    path = old(log, 10)
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        apply_retention(log, Retention(compress="gzip", keep=0), NOW)
        assert rotated_files(log) == [path]
    apply_retention(log, Retention(compress="gzip"), NOW)
    assert rotated_files(log) != [path]


def test_a_file_that_grows_during_its_compression_is_kept(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(log, 10)
    real = os.fsync

    def growing(fd: int) -> None:
        with path.open("ab") as file:
            file.write(b"late\n")
        real(fd)

    monkeypatch.setattr(retention_module.os, "fsync", growing)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        compress(path, "gzip")

    assert path.read_bytes() == b"old\nlate\n"
    assert log_files(log) == [path, log]


def test_an_unfinished_compression_of_an_earlier_process_is_repeated(log: Path) -> None:
    path = old(log, 10)
    unfinished = path.with_name(path.name + ".gz.tmp")
    unfinished.write_bytes(b"half")

    apply_retention(log, Retention(compress="gzip"), NOW)

    assert not unfinished.exists()
    assert not path.exists()
    assert [list(lines_of(file)) for file in rotated_files(log)] == [[b"old\n"]]


def test_files_beyond_keep_are_removed_the_oldest_first(log: Path) -> None:
    files = [old(log, age) for age in (10, 20, 30)]
    apply_retention(log, Retention(keep=2), NOW)
    assert rotated_files(log) == files[:2]


def test_files_beyond_keep_bytes_are_removed_the_oldest_first(log: Path) -> None:
    files = [old(log, age, b"x" * 99 + b"\n") for age in (10, 20, 30)]
    apply_retention(log, Retention(keep_bytes=250), NOW)
    assert rotated_files(log) == files[:2]


def test_files_older_than_keep_days_are_removed(log: Path) -> None:
    files = [old(log, age) for age in (DAY, 3 * DAY)]
    apply_retention(log, Retention(keep_days=2), NOW)
    assert rotated_files(log) == files[:1]


def test_the_live_file_and_files_renamed_by_others_are_never_removed(log: Path) -> None:
    for name in ("app.jsonl.1", "app.jsonl-20260304.gz", "app.jsonl.notes", "app2.jsonl.20260304T050607.500000Z"):
        log.with_name(name).write_bytes(b"theirs\n")
    before = sorted(log.parent.iterdir())

    apply_retention(log, Retention(keep=0, keep_bytes=1, keep_days=0.001, compress="gzip"), NOW)

    assert sorted(log.parent.iterdir()) == before


def test_a_failure_for_one_file_does_not_prevent_compression_of_others(log: Path) -> None:
    good, bad = old(log, 20), old(log, 10)
    bad.unlink()
    bad.mkdir()

    with pytest.raises(OSError, match=r"."):
        apply_retention(log, Retention(compress="gzip"), NOW)

    assert not good.exists()


def test_a_log_without_a_directory_needs_no_retention(tmp_path: Path) -> None:
    apply_retention(tmp_path / "none" / "app.jsonl", Retention(keep=0, compress="gzip"), NOW)
    assert log_files(tmp_path / "none" / "app.jsonl") == []


def test_a_file_in_plain_and_compressed_form_is_read_once(log: Path) -> None:
    path = old(log, 10)
    compress(path, "gzip")
    [packed] = rotated_files(log)
    # The files after a kill between the two steps of a compression.
    path.write_bytes(b"".join(lines_of(packed)))
    assert log_files(log) == [path, log]


def test_a_pipe_with_the_name_of_a_renamed_file_is_refused_and_kept(log: Path) -> None:
    planted = old(log, 10)
    planted.unlink()
    os.mkfifo(planted)
    for retention in (Retention(compress="gzip"), Retention(keep=0)):
        with pytest.raises(OSError, match="it is a named pipe"):
            apply_retention(log, retention, NOW)
    assert planted.exists()
    assert planted not in log_files(log)
