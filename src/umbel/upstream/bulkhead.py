"""The bulkhead: so many calls in flight to an upstream, so many waiting, and the next one fails at once.

A layer of the stack, outside of retries and hedges; any httpx user may put it before a transport. It knows no time:
whoever waits here waits under its own deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx

from .errors import Overflow
from .layer import Layer
from .pieces import pieces_of
from .slots import Slots, SlotStatistics

_Key = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot of a bulkhead."""

    in_flight: int
    waiting: int
    overflowed: int
    """Calls that found the queue full, since the beginning."""
    origins: Mapping[str, SlotStatistics]
    """By origin; only those that have calls."""


class Bulkhead(Layer):
    """At most ``max_concurrency`` calls of an origin in flight, and ``max_queue`` waiting, first come, first served.

    A call is in flight until its response is complete or closed. A cancelled waiter leaves nothing behind; a cancelled
    call's place is free at once. In a stack every request has one origin here (the balance layer stands below), so the
    limit is the upstream's; alone, each origin has its own.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, *, max_concurrency: int = 100, max_queue: int = 100
    ) -> None:
        super().__init__(transport)
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        # Only origins with calls are here, so it is never larger than what is in flight.
        self._slots: dict[_Key, Slots] = {}
        self._overflowed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for a place, then ask the transport below.

        Raises:
            Overflow: the queue is full.
        """
        url = request.url
        place = _Place(self, (url.scheme, url.host, url.port))
        await place.take()
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            place.leave()
            raise
        if response.is_closed:
            place.leave()
        else:
            response.stream = _Held(response, place)
        return response

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        origins = {_text(key): slots.statistics() for key, slots in self._slots.items()}
        return BulkheadStatistics(
            in_flight=sum(each.in_use for each in origins.values()),
            waiting=sum(each.waiting for each in origins.values()),
            overflowed=self._overflowed,
            origins=MappingProxyType(origins),
        )

    async def _take(self, key: _Key) -> Slots:
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = Slots(self._max_concurrency, self._max_queue)
        try:
            await slots.acquire()
        except Overflow:
            self._overflowed += 1
            raise
        return slots

    def _leave(self, key: _Key, slots: Slots) -> None:
        slots.release()
        if slots.unused:
            del self._slots[key]


class _Place:
    """One call's place, given back once."""

    __slots__ = ("_bulkhead", "_key", "_slots")

    def __init__(self, bulkhead: Bulkhead, key: _Key) -> None:
        self._bulkhead = bulkhead
        self._key = key
        self._slots: Slots | None = None

    async def take(self) -> None:
        self._slots = await self._bulkhead._take(self._key)

    def leave(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            self._bulkhead._leave(self._key, slots)


class _Held(httpx.AsyncByteStream):
    """The stream of a response that keeps its place until it is closed."""

    def __init__(self, response: httpx.Response, place: _Place) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._place = place

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with pieces_of(self._stream) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._place.leave()


def _text(key: _Key) -> str:
    scheme, host, port = key
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"
