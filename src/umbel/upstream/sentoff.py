"""A plain request under way: from its departure to the response, or to whatever ended it.

Made by ``express.py`` once it is admitted; the functions of ``inflight.InFlight`` are what its owner calls. It tells
the layers of the end as they would have heard of it themselves, from the inside out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ..inflight import InFlight, Prepared
from ..kinds import Kind
from ..messages import ANYWHERE, Complete, Field, request_of
from ..model import FACTS, CallFacts
from ..policy.verdict import failed
from .again import FAILURES
from .attempt import Attempt, detail_of
from .attempt import ended as attempt_ended
from .balance import Balance, Seat
from .body import Body, Decoder
from .breaker import Breaker
from .bulkhead import Bulkhead
from .ending import failed_by, kind_of_end
from .errors import ConnectionReset
from .head import Head
from .http1 import Limits
from .notes import REPLACES
from .origin import REPLICA
from .perorigin import key_of
from .pool import Pool
from .retry import Retry
from .rewrite import rewritten
from .slots import Slots
from .state import STATE, CallState

if TYPE_CHECKING:
    from ..policy.breaker import Ticket
    from .connection import Connection

# Above the balance layer every request of a stack has this one.
ORIGIN = key_of(ANYWHERE)


@dataclass(frozen=True, slots=True)
class PlainLayers:
    """The layers of a stack that a plain request passes."""

    bulkhead: Bulkhead
    balance: Balance
    attempt: Attempt
    body: Body
    pool: Pool
    limits: Limits
    """Of a response's head; the pool's."""
    breaker: Breaker | None = None
    retry: Retry | None = None


class SentOff:
    """One request, its first attempt under way. An ``inflight.InFlight``, and the listener of its connection."""

    in_air = False
    _data = b""
    """What came of the response, and was not landed yet."""
    _eof = False
    _error: Exception | None = None
    _connection: Connection | None = None
    _reused = False
    _dead = False
    """Whether its kept connection was dead already: it is to be sent anew on a new one."""
    _begun = False
    """Whether something of the response has come."""
    _status: int | None = None
    _reading: tuple[list[Field], Decoder] | None = None
    """The fields and the decoder of a response that comes in pieces, or with a content coding."""
    _first: httpx.Response | Exception | None = None
    """How the first attempt ended, where another may follow."""
    _state: CallState | None = None

    def __init__(
        self,
        layers: PlainLayers,
        prepared: Prepared,
        facts: CallFacts,
        arrived: Callable[[InFlight], None],
        request: bytes,
        at: float,
        seat: Seat,
        slots: Slots,
        ticket: Ticket | None,
    ) -> None:
        """A request that was admitted ``at`` this time, with what it was given, to be given back at its end."""
        self._layers = layers
        self._prepared = prepared
        self._facts = facts
        self._arrived = arrived
        self._bytes = request
        self._at = at
        self._seat = seat
        self._slots = slots
        self._ticket = ticket
        if layers.retry is not None:
            self._state = CallState([seat.name], ticket)
            layers.retry.enter(self._state)

    def depart(self) -> None:
        """See ``inflight.InFlight.depart``: without a kept connection it is not in the air."""
        pool = self._layers.pool
        connection = pool.take_pushing(self._seat.replica.origin, self._at)
        if connection is None:
            return
        if connection.send_off(self._bytes, self):
            self._connection = connection
            self._reused = self.in_air = True
        else:
            self._dead = True
            pool.lost(connection, replaced=True)

    # What the stream of its connection calls; see ``net.stream.Listener``.

    def on_data(self, data: bytes) -> bool:
        """Bytes of the response. No more are wanted until these were landed: a body over its bound is not read on."""
        self._data = data
        self._arrived(self)
        return False

    def on_eof(self) -> None:
        """The end of the stream."""
        self._eof = True
        self._arrived(self)

    def on_error(self, error: Exception) -> None:
        """The stream is broken, or the pool closed it."""
        self._error = error
        self._arrived(self)

    # What its owner calls.

    def land(self, now: float) -> httpx.Response | None:
        """See ``inflight.InFlight.land``."""
        connection = self._connection
        assert connection is not None
        try:
            response = self._received(connection, now)
        except Exception as error:
            self._lose()
            if isinstance(error, ConnectionReset) and error.untouched:
                # Its end crossed our request: the peer closed an idle connection, and has not seen the request.
                self._dead = True
                self._layers.pool.lost(connection, replaced=True)
                return None
            self._attempt_failed(error, now)
            if self._may_repeat(error):
                return None
            self._over()
            raise
        if response is None:
            return None
        status = response.status_code
        self._attempt_ended(now, status, None, "", failed(None, status))
        if self._layers.retry is not None and self._may_repeat(response):
            return None
        self._over()
        return response

    async def carry(self) -> httpx.Response:
        """See ``inflight.InFlight.carry``."""
        try:
            outcome, self._first = self._first, None
            if outcome is None:
                outcome = await self._ordinary()
            if self._state is not None and self._layers.retry is not None:
                return await self._layers.retry.resume(self._request({STATE: self._state}), self._state, outcome)
            if isinstance(outcome, httpx.Response):
                return outcome
            try:
                raise outcome
            finally:
                del outcome  # Its traceback holds this frame.
        finally:
            self._over()

    def cut(self, cancelled: BaseException) -> None:
        """See ``inflight.InFlight.cut``."""
        self._lose()
        if self._first is None:
            self._attempt_failed(cancelled, trio.current_time())
        self._over()

    # The first attempt.

    def _received(self, connection: Connection, now: float) -> Complete | None:
        """The response, if what has come was the last of it."""
        data, self._data = self._data, b""
        if not self._begun:
            self._begun = True
            whole = connection.caught_whole(data, self._prepared.method, self._layers.limits)
            if whole is not None:
                return self._whole(connection, *whole, now)
        head = connection.caught(data, self._error, self, eof=self._eof)
        if head is None:
            return None
        self._status = head.status
        if not connection.ended:
            self._read(head, connection)
            return None
        return self._whole(connection, head, connection.take(), now)

    def _read(self, head: Head, connection: Connection) -> None:
        """Take in a part of a response that is not whole."""
        if self._reading is None:
            self._reading = self._layers.body.begin(self._prepared.method, self._facts, head.status, head.fields)
        self._reading[1].feed(connection.take())

    def _whole(self, connection: Connection, head: Head, content: bytes, now: float) -> Complete:
        """The response, whose last byte has come; its connection goes back to the pool."""
        layers, took = self._layers, now - self._at
        self._status, self._connection = head.status, None
        layers.pool.give_back(self._seat.replica.origin, connection, now)
        about = {"http_version": head.version, "reason_phrase": head.reason}
        if self._reading is None:
            if not (content and head.coded):
                layers.body.check_size(self._facts, head.fields, len(content))
                response = Complete(head.status, head.kept, content, about, took)
                response.names = head.names
                return response
            self._reading = layers.body.begin(self._prepared.method, self._facts, head.status, head.fields)
        kept, decoder = self._reading
        decoder.feed(content)
        return Complete(head.status, kept, decoder.end(), about, took)

    async def _ordinary(self) -> httpx.Response | Exception:
        """The first attempt by the layers' own way, where a connection must be waited for."""
        layers, at, seat, facts = self._layers, self._at, self._seat, self._facts
        replica = seat.replica
        state = self._state or CallState([seat.name], self._ticket)
        target = replica.base + self._prepared.target
        extensions: dict[str, Any] = {STATE: state, REPLICA: replica, "target": target}
        if self._dead:
            extensions[REPLACES] = at
        request = rewritten(self._request(extensions), {b"host": replica.host}, url=replica.url)
        try:
            response = await layers.attempt.handle_async_request(request)
        except BaseException as error:
            layers.balance.ended(trio.current_time(), seat, at, failed_by(error, facts, at))
            if not isinstance(error, FAILURES):
                raise
            if self._state is not None:
                layers.balance.lost(seat, error, self._state)
            return error
        layers.balance.ended(trio.current_time(), seat, at, failed(None, response.status_code))
        return response

    def _request(self, extensions: Mapping[str, Any]) -> httpx.Request:
        method, target, _, content, _ = self._prepared
        return request_of(method, self._prepared.fields, content, {"target": target, FACTS: self._facts, **extensions})

    def _lose(self) -> None:
        """Close the connection, if it is still ours."""
        self.in_air = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.unlisten()
            connection.close_now()
            self._layers.pool.lost(connection)

    def _attempt_failed(self, error: BaseException, now: float) -> None:
        at, facts = self._at, self._facts
        kind, verdict = kind_of_end(error, facts, at), failed_by(error, facts, at)
        self._attempt_ended(now, self._status, kind, detail_of(error), verdict)
        if self._state is not None and isinstance(error, FAILURES):
            self._layers.balance.lost(self._seat, error, self._state)

    def _attempt_ended(
        self, now: float, status: int | None, kind: Kind | None, detail: str, verdict: bool | None
    ) -> None:
        at, seat = self._at, self._seat
        attempt_ended(now, self._facts, self._ticket, seat.name, at, status, kind, self._reused, "first", detail)
        self._layers.balance.ended(now, seat, at, verdict)

    # The end.

    def _may_repeat(self, outcome: httpx.Response | Exception) -> bool:
        """Whether the retry layer is to be asked, which may have to wait."""
        retry = self._layers.retry
        if retry is None:
            return False
        if isinstance(outcome, httpx.Response):
            if retry.stands(outcome.status_code):
                return False
        elif not isinstance(outcome, FAILURES):
            return False
        self._first, self.in_air = outcome, False
        return True

    def _over(self) -> None:
        """The call is over, as far as its upstream is concerned."""
        layers = self._layers
        layers.bulkhead.leave(ORIGIN, self._slots)
        if self._ticket is not None:
            self._ticket.ended()
        if self._state is not None and layers.retry is not None:
            layers.retry.leave(self._state)
