"""Retention of renamed log files: compression, and removal of the oldest. Blocking.

Only files with a name of ``rotation.rotated_path`` are touched. A locked file is left alone: each process locks a file
while it writes, so a locked file may still grow.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ...core.http.compressors import library
from ...core.regular_file import open_regular
from ..options import Compression
from .rotation import rotated_at

SUFFIXES: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst"}

_PIECE = 1024 * 1024
_LEVEL_GZIP = 6
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules for the files that rotation has renamed.

    How many are kept, how many bytes together, for how many days from the renaming, and how they are compressed. A
    bound of None does not apply.
    """

    keep: int | None = None
    keep_bytes: int | None = None
    keep_days: float | None = None
    compress: Compression = "none"


def apply_retention(log: Path, retention: Retention, now: float) -> None:
    """Compress the renamed files of ``log`` and remove those beyond the bounds; ``now`` is seconds since 1970.

    Raises:
        OSError: a file could not be compressed or removed. All files are tried first; then the last failure is raised.
    """
    failure: OSError | None = None
    if retention.compress != "none":
        for path in rotated_files(log):
            if path.suffix not in SUFFIXES.values():
                try:
                    compress(path, retention.compress)
                except OSError as error:
                    failure = error
    for path in _surplus(log, retention, now):
        try:
            with _locked_file(path) as fd:
                if fd is not None:
                    path.unlink()
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def rotated_files(log: Path) -> list[Path]:
    """Return the files that rotation has renamed, the newest first."""
    with suppress(FileNotFoundError):
        found = [path for path in log.parent.iterdir() if rotated_at(path, log) is not None]
        return sorted(found, reverse=True)
    return []


def compress(path: Path, compression: Compression) -> None:
    """Replace a file by its compressed form. A locked file is left alone.

    The compressed form is written to a temporary file, synced and renamed before the original is removed. So a crash
    at any point leaves at least one whole form.

    Raises:
        OSError: the compressed form cannot be written, or the file has grown meanwhile. The file is kept.
    """
    target = path.with_name(path.name + SUFFIXES[compression])
    unfinished = target.with_name(target.name + ".tmp")
    with _locked_file(path) as fd:
        if fd is None:
            return
        try:
            out = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(out, "wb") as raw, os.fdopen(fd, "rb", closefd=False) as source:
                with closing(_compressor(raw, compression)) as packed:
                    shutil.copyfileobj(source, packed, _PIECE)
                raw.flush()
                os.fsync(out)
                status = os.fstat(fd)
                if status.st_size != source.tell():
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            os.utime(unfinished, ns=(status.st_atime_ns, status.st_mtime_ns))
            unfinished.rename(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
        path.unlink()


def _compressor(raw: IO[bytes], compression: Compression) -> IO[bytes]:
    if compression == "gzip":
        return cast("IO[bytes]", gzip.GzipFile("", "wb", _LEVEL_GZIP, raw))
    return cast("IO[bytes]", library("zstd").ZstdFile(raw, "wb"))


@contextmanager
def _locked_file(path: Path) -> Iterator[int | None]:
    """Open and lock a file; gives None if the file is gone or another process has locked it."""
    try:
        fd = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield fd if os.fstat(fd).st_nlink else None
    finally:
        os.close(fd)


def _surplus(log: Path, retention: Retention, now: float) -> Iterator[Path]:
    """Yield the renamed files that are beyond one of the bounds."""
    size = 0
    for number, path in enumerate(rotated_files(log)):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
        at = rotated_at(path, log) or 0.0
        if (
            (retention.keep is not None and number >= retention.keep)
            or (retention.keep_bytes is not None and size > retention.keep_bytes)
            or (retention.keep_days is not None and now - at > retention.keep_days * _DAY_S)
        ):
            yield path


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
