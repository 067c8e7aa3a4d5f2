"""A source of replicas that a test changes."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio
from trio_util import AsyncValue

from umbel.core.errors import UpstreamError
from umbel.upstream.errors import NameFailed
from umbel.upstream.replicas.origin import Replica


class ChangingReplicas:
    """A replica source; ``become`` changes the replicas."""

    def __init__(self, *replicas: Replica) -> None:
        self.changes: AsyncValue = AsyncValue(replicas)
        self.entered = 0
        self.weighed: dict[str, int] = {}
        """Weights other than 1, by name."""
        self.looked_through = 0
        """The number of reads of ``weights``."""

    def become(self, *replicas: Replica) -> None:
        self.changes.value = replicas

    @property
    def replicas(self) -> tuple[Replica, ...]:
        found: tuple[Replica, ...] = self.changes.value
        return found

    @property
    def weights(self) -> tuple[int, ...]:
        self.looked_through += 1
        return tuple(self.weighed.get(replica.name, 1) for replica in self.replicas)

    def missing(self) -> UpstreamError:
        return NameFailed("gone")

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        self.entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.entered -= 1
        await trio.lowlevel.checkpoint()
