"""Bounded table of the keys of one limit, each with its TAT (theoretical arrival time, ``policy/gcra.py``).

Theory
------
*Problem.* Clients choose keys, so the table is bounded, and a full one must evict. A key is *idle* once its TAT has
passed: without it the limit decides the same, so evicting it loses nothing. A live key holds what its client has spent.
So idle keys go first, and no request may search for them.

*Buckets.* The TATs are kept in buckets by time, each ``width`` seconds wide; ``_bucket_of`` has the bucket of each key.
The keys of all buckets that end in the past are idle. A new key evicts up to two idle ones from the earliest bucket, so
that the table shrinks to its live keys. If the table is still full, a key of the earliest bucket goes: it is the one
that would be idle next, within one width. ``_times`` is a heap of the buckets' numbers. A bucket whose keys have
moved on stays until it is the earliest, or until there are many.

*Cost.* Each operation takes constant time, and that of the heap. A key takes two entries of a dict, its text and a
float: some 150 bytes with the text of an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import floor

from ..policy.gcra import NEVER, Key

_IDLE_EVICTED = 2
_SPARE_TIMES = 64


class KeyTable:
    """The TATs of the keys of one limit.

    Args:
        keys_max: the maximum number of keys.
        width: seconds of a bucket.
    """

    __slots__ = ("_bucket_of", "_buckets", "_times", "_times_max", "_width", "evicted", "keys_max")

    def __init__(self, keys_max: int, width: float) -> None:
        self.keys_max = keys_max
        """The maximum number of keys, which may be raised."""
        self._width = width
        self._bucket_of: dict[Key, dict[Key, float]] = {}
        self._buckets: dict[int, dict[Key, float]] = {}
        self._times: list[int] = []
        self._times_max = _SPARE_TIMES
        self.evicted = 0
        """Live keys that were evicted because the table was full."""

    def __len__(self) -> int:
        """The number of keys, idle ones included."""
        return len(self._bucket_of)

    def get(self, key: Key) -> float:
        """The TAT of a key; ``NEVER`` if the table does not have it."""
        bucket = self._bucket_of.get(key)
        return NEVER if bucket is None else bucket[key]

    def live(self, now: float) -> Iterator[Key]:
        """Yield the keys whose TAT has not passed. The table must not change meanwhile."""
        for bucket in self._buckets.values():
            for key, tat in bucket.items():
                if tat > now:
                    yield key

    def set(self, key: Key, tat: float, now: float) -> None:
        """Keep the TAT of a key. A new key evicts others if need be. ``now``: the time, in seconds."""
        place = floor(tat / self._width)
        bucket = self._buckets.get(place)
        before = self._bucket_of.get(key)
        if before is not None:
            if before is bucket:
                bucket[key] = tat
                return
            del before[key]
        else:
            self._make_room(now)
        if bucket is None or not bucket:
            bucket = self._open(place)
        bucket[key] = tat
        self._bucket_of[key] = bucket

    def _open(self, place: int) -> dict[Key, float]:
        bucket = self._buckets.get(place)
        if bucket is None:
            if len(self._times) >= self._times_max:
                self._drop_empty_buckets()
            bucket = self._buckets[place] = {}
            heappush(self._times, place)
        return bucket

    def _drop_empty_buckets(self) -> None:
        """Drop the buckets whose keys have moved on. Their number doubles in between, so each costs little."""
        self._buckets = {place: keys for place, keys in self._buckets.items() if keys}
        self._times = [*self._buckets]
        heapify(self._times)
        self._times_max = 2 * len(self._times) + _SPARE_TIMES

    def _make_room(self, now: float) -> None:
        for _ in range(_IDLE_EVICTED):
            place = self._earliest()
            if place is None or (place + 1) * self._width > now:
                break
            self._evict(place)
        if len(self._bucket_of) >= self.keys_max and (place := self._earliest()) is not None:
            self.evicted += self._evict(place) > now

    def _earliest(self) -> int | None:
        """The number of the earliest bucket that has a key; None: the table is empty."""
        times, buckets = self._times, self._buckets
        while times:
            if buckets.get(times[0]):
                return times[0]
            buckets.pop(heappop(times), None)
        return None

    def _evict(self, place: int) -> float:
        """Evict a key of a bucket. Return its TAT."""
        key, tat = self._buckets[place].popitem()
        del self._bucket_of[key]
        return tat
