"""Load balancer: chooses the replica of each attempt, and counts how the attempts of each replica end.

The decisions are those of ``policy/replicas/`` and ``policy/failover.py``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, get_args

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
    """A snapshot of one replica. ``taken`` and ``failed`` count since the replica joined the set."""

    name: str
    """The replica's base URL as configured; see ``Replica.name``."""
    in_flight: int
    """Attempts in flight."""
    taken: int
    """Attempts begun."""
    failed: int
    """Attempts that failed by the replica's fault."""
    usual: float
    """Usual response time in seconds."""
    ejected_for: float
    """Seconds until the end of the ejection; 0 if the replica is not ejected."""
    up: bool
    """State by the health checks; True without health checks."""


@dataclass(frozen=True, slots=True)
class BalanceStatistics:
    """A snapshot of an upstream's replicas. The last two count since the load balancer was created."""

    replicas: tuple[ReplicaStatistics, ...]
    """The replicas of the present set."""
    ejections: int
    failovers: int
    """Attempts that a failing replica lost and that calls may repeat without budget."""


class LoadBalancer:
    """Load balancer of one upstream: gives each attempt one of ``replicas``. An async context manager.

    A replica that is down by its health checks, is ejected, or was tried by the call is taken only if there is no other
    (``policy.replicas.balance.usable``).

    The set of a source may change; ``take`` uses the present set. A replica that stays keeps its state. If a replica
    leaves, its attempts in flight go on and its state is dropped; if it comes back, it begins as a new replica.

    Args:
        replicas: base URLs, ``Replica`` objects, or a source of replicas, which is entered with the load balancer.
        policy: ``p2c``: the less loaded of two random replicas; a failed attempt counts as load for as long as a
            response usually takes, at least 0.1 s. ``round_robin``: in turn. ``weighted``: in turn, as often as
            ``weights`` says.
        weights: whole numbers, one per replica; for ``weighted`` only. A source has weights of its own.
        ejection: rules of outlier ejection; None: no ejection.
        health: health checks of the same replicas or the same source, entered with the load balancer.
        rng: source of randomness of ``p2c``.
        name: name of the upstream in records.
        recorder: receives ``ejection.out`` and ``ejection.back``.

    Raises:
        ValueError: no replica, an unknown policy, or weights that do not fit the replicas or the policy.
        BadRequest, httpx.InvalidURL: as ``Replica.parse``.
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
        if policy not in get_args(PolicyName):
            names = ", ".join(map(repr, get_args(PolicyName)))
            raise ValueError(f"there is no load-balancing policy {policy!r}; the policies are {names}")
        if isinstance(replicas, Sequence) and (weights is not None) != (policy == "weighted"):
            raise ValueError('the policy "weighted" needs weights, and no other policy takes them')
        self._source = source_of(replicas, weights)
        self._fixed = isinstance(replicas, Sequence)
        """Whether the set cannot change."""
        self._loads = ReplicaLoads()
        self._failovers = FailoverPolicy(self._loads)
        self._picker = self._make_picker(policy, rng or random.Random())
        self._events = StateEvents(recorder, name)
        self._ejection = None if ejection is None else Ejection(ejection, self._record_ejection)
        self._health = health
        self._replicas: tuple[Replica, ...] = ()
        """The set of the source for which ``_slots`` was made."""
        self._slots: tuple[ReplicaSlot, ...] = ()
        self._only: ReplicaSlot | None = None
        """The slot of a set of one replica, which is taken whatever its state; else None."""
        self._update_slots(0.0)  # Any time will do: no replica is ejected yet.

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
        """Take the slot of the next replica, to be given back with ``ended``; None if the set is empty (``missing``).

        Args:
            tried: names of the replicas that the call's attempts have taken.
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
        """The error of an attempt while the set is empty."""
        return self._source.missing()

    def ended(self, now: float, slot: ReplicaSlot, started_at: float, has_failed: bool | None) -> None:
        """Give back the slot of an attempt that has ended.

        Args:
            started_at: time at which the attempt began.
            has_failed: result of ``policy.failure_verdict.failed``.
        """
        self._loads.ended(now, slot, now - started_at, has_failed)
        if has_failed or (slot.streak and has_failed is not None):
            slot.failed += has_failed
            if self._ejection is not None:
                self._ejection.ended(now, slot, has_failed)

    def overtaken(self, now: float, slot: ReplicaSlot, started_at: float) -> None:
        """Count an ended attempt as overtaken: it was cut because a hedge on another replica had a response first.

        Args:
            started_at: time at which the attempt began.
        """
        self._loads.overtaken(now, slot, now - started_at)

    def lost(self, now: float, slot: ReplicaSlot, tried: Sequence[str]) -> bool:
        """Count an ended attempt whose connection failed before the first byte of a response.

        Args:
            tried: names of the replicas that the call's attempts have taken.

        Returns:
            whether its repetition is failover, which needs no retry budget (``policy.failover``).
        """
        out = self._ejection.out(now) if self._ejection is not None else ()
        left_out = (self._down, out, tried)
        others = [each for each in self._slots if not any(each.name in names for names in left_out)]
        return self._failovers.lost(now, slot, others)

    def statistics(self) -> BalanceStatistics:
        """Adopt the source's present set, then return a snapshot.

        The snapshot has each replica's counters and state, and the numbers of ejections and failovers.
        """
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

    def ejections(self) -> list[tuple[str, bool]]:
        """Each replica's name with whether it is ejected, as in ``statistics``, for callers that ask often."""
        now, ejection = trio.current_time(), self._ejection
        if self._source.replicas is not self._replicas:
            self._update_slots(now)
        return [(slot.name, ejection is not None and slot.back_at > now) for slot in self._slots]

    @property
    def _down(self) -> frozenset[str]:
        return self._health.down if self._health is not None else frozenset()

    def _update_slots(self, now: float) -> None:
        """Adopt the source's set: replicas that stay keep their slots, new replicas get new slots."""
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
        """Record the beginning (``is_out``) or the end of a replica's ejection."""
        if is_out:
            self._events.ejected(member.name, member.back_at - trio.current_time())
        else:
            self._events.returned(member.name)


class ReplicaSlot(ReplicaState):
    """A replica in the set: the policies' state of it, and counters. Attempts in flight refer to their slot."""

    __slots__ = ("failed", "replica", "taken")

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.name)
        self.replica = replica
        self.taken = 0
        self.failed = 0
