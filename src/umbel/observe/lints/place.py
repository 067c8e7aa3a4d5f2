"""Places in code, in words, and whose code it is."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import PurePath
from types import CodeType, FrameType

from ..tree.waits import is_machinery

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


def place_of_stack(frame: FrameType) -> str:
    """The innermost place outside of libraries in a stack that runs now; without one, the innermost outside of trio.

    Args:
        frame: the innermost frame. If trio runs it, the frames below trio's event loop do not count.
    """
    inner = ""
    at: FrameType | None = frame
    while at is not None and not _is_loop(at.f_code):
        if not is_machinery(str(at.f_globals.get("__name__", ""))):
            if not is_library(at.f_code.co_filename):
                return place_of(at.f_code, at.f_lineno)
            inner = inner or place_of(at.f_code, at.f_lineno)
        at = at.f_back
    return inner or place_of(frame.f_code, frame.f_lineno)


def _is_loop(code: CodeType) -> bool:
    return code.co_name == "unrolled_run" and PurePath(code.co_filename).parts[-2:] == ("_core", "_run.py")
