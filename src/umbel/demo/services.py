"""The four sample services as pure functions of path and query, which return a status and a JSON value.

The data is made up; equal requests get equal data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote

from ..core.model import Json

Answer = tuple[int, Json]

_NAMES = ("Grace", "Barbara", "Ada", "Edsger", "Dennis", "Katherine", "Niklaus", "Radia")
_SEGMENTS = ("garden", "kitchen", "library")
_GOODS = {
    "dill-seed": ("Dill seed, 5 g", 2.4),
    "fennel-tea": ("Fennel tea, 20 bags", 3.9),
    "caraway-bread": ("Caraway bread", 4.5),
    "carrot-bunch": ("A bunch of carrots", 2.1),
    "parsley-pot": ("Parsley in a pot", 3.2),
    "herbarium": ("Herbarium, 40 sheets", 28.0),
}
_OFFERS = {
    "garden": ["Sow now: dill at half price", "A trowel with every herbarium"],
    "kitchen": ["Three breads for two"],
    "library": ["Free pressing paper this week"],
}
_UNKNOWN: Answer = (404, {"error": "there is nothing of that name"})
_ORDERS_MAX = 100


class Faults(NamedTuple):
    """How often a sample service is slow or fails while ``umbel demo --traffic`` runs."""

    slow: float
    """The share of slow responses, from 0 to 1."""
    slow_s: float
    """The seconds that a slow response takes longer."""
    failing: float
    """The share of responses with status 503, from 0 to 1."""


NO_FAULTS = Faults(slow=0.0, slow_s=0.0, failing=0.0)


class SampleService(NamedTuple):
    """One sample service."""

    ports: tuple[int, ...]
    """The ports of its replicas in the sample configuration."""
    median_ms: float
    """The median of the latencies in milliseconds, whose distribution is lognormal."""
    answer: Callable[[str, Mapping[str, str]], Answer]
    """Computes status and JSON value from the path and the query."""
    faults: Faults
    """Its faults during traffic; without traffic it has none."""


def _users(path: str, query: Mapping[str, str]) -> Answer:
    number = _number(_after("/users/", path))
    if number is None:
        return _UNKNOWN
    return 200, {
        "id": number,
        "name": _NAMES[number % len(_NAMES)],
        "segment": _SEGMENTS[number % len(_SEGMENTS)],
    }


def _orders(path: str, query: Mapping[str, str]) -> Answer:
    user, limit = _number(query.get("user_id")), _number(query.get("limit", "20"))
    if path != "/orders":
        return _UNKNOWN
    if user is None or limit is None:
        return 400, {"error": "user_id and limit must be whole numbers"}
    chance = random.Random(user)
    orders = [
        {"id": user * 1000 + place, "sku": chance.choice(tuple(_GOODS)), "qty": chance.randint(1, 3)}
        for place in range(1, chance.randint(2, 5) + 1)
    ]
    return 200, orders[: min(limit, _ORDERS_MAX)]


def _catalog(path: str, query: Mapping[str, str]) -> Answer:
    sku = _after("/items/", path)
    if sku not in _GOODS:
        return _UNKNOWN
    title, price = _GOODS[sku]
    return 200, {"sku": sku, "title": title, "price": price}


def _offers(path: str, query: Mapping[str, str]) -> Answer:
    segment = _after("/for/", path)
    return (200, _OFFERS[segment]) if segment in _OFFERS else _UNKNOWN


SKUS = tuple(_GOODS)
"""The names of all items."""

SERVICES: Mapping[str, SampleService] = MappingProxyType(
    {
        # A failed profile is tried again: the upstream has a retry.
        "users": SampleService((9001,), 8.0, _users, Faults(slow=0.0, slow_s=0.0, failing=0.03)),
        # Slow orders last beyond the deadline of the route.
        "orders": SampleService((9002,), 25.0, _orders, Faults(slow=0.01, slow_s=1.0, failing=0.01)),
        # A slow item is hedged. A failed one makes a page partial, and /items/<sku> an error.
        "catalog": SampleService((9003, 9004), 12.0, _catalog, Faults(slow=0.03, slow_s=0.2, failing=0.01)),
        # Slow offers last beyond the timeout of their call.
        "offers": SampleService((9005,), 18.0, _offers, Faults(slow=0.05, slow_s=0.5, failing=0.0)),
    }
)
"""The services by the names of their upstreams in the sample configuration."""


def _after(prefix: str, path: str) -> str:
    return unquote(path.removeprefix(prefix)) if path.startswith(prefix) else ""


def _number(text: str | None) -> int | None:
    """Parse a whole number of at most nine digits; None for any other text."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 9 else None
