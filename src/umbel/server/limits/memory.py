"""The resident memory of this process, compared with ``memory_limit``.

Where there is a limit, every request asks for it; it is measured at most four times a second.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import trio

NO_KEEP_ALIVE_SHARE = 0.85
"""Of the limit: connections are not kept alive any more."""
REFUSE_SHARE = 0.95
"""Of the limit: requests are not taken any more."""
_LOOK_EVERY = 0.25
_STATM = Path("/proc/self/statm")


class MemoryLimit:
    """The resident memory of this process as a share of a limit, measured four times a second at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = 0.0
        self._next_look = -math.inf

    def share(self) -> float:
        """How much of the limit is in use, 1 for all of it."""
        now = trio.current_time()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._share = resident() / self._limit
        return self._share


def resident() -> int:
    """The resident bytes of this process; 0 where the system does not report them."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
