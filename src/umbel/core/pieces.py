"""Size of the pieces in which a body is passed on while it is received.

The kernel's cost of a byte falls with the size of a read and of a send; the memory that a slow receiver holds grows
with it. So a direction begins with ``PIECE``. It reads up to ``PIECE_MAX`` only while large pieces come and the
receiver's socket takes each of them at once.
"""

from __future__ import annotations

PIECE = 64 * 1024
"""Most bytes of a piece for a receiver that may be slow."""
PIECE_MAX = 192 * 1024
"""Most bytes of a piece for a receiver that took the last piece at once."""
_LARGE = PIECE // 2
"""Least bytes of a piece after which a larger one may follow: a large buffer for a small read only costs time."""


def next_piece(size: int, *, at_once: bool) -> int:
    """The most bytes of the next read, after a piece of ``size`` bytes; ``at_once``: it was sent without a wait."""
    return PIECE_MAX if at_once and size >= _LARGE else PIECE
