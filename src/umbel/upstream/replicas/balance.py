"""Load balancer: chooses the replica of each attempt, and counts how attempts end there.

The decisions are made by ``policy/replicas/`` and ``policy/failover.py``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import trio

from ...core.errors import UpstreamError
from ...core.events import NULL, Recorder
from ...policy.failover import FailoverPolicy
from ...policy.replicas.balance import Picker, PowerOfTwo, RoundRobin, WeightedRoundRobin, usable
from ...policy.replicas.ejection import Ejection, EjectionRules
from ...policy.replicas.replica_load import ReplicaLoads
from ...policy.replicas.replica_state import ReplicaState
from ..state_events import StateEvents
from .health import HealthChecker
from .origin import Replica
from .sources import ReplicaSource, source_of

PolicyName = Literal["p2c", "round_robin", "weighted"]


@dataclass(frozen=True, slots=True)
class ReplicaStatistics:
    """A snapshot of one replica."""

    name: str
    """Its base URL."""
    in_flight: int
    taken: int
    """Attempts that it was given, since it joined the set."""
    failed: int
    """Attempts that failed by its fault."""
    usual: float
    """Seconds that its answers usually take."""
    ejected_for: float
    """Seconds until it is back; 0 if it is not ejected."""
    up: bool
    """What its health checks say; True without any."""


@dataclass(frozen=True, slots=True)
class BalanceStatistics:
    """A snapshot of an upstream's replicas."""

    replicas: tuple[ReplicaStatistics, ...]
    """Those of the set as it is now."""
    ejections: int
    """Since the beginning."""
    failovers: int
    """Attempts lost with a dying replica that their calls may make again without budget, since the beginning."""


class LoadBalancer:
    """Load balancer of one upstream: gives each attempt one of ``replicas``.

    A replica that the call has tried, that is ejected or that is down by its health checks is taken only if no other is
    left (``policy.replicas.balance.usable``).

    A source is entered with this, and followed: each attempt sees the set as it is at that moment. A replica that stays
    keeps all that is known of it; one that leaves is forgotten, though what is in flight there ends as it would have,
    and one that comes back is new.

    Args:
        replicas: base URLs, or ``Replica`` objects, or a source of replicas.
        policy: ``p2c`` takes the less loaded of two that chance picked, where one that just failed counts as busy for
            as long as its answers usually take (0.1 s at least); ``round_robin`` takes them in turn; ``weighted`` takes
            them in turn as often as ``weights`` says.
        weights: whole numbers, one for each replica; for ``weighted`` alone. A source has its own.
        ejection: when a replica that fails is left out for a while; None for never. The last one never is.
        health: checks of the same replicas (or of the same source); they run while this is entered.
        rng: the source of randomness of ``p2c``.
        name: what records call the upstream.
        recorder: gets ``ejection.out`` and ``ejection.back``.

    Raises:
        ValueError: no replica at all, or weights that do not fit.
    """

    def __init__(
        self,
        replicas: Sequence[Replica | str] | ReplicaSource,
        *,
        policy: PolicyName = "p2c",
        weights: Sequence[int] | None = None,
        ejection: EjectionRules | None = EjectionRules(),  # noqa: B008  # frozen, so it may be shared
        health: HealthChecker | None = None,
        rng: random.Random | None = None,
        name: str = "",
        recorder: Recorder = NULL,
    ) -> None:
        self._entered: list[AsyncExitStack] = []
        if isinstance(replicas, Sequence) and (weights is not None) != (policy == "weighted"):
            raise ValueError('weights are for the policy "weighted", which needs them')
        self._source = source_of(replicas, weights)
        self._fixed = isinstance(replicas, Sequence)
        """Whether the set never changes."""
        self._loads = ReplicaLoads()
        self._failovers = FailoverPolicy(self._loads)
        self._picker = self._make_picker(policy, rng or random.Random())
        self._events = StateEvents(recorder, name)
        self._ejection = None if ejection is None else Ejection(ejection, self._record_ejection)
        self._health = health
        self._replicas: tuple[Replica, ...] = ()
        """The source's set that ``_slots`` was made for."""
        self._slots: tuple[ReplicaSlot, ...] = ()
        self._only: ReplicaSlot | None = None
        """The slot of a set of one, which is always the next, whatever its state."""
        self._update_slots(0.0)  # Nobody is out yet, so any time will do.

    def _make_picker(self, policy: PolicyName, rng: random.Random) -> Picker:
        if policy == "p2c":
            return PowerOfTwo(self._loads, rng)
        return RoundRobin() if policy == "round_robin" else WeightedRoundRobin()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._source)
            if self._health is not None:
                await stack.enter_async_context(self._health)
            self._entered.append(stack.pop_all())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._entered.pop().__aexit__(exc_type, exc_value, traceback)

    def take(self, now: float, tried: Sequence[str]) -> ReplicaSlot | None:
        """Take the slot of the next replica; None while there is none (``missing`` says why). ``ended`` gives it back.

        Args:
            tried: the names of the replicas that the call's attempts have had.
        """
        if not self._fixed and self._source.replicas is not self._replicas:
            self._update_slots(now)
        slot, slots = self._only, self._slots
        if slot is not None:
            pass
        elif slots:
            out = self._ejection.out(now) if self._ejection is not None else ()
            slot = self._picker.pick(now, usable(slots, self._down, out, tried))
        else:
            return None
        slot.taken += 1
        slot.in_flight += 1
        return slot

    def has_untried(self, tried: Sequence[str]) -> bool:
        """Whether the set has a replica that is not among ``tried``."""
        return any(slot.name not in tried for slot in self._slots)

    def missing(self) -> UpstreamError:
        """Why there is no replica."""
        return self._source.missing()

    def ended(self, now: float, slot: ReplicaSlot, started_at: float, has_failed: bool | None) -> None:
        """Give back the slot of an attempt that is over; ``has_failed`` as ``policy.failure_verdict.failed`` says."""
        self._loads.ended(now, slot, now - started_at, has_failed)
        if has_failed or (slot.streak and has_failed is not None):
            slot.failed += has_failed
            if self._ejection is not None:
                self._ejection.ended(now, slot, has_failed)

    def overtaken(self, now: float, slot: ReplicaSlot, started_at: float) -> None:
        """Count an attempt that has ended as overtaken: it was cut because a later one elsewhere had the answer."""
        self._loads.overtaken(now, slot, now - started_at)

    def lost(self, now: float, slot: ReplicaSlot, tried: Sequence[str]) -> bool:
        """Count an attempt whose connection was lost before any answer; whether its repeat elsewhere is failover."""
        out = self._ejection.out(now) if self._ejection is not None else ()
        left_out = (self._down, out, tried)
        others = [each for each in self._slots if not any(each.name in names for names in left_out)]
        return self._failovers.lost(now, slot, others)

    def statistics(self) -> BalanceStatistics:
        """A snapshot."""
        now = trio.current_time()
        if self._source.replicas is not self._replicas:
            self._update_slots(now)
        ejection, down = self._ejection, self._down
        replicas = tuple(
            ReplicaStatistics(
                name=slot.name,
                in_flight=slot.in_flight,
                taken=slot.taken,
                failed=slot.failed,
                usual=self._loads.usual(slot),
                ejected_for=0.0 if ejection is None else ejection.left(now, slot),
                up=slot.name not in down,
            )
            for slot in self._slots
        )
        return BalanceStatistics(replicas, 0 if ejection is None else ejection.ejected, self._failovers.granted)

    @property
    def _down(self) -> frozenset[str]:
        return self._health.down if self._health is not None else frozenset()

    def _update_slots(self, now: float) -> None:
        """Follow the source's set: replicas that stay keep their slots, others get new ones."""
        staying = {slot.replica: slot for slot in self._slots}
        self._replicas = self._source.replicas
        self._slots = tuple(staying.get(replica) or ReplicaSlot(replica) for replica in self._replicas)
        for slot, weight in zip(self._slots, self._source.weights, strict=True):
            slot.weight = weight
        self._only = self._slots[0] if len(self._slots) == 1 else None
        self._loads.follow(self._slots)
        self._picker.follow(self._slots)
        if self._ejection is not None:
            self._ejection.follow(now, self._slots)

    def _record_ejection(self, member: ReplicaState, is_out: bool) -> None:
        """Record that a replica was ejected, or is back."""
        if is_out:
            self._events.ejected(member.name, member.back_at - trio.current_time())
        else:
            self._events.returned(member.name)


class ReplicaSlot(ReplicaState):
    """Slot of a replica in the set: the policies' state of it, and its counters. Attempts in flight hold their slot."""

    __slots__ = ("failed", "replica", "taken")

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.name)
        self.replica = replica
        self.taken = 0
        self.failed = 0
