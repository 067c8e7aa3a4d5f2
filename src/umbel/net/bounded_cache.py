"""Bounded cache for results whose keys come from a peer.

``functools.lru_cache`` is for pure functions whose arguments come from the configuration or the program. A key that a
peer chooses may be of any size, so ``BoundedCache`` bounds the number of entries and the size of each key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class BoundedCache(Generic[_Key, _Value]):
    """Cache of at most ``entries_max`` entries, which evicts the oldest entry first (first in, first out).

    Eviction is not by last use, because each hit would then have to write. A peer that sends ever new keys evicts the
    other entries under either rule.

    Read with ``get`` or from ``entries``; both cost as much as with a dict. ``entries`` is the same object for the
    lifetime of the cache, and only ``add`` may write to it. Safe to use from several threads.

    Args:
        entries_max: the maximum number of entries.
        key_size_max: the size of the largest key that is kept; None: keys do not come from a peer and have no bound.
        size_of: the function that gives the size of a key.
    """

    __slots__ = ("_entries_max", "_key_size_max", "_size_of", "dropped", "entries", "get")

    def __init__(self, entries_max: int, key_size_max: int | None = None, size_of: Callable[[Any], int] = len) -> None:
        self._entries_max = entries_max
        self._key_size_max = key_size_max
        self._size_of = size_of
        self.entries: OrderedDict[_Key, _Value] = OrderedDict()
        """The entries, the oldest first."""
        # The dict's own method: a read needs no call of a Python function.
        self.get: Callable[[_Key], _Value | None] = self.entries.get
        """The value of a key, or None."""
        self.dropped = 0
        """Number of evicted entries. A number that grows all the time means that keys hardly repeat."""

    def takes(self, key: _Key) -> bool:
        """Whether ``key`` is small enough to be kept."""
        return self._key_size_max is None or self._size_of(key) <= self._key_size_max

    def add(self, key: _Key, value: _Value) -> None:
        """Keep ``value`` as the newest entry, in place of an entry of the same key. Ignore a key that is too large."""
        if not self.takes(key):
            return
        entries = self.entries
        entries.pop(key, None)
        entries[key] = value
        if len(entries) > self._entries_max:
            entries.popitem(last=False)
            self.dropped += 1
