"""The static files of the console: scripts and styles of the folder ``console``, held in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

PREFIX = "/console/"
"""The beginning of the paths of the files."""
_TYPES = {".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8", ".svg": b"image/svg+xml"}
"""The media types by suffix; files with another suffix are not served."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file."""

    content_type: bytes
    content: bytes
    etag: bytes


@cache
def static_files() -> dict[str, StaticFile]:
    """Read all files, by path (``/console/main.js``). Blocking at the first call.

    Raises:
        OSError: a file cannot be read.
    """
    return dict(_read(files(__package__) / "console", PREFIX))


def _read(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif (content_type := _TYPES.get(entry.name[entry.name.rfind(".") :])) is not None:
            content = entry.read_bytes()
            etag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()
            found.append((f"{prefix}{entry.name}", StaticFile(content_type, content, etag)))
    return found


def is_known(etag: bytes, if_none_match: bytes) -> bool:
    """Whether If-None-Match names the entity tag, or any (RFC 9110 section 13.1.2)."""
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in tags or etag in tags
