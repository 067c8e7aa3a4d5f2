"""A token bucket: how often something may happen at once, and per second in the long run.

For what costs a client nothing to send. It has no clock: the caller gives the time.
"""

from __future__ import annotations


class TokenBucket:
    """A token bucket, full at first."""

    def __init__(self, at_once: float, per_second: float) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._left = at_once
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Take one; False if none is left."""
        if self._at is not None:
            self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def grant(self, amount: int) -> None:
        """Allow so many more, up to the bucket's size: something happened that is usually answered by them."""
        self._left = min(self._at_once, self._left + amount)
