"""Fan-out (``each``): one call per distinct value of a list. Each result stands at all indices of its value.

A ``FanOut`` is the state of one ``each`` in a composition: the items that have not begun, the results of those that
have ended, and the combined result. The engine makes the calls; at most ``limit`` of them are under way at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..core.failure_kinds import Kind
from ..core.model import Attempt, FailedItem, Failure, Json
from .answer.cache_control import strictest_cache_control
from .call_result import CallFailedError, CallResult, CallRules
from .text.fault import bad_request
from .text.functions import key_text

if TYPE_CHECKING:
    from ..core.call import PreparedRequest


class Item(NamedTuple):
    """A distinct value of the list, and all of its indices in the list."""

    value: Json
    places: tuple[int, ...]


class ItemOutcome(NamedTuple):
    """The outcome of an item of an ``each``."""

    item: Item
    value: Json
    """The value of the item's call; the ``item_default`` if the call failed."""
    failure: Failure | None
    """Why the item's call failed; None: the call succeeded."""


def distinct(values: Sequence[Json]) -> tuple[Item, ...]:
    """The distinct values of a list, with their indices, in the order of their first index. Null is no item.

    Values are compared by their JSON encoding: 1 and 1.0 are two items, and so are 1 and "1".
    """
    places: dict[str, list[int]] = {}
    first: dict[str, Json] = {}
    for place, value in enumerate(values):
        if value is not None:
            # In quotes, because the text "1" and the number 1 are two values.
            key = f'"{value}"' if isinstance(value, str) else key_text(value)
            places.setdefault(key, []).append(place)
            first.setdefault(key, value)
    return tuple(Item(first[key], tuple(where)) for key, where in places.items())


def item_list(value: Json, max_items: int, client_parameter: Callable[[], str]) -> list[Json]:
    """The list of an ``each``, from the value of its expression; null is an empty list.

    Args:
        client_parameter: returns words for the parameters of the client's request that the value is made of; empty: the
            value has another source. Called only for a bad value.

    Raises:
        CallFailedError: the value is no list (kind bad-request), or has more than ``max_items`` items (kind too-many).
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise CallFailedError(bad_request("the value of each is not a list", client_parameter(), "must be a list"))
    if len(value) > max_items:
        detail, reason = f"{len(value)} items are more than max_items = {max_items}", f"has {len(value)} items"
        reason += f"; at most {max_items} are allowed"
        raise CallFailedError(bad_request(detail, client_parameter(), reason, kind=Kind.TOO_MANY))
    return value


class FanOut:
    """State of one ``each``: which items may start, which have ended, and their combined result.

    States of an item: to be started, under way (from ``next_item``), ended (from ``item_ended``). The fan-out is over
    when all items have ended; a required one is also over when an item has failed. Then ``result`` may be called.

    Args:
        values: the list, with its nulls and repeated values.
        limit: the most items under way at once.
        item_default: the value at the indices of a failed item.
        as_map: whether the combined value is an object with the items as keys, instead of a list.
        started_at: when the ``each`` began, in ``trio.current_time()``.
    """

    __slots__ = ("_as_map", "_failed", "_item_default", "_limit", "_next", "_results", "_values", "attempts", "items",
                 "on_item_ended", "prepare", "rules", "started_at", "under_way")  # fmt: skip

    def __init__(
        self,
        rules: CallRules,
        values: list[Json],
        *,
        prepare: Callable[[Json], PreparedRequest],
        limit: int,
        item_default: Json,
        as_map: bool,
        started_at: float,
        on_item_ended: Callable[[ItemOutcome], None],
    ) -> None:
        self.rules = rules
        self._values = values
        self.prepare = prepare
        """Makes the request of the item with the given value. Raises CallFailedError."""
        self._limit = limit
        self._item_default = item_default
        self._as_map = as_map
        self.started_at = started_at
        self.on_item_ended = on_item_ended
        """Receives the outcome of each item, except a failure that ends a required ``each``."""
        self.items = distinct(values)
        self.attempts: list[Attempt] = []
        """The attempts of all items."""
        self.under_way = 0
        """The number of items under way."""
        self._next = 0
        self._results: dict[int, CallResult] = {}
        """Results by item number."""
        self._failed: dict[int, Failure] = {}

    def next_item(self) -> int | None:
        """Take the next item to be started, and return its number; None: no item may start now.

        The item counts as under way from then on.
        """
        if self._next >= len(self.items) or self.under_way >= self._limit or self.over:
            return None
        self._next += 1
        self.under_way += 1
        return self._next - 1

    @property
    def has_next(self) -> bool:
        """Whether any item has not been started."""
        return self._next < len(self.items)

    @property
    def over(self) -> bool:
        """Whether the fan-out has its result."""
        if self._failed and not self.rules.optional:
            return True
        return len(self._results) + len(self._failed) == len(self.items)

    def item_ended(self, number: int, result: CallResult | Failure) -> None:
        """Store the result of the item ``number``, which was under way."""
        self.under_way -= 1
        item = self.items[number]
        if not isinstance(result, Failure):
            self._results[number] = result
            self.on_item_ended(ItemOutcome(item, result.value, None))
            return
        self._failed[number] = result
        if self.rules.optional:
            self.on_item_ended(ItemOutcome(item, self._item_default, result))

    def cut(self, failure: Failure) -> CallResult | Failure:
        """The result of a fan-out that is cut with ``failure``.

        At the deadline (kind timeout) an optional ``each`` keeps the results of its items, and the items without a
        result fail with ``failure``. In all other cases the ``each`` fails with ``failure``.
        """
        if failure.kind is not Kind.TIMEOUT or not self.rules.optional:
            return failure
        for number in range(len(self.items)):
            if number not in self._results and number not in self._failed:
                self._failed[number] = failure
        return self.result()

    def result(self) -> CallResult | Failure:
        """The combined result of a fan-out that is over: the values at their indices, or the first failure.

        An ``each`` fails if all items failed, or if it is required and one item failed.
        """
        if self._failed and (len(self._failed) == len(self.items) or not self.rules.optional):
            return self._failed[min(self._failed)]
        failed = tuple(
            FailedItem(item.places, self._failed[number])
            for number, item in enumerate(self.items)
            if number in self._failed
        )
        values = {
            number: self._results[number].value if number in self._results else self._item_default
            for number in range(len(self.items))
        }
        caching = strictest_cache_control([result.headers for result in self._results.values()])
        headers = (("cache-control", caching),) if caching else ()
        return CallResult(self._merged(values), headers, failed)

    def _merged(self, values: Mapping[int, Json]) -> Json:
        if self._as_map:
            return {key_text(item.value): values[number] for number, item in enumerate(self.items)}
        merged: list[Json] = [None] * len(self._values)
        for number, item in enumerate(self.items):
            for place in item.places:
                merged[place] = values[number]
        return merged
