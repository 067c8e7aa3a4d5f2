"""The connection pool: the bottom of every stack, and by itself a transport for any httpx user on trio.

Used through ``handle_async_request`` alone. It queues only if it stands alone (``max_connections``), sends a request
twice in one case only (a kept connection that was dead already), and follows, decodes and stores nothing.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import trio

from ..messages import Complete, UpstreamResponse, headers_of
from ..net.epoll import new_reader
from .connection import Connection, Timeouts
from .dial import Dial, Dialer
from .errors import ConnectionReset, Overflow
from .head import Head
from .http1 import Limits
from .idle import IdleConnections
from .lifecycle import State
from .notes import NOTES, REPLACES, Notes
from .origin import REPLICA, Origin, Replica
from .outgoing import Outgoing, prebuilt, prepare
from .ownnursery import OwnNursery
from .slots import Slots, SlotStatistics
from .streamed import Lent, StreamedBody


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool. The last five count since the beginning."""

    connecting: int
    active: int
    """Connections with a request in flight, or a response not read to its end."""
    idle: int
    slots: SlotStatistics | None
    """The pool's own limit; None where it has none."""
    opened: int
    reused: int
    replaced: int
    """Requests sent anew because their kept connection turned out to be dead."""
    stale: int
    """Idle connections found closed, or not quiet, when they were wanted."""
    excess: int
    """Responses with bytes behind their end."""


class Pool(httpx.AsyncBaseTransport):
    """HTTP/1.1 connections kept by origin (scheme, host, port or Unix socket, TLS name), on trio.

    An async context manager, and works only inside it: its nursery runs the reaper of idle connections and the sending
    of large requests. It may be entered again by the same task while it is (httpx's client does so); the outermost
    exit closes every connection. **A request that is cancelled at any point leaves nothing**: its connection is closed
    without a goodbye before the cancel goes on, and its place is free at once.

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
    ) -> None:
        self._timeouts = Timeouts(connect=connect_timeout)
        self._keepalive_expiry = keepalive_expiry
        self._slots = None if max_connections is None else Slots(max_connections, max_waiting)
        self._max_connections = max_connections
        self._max_idle = (max_connections or 100) if max_idle is None else max_idle
        self._limits = limits or Limits()
        self._dialer = Dialer(ssl_context=ssl_context, public_only=public_only)
        self._dial: Dial = dial or self._dialer
        self._uds = uds
        self._idle = IdleConnections()
        self._active: set[Connection] = set()
        self._connecting = 0
        self._opened = self._reused = self._replaced = self._stale = self._excess = 0
        self._idle_again = trio.Event()
        self._own = OwnNursery("the pool")

    # Its life

    async def __aenter__(self) -> Self:
        # Before the nursery: it takes a descriptor, and there may be none.
        reader = new_reader() if self._dial is self._dialer and not self._own.running else None
        try:
            outermost = await self._own.open()
        except BaseException:
            if reader is not None:
                reader.discard()
            raise
        if outermost:
            self._own.start_soon(self._reap)
            if reader is not None:
                self._dialer.reader = reader
                self._own.start_soon(reader.run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._own.depth > 1:
            await self._own.close()
            return
        for connection in self._active:
            connection.close_now()
        while self._idle:
            self._idle.take_oldest().close()
        self._dialer.reader = None
        await self._own.close()

    async def aclose(self) -> None:
        """Close the idle connections. The pool itself ends with its ``async with``."""
        while self._idle:
            self._idle.take_oldest().close()

    async def _reap(self) -> None:
        """Close idle connections as they expire."""
        while True:
            oldest = self._idle.oldest()
            if oldest is None:
                self._idle_again = trio.Event()
                await self._idle_again.wait()
            elif oldest.expires_at > trio.current_time():
                await trio.sleep_until(oldest.expires_at)
            else:
                if oldest.ended_at is not None:
                    self._idle.closed_by_peer(self._idle.origin_of(oldest), oldest, trio.current_time())
                self._idle.take_oldest().close()

    # Its one job

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; return when the response's head is there. Its stream must be read to its end or closed.

        Raises:
            UpstreamError: what ``errors.py`` lists; each is an httpx exception too.
            NotRunningError: outside of the pool's ``async with``.
        """
        self._own.check()
        extensions = request.extensions
        replica: Replica | None = extensions.get(REPLICA)
        if replica is not None:
            origin, outgoing = replica.origin, prepare(request, replica.host)
        else:
            origin, outgoing = prebuilt(request)
            if self._uds is not None or "sni_hostname" in extensions:
                origin = origin._replace(uds=self._uds, sni=extensions.get("sni_hostname"))
        timeouts = self._timeouts_of(extensions["timeout"]) if "timeout" in extensions else self._timeouts
        now = began = trio.current_time()
        if self._slots is not None and not self._slots.take():
            await self._admit(self._slots, timeouts.pool)
            now = trio.current_time()
        try:
            kept = None if REPLACES in extensions else await self._take_idle(origin, now, once=not outgoing.replayable)
            connection, head = await self._send(origin, outgoing, timeouts, extensions.get(NOTES), kept)
        except BaseException:
            self._leave()
            raise
        about = {"http_version": head.version, "reason_phrase": head.reason}
        if not connection.ended:
            stream = StreamedBody(Lent(connection, lambda: self.give_back(origin, connection, trio.current_time())))
            return UpstreamResponse(head.status, headers=headers_of(head.fields), stream=stream, extensions=about)
        content = connection.take()
        now = trio.current_time()
        self.give_back(origin, connection, now)
        if connection.unsettled:
            await connection.settle()
            connection.raise_failure()
        if content and head.coded:
            # Undone by httpx, when the response is read.
            whole = httpx.ByteStream(content)
            return UpstreamResponse(head.status, headers=headers_of(head.fields), stream=whole, extensions=about)
        return Complete(head.status, head.fields, content, about, now - began)

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(
            self._connecting,
            len(self._active),
            len(self._idle),
            None if self._slots is None else self._slots.statistics(),
            self._opened,
            self._reused,
            self._replaced,
            self._stale,
            self._excess,
        )

    def _timeouts_of(self, given: dict[str, float | None]) -> Timeouts:
        connect = given.get("connect", self._timeouts.connect)
        return Timeouts(connect, given.get("read"), given.get("write"), given.get("pool"))

    async def _admit(self, slots: Slots, timeout: float | None) -> None:
        if timeout is None:
            await slots.acquire()
            return
        with trio.move_on_after(timeout) as scope:
            await slots.acquire()
        if scope.cancelled_caught:
            raise Overflow(f"no connection became free for {timeout:g} s")

    def _leave(self) -> None:
        if self._slots is not None:
            self._slots.release()

    async def _send(
        self,
        origin: Origin,
        outgoing: Outgoing,
        timeouts: Timeouts,
        notes: Notes | None,
        connection: Connection | None,
    ) -> tuple[Connection, Head]:
        """Send on a kept connection, or on a new one; once more on a new one if the kept one was dead already."""
        while True:
            kept = connection is not None
            if notes is not None:
                notes.reused = kept
            if connection is None:
                connection = await self._open(origin, timeouts.connect)
            try:
                head = await connection.start(outgoing, self._limits, timeouts)
            except BaseException as error:
                self._active.discard(connection)
                # Its end crossed our request: the peer closed an idle connection, and has not seen the request. It may
                # also have begun to act on it, so only what may be repeated is (RFC 9110 section 9.2.2).
                crossed = kept and isinstance(error, ConnectionReset) and error.untouched
                if crossed:
                    self._idle.closed_by_peer(origin, connection, trio.current_time())
                if not (crossed and outgoing.replayable):
                    raise
                self._replaced += 1
                connection = None
            else:
                if notes is not None:
                    notes.status = head.status
                return connection, head

    async def _take_idle(self, origin: Origin, now: float, *, once: bool) -> Connection | None:
        """A kept connection to ``origin`` that is still good, marked active. ``once``: for a request sent only once."""
        while True:
            connection = self._idle.take_for_once(origin, now) if once else self._idle.take(origin)
            if connection is None:
                return None
            self._active.add(connection)
            try:
                # So that tasks which were woken together send together: a peer on this machine is woken once for all of
                # them, and not by each of their sends, which would then take three times as long.
                await trio.lowlevel.checkpoint()
                # Something to read on an idle connection is its end, or a response that nobody asked for.
                quiet = connection.is_quiet()
                self._own.check()
                if quiet and connection.expires_at > now:
                    self._reused += 1
                    return connection
                if not quiet:
                    self._idle.closed_by_peer(origin, connection, now)
            except BaseException:
                self._active.discard(connection)
                connection.close_now()
                raise
            self._active.discard(connection)
            self._stale += 1
            connection.close_now()

    # For requests without a task of their own (``express.py``), which hold no place: only for pools without a limit.

    def take_pushing(self, origin: Origin, now: float) -> Connection | None:
        """A good kept connection to ``origin`` with a ``pushing`` stream, marked active; None if there is none."""
        while (connection := self._idle.take(origin)) is not None:
            if connection.pushing is None:
                self._idle.add(origin, connection)
                return None
            quiet = connection.is_quiet()
            if quiet and connection.expires_at > now:
                self._active.add(connection)
                self._reused += 1
                return connection
            if not quiet:
                self._idle.closed_by_peer(origin, connection, now)
            self._stale += 1
            connection.close_now()
        return None

    def lost(self, connection: Connection, *, replaced: bool = False) -> None:
        """The connection is closed; ``replaced``: its request is sent anew, because the connection was dead already."""
        self._active.discard(connection)
        self._replaced += replaced

    async def _open(self, origin: Origin, timeout: float | None) -> Connection:
        """A new connection to ``origin``, marked active."""
        if self._slots is not None and self._max_connections is not None:
            room = self._max_connections - self._slots.statistics().in_use
            while len(self._idle) > room:
                self._idle.take_oldest().close()
        self._connecting += 1
        try:
            stream = await self._dial(origin, timeout)
        finally:
            self._connecting -= 1
        if not self._own.running:
            stream.close_now()
        connection = Connection(stream, self._own.nursery, origin.where)
        self._active.add(connection)
        self._opened += 1
        return connection

    def give_back(self, origin: Origin, connection: Connection, now: float) -> None:
        """Take back the connection of an exchange that is over, and its place."""
        self._active.discard(connection)
        self._leave()
        if connection.excess:
            self._excess += 1
        if connection.state is State.IDLE and self._own.running:
            connection.idle_since = now
            connection.expires_at = now + self._keepalive_expiry
            self._idle.add(origin, connection)
            if len(self._idle) > self._max_idle:
                self._idle.take_oldest().close()
            if not self._idle_again.is_set():
                self._idle_again.set()
        elif not self._own.running:
            connection.close_now()
        elif connection.ended:
            connection.close()
