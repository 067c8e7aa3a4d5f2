"""``each``: one call per distinct value of a list, the results at the places of the list.

Flown by ``run.py`` as one call with one outcome. Its items run in a nursery of their own, at most ``limit`` at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from ..kinds import Kind
from ..model import Attempt, FailedItem, Failure, Json
from .call import CallFailedError, CallRules, Landed
from .expression import key_text
from .fault import bad_request
from .merge import strictest_cache_control


class Item(NamedTuple):
    """A distinct value, and every place of the list that it stands at."""

    value: Json
    places: tuple[int, ...]


class ItemEnded(NamedTuple):
    """What became of an item, for whoever streams outcomes as they land."""

    item: Item
    value: Json
    failure: Failure | None


Fetch = Callable[[Item, list[Attempt]], Awaitable[Landed]]
"""Makes the call of one item. Raises CallFailedError."""


def distinct(values: Sequence[Json]) -> tuple[Item, ...]:
    """The distinct values of a list by their JSON encoding, each with its places. Null stands for no item."""
    places: dict[str, list[int]] = {}
    first: dict[str, Json] = {}
    for place, value in enumerate(values):
        if value is not None:
            # Quoted, because the text "1" and the number 1 are two values.
            key = f'"{value}"' if isinstance(value, str) else key_text(value)
            places.setdefault(key, []).append(place)
            first.setdefault(key, value)
    return tuple(Item(first[key], tuple(where)) for key, where in places.items())


def item_list(value: Json, max_items: int, client: Callable[[], str]) -> list[Json]:
    """The list that an ``each`` runs over: null means an empty one.

    ``client`` gives the client's parameters that the value is made of, in words; empty if it is not the client's.

    Raises:
        CallFailedError: it is no list (kind bad-request), or too long (kind too-many).
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise CallFailedError(bad_request("each did not give a list", client(), "must be a list"))
    if len(value) > max_items:
        detail, reason = f"{len(value)} items are more than max_items = {max_items}", f"has {len(value)} items"
        reason += f"; at most {max_items} are taken"
        raise CallFailedError(bad_request(detail, client(), reason, kind=Kind.TOO_MANY))
    return value


@dataclass(slots=True)
class EachWork:
    """The work of one ``each``: see ``group.Work``."""

    rules: CallRules
    values: list[Json]
    fetch: Fetch
    limit: int
    item_default: Json
    as_map: bool
    ended: Callable[[ItemEnded], None]
    attempts: list[Attempt] = field(default_factory=list)
    _items: tuple[Item, ...] = ()
    _landed: dict[int, Landed] = field(default_factory=dict)
    """By the item's number."""
    _failed: dict[int, Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the distinct items."""
        self._items = distinct(self.values)

    @property
    def items(self) -> int:
        """How many distinct items there are."""
        return len(self._items)

    async def do(self) -> Landed:
        """Run the items and put their results at their places.

        Raises:
            CallFailedError: a required item failed (the rest is cancelled), or all failed.
        """
        queue = iter(range(len(self._items)))
        async with trio.open_nursery() as nursery:
            for worker in range(min(self.limit, len(self._items))):
                nursery.start_soon(self._drain, queue, nursery.cancel_scope, name=f"{self.rules.name} items {worker}")
        result = self._result()
        if isinstance(result, Failure):
            raise CallFailedError(result)
        return result

    def cut(self, failure: Failure) -> Landed | Failure:
        """At the deadline an optional each is worth what it has; in every other case it is cut as a whole."""
        if failure.kind is not Kind.TIMEOUT or not self.rules.optional:
            return failure
        for number in range(len(self._items)):
            if number not in self._landed and number not in self._failed:
                self._failed[number] = failure
        return self._result()

    async def _drain(self, queue: Iterator[int], scope: trio.CancelScope) -> None:
        for number in queue:
            item = self._items[number]
            try:
                landed = await self.fetch(item, self.attempts)
            except CallFailedError as error:
                self._failed[number] = error.failure
                if not self.rules.optional:
                    scope.cancel(reason="a required item failed")
                    return
                self.ended(ItemEnded(item, self.item_default, error.failure))
            else:
                self._landed[number] = landed
                self.ended(ItemEnded(item, landed.value, None))

    def _result(self) -> Landed | Failure:
        if self._failed and (len(self._failed) == len(self._items) or not self.rules.optional):
            return self._failed[min(self._failed)]
        failed = tuple(
            FailedItem(item.places, self._failed[number])
            for number, item in enumerate(self._items)
            if number in self._failed
        )
        results = {
            number: self._landed[number].value if number in self._landed else self.item_default
            for number in range(len(self._items))
        }
        caching = strictest_cache_control([landed.headers for landed in self._landed.values()])
        headers = (("cache-control", caching),) if caching else ()
        return Landed(self._merged(results), headers, failed)

    def _merged(self, results: Mapping[int, Json]) -> Json:
        if self.as_map:
            return {key_text(item.value): results[number] for number, item in enumerate(self._items)}
        merged: list[Json] = [None] * len(self.values)
        for number, item in enumerate(self._items):
            for place in item.places:
                merged[place] = results[number]
        return merged
