"""Recent maximum: the greatest of the values that were added within the last seconds."""

from __future__ import annotations


class RecentMaximum:
    """The greatest value of the last ``period`` seconds.

    One thread may add while others read: ``_values`` is replaced as a whole. It holds no value that a later one
    exceeds, so that it is short, and its first one that counts is the greatest.

    Args:
        period: for how many seconds a value counts.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._values: tuple[tuple[float, float], ...] = ()
        """Times and values; the times rise and the values fall."""

    def add(self, value: float, now: float) -> None:
        """Add a value at the time ``now``, in seconds of any clock that does not go back."""
        begin = now - self._period
        self._values = (*(each for each in self._values if each[0] >= begin and each[1] > value), (now, value))

    def at(self, now: float) -> float:
        """The greatest value at the time ``now``; 0 without one."""
        begin = now - self._period
        return next((value for time, value in self._values if time >= begin), 0.0)
