"""The phases of a server's shutdown; ``shutdown.py`` says what happens in each."""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """Phase of a shutdown. A phase is never followed by an earlier one."""

    SERVING = 0
    LEAVING = 1
    """Not ready, but still accepting connections, for ``drain_delay``."""
    DRAINING = 2
    """No new connections; each connection ends with its next response, or idle after ``drain_idle``."""
    CUT = 3
    """The remaining connections are cancelled."""
