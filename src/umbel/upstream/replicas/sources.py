"""Replica sources: the interface of a set of replicas that may change, and the union of several sets.

``dns.py`` has a source whose set comes from look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Protocol, Self

import trio
from trio_util import AsyncValue

from ...core.errors import UpstreamError
from ..background_tasks import BackgroundNursery, TaskOwner
from .origin import Replica


class ReplicaSource(Protocol):
    """Interface of a set of replicas that may change while the source is entered. An async context manager.

    A replica that stays is the same object in the next set, and the names in a set are unique. Entering waits for the
    first set, for a limited time; afterwards the set may still be empty.
    """

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The present set; the same object until the set changes. May be empty."""

    @property
    def weights(self) -> tuple[int, ...]:
        """Weights of the replicas, in the order of ``replicas``."""

    @property
    def changes(self) -> AsyncValue:
        """Value to wait on for the next set; its present value is ``replicas``."""

    def missing(self) -> UpstreamError:
        """A new exception that says why the set is empty."""

    async def __aenter__(self) -> Self:
        """Start updating the set."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop updating the set. The present set remains."""


class JoinedReplicas(TaskOwner):
    """A ``ReplicaSource`` that joins fixed replicas and other sources, in their order.

    Args:
        parts: replicas and sources, at least one. Of replicas with the same name only the first is in the set.
        weights: one per part, at least 1; the weight of a source is that of each of its replicas. Default: 1 each.

    Raises:
        ValueError: there is no part, the number of weights is not that of the parts, or a weight is less than 1.
    """

    def __init__(self, parts: Sequence[Replica | ReplicaSource], weights: Sequence[int] | None = None) -> None:
        if not parts:
            raise ValueError("an upstream needs at least one replica or source of replicas")
        if weights is not None and len(weights) != len(parts):
            raise ValueError("there must be one weight for each replica or source of replicas")
        if weights is not None and min(weights) < 1:
            raise ValueError("each weight must be at least 1")
        super().__init__(BackgroundNursery("a set of replicas"))
        self._parts = tuple(parts)
        self._part_weights = tuple(weights) if weights is not None else (1,) * len(self._parts)
        self._sources = tuple(dict.fromkeys(each for each in parts if not isinstance(each, Replica)))
        self._changes: AsyncValue = AsyncValue(())
        self._weights: tuple[int, ...] = ()
        self._merge_parts()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The present set of replicas; see ``ReplicaSource``."""
        current: tuple[Replica, ...] = self._changes.value
        return current

    @property
    def weights(self) -> tuple[int, ...]:
        """Weights of the replicas, in the same order; see ``ReplicaSource``."""
        return self._weights

    @property
    def changes(self) -> AsyncValue:
        """Value to wait on for the next set; see ``ReplicaSource``."""
        return self._changes

    def missing(self) -> UpstreamError:
        """The error of the first source. There is one, because a set with a fixed replica is never empty."""
        return self._sources[0].missing()

    async def _begin(self) -> None:
        """Enter all sources concurrently, and return when all are entered.

        Each source has a task of its own, because a source's nursery must be left by the task that entered it.
        """
        failures: list[Exception] = []
        entered = [trio.Event() for _ in self._sources]
        for source, event in zip(self._sources, entered, strict=True):
            self._nursery.start_soon(self._hold, source, event, failures)
        for event in entered:
            await event.wait()
            if failures:
                raise failures[0]
        self._merge_parts()

    async def _hold(self, source: ReplicaSource, entered: trio.Event, failures: list[Exception]) -> None:
        """Keep a source entered for as long as this one is, and merge each of its sets."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(source)
            except Exception as error:  # noqa: BLE001 - ``_begin`` raises it
                failures.append(error)
                return
            finally:
                entered.set()
            sets = await stack.enter_async_context(aclosing(source.changes.eventual_values()))
            async for _ in sets:
                self._merge_parts()

    def _merge_parts(self) -> None:
        """Compute the set from the present sets of all parts."""
        replicas: dict[str, Replica] = {}
        weights: dict[str, int] = {}
        for part, weight in zip(self._parts, self._part_weights, strict=True):
            for replica in (part,) if isinstance(part, Replica) else part.replicas:
                # By name: two DNS names with the same address are two replicas, because their Host fields differ.
                replicas.setdefault(replica.name, replica)
                weights.setdefault(replica.name, weight)
        self._weights = tuple(weights.values())
        self._changes.value = tuple(replicas.values())


def source_of(replicas: Sequence[Replica | str] | ReplicaSource, weights: Sequence[int] | None = None) -> ReplicaSource:
    """Return ``replicas`` if it is a source, else a source with this fixed set.

    Raises:
        ValueError: a fixed set is empty or has weights that do not fit, or weights are given for a source.
        BadRequest, httpx.InvalidURL: as ``Replica.parse``.
    """
    if not isinstance(replicas, Sequence):
        if weights is not None:
            raise ValueError("a source of replicas has weights of its own; give none")
        return replicas
    return JoinedReplicas([Replica.parse(each) if isinstance(each, str) else each for each in replicas], weights)
