"""The balance layer: which replica an attempt goes to, and what of the request that decides.

Stands right above the attempt layer, so that each attempt takes a replica of its own. The decision is the policy's;
everything that follows from it was prepared at load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from ..policy.balance import RoundRobin
from .layer import Layer
from .origin import REPLICA, Replica
from .rewrite import rewritten


@dataclass(frozen=True, slots=True)
class BalanceStatistics:
    """A snapshot of the balance layer."""

    taken: tuple[tuple[str, int], ...]
    """Each replica's base URL and how many attempts it was given."""


class Balance(Layer):
    """Gives each request to the next of ``replicas`` (base URLs, or replicas made of them), in turn.

    The replica gives URL, Host and the base path; the target stays what ``extensions["target"]`` or the URL says.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, replicas: Sequence[Replica | str]) -> None:
        super().__init__(transport)
        self._replicas = tuple(Replica.parse(each) if isinstance(each, str) else each for each in replicas)
        self._policy = RoundRobin(len(self._replicas))
        self._taken = [0] * len(self._replicas)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below for the same at the next replica."""
        place = self._policy.pick()
        self._taken[place] += 1
        replica = self._replicas[place]
        target: bytes = request.extensions.get("target") or request.url.raw_path
        copy = rewritten(
            request,
            {b"host": replica.host},
            url=replica.url,
            extensions={"target": replica.base + target, REPLICA: replica},
        )
        return await self._transport.handle_async_request(copy)

    def statistics(self) -> BalanceStatistics:
        """A snapshot."""
        return BalanceStatistics(tuple((r.name, n) for r, n in zip(self._replicas, self._taken, strict=True)))
