"""Reading a log: its files in the order of time, and their lines, compressed or not. Blocking."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from ...core.http.compressors import how_to_install, library
from ...core.regular_file import open_regular
from .rotation import rotated_at

LINE_BYTES_MAX = 1024 * 1024
"""The size of the pieces in which a longer line is read; no record is that long."""


def log_files(log: Path) -> list[Path]:
    """Return the existing files of a log, the oldest first and the live one last; ``log`` is the path of the live one.

    A file belongs to the log if its name begins with the log's name and ``.`` or ``-``, whoever renamed it.
    """
    found: list[tuple[float, str, Path]] = []
    with suppress(FileNotFoundError):
        for path in log.parent.iterdir():
            rest = path.name.removeprefix(log.name)
            if rest == path.name or not rest.startswith((".", "-")) or path.suffix == ".tmp":
                continue
            with suppress(FileNotFoundError):
                if path.is_file():
                    found.append((rotated_at(path, log) or path.stat().st_mtime, path.name, path))
    names = {name for _, name, _ in found}
    # A process that was killed within a compression may leave both forms: the compressed one is left out.
    files = [path for _, name, path in sorted(found) if name.rpartition(".")[0] not in names]
    return [*files, log] if log.exists() else files


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their line ends; the last line may have none.

    The first bytes of the file tell whether it is gzip, Zstandard or plain. A line of more than ``LINE_BYTES_MAX``
    comes in pieces.

    Raises:
        OSError: the file cannot be read, is not a regular file, is compressed and damaged or truncated, or needs the
            library of zstd, which is missing.
    """
    with os.fdopen(open_regular(path), "rb") as raw:
        yield from lines_in_file(raw)


def lines_in_file(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of an open file from its beginning, as ``lines_of`` does. It may close the file at the end."""
    unpacked, damages = _unpacked(raw)
    with unpacked as file:
        while line := _next_line(file, damages):
            yield line


def _next_line(file: IO[bytes], damages: tuple[type[Exception], ...]) -> bytes:
    """Return the next line; an error of ``damages`` becomes an ``OSError``."""
    try:
        return file.readline(LINE_BYTES_MAX)
    except damages as error:
        raise OSError(f"the compressed file is damaged: {error}") from error


def _unpacked(raw: IO[bytes]) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """Return the file that has the lines, and the types of the errors by which its reading reports damage."""
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)), (EOFError, gzip.BadGzipFile, zlib.error)
    if magic == b"\x28\xb5\x2f\xfd":
        try:
            zstd = library("zstd")
        except ImportError as error:
            raise OSError(f"the file is compressed with zstd; to read it: {how_to_install('zstd')}") from error
        return cast("IO[bytes]", zstd.ZstdFile(raw)), (EOFError, zstd.ZstdError)
    return raw, ()
