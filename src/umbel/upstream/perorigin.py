"""What a layer that stands alone keeps of each origin, up to a bound.

Used by the layers whose state outlives their calls. In a stack every request has one origin above the balance layer, so
the one state there is the upstream's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import httpx

ORIGINS_MAX = 1000
"""Origins that something is kept of; with one more, what was not asked for the longest is forgotten."""


class OriginKey(NamedTuple):
    """What tells origins apart (RFC 6454), as a request's URL has it."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: httpx.URL) -> OriginKey:
        """The key of a request's URL."""
        return cls(url.scheme, url.host, url.port)

    def __str__(self) -> str:
        """The origin as people write it."""
        return f"{self.scheme}://{self.host}" if self.port is None else f"{self.scheme}://{self.host}:{self.port}"


T = TypeVar("T")
Snapshot = TypeVar("Snapshot")


class PerOrigin(Generic[T]):
    """One ``T`` for each origin, made by ``make`` when it is first asked for."""

    __slots__ = ("_all", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
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
        made = self._all[key] = self._make()
        return made

    def snapshot(self, view: Callable[[T], Snapshot]) -> Mapping[str, Snapshot]:
        """A view of each, by its origin's name."""
        return MappingProxyType({str(key): view(each) for key, each in self._all.items()})
