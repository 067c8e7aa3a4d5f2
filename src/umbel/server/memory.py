"""How much memory this process holds, against ``memory_limit``.

Asked by ``service.py`` on every request; it looks at most four times a second. Without a limit it never looks.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

SHORT = 0.85
"""Of the limit: connections are not kept alive any more."""
SPENT = 0.95
"""Of the limit: requests are not taken any more."""
_LOOK_EVERY = 0.25
_STATM = Path("/proc/self/statm")


class Memory:
    """The resident bytes of this process, measured now and then."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._share = 0.0
        self._next_look = 0.0

    def is_short(self) -> bool:
        """Whether memory is to be given back where that is cheap."""
        return self._limit is not None and self._measure(self._limit) >= SHORT

    def is_spent(self) -> bool:
        """Whether there is none left for another request."""
        return self._limit is not None and self._measure(self._limit) >= SPENT

    def _measure(self, limit: int) -> float:
        now = trio.current_time()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._share = resident() / limit
        return self._share


def resident() -> int:
    """The resident bytes of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
