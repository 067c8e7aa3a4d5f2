"""The phases of a shutdown, from serving to cut.

Whatever must end with the server waits for them.
"""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """How far a server has got in stopping; it never goes back."""

    SERVING = 0
    LEAVING = 1
    """Not ready any more, but still accepting (``drain_delay``)."""
    DRAINING = 2
    """Accepts nothing; each connection ends with its next response; ``GOAWAY``."""
    CUT = 3
    """What is left is cancelled."""
