"""What a process is called in ``ps`` and ``top``: the words of its command line, and its short name.

Used by master and worker at their start. Linux only; elsewhere nothing happens. It must never be the reason why
something does not start.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")
_ARG_START, _ARG_END = 47, 48
"""Fields of /proc/self/stat, counted from 0; see proc_pid_stat(5)."""
_NAME_BYTES_MAX = 15


def set_title(title: str) -> None:
    """Write ``title`` over the command line, as far as that is long, and its beginning into the short name.

    The kernel shows the memory in which it once put the arguments; Python has copied them long before.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, ValueError, IndexError):
        (_PROC / "comm").write_bytes(title.encode()[:_NAME_BYTES_MAX])
        start, end = _arguments()
        memory = (ctypes.c_char * (end - start)).from_address(start)
        if memory.raw != (_PROC / "cmdline").read_bytes():
            return  # Somebody has moved it: not ours to write to.
        text = title.encode()[: end - start - 1]
        memory.raw = text.ljust(end - start, b"\0")


def _arguments() -> tuple[int, int]:
    """Where the arguments stand in memory."""
    # The second field is a name in parentheses that may hold anything, spaces and parentheses too.
    _, _, rest = (_PROC / "stat").read_text().rpartition(")")
    fields = ["", "", *rest.split()]
    return int(fields[_ARG_START]), int(fields[_ARG_END])
