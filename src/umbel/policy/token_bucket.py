"""Token bucket: a limit of how often an event may happen at once, and per second in the long run.

The bucket has no clock: the caller gives the time.
"""

from __future__ import annotations


class TokenBucket:
    """A bucket of ``at_once`` tokens, full at first, that gains ``per_second`` tokens a second up to that size."""

    def __init__(self, at_once: float, per_second: float) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._left = at_once
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Take one token at the time ``now``, in seconds. Return whether there was one."""
        if self._at is not None:
            self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def grant(self, amount: int) -> None:
        """Add ``amount`` tokens, up to the size of the bucket."""
        self._left = min(self._at_once, self._left + amount)
