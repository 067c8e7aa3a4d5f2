"""An upstream that sends requests off by a script, on the virtual clock: what a stack is to the composition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import httpx
import msgspec
import trio

from tests.support.scripts import Turns
from umbel.inflight import InFlight, Prepared
from umbel.model import FACTS, CallFacts


class Lands(NamedTuple):
    """What becomes of a request."""

    after: float
    """Seconds until (each piece of) its answer comes; infinite: never."""
    status: int = 200
    value: object = 1
    error: Exception | None = None
    """Raised instead of an answer."""
    pieces: int = 1
    sent_off: bool = True
    """Else it goes the ordinary way."""
    in_air: bool = True
    """Else it must be carried from the beginning."""
    then_carried: float | None = None
    """Once it has arrived it must be carried, which takes so many seconds more."""
    bug: str = ""
    """The function that raises what no transport may."""
    tell: Callable[[], object] = lambda: None
    """Called when it arrives."""


class Flight:
    """A request that was sent off. Asserts that its owner keeps to the rules of ``inflight.InFlight``."""

    def __init__(self, upstream: Flown, lands: Lands, arrived: Callable[[InFlight], None]) -> None:
        self._upstream = upstream
        self._lands = lands
        self._arrived = arrived
        self._came = 0
        self.in_air = False
        self.sent_at = trio.current_time()
        self.turn = -1
        """The turn in which it landed."""
        self.ended = ""
        """How it ended: landed, carried or cut."""

    def depart(self) -> None:
        assert self.sent_at == trio.current_time()
        assert not self.in_air
        self._fail("depart")
        self.in_air = self._lands.in_air

    def arrive(self) -> None:
        """Something has come; nothing does once it has ended, as of a closed connection."""
        if not self.ended:
            self._lands.tell()
            self._came += 1
            self._arrived(self)

    def land(self, now: float) -> httpx.Response | None:
        assert self.in_air
        assert self._came
        if self._came < self._lands.pieces:
            return None
        if self._lands.then_carried is not None:
            self.in_air = False
            return None
        self._end("landed")
        self._fail("land")
        return self._upstream.answer(self._lands)

    async def carry(self) -> httpx.Response:
        assert not self.in_air
        assert not self.ended
        lands = self._lands
        self._upstream.in_flight += 1
        try:
            await trio.sleep(lands.after * lands.pieces if lands.then_carried is None else lands.then_carried)
            self._fail("carry")
            return self._upstream.answer(lands)
        finally:
            self._upstream.in_flight -= 1
            self._end("carried")

    def cut(self, cancelled: BaseException) -> None:
        assert isinstance(cancelled, BaseException)
        self._end("cut")
        self._fail("cut")

    def _end(self, how: str) -> None:
        assert not self.ended, f"{how} after {self.ended}"
        self.ended, self.in_air, self.turn = how, False, self._upstream.turns.count

    def _fail(self, where: str) -> None:
        if self._lands.bug == where:
            raise ZeroDivisionError


class Flown(httpx.AsyncBaseTransport):
    """Behaves by the target's beginning. ``express`` False: it sends nothing off.

    Its timers are system tasks, so that they neither belong to who asks nor end with a test's cancel.
    """

    def __init__(self, script: Mapping[str, Lands], turns: Turns | None = None, *, express: bool = True) -> None:
        self._script = script
        self._express = express
        self.turns = turns or Turns()
        self.flights: list[Flight] = []
        self.asked = 0
        """Requests that went the ordinary way."""
        self.in_flight = 0

    def send_off(
        self, prepared: Prepared, facts: CallFacts, arrived: Callable[[InFlight], None], now: float
    ) -> Flight | None:
        lands = self._of(prepared.target)
        assert now == trio.current_time()
        assert facts.deadline <= facts.request.deadline
        if lands.bug == "send_off":
            raise ZeroDivisionError
        if not (self._express and lands.sent_off):
            return None
        flight = Flight(self, lands, arrived)
        self.flights.append(flight)
        if lands.in_air and lands.after < float("inf"):
            trio.lowlevel.spawn_system_task(self._play, flight, lands)
        return flight

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert FACTS in request.extensions
        lands = self._of(request.extensions["target"])
        self.asked += 1
        self.in_flight += 1
        try:
            await trio.sleep(lands.after * lands.pieces + (lands.then_carried or 0.0))
            if lands.bug:
                raise ZeroDivisionError
            return self.answer(lands)
        finally:
            self.in_flight -= 1

    def answer(self, lands: Lands) -> httpx.Response:
        if lands.error is not None:
            raise lands.error
        return httpx.Response(lands.status, content=msgspec.json.encode(lands.value))

    def assert_all_ended(self) -> None:
        """Every flight has ended, and nobody is being asked."""
        assert all(flight.ended for flight in self.flights)
        assert self.in_flight == 0

    def _of(self, target: bytes) -> Lands:
        path = target.decode()
        return self._script[max((key for key in self._script if path.startswith(key)), key=len)]

    @staticmethod
    async def _play(flight: Flight, lands: Lands) -> None:
        for _ in range(lands.pieces):
            await trio.sleep(lands.after)
            flight.arrive()
