"""Reading of a log's files: which files belong to a log, in which order, and their lines, compressed or not."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from ...core.regular_file import open_regular
from .rotation import rotated_at

LINE_BYTES_MAX = 1024 * 1024
"""A longer line is no record; it is read in pieces of this size."""


def log_files(log: Path) -> list[Path]:
    """Return the log's files, the oldest first, with those that another program renamed; the log itself is the last."""
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
    # A process that ended between the two steps of a compression leaves both forms; one is enough.
    files = [path for _, name, path in sorted(found) if name.rpartition(".")[0] not in names]
    return [*files, log] if log.exists() else files


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; gzip and Zstandard are recognised by their first bytes.

    Raises:
        OSError: it cannot be read, or is no regular file.
        EOFError: a compressed file ends in the middle.
    """
    with os.fdopen(open_regular(path), "rb") as raw:
        yield from lines_in_file(raw)


def lines_in_file(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of an open file from its beginning on, as ``lines_of``; the file may be closed at the end."""
    with _unpacked(raw) as file:
        while line := file.readline(LINE_BYTES_MAX):
            yield line


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if magic == b"\x28\xb5\x2f\xfd":
        try:
            import zstandard
        except ImportError as error:
            raise OSError("this file is compressed with zstd, which needs: pip install 'umbel[zstd]'") from error
        return cast(
            "IO[bytes]", io.BufferedReader(cast("io.RawIOBase", zstandard.ZstdDecompressor().stream_reader(raw)))
        )
    return raw
