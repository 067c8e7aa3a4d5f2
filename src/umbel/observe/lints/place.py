"""Places in code, in words, and whose code it is."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import PurePath
from types import CodeType

_LIBRARIES = tuple(
    {path for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))}
)


def place_of(code: CodeType, line: int) -> str:
    """Folder, file, line and function, such as ``shop/app.py:17 in parse``."""
    file = "/".join(PurePath(code.co_filename).parts[-2:])
    return f"{file}:{line} in {code.co_qualname}"


@lru_cache(maxsize=10_000)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package, or is no file (``<frozen importlib>``)."""
    return file.startswith("<") or file.startswith(_LIBRARIES)
