"""Connection pool: HTTP/1.1 connections on trio, kept by origin. An upstream has one; it is also a transport for httpx.

Theory
------
**Problem.** A connection is expensive to make and cheap to reuse, but its peer may close it at any moment while it is
idle. The pool hands each connection to one request at a time, never hands out one that is known to be closed, and
neither leaks a connection nor a place when a request fails or is cancelled.

**Two ways of use.**

- httpx users and health checks call ``handle_async_request`` or ``send``. The pool takes the connection back at the end
  of the response; until then it leases the connection, if the response did not end with its head
  (``response_stream.ConnectionLease``).
- Attempts (``calls/attempt.py``) call ``take`` or ``open``, send and receive by themselves, and end the use with one
  call of ``give_back`` or ``connection_lost``. Attempts of stream calls with a large or streamed request leave dialling
  and sending to ``start_request``.

**States of a connection.** Each connection is in exactly one of these states::

    dialling ── open ──► active ── give_back(usable) ──► idle
                          │  ▲                            │ │
                          │  └─────────── take ───────────┘ │
                          └──────────► closed ◄─────────────┘

- *dialling*: no ``Connection`` object yet, only the count ``_connecting``. A dialled connection belongs to the request
  that dialled it. Two requests that find no idle connection dial two connections.
- *active*: a member of ``_active``, in use by one request. It leaves this state by ``give_back``, by
  ``connection_lost`` (the request failed, and its user has closed the connection) or by ``is_still_good`` (the peer
  closed the connection between ``take`` and the first byte sent).
- *idle*: a member of ``_idle``, in the order of expiry. ``take`` gives the connection that was used last. It discards
  connections that have expired or have anything to read: an idle connection receives nothing but its end.
- *closed*: a member of neither. Idle connections are closed when they expire (``_reap``), when ``take`` discards them,
  when there are more than ``max_idle``, when ``open`` needs their place, by ``aclose``, and at the exit.

**Waiting.** Only a pool with ``max_connections`` has a queue. A place of ``_limiter`` belongs to a request, from before
``take`` until its connection is given back or lost. At least as many places are in use as connections are dialling or
active, and ``open`` closes idle connections beyond the free places. So no more than ``max_connections`` are ever open.
Beneath a bulkhead the pool has no limit, because the bulkhead has already counted the call.

**Replacement.** The pool sends a request twice in one case only: its kept connection ended before the first byte of a
response, and the request is idempotent and has its body in memory (RFC 9110 section 9.2.2). The second connection is
new, so there is no third. A request that must not be sent twice takes a kept connection only if the peer is unlikely to
close it (``policy/idle_reuse.py``).

**Reaper.** All connections have the same ``keepalive_expiry``, so the order in which they became idle is the order of
expiry. The reaper sleeps until the oldest one expires. If that one is taken meanwhile, the reaper wakes early and looks
again; it never wakes late, because connections that become idle later expire later.

**Cancellation.** Waiting for a place: the queue forgets the waiter. Dialling: the dialer closes its socket, and
``_connecting`` is restored. Sending or receiving: ``Connection.start`` and ``read`` close the connection before they
re-raise; ``connection_lost`` (after ``read``: ``give_back``) and the release of the place follow without an await.
``take``, ``give_back`` and ``connection_lost`` never wait, so no cancel can interrupt a change of state.

**Exit.** The outermost exit closes idle connections first, so that a request whose active connection is closed next
cannot take one. The users of active connections see them closed, and report them as lost or give them back. Then the
nursery ends; a connection that is dialled after that is closed at once.
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
from ...core.httpx_calls.httpx_messages import CompleteResponse, UpstreamResponse, headers_of
from ...core.model import DialTimes
from ...http1.response_head import Head
from ...http1.response_reader import Limits, OnInterim
from ...net.epoll import AnyReader, Reader, new_reader
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

_IDLE = State.IDLE  # Reading a member of an enumeration is about ten times as slow as reading a variable.


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool. The last five counters count since the pool was created."""

    connecting: int
    """Connections that are being dialled."""
    active: int
    """Connections with a request in flight, or with a response that was not read to its end."""
    idle: int
    slots: SlotStatistics | None
    """The pool's own limit of connections; None without a limit."""
    opened: int
    """Connections made."""
    reused: int
    """Requests that took an idle connection."""
    replaced: int
    """Requests that were sent again because their kept connection had ended."""
    stale: int
    """Idle connections that were not reused: they had expired, or had their end or other bytes to read."""
    excess: int
    """Responses that were followed by bytes beyond their end."""


def check_connect_timeout(timeout: float | None) -> None:
    """Check a limit in seconds for name resolution, connect and TLS handshake together; None: no limit.

    Raises:
        ValueError: it is not above 0.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError("connect_timeout must be more than 0 seconds")


class Clock(Protocol):
    """Clock with the time of ``trio.current_time()``. A socket reader's clock stands still during its callbacks."""

    @property
    def now(self) -> float:
        """Current time in seconds."""
        ...

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the reader's batch, or at once outside of a batch."""


class TrioClock:
    """Trio's clock, for streams without a socket reader: each of their callbacks is a batch of its own."""

    @property
    def now(self) -> float:
        """Current time in seconds."""
        return trio.current_time()

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at once."""
        callback()


class Pool(httpx.AsyncBaseTransport):
    """Connection pool: HTTP/1.1 connections kept by origin (scheme, host, port or Unix socket, TLS name).

    An async context manager; requests may be sent only inside. The same task may enter the pool again while it is
    entered, as httpx's client does. The outermost exit closes every connection. **A request that is cancelled at any
    point leaves nothing**: its connection is closed and its place is free before the cancel propagates.

    Supported extensions of requests: ``timeout`` (httpx's connect, read, write, pool), ``target``, ``sni_hostname``.
    Extensions of responses: ``http_version``, ``reason_phrase``. The pool follows no redirects, stores no cookies and
    uses no proxies. It removes transfer coding, trailers and hop-by-hop fields from a response, and leaves the content
    coding to httpx.

    Args:
        connect_timeout: seconds for name resolution, connect and TLS handshake together; a request's own ``connect``
            timeout takes precedence. None: no limit.
        keepalive_expiry: seconds after which an idle connection is closed.
        max_connections: limit of open connections, idle ones included. Further requests wait, first come, first
            served. None: no limit and no queue.
        max_waiting: number of requests that may wait; one more raises Overflow.
        max_idle: number of idle connections that are kept, of all origins together. Default: ``max_connections``, or
            100 without that limit.
        limits: limits of a response's head, and of its trailer section.
        ssl_context: TLS settings. Default: ``tls.client_context()``, which verifies against the system's trust store.
        public_only: refuse addresses that are not public. Link-local and multicast addresses are always refused.
        uds: path of a Unix socket to which every connection is made.
        dial: makes the streams instead of sockets, for tests and simulations.
        reader: watches the sockets; it must run as long as the pool is entered. None: the pool has a reader of its own.

    Raises:
        ValueError: ``max_connections`` is less than 1, ``max_waiting``, ``max_idle`` or ``keepalive_expiry`` is
            negative, or ``connect_timeout`` is not above 0.
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
        reader: Reader | None = None,
    ) -> None:
        check_connect_timeout(connect_timeout)
        if max_idle is not None and max_idle < 0:
            raise ValueError("max_idle must be at least 0")
        if not keepalive_expiry >= 0:
            raise ValueError("keepalive_expiry must be at least 0 seconds")
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
        """Clock for callbacks of the streams."""

    # Opening and closing

    async def __aenter__(self) -> Self:
        # The reader before the nursery: making it needs a file descriptor, and fails if there is none.
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
        # Idle connections first: a request whose connection is closed below may ask for another one at once.
        await self.aclose()
        for connection in tuple(self._active):  # A copy: closing may call ``connection_lost``, which removes it.
            connection.close_now()
        self._dialer.reader = None
        await self._tasks.close()

    async def aclose(self) -> None:
        """Close the idle connections, without waiting. The pool remains usable while it is entered."""
        while self._idle.count:
            self._idle.take_oldest().close()

    async def _reap(self) -> None:
        """Close idle connections when they expire; see "Reaper" in the module."""
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
        """Learn from an expired connection whether its origin closes idle connections earlier."""
        idle = self._idle
        if connection.ended_at is not None:
            idle.closed_by_peer(idle.origin_of(connection), connection, now)
        elif connection.is_quiet():
            idle.survived(idle.origin_of(connection), connection, now)

    # Requests of httpx users

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response as soon as its head is read.

        The response's stream must be read to its end or closed. A cancel closes the connection.

        Raises:
            UpstreamError: one of ``errors.py``; each is an httpx exception as well.
            Exception: an exception of the request's own body stream.
            NotRunningError: as ``open``.
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
        """Send an encoded request and return the response as soon as its head is read; see ``handle_async_request``.

        ``timeouts``: None: the pool's own.
        """
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
            # httpx decodes the content coding when the response is read.
            whole = httpx.ByteStream(content)
            return UpstreamResponse(head.status, headers=headers_of(head.fields), stream=whole, extensions=about)
        return CompleteResponse(head.status, head.fields, content, about, trio.current_time() - began)

    def _end_request(self, origin: Origin, connection: Connection) -> None:
        """Take back connection and place of a request whose response has ended, or was closed by its reader."""
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
            raise Overflow(f"no connection became free within the pool timeout of {timeout:g} s")

    def _release_place(self) -> None:
        if self._limiter is not None:
            self._limiter.release()

    async def start_request(
        self,
        origin: Origin,
        encoded: EncodedRequest,
        timeouts: StepTimeouts,
        connection: Connection | None,
        opened: Callable[[Connection, bool], object] | None = None,
        on_interim: OnInterim | None = None,
        dials: Callable[[DialTimes], object] | None = None,
    ) -> tuple[Connection, Head]:
        """Send a request and return its connection with the head of the response. See "Replacement" in the module.

        Failed or cancelled, it closes the connection.

        Args:
            timeouts: ``connect``, ``read`` and ``write`` apply.
            connection: a kept connection to begin with; None: dial.
            opened: called before each use of a connection, with it and whether it is a kept one. The caller may then
                call ``close_now`` to end the request.
            on_interim: gets the interim responses.
            dials: called before a connection is dialled, with its times.

        Raises:
            as ``handle_async_request``.
        """
        if connection is not None and not self.is_still_good(origin, connection, trio.current_time()):
            connection = None
        while True:
            kept = connection is not None
            if connection is None:
                connection = await self.open(origin, timeouts.connect, dials)
            if opened is not None:
                opened(connection, kept)
            try:
                return connection, await connection.start(encoded, self.limits, timeouts, on_interim)
            except BaseException as error:
                # The peer has probably closed an idle connection without reading the request. But it may have begun to
                # act on the request, so only an idempotent request is sent again (RFC 9110 section 9.2.2).
                crossed = kept and isinstance(error, ConnectionReset) and error.untouched
                replaced = crossed and encoded.replayable
                self.connection_lost(origin, connection, crossed=crossed, replaced=replaced)
                if not replaced:
                    raise
                connection = None

    # Connections for callers that send and receive on them themselves

    def take(self, origin: Origin, now: float, *, once: bool) -> Connection | None:
        """Take an idle connection to ``origin``, which becomes active; None if there is none that is still good.

        Args:
            once: whether the request must not be sent twice; if so, only a connection that the peer is unlikely to
                close is taken (``policy.idle_reuse``).

        Raises:
            NotRunningError: the pool is not entered.
        """
        idle = self._idle
        while True:
            connection = idle.take_if_fresh(origin, now) if once else idle.take(origin)
            if connection is None:
                self._tasks.check()
                return None
            # What an idle connection has to read is its end, or bytes of a peer that answers without a request.
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
        """Check again, directly before the first byte is sent, that the peer has not closed a kept connection.

        Returns:
            False if it has. The connection is then closed and no longer active. Nothing was sent on it, so any request
            may use another connection.
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
        """Remove the connection of a request that has failed or was cut. The caller has closed the connection.

        Args:
            crossed: it was a kept connection, and ended before the first byte of a response.
            replaced: the request is sent again on another connection.
        """
        self._active.pop(connection, None)
        self._replaced += replaced
        if crossed:
            self._idle.closed_by_peer(origin, connection, trio.current_time())

    async def open(
        self, origin: Origin, timeout: float | None, dials: Callable[[DialTimes], object] | None = None
    ) -> Connection:
        """Dial a new connection to ``origin``, which becomes active. Cancelled, it leaves no socket open.

        Args:
            timeout: seconds for name resolution, connect and TLS handshake together; None: no limit.
            dials: called before the connection is dialled, with its times.

        Raises:
            UpstreamError: of kind dns, connect or tls; also after ``timeout``.
            NotRunningError: the pool is not entered, or was closed while dialling.
        """
        self._tasks.check()
        if self._limiter is not None and self._max_connections is not None:
            room = self._max_connections - self._limiter.statistics().in_use
            while self._idle.count > room:
                self._idle.take_oldest().close()
        self._connecting += 1
        times = DialTimes(trio.current_time())
        if dials is not None:
            dials(times)
        try:
            if self._dial is self._dialer:
                stream = await self._dialer(origin, timeout, times)
            else:
                stream = await self._dial(origin, timeout)
        finally:
            self._connecting -= 1
        times.ended_at = trio.current_time()
        if not self._tasks.running:
            stream.close_now()  # The pool was closed meanwhile; ``_tasks.nursery`` raises NotRunningError.
        connection = Connection(stream, self._tasks.nursery, origin.where)
        self._active[connection] = None
        self._opened += 1
        return connection

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the reader's batch, or at once outside of a batch."""
        self.clock.after_batch(callback)

    def give_back(self, origin: Origin, connection: Connection, now: float, usable: bool, excess: bool = False) -> None:
        """Take back an active connection whose request is over. It becomes idle, or is closed.

        Args:
            usable: whether it may serve another request.
            excess: whether bytes arrived after the end of the response; for the statistics.
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
