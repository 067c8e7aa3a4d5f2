"""Clients of the demo's gateway, for ``umbel demo --traffic``: random requests, some of which go wrong."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import httpx
import trio

from .services import SKUS

REQUESTS_PER_S = 20.0
"""The average rate. The times between two requests are random (a Poisson process)."""
IN_FLIGHT_MAX = 50
"""Bound on the requests that have no response yet; while there are as many, none is sent."""

_USERS = 500
_LEAVES_AFTER_S = (0.002, 0.04)


class Visit(NamedTuple):
    """One request of the traffic."""

    path: str
    accept: str = "application/json"
    leaves_after: float = math.inf
    """The seconds after which the client closes its connection, unless the response is there."""


def _dashboard(chance: random.Random) -> str:
    return f"/dashboard/{chance.randint(1, _USERS)}"


# Each kind of request, with its weight.
_KINDS: Mapping[Callable[[random.Random], Visit], int] = MappingProxyType(
    {
        lambda chance: Visit(_dashboard(chance)): 50,
        lambda chance: Visit(f"{_dashboard(chance)}?limit={chance.randint(1, 5)}"): 8,
        lambda chance: Visit(_dashboard(chance), accept="application/x-ndjson"): 8,
        lambda chance: Visit(_dashboard(chance), leaves_after=chance.uniform(*_LEAVES_AFTER_S)): 5,
        lambda chance: Visit(f"/items/{chance.choice(SKUS)}"): 23,
        lambda chance: Visit("/items/hemlock"): 3,  # 404 by the upstream
        lambda chance: Visit(f"{_dashboard(chance)}?limit=all"): 2,  # 400 by the gateway
        lambda chance: Visit("/"): 1,  # 404 by the gateway
    }
)


def next_visit(chance: random.Random) -> Visit:
    """Choose the next request."""
    [make] = chance.choices(tuple(_KINDS), tuple(_KINDS.values()))
    return make(chance)


async def send_traffic(
    gateway: str, chance: random.Random, *, transport: httpx.AsyncBaseTransport | None = None
) -> None:
    """Send requests to the gateway at this base URL, until it is cancelled.

    Which requests are sent, and when, depends on ``chance`` alone. A failed request does not end the traffic: failures
    are part of it, and while the gateway stops it accepts no connection.
    """
    limits = httpx.Limits(max_connections=IN_FLIGHT_MAX, max_keepalive_connections=IN_FLIGHT_MAX)
    client = httpx.AsyncClient(base_url=gateway, limits=limits, transport=transport, trust_env=False)
    async with client, trio.open_nursery() as nursery:
        while True:
            await trio.sleep(chance.expovariate(REQUESTS_PER_S))
            visit = next_visit(chance)
            if len(nursery.child_tasks) < IN_FLIGHT_MAX:
                nursery.start_soon(_send, client, visit, name=f"GET {visit.path}")


async def _send(client: httpx.AsyncClient, visit: Visit) -> None:
    # The gateway's records say which requests have failed.
    with trio.move_on_after(visit.leaves_after), contextlib.suppress(httpx.HTTPError):
        await client.get(visit.path, headers={"accept": visit.accept})
