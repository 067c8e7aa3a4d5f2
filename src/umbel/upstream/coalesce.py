"""Coalescing: identical safe calls that overlap are made once, and each caller gets the answer.

The outermost layer of an upstream's stack where it is switched on; any httpx user may put it before a transport. It is
no cache: an answer goes to those who wait when it comes, and is forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

import httpx
import trio

from ..errors import NotRunningError
from ..messages import UpstreamResponse, copied, fields_of
from ..model import FACTS, CallFacts
from ..policy.sharing import COALESCE, GATEWAY_FIELDS, REQUEST_ID, SAFE, VIA, Field, for_one_alone, last_hop, split
from .flight import Flight
from .layer import Layer
from .notes import NOTES
from .pieces import pieces_of
from .pilots import Pilots
from .running import Running
from .state import STATE, opened

CLOSE_SECONDS = 1.0
"""How long the last caller that leaves waits for its flight's end."""
# What the layers of one call say to each other is no part of what is asked, and not the flight's.
_OF_ONE_CALL = frozenset({FACTS, STATE, NOTES})
# Nor is which fields the gateway wrote: that too says who asks. The target has a place of its own in the key.
_NOT_ASKED = _OF_ONE_CALL | {GATEWAY_FIELDS, "target"}


@dataclass(frozen=True, slots=True)
class CoalesceStatistics:
    """A snapshot of a coalescing layer. The last five count since the beginning."""

    in_flight: int
    waiting: int
    """Calls that wait for a flight."""
    flown: int
    joined: int
    """Calls that found a flight of theirs under way."""
    unshared: int
    """Calls that waited for a flight and then had to ask for themselves."""
    abandoned: int
    """Flights that were cancelled because everybody had left."""
    crowded: int
    """Calls that went by themselves because ``max_flights`` were under way."""


class Coalesce(Running, Layer):
    """Makes one call of safe calls (GET, HEAD, OPTIONS) that ask the same at the same time.

    Two calls ask the same if upstream (or origin), method, target, body, extensions and every field are the same, but
    for the fields that the gateway wrote itself (``extensions[GATEWAY_FIELDS]``). A request without that extension has
    none of those: all of its fields count, whatever their names. The *flight* that is made for them has a request id of
    its own, keeps of ``Via`` the gateway's own step and names no client. What the attempt layer adds (trace, time that
    is left) is the flight's. An answer with ``Set-Cookie``, with ``Cache-Control: private``, or whose ``Vary`` names a
    field of the gateway's or ``*``, goes to one of them, and each other asks for itself; if it is longer than
    ``max_body``, each does. A failure fails them all, each with an exception of its own. Requests with the extension
    ``stream``, or with a body that is one, pass.

    A flight is a child of this layer's ``async with``, not of a caller's task: a caller that leaves, by a cancel or its
    deadline, leaves the others their flight. With the last of them it is cancelled, for the same reason, and has ended
    before that caller goes on; so its deadline is the latest of theirs. Nobody joins a flight whose first caller's
    deadline has passed. Closing the layer cancels what is under way.

    Args:
        usual: whether calls are coalesced that do not say so themselves (``extensions[COALESCE]``).
        max_flights: calls under way at once; further ones are made as if this layer were not there.
        max_body: bytes of an answer that the transport below has not read already.
        rng: where the flights' ids come from.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        usual: bool = True,
        max_flights: int = 1000,
        max_body: int = 10**7,
        rng: random.Random | None = None,
    ) -> None:
        self._pilots = Pilots("the coalescing layer")
        Layer.__init__(self, transport)
        Running.__init__(self, self._pilots, transport)
        self._usual = usual
        self._max_flights = max_flights
        self._max_body = max_body
        self._rng = rng or random.Random()
        self._flights: dict[Hashable, Flight] = {}
        self._flown = self._joined = self._unshared = self._abandoned = self._crowded = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to this request, or to one like it that is under way.

        Raises:
            NotRunningError: outside of the layer's ``async with``, or it was closed meanwhile.
        """
        extensions = request.extensions
        if (
            request.method not in SAFE
            or not extensions.get(COALESCE, self._usual)
            or not isinstance(request.stream, httpx.ByteStream)
            or extensions.get("stream")
        ):
            return await self._transport.handle_async_request(request)
        facts: CallFacts | None = extensions.get(FACTS)
        asked, own = split(fields_of(request.headers), extensions.get(GATEWAY_FIELDS, ()))
        key = _key(request, facts, asked)
        flight = self._flights.get(key)
        if flight is not None and trio.current_time() < flight.boards_until:
            self._joined += 1
        elif len(self._flights) < self._max_flights:
            flight = self._depart(key, request, facts, asked, own)
        else:
            self._crowded += 1
            return await self._transport.handle_async_request(request)
        await self._wait(key, flight, facts)
        response = flight.take()
        if response is None:
            self._unshared += 1
            return await self._transport.handle_async_request(request)
        return response

    def statistics(self) -> CoalesceStatistics:
        """A snapshot."""
        return CoalesceStatistics(
            in_flight=len(self._flights),
            waiting=sum(flight.waiting for flight in self._flights.values()),
            flown=self._flown,
            joined=self._joined,
            unshared=self._unshared,
            abandoned=self._abandoned,
            crowded=self._crowded,
        )

    # A caller

    async def _wait(self, key: Hashable, flight: Flight, facts: CallFacts | None) -> None:
        """Until the flight is over, or this caller has to leave."""
        number = flight.board(facts)
        left: BaseException | None = None
        try:
            await flight.over.wait()
        except BaseException as error:
            left = error
            if flight.leave(number) and not flight.over.is_set():
                await self._abandon(key, flight, getattr(error, "reason", None))
            raise
        finally:
            if facts is not None:
                facts.attempts += flight.attempts(number, facts, left)
            del left  # Its traceback holds this frame: without this the two would wait for the garbage collector.

    async def _abandon(self, key: Hashable, flight: Flight, reason: str | None) -> None:
        """End a flight that nobody waits for. The last caller sees its end, so that nothing of a call outlives it."""
        self._abandoned += 1
        self._forget(key, flight)
        flight.scope.cancel(reason=reason or "everybody who waited has left")
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await flight.over.wait()

    # A flight

    def _depart(
        self, key: Hashable, request: httpx.Request, facts: CallFacts | None, asked: list[Field], own: list[Field]
    ) -> Flight:
        ids = f"{self._rng.getrandbits(256):064x}"
        request_id = ids[:32]
        flight = Flight(facts, request_id, ids[32:])
        fields = list(asked)
        for name, lower, value in own:
            if lower == VIA:
                # Of the way that a client's request came, only its last step is the flight's too.
                fields.append((name, lower, last_hop(value)))
            elif lower == REQUEST_ID:
                fields.append((name, lower, request_id.encode("ascii")))
        extensions = {name: value for name, value in request.extensions.items() if name not in _OF_ONE_CALL}
        if flight.facts is not None:
            extensions[FACTS] = flight.facts
        copy = copied(request, fields, None, extensions)
        flight.scope = self._pilots.start(self._fly, key, flight, copy)
        self._flights[key] = flight
        self._flown += 1
        return flight

    async def _fly(self, key: Hashable, flight: Flight, request: httpx.Request) -> None:
        """Make the call. Raises nothing but a cancel: whatever happens, those who wait are told."""
        response: httpx.Response | None = None
        shareable = False
        failure: Exception | None = None
        try:
            request, flight.state = opened(request)
            flight.state.under_way = []
            response = await self._transport.handle_async_request(request)
            if not response.is_closed and not isinstance(response.stream, httpx.ByteStream):
                response = await self._whole(response)
            shareable = response is not None and _for_many(response, _varying(request))
        except Exception as error:  # noqa: BLE001 - it is theirs who wait, whatever it is
            failure = error
        except BaseException as error:
            failure = NotRunningError("the coalescing layer was closed while the call was under way")
            if isinstance(error, BaseExceptionGroup):
                # Something failed while it was cancelled. That is recorded with the attempt; here it would end others.
                cancels, others = error.split(trio.Cancelled)
                if cancels is not None and isinstance(others, Exception):
                    raise cancels from others
            raise
        finally:
            self._forget(key, flight)
            flight.land(response, shareable=shareable, failure=failure)
            # A failure's traceback holds this frame: it must not hold the failure.
            del failure, flight

    async def _whole(self, response: httpx.Response) -> httpx.Response | None:
        """The response with its body in memory, undecoded; None if it cannot be kept for several."""
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        content = bytearray()
        try:
            async with pieces_of(stream) as pieces:
                async for piece in pieces:
                    content += piece
                    if len(content) > self._max_body:
                        return None
        finally:
            await stream.aclose()
        return UpstreamResponse(
            response.status_code,
            headers=response.headers.raw,
            stream=httpx.ByteStream(bytes(content)),
            extensions=response.extensions,
        )

    def _forget(self, key: Hashable, flight: Flight) -> None:
        """New calls begin a new flight."""
        if self._flights.get(key) is flight:
            del self._flights[key]


# What the attempt layer adds to each request by itself, below this layer.
_OF_ATTEMPTS = frozenset({b"traceparent", b"tracestate"})


def _varying(request: httpx.Request) -> Collection[bytes]:
    """The names of the fields that are not in the key, though the callers' own requests would have borne them."""
    return _OF_ATTEMPTS.union(request.extensions.get(GATEWAY_FIELDS, ()))


def _for_many(response: httpx.Response, varying: Collection[bytes]) -> bool:
    # Of a stream that someone else has read, the bytes as they came are gone: there is nothing to make a copy of.
    return isinstance(response.stream, httpx.ByteStream) and not for_one_alone(fields_of(response.headers), varying)


def _key(request: httpx.Request, facts: CallFacts | None, asked: list[Field]) -> Hashable:
    """What a request asks for."""
    url, extensions = request.url, request.extensions
    target = extensions.get("target") or url.raw_path
    others = tuple((name, _comparable(value)) for name, value in extensions.items() if name not in _NOT_ASKED)
    where = (url.scheme, url.raw_host, url.port) if facts is None else facts.upstream
    bound = None if facts is None else facts.max_body
    return (where, bound, request.method, target, request.read(), tuple(asked), others)


def _comparable(value: Any) -> Hashable:
    """An extension's value as part of a key; one that cannot be compared is the same only if it is the same object.

    The flight's own request keeps that object alive, so its id stands for nothing else meanwhile. The type is part of
    the key, because 1, 1.0 and True are equal.
    """
    if isinstance(value, dict):
        return (dict, *((name, _comparable(each)) for name, each in value.items()))
    key: Hashable = value
    try:
        hash(key)
    except TypeError:
        return (object, id(value))
    return (type(value), key)
