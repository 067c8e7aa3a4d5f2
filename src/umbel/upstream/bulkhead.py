"""The bulkhead: so many calls in flight to an upstream, so many waiting, and the next one fails at once.

A layer of the stack, outside of retries and hedges; any httpx user may put it before a transport. It knows no deadline:
whoever waits here waits under its own. How many is a fixed number, or what ``policy/limit.py`` learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import httpx
import trio

from ..kinds import Kind
from ..model import facts_of
from ..policy.limit import GradientLimit, LimitStatistics
from ..policy.verdict import failed
from .ending import kind_of_end, limit_of
from .errors import BudgetSpent, Overflow
from .layer import Layer
from .perorigin import OriginKey, PerOrigin, key_of, name_of
from .slots import Slots, SlotStatistics
from .state import call_state
from .watched import Watched


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot of a bulkhead."""

    in_flight: int
    waiting: int
    overflowed: int
    """Calls that found the queue full, since the beginning."""
    origins: Mapping[str, SlotStatistics]
    """By origin; only those that have calls."""
    limits: Mapping[str, LimitStatistics] = field(default_factory=lambda: MappingProxyType({}))
    """By origin, what was learned of it; empty where the limit is a fixed number."""


class Bulkhead(Layer):
    """At most ``max_concurrency`` calls of an origin in flight, and ``max_queue`` waiting, first come, first served.

    A call is in flight until its response is complete or closed. A cancelled waiter leaves nothing behind; a cancelled
    call's place is free at once. In a stack every request has one origin here (the balance layer stands below), so the
    limit is the upstream's; alone, each origin has its own.

    Args:
        max_concurrency: a number, or ``"auto"``: learned from how long calls take, within 4 and 1000
            (``policy.limit.GradientLimit``). Calls that were cancelled, or failed without telling how long the upstream
            takes, are not learned from; a streamed response tells by its head.
        max_queue: how many may wait.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        max_concurrency: int | Literal["auto"] = 100,
        max_queue: int = 100,
    ) -> None:
        super().__init__(transport)
        self._max_concurrency = 0 if max_concurrency == "auto" else max_concurrency
        self._limits = PerOrigin(lambda _: GradientLimit()) if max_concurrency == "auto" else None
        self._max_queue = max_queue
        # Only origins with calls are here, so it is never larger than what is in flight.
        self._slots: dict[OriginKey, Slots] = {}
        self._overflowed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for a place, then ask the transport below.

        Raises:
            Overflow: the queue is full.
        """
        key = key_of(request.url)
        state = call_state(request)
        if state is not None:
            state.queued = True
        slots = await self._take(key)
        if state is not None:
            state.queued = False
        lesson = None if self._limits is None else _Lesson(self._limits.of(key), slots, request)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            if lesson is not None:
                lesson.failed(error)
            self.leave(key, slots)
            raise
        if lesson is not None:
            lesson.answered(response)
        if response.is_closed:
            self.leave(key, slots)
        else:
            response.stream = Watched(response, lambda _: self.leave(key, slots))
        return response

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        origins = {name_of(key): slots.statistics() for key, slots in self._slots.items()}
        return BulkheadStatistics(
            in_flight=sum(each.in_use for each in origins.values()),
            waiting=sum(each.waiting for each in origins.values()),
            overflowed=self._overflowed,
            origins=MappingProxyType(origins),
            limits=MappingProxyType({}) if self._limits is None else self._limits.snapshot(GradientLimit.statistics),
        )

    def enter(self, key: OriginKey) -> Slots | None:
        """A place for a request without a task of its own (``express.py``), if one is free; to be given to ``leave``.

        Only where the limit is a number: the adaptive one learns from requests.
        """
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = Slots(self._max_concurrency, self._max_queue)
        return slots if slots.take() else None

    async def _take(self, key: OriginKey) -> Slots:
        slots = self._slots.get(key)
        if slots is None:
            capacity = self._max_concurrency if self._limits is None else self._limits.of(key).limit
            slots = self._slots[key] = Slots(capacity, self._max_queue)
        try:
            await slots.acquire()
        except Overflow:
            self._overflowed += 1
            raise
        return slots

    def leave(self, key: OriginKey, slots: Slots) -> None:
        """Give a place back."""
        slots.release()
        if slots.unused:
            del self._slots[key]


class _Lesson:
    """What one call teaches the adaptive limit, and what that does to the places."""

    __slots__ = ("_facts", "_limit", "_slots", "_started_at", "_until")

    def __init__(self, limit: GradientLimit, slots: Slots, request: httpx.Request) -> None:
        self._limit = limit
        self._slots = slots
        self._facts = facts_of(request)
        self._until = limit_of(request)
        self._started_at = trio.current_time()

    def answered(self, response: httpx.Response) -> None:
        # How fast an upstream fails says nothing of how fast it works.
        if not failed(None, response.status_code):
            self._learn()

    def failed(self, error: BaseException) -> None:
        if isinstance(error, BudgetSpent):
            return  # Of an attempt that was never made.
        if kind_of_end(error, self._facts, self._started_at, self._until) is Kind.TIMEOUT:
            self._learn()

    def _learn(self) -> None:
        now = trio.current_time()
        self._limit.ended(now, now - self._started_at, self._slots.in_use)
        self._slots.resize(self._limit.limit)
