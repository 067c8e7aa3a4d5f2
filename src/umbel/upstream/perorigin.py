"""What a layer that stands alone keeps of each origin, up to a bound.

Used by the layers whose state outlives their calls. In a stack every request has one origin above the balance layer, so
the one state there is the upstream's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import httpx

ORIGINS_MAX = 1000
"""Origins that something is kept of; with one more, what was not asked for the longest is forgotten."""


OriginKey = tuple[str, str, int | None]
"""What tells origins apart (RFC 6454): scheme, host and port. A plain tuple, for it is made for every call."""


def key_of(url: httpx.URL) -> OriginKey:
    """The key of a request's URL."""
    return url.scheme, url.host, url.port


def name_of(key: OriginKey) -> str:
    """The origin as people write it."""
    scheme, host, port = key
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


T = TypeVar("T")
Snapshot = TypeVar("Snapshot")


class PerOrigin(Generic[T]):
    """One ``T`` for each origin, made by ``make`` of its key when it is first asked for."""

    __slots__ = ("_all", "_make")

    def __init__(self, make: Callable[[OriginKey], T]) -> None:
        self._make = make
        self._all: OrderedDict[OriginKey, T] = OrderedDict()

    def of(self, key: OriginKey) -> T:
        """The origin's own."""
        found = self._all.get(key)
        if found is not None:
            self._all.move_to_end(key)
            return found
        if len(self._all) >= ORIGINS_MAX:
            self._all.popitem(last=False)
        made = self._all[key] = self._make(key)
        return made

    def snapshot(self, view: Callable[[T], Snapshot]) -> Mapping[str, Snapshot]:
        """A view of each, by its origin's name."""
        return MappingProxyType({name_of(key): view(each) for key, each in self._all.items()})
