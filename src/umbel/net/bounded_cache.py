"""Bounded cache for results whose keys come from outside.

``functools.lru_cache`` serves a pure function whose arguments the configuration or the program gives. Whatever comes
from outside is kept in a ``BoundedCache``: it bounds the size of its keys too, because a peer chooses those.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class BoundedCache(Generic[_Key, _Value]):
    """Cache of at most ``entries_max`` entries; an entry more evicts the oldest one (first in, first out).

    Oldest out, and not all out at once: what is kept may be an observation (a TLS session, an idle time), and no more
    of those is forgotten than must be. Not the least recently used one: a hit would have to write, and a peer that
    sends new keys pushes out what others use in either case. What is lost by that is one computation per entry.

    Reading is as fast as a dict's: by ``get``, or on ``entries``, which stays the same object for as long as the cache
    lives. Only ``add`` may add to it. Safe to use from several threads.

    Args:
        entries_max: how many entries there may be.
        key_size_max: the size of the largest key that is kept; None where keys do not come from outside.
        size_of: the size of a key.
    """

    __slots__ = ("_entries_max", "_key_size_max", "_size_of", "dropped", "entries", "get")

    def __init__(self, entries_max: int, key_size_max: int | None = None, size_of: Callable[[Any], int] = len) -> None:
        self._entries_max = entries_max
        self._key_size_max = key_size_max
        self._size_of = size_of
        self.entries: OrderedDict[_Key, _Value] = OrderedDict()
        """What is kept, the oldest first."""
        # The dict's own method, bound once: no function of ours stands between.
        self.get: Callable[[_Key], _Value | None] = self.entries.get
        """The value of a key, or None."""
        self.dropped = 0
        """Entries that were evicted. If it grows all the time, the same keys hardly come twice."""

    def takes(self, key: _Key) -> bool:
        """Whether ``key`` is small enough, for a caller that has more to check before ``add``."""
        return self._key_size_max is None or self._size_of(key) <= self._key_size_max

    def add(self, key: _Key, value: _Value) -> None:
        """Keep ``value`` as the newest entry, in the place of an entry of the same key; not if the key is too large."""
        if not self.takes(key):
            return
        entries = self.entries
        entries.pop(key, None)
        entries[key] = value
        if len(entries) > self._entries_max:
            entries.popitem(last=False)
            self.dropped += 1
