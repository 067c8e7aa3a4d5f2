"""Replica sources: sets of replicas that may change; the interface, and the union of several.

Knows no policy and looks nothing up; ``dns.py`` is a source that does.
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
    """A set of replicas that may change while its ``async with`` runs.

    A replica that stays is the same object in the next set, and no two of a set have the same name. Entering waits a
    little for the first set; it may be empty all the same.
    """

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The set as it is now; a set that has not changed is the same object. May be empty."""

    @property
    def weights(self) -> tuple[int, ...]:
        """Their weights, in the same order."""

    @property
    def changes(self) -> AsyncValue:
        """Its value is ``replicas``; wait on it for the next set."""

    def missing(self) -> UpstreamError:
        """Why the set is empty, as an exception to be raised."""

    async def __aenter__(self) -> Self:
        """Begin to follow."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop to follow. The set stays as it is."""


class JoinedReplicas(TaskOwner):
    """A ``ReplicaSource`` that joins fixed replicas and other sources, in their order.

    Args:
        parts: at least one. A replica that stands twice is one, where it stands first.
        weights: of the parts, where one is a source, of each of its replicas; 1 at least. Default: all the same.
    """

    def __init__(self, parts: Sequence[Replica | ReplicaSource], weights: Sequence[int] | None = None) -> None:
        if weights is not None and len(weights) != len(parts):
            raise ValueError("each part needs one weight")
        if weights is not None and min(weights, default=1) < 1:
            raise ValueError("each weight is 1 at least")
        super().__init__(BackgroundNursery("a set of replicas"))
        self._parts = tuple(parts)
        self._part_weights = tuple(weights) if weights is not None else (1,) * len(self._parts)
        self._sources = tuple(dict.fromkeys(each for each in parts if not isinstance(each, Replica)))
        self._changes: AsyncValue = AsyncValue(())
        self._weights: tuple[int, ...] = ()
        self._merge_parts()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The set as it is now."""
        current: tuple[Replica, ...] = self._changes.value
        return current

    @property
    def weights(self) -> tuple[int, ...]:
        """Their weights, in the same order."""
        return self._weights

    @property
    def changes(self) -> AsyncValue:
        """Its value is ``replicas``."""
        return self._changes

    def missing(self) -> UpstreamError:
        """The reason of the first source: a set with a fixed replica is never empty."""
        return self._sources[0].missing()

    async def _begin(self) -> None:
        """Enter all sources at the same time, until each has its first set or has waited for it.

        A source has a nursery of its own, which must be left by the task that entered it: so each has a task.
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
        """Hold a source for as long as this set is entered, and follow it."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(source)
            except Exception as error:  # noqa: BLE001 - it is raised by `_begin`, whatever it is
                failures.append(error)
                return
            finally:
                entered.set()
            sets = await stack.enter_async_context(aclosing(source.changes.eventual_values()))
            async for _ in sets:
                self._merge_parts()

    def _merge_parts(self) -> None:
        replicas: dict[str, Replica] = {}
        weights: dict[str, int] = {}
        for part, weight in zip(self._parts, self._part_weights, strict=True):
            for replica in (part,) if isinstance(part, Replica) else part.replicas:
                # Two names may lead to one address, but they are two hosts of it, so these names differ too.
                replicas.setdefault(replica.name, replica)
                weights.setdefault(replica.name, weight)
        self._weights = tuple(weights.values())
        self._changes.value = tuple(replicas.values())


def source_of(replicas: Sequence[Replica | str] | ReplicaSource, weights: Sequence[int] | None = None) -> ReplicaSource:
    """A source of ``replicas``: the source that was given, or one of a fixed set.

    Raises:
        ValueError: a fixed set without a replica, with weights that do not fit, or weights for a source, which has its
            own.
    """
    if not isinstance(replicas, Sequence):
        if weights is not None:
            raise ValueError("a source of replicas has weights of its own")
        return replicas
    if not replicas:
        raise ValueError("there must be a replica to take")
    return JoinedReplicas([Replica.parse(each) if isinstance(each, str) else each for each in replicas], weights)
