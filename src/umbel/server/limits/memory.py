"""Memory limit: the resident memory of this process, compared with ``memory_limit``."""

from __future__ import annotations

import math
import os
from pathlib import Path

import trio

NO_KEEP_ALIVE_SHARE = 0.85
"""Share of the limit from which on connections are not kept alive."""
REFUSE_SHARE = 0.95
"""Share of the limit from which on requests are refused."""
_LOOK_EVERY = 0.25
"""Least seconds between two measurements."""
_STATM = Path("/proc/self/statm")


class MemoryLimit:
    """The resident memory of this process as a share of ``limit`` bytes, measured at most four times a second."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = 0.0
        self._next_look = -math.inf

    def share(self) -> float:
        """The share of the limit that is in use; 1 is the limit."""
        now = trio.current_time()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._share = resident() / self._limit
        return self._share


def resident() -> int:
    """The resident bytes of this process; 0 if the system does not report them."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
