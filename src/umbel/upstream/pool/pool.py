"""Connection pool of an upstream; by itself a transport for any httpx user on trio.

It has a queue only with ``max_connections``. It sends a request twice in one case only: a kept connection was dead
already. It follows no redirects, decodes nothing and stores nothing. Calls (``calls/``) take connections from it and
send their requests and read the responses themselves.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import httpx
import trio
from msgspec.structs import replace

from ...core.call import StepTimeouts
from ...core.httpx_messages import CompleteResponse, UpstreamResponse, headers_of
from ...http1.response_head import Head
from ...http1.response_reader import Limits
from ...net.epoll import AnyReader, new_reader
from ..background_tasks import BackgroundNursery
from ..errors import ConnectionReset, Overflow
from ..queue_limiter import QueueLimiter, SlotStatistics
from ..replicas.origin import Origin, origin_of
from .connection import Connection
from .connection_state import State
from .dial import Dial, Dialer
from .idle_connections import IdleConnections
from .request_head import EncodedRequest, encode_httpx_request
from .response_stream import ConnectionLease, StreamedBody

_IDLE = State.IDLE  # To read a member of an enumeration costs as much as ten variables.


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool. The last five count since the beginning."""

    connecting: int
    active: int
    """Connections with a request in flight, or a response not read to its end."""
    idle: int
    slots: SlotStatistics | None
    """The pool's own limit of connections; None without one."""
    opened: int
    reused: int
    replaced: int
    """Requests sent anew because their kept connection turned out to be dead."""
    stale: int
    """Idle connections that were found closed, or with bytes to read, when they were to be reused."""
    excess: int
    """Responses with bytes behind their end."""


class Clock(Protocol):
    """Clock of ``trio.current_time()``; a socket reader's has one time for all callbacks of a batch."""

    @property
    def now(self) -> float:
        """Seconds."""
        ...


class TrioClock:
    """The clock of trio itself."""

    @property
    def now(self) -> float:
        """Seconds."""
        return trio.current_time()


class Pool(httpx.AsyncBaseTransport):
    """HTTP/1.1 connections kept by origin (scheme, host, port or Unix socket, TLS name), on trio.

    An async context manager, and works only inside it: its nursery runs the reaper of idle connections and the sending
    of large requests. It may be entered again by the same task while it is (httpx's client does so); the outermost
    exit closes every connection. **A request that is cancelled at any point leaves nothing**: its connection is closed
    before the cancel goes on, and its place is free at once.

    Honours the extensions ``timeout`` (httpx's: connect, read, write, pool), ``target`` and ``sni_hostname``; a
    response has ``http_version`` and ``reason_phrase``. Redirects, cookies and proxies of the environment are not its
    matter. The response's content coding is left as it is; transfer coding, trailers and hop-by-hop fields are gone.

    Args:
        connect_timeout: seconds for name, address and TLS handshake together, where the request says nothing.
        keepalive_expiry: seconds that an idle connection is kept.
        max_connections: open connections, idle ones included; more requests wait, first come, first served.
            None (beneath a bulkhead): no limit and no queue.
        max_waiting: requests that may wait so; one more is an Overflow.
        max_idle: idle connections kept, of all origins together; default: ``max_connections``, or 100 without.
        limits: bounds of a response's head.
        ssl_context: default: verification against the system's trust, see ``tls.client_context``.
        public_only: refuse addresses that are not public (link-local and multicast ones are always refused).
        uds: the path of a Unix socket that every connection is made to.
        dial: makes the streams, instead of sockets; for tests and simulations.
        reader: watches the sockets; it must run as long as the pool does. None: the pool has one of its own.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = 5.0,
        keepalive_expiry: float = 4.0,
        max_connections: int | None = 100,
        max_waiting: int = 1000,
        max_idle: int | None = None,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        public_only: bool = False,
        uds: str | None = None,
        dial: Dial | None = None,
        reader: AnyReader | None = None,
    ) -> None:
        self._timeouts = StepTimeouts(connect=connect_timeout)
        self._keepalive_expiry = keepalive_expiry
        self._limiter = None if max_connections is None else QueueLimiter(max_connections, max_waiting)
        self._max_connections = max_connections
        self._max_idle = (max_connections or 100) if max_idle is None else max_idle
        self.limits = limits or Limits()
        self._dialer = Dialer(ssl_context=ssl_context, public_only=public_only)
        self._dial: Dial = dial or self._dialer
        self._uds = uds
        self._given_reader = reader
        self._idle = IdleConnections()
        self._active: dict[Connection, None] = {}
        self._connecting = 0
        self._opened = self._reused = self._replaced = self._stale = self._excess = 0
        self._idle_again = trio.Event()
        self._reaper_waits = False
        self._tasks = BackgroundNursery("the pool")
        self.clock: Clock = TrioClock()
        """Its ``now`` is the time in callbacks of the streams."""

    # Opening and closing

    async def __aenter__(self) -> Self:
        # Before the nursery: it takes a descriptor, and there may be none.
        reader: AnyReader | None = None
        if self._dial is self._dialer and not self._tasks.running and self._given_reader is None:
            reader = new_reader()
        try:
            outermost = await self._tasks.open()
        except BaseException:
            if reader is not None:
                reader.discard()
            raise
        if outermost:
            self._tasks.start_soon(self._reap)
            running = self._dialer.reader = self._given_reader if reader is None else reader
            self.clock = TrioClock() if running is None else running
            if reader is not None:
                self._tasks.start_soon(reader.run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._tasks.depth > 1:
            await self._tasks.close()
            return
        # Idle ones first: a request whose connection is closed may ask for another one at once.
        await self.aclose()
        for connection in tuple(self._active):  # A copy: its request may report the connection as lost.
            connection.close_now()
        self._dialer.reader = None
        await self._tasks.close()

    async def aclose(self) -> None:
        """Close the idle connections. The pool itself ends with its ``async with``."""
        while self._idle.count:
            self._idle.take_oldest().close()

    async def _reap(self) -> None:
        """Close idle connections as they expire."""
        while True:
            oldest = self._idle.oldest()
            if oldest is None:
                self._idle_again = trio.Event()
                self._reaper_waits = True
                await self._idle_again.wait()
            elif oldest.expires_at > trio.current_time():
                await trio.sleep_until(oldest.expires_at)
            else:
                self._record_idle_end(oldest, trio.current_time())
                self._idle.take_oldest().close()

    def _record_idle_end(self, connection: Connection, now: float) -> None:
        """Learn from an idle connection that expires when its origin closes connections."""
        idle = self._idle
        if connection.ended_at is not None:
            idle.closed_by_peer(idle.origin_of(connection), connection, now)
        elif connection.is_quiet():
            idle.survived(idle.origin_of(connection), connection, now)

    # Requests of httpx users

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; return when the response's head is there. Its stream must be read to its end or closed.

        Raises:
            UpstreamError: what ``errors.py`` lists; each is an httpx exception too.
            NotRunningError: outside of the pool's ``async with``.
        """
        self._tasks.check()
        extensions = request.extensions
        origin, encoded = origin_of(request.url), encode_httpx_request(request)
        if self._uds is not None or "sni_hostname" in extensions:
            origin = replace(origin, uds=self._uds, sni=extensions.get("sni_hostname"))
        timeouts = self._timeouts_of(extensions["timeout"]) if "timeout" in extensions else self._timeouts
        return await self.send(origin, encoded, timeouts)

    async def send(
        self, origin: Origin, encoded: EncodedRequest, timeouts: StepTimeouts | None = None
    ) -> httpx.Response:
        """``handle_async_request`` for a request that is encoded."""
        timeouts = timeouts or self._timeouts
        began = trio.current_time()
        if self._limiter is not None and not self._limiter.take():
            await self._wait_for_place(self._limiter, timeouts.pool)
        try:
            now = trio.current_time()
            kept = self.take(origin, now, once=not encoded.replayable)
            connection, head = await self.start_request(origin, encoded, timeouts, kept)
        except BaseException:
            self._release_place()
            raise
        about = {"http_version": head.version, "reason_phrase": head.reason}
        if not connection.ended:
            stream = StreamedBody(ConnectionLease(connection, lambda: self._end_request(origin, connection)))
            return UpstreamResponse(head.status, headers=headers_of(head.fields), stream=stream, extensions=about)
        content = connection.take()
        self._end_request(origin, connection)
        if connection.unsettled:
            await connection.settle()
            connection.raise_failure()
        if content and head.coded:
            # Undone by httpx, when the response is read.
            whole = httpx.ByteStream(content)
            return UpstreamResponse(head.status, headers=headers_of(head.fields), stream=whole, extensions=about)
        return CompleteResponse(head.status, head.fields, content, about, trio.current_time() - began)

    def _end_request(self, origin: Origin, connection: Connection) -> None:
        self.give_back(origin, connection, trio.current_time(), connection.state is State.IDLE, connection.excess)
        self._release_place()

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(
            self._connecting,
            len(self._active),
            self._idle.count,
            None if self._limiter is None else self._limiter.statistics(),
            self._opened,
            self._reused,
            self._replaced,
            self._stale,
            self._excess,
        )

    def _timeouts_of(self, given: dict[str, float | None]) -> StepTimeouts:
        connect = given.get("connect", self._timeouts.connect)
        return StepTimeouts(connect, given.get("read"), given.get("write"), given.get("pool"))

    async def _wait_for_place(self, limiter: QueueLimiter, timeout: float | None) -> None:
        if timeout is None:
            await limiter.acquire()
            return
        with trio.move_on_after(timeout) as scope:
            await limiter.acquire()
        if scope.cancelled_caught:
            raise Overflow(f"no connection became free for {timeout:g} s")

    def _release_place(self) -> None:
        if self._limiter is not None:
            self._limiter.release()

    async def start_request(
        self,
        origin: Origin,
        encoded: EncodedRequest,
        timeouts: StepTimeouts,
        connection: Connection | None,
        opened: Callable[[], object] | None = None,
    ) -> tuple[Connection, Head]:
        """Send on a kept connection, or on a new one; once more on a new one if the kept one was dead already.

        ``opened`` is called when a new connection is there.
        """
        if connection is not None and not self.is_still_good(origin, connection, trio.current_time()):
            connection = None
        while True:
            kept = connection is not None
            if connection is None:
                connection = await self.open(origin, timeouts.connect)
                if opened is not None:
                    opened()
            try:
                return connection, await connection.start(encoded, self.limits, timeouts)
            except BaseException as error:
                # Its end crossed our request: the peer closed an idle connection, and has not seen the request. It may
                # also have begun to act on it, so only what may be repeated is (RFC 9110 section 9.2.2).
                crossed = kept and isinstance(error, ConnectionReset) and error.untouched
                replaced = crossed and encoded.replayable
                self.connection_lost(origin, connection, crossed=crossed, replaced=replaced)
                if not replaced:
                    raise
                connection = None

    # Connections for callers that send and receive on them themselves

    def take(self, origin: Origin, now: float, *, once: bool) -> Connection | None:
        """A kept connection to ``origin`` that is still good, marked active; None if there is none.

        ``once``: it is for a request that must not be sent twice.

        Raises:
            NotRunningError: outside of the pool's ``async with``.
        """
        idle = self._idle
        while True:
            connection = idle.take_if_fresh(origin, now) if once else idle.take(origin)
            if connection is None:
                self._tasks.check()
                return None
            # Something to read on an idle connection is its end, or a response without a request.
            quiet = connection.is_quiet()
            if quiet and connection.expires_at > now:
                self._active[connection] = None
                self._reused += 1
                return connection
            if not quiet:
                idle.closed_by_peer(origin, connection, now)
            self._stale += 1
            connection.close_now()

    def is_still_good(self, origin: Origin, connection: Connection, now: float) -> bool:
        """Whether a kept connection that was taken for a task has not ended until the task runs; else it is closed.

        Nothing was sent on it, so whatever the request is, another connection may carry it.
        """
        if connection.is_quiet():
            return True
        self._idle.closed_by_peer(origin, connection, now)
        self._stale += 1
        self._reused -= 1
        connection.close_now()
        self._active.pop(connection, None)
        return False

    def connection_lost(
        self, origin: Origin, connection: Connection, *, crossed: bool = False, replaced: bool = False
    ) -> None:
        """Forget the connection of a request that has failed; it is closed.

        Args:
            crossed: it was a kept one, whose peer closed it as the request was on its way.
            replaced: its request is sent anew for that reason.
        """
        self._active.pop(connection, None)
        self._replaced += replaced
        if crossed:
            self._idle.closed_by_peer(origin, connection, trio.current_time())

    async def open(self, origin: Origin, timeout: float | None) -> Connection:
        """A new connection to ``origin``, marked active. Cancelled, it leaves none.

        Raises:
            UpstreamError: of kind dns, connect or tls; also when ``timeout`` seconds have passed.
            NotRunningError: outside of the pool's ``async with``.
        """
        self._tasks.check()
        if self._limiter is not None and self._max_connections is not None:
            room = self._max_connections - self._limiter.statistics().in_use
            while self._idle.count > room:
                self._idle.take_oldest().close()
        self._connecting += 1
        try:
            stream = await self._dial(origin, timeout)
        finally:
            self._connecting -= 1
        if not self._tasks.running:
            stream.close_now()
        connection = Connection(stream, self._tasks.nursery, origin.where)
        self._active[connection] = None
        self._opened += 1
        return connection

    def give_back(self, origin: Origin, connection: Connection, now: float, usable: bool, excess: bool = False) -> None:
        """Take back the connection of a request whose response is complete.

        Args:
            usable: whether it may serve again.
            excess: bytes came behind the response's end.
        """
        del self._active[connection]
        self._excess += excess
        if not self._tasks.running:
            connection.close_now()
        elif usable:
            connection.state = _IDLE
            connection.idle_since = now
            connection.expires_at = now + self._keepalive_expiry
            idle = self._idle
            idle.add(origin, connection)
            if idle.count > self._max_idle:
                idle.take_oldest().close()
            if self._reaper_waits:
                self._reaper_waits = False
                self._idle_again.set()
        else:
            connection.close()
