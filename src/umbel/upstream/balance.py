"""The balance layer: which replica an attempt goes to, and what of the request that decides.

Stands right above the attempt layer, so that each attempt takes a replica of its own. The decisions are the policies'
(``policy/balance.py``, ``load.py``, ``ejection.py``); everything that follows from them was prepared at load.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import httpx
import trio

from ..model import facts_of
from ..policy.balance import Picker, PowerOfTwo, RoundRobin, Weighted, usable
from ..policy.ejection import Ejection, EjectionRules
from ..policy.load import Loads
from ..policy.verdict import failed
from .ending import failed_by
from .health import Health
from .layer import Layer
from .origin import REPLICA, Replica
from .rewrite import rewritten
from .state import call_state
from .watched import Watched

PolicyName = Literal["p2c", "round_robin", "weighted"]


@dataclass(frozen=True, slots=True)
class ReplicaStatistics:
    """A snapshot of one replica."""

    name: str
    """Its base URL."""
    in_flight: int
    taken: int
    """Attempts that it was given, since the beginning."""
    failed: int
    """Those of them that failed by its fault."""
    usual: float
    """Seconds that its answers usually take."""
    ejected_for: float
    """Seconds until it is back; 0 if it is not ejected."""
    up: bool
    """What its health checks say; True without any."""


@dataclass(frozen=True, slots=True)
class BalanceStatistics:
    """A snapshot of the balance layer."""

    replicas: tuple[ReplicaStatistics, ...]
    ejections: int
    """Since the beginning."""


class Balance(Layer):
    """Gives each request to one of ``replicas`` (base URLs, or replicas made of them).

    The replica gives URL, Host and the base path; the target stays what ``extensions["target"]`` or the URL says. A
    replica is in flight until its response is complete or closed; a cancelled one is free at once, and says nothing of
    its replica unless its own deadline ended it (``ending.kind_of_end``).

    A replica that this call has tried, that is ejected or that is down by its health checks is taken only if no other
    is left (``policy.balance.usable``).

    Args:
        policy: ``p2c`` takes the less loaded of two that chance picked, where one that just failed counts as busy for
            as long as its answers usually take (0.1 s at least); ``round_robin`` takes them in turn; ``weighted`` takes
            them in turn as often as ``weights`` says.
        weights: whole numbers, one for each replica; for ``weighted`` alone.
        ejection: when a replica that fails is left out for a while; None for never. Of one replica it is never.
        health: checks of the same replicas; the layer runs them while it is entered.
        rng: where ``p2c`` has its chance from.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        replicas: Sequence[Replica | str],
        *,
        policy: PolicyName = "p2c",
        weights: Sequence[int] | None = None,
        ejection: EjectionRules | None = EjectionRules(),  # noqa: B008  # frozen, so it may be shared
        health: Health | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(transport)
        self._replicas = tuple(Replica.parse(each) if isinstance(each, str) else each for each in replicas)
        count = len(self._replicas)
        if count < 1:
            raise ValueError("there must be a replica to take")
        self._places: Sequence[int] = range(count)
        self._loads = Loads(count)
        self._picker = self._chosen(policy, weights, rng or random.Random())
        self._ejection = None if ejection is None or count == 1 else Ejection(count, ejection)
        self._health = health
        self._taken = [0] * count
        self._failed = [0] * count

    def _chosen(self, policy: PolicyName, weights: Sequence[int] | None, rng: random.Random) -> Picker:
        if (weights is not None) != (policy == "weighted"):
            raise ValueError('weights are for the policy "weighted", which needs them')
        if weights is not None:
            if len(weights) != len(self._replicas):
                raise ValueError("there must be a weight for each replica")
            return Weighted(weights)
        return RoundRobin() if policy == "round_robin" else PowerOfTwo(self._loads, rng)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._health is not None:
            await self._health.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            if self._health is not None:
                await self._health.__aexit__(exc_type, exc_value, traceback)
        finally:
            await super().__aexit__(exc_type, exc_value, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below for the same at the replica that is next."""
        started_at = trio.current_time()
        state = call_state(request)
        place = self._pick(started_at, state.tried if state is not None else ())
        if state is not None:
            state.tried.append(place)
        replica = self._replicas[place]
        target: bytes = request.extensions.get("target") or request.url.raw_path
        copy = rewritten(
            request,
            {b"host": replica.host},
            url=replica.url,
            extensions={"target": replica.base + target, REPLICA: replica},
        )
        try:
            response = await self._transport.handle_async_request(copy)
        except BaseException as error:
            self._ended(place, started_at, failed_by(error, facts_of(request), started_at))
            raise
        if response.is_closed:
            self._ended(place, started_at, failed(None, response.status_code))
        else:
            facts, status = facts_of(request), response.status_code

            def over(error: BaseException | None) -> None:
                verdict = failed(None, status) if error is None else failed_by(error, facts, started_at)
                self._ended(place, started_at, verdict)

            response.stream = Watched(response, over)
        return response

    def statistics(self) -> BalanceStatistics:
        """A snapshot."""
        now = trio.current_time()
        ejection, down = self._ejection, self._down
        replicas = tuple(
            ReplicaStatistics(
                name=replica.name,
                in_flight=self._loads.in_flight[place],
                taken=self._taken[place],
                failed=self._failed[place],
                usual=self._loads.usual(place),
                ejected_for=0.0 if ejection is None else ejection.left(now, place),
                up=place not in down,
            )
            for place, replica in enumerate(self._replicas)
        )
        return BalanceStatistics(replicas, 0 if ejection is None else ejection.ejected)

    @property
    def _down(self) -> frozenset[int]:
        return self._health.down if self._health is not None else frozenset()

    def _pick(self, now: float, tried: Sequence[int]) -> int:
        out = self._ejection.out(now) if self._ejection is not None else ()
        place = self._picker.pick(now, usable(self._places, self._down, out, tried))
        self._taken[place] += 1
        self._loads.begun(place)
        return place

    def _ended(self, place: int, started_at: float, has_failed: bool | None) -> None:
        now = trio.current_time()
        self._loads.ended(now, place, now - started_at, has_failed)
        if has_failed is None:
            return
        self._failed[place] += has_failed
        if self._ejection is not None:
            self._ejection.ended(now, place, has_failed)
