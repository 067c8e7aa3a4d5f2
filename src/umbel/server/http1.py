"""Our HTTP/1.1 on one connection: read a head, run the application in this task, and again until it ends.

Called by ``connection.py``. What a request and its response are is decided in ``head.py``, ``body.py``, ``exchange.py``
and ``response.py``; here are their order, the time they may take, and the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import unquote

import trio

from .body import too_large
from .crash import apart, is_nothing_but
from .diagnosis import HeadRefused
from .exchange import ASGI, PIECE, ClientLeft, Exchange
from .handoff import Handoff
from .head import END, PREFACE, Head
from .refusal import NO_CONNECTION_LEFT, Refusal, new_request_id
from .response import STATUS_LINES, ApplicationError
from .stepping import notice_first_wait

if TYPE_CHECKING:
    from typing import Any

    from ..upstream.alarm import Reminder
    from .peer import Peer
    from .service import Service
    from .wire import Wire

_TRAILERS = "http.response.trailers"

LINGER_TIMEOUT = 2.0
"""Seconds that a client gets to read a last answer, where it may still be sending."""
LINGER_MAX = 256 * 1024
"""Bytes that are read meanwhile. A socket that is closed with bytes unread takes its last answer back."""


async def serve_http1(service: Service, wire: Wire, peer: Peer, received: bytes = b"") -> Handoff | None:
    """Serve requests until the connection ends or turns out to speak something else.

    ``received`` has been read already. The wire is left open in both cases. Cancelled, it cuts the request in flight
    and passes the cancel on.
    """
    connection = Http1Connection(service, wire, peer, received)
    service.open.add(connection)
    try:
        return await connection.run()
    finally:
        connection.over()


async def turn_away(service: Service, wire: Wire, peer: Peer) -> None:
    """Answer a connection that is one too many with 503, without reading its request. The wire is left open."""
    connection = Http1Connection(service, wire, peer, b"")
    with connection.scope:
        try:
            await connection.refuse_unseen(NO_CONNECTION_LEFT, "", "", keep=False)
            await connection.linger()
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass  # It did not want to know.


class Http1Connection:
    """One connection; ``Exchange`` is each request of it."""

    def __init__(self, service: Service, wire: Wire, peer: Peer, received: bytes) -> None:
        self.service = service
        self.wire = wire
        self.buffer = received
        """What has been read and not been used."""
        self.scope = trio.CancelScope()
        self.half_closed = False
        """Whether the client has ended its sending, and waits for its answers all the same."""
        self.lingers = bool(received)
        """Whether the client may be sending while we close."""
        self._peer = peer
        self._exchange: Exchange | None = None
        self._requests = 0
        self._expires = math.inf
        """When a client that sends nothing is cut. It is only noted; the reminder looks when its own time has come."""
        self._reminder: Reminder | None = None
        self._reminded_at = math.inf
        self._expired = False
        self._head_began = 0.0
        """When the head that is being read began; 0 between requests."""

    async def run(self) -> Handoff | None:
        """See ``serve_http1``."""
        handoff = None
        with self.scope:
            self._expire_at(trio.current_time() + self.service.limits.head_timeout)
            try:
                handoff = await self._converse()
            except trio.ClosedResourceError:
                pass  # Interrupted while it sent.
            except trio.BrokenResourceError:
                self.lingers = False
            if handoff is None and self.lingers:
                await self.linger()
        return handoff

    def over(self) -> None:
        """Forget the connection; its wire goes elsewhere or is closed."""
        self.service.open.discard(self)
        self.service.departures.forget(self.wire.fd)
        if self._reminder is not None:
            self._reminder.drop()

    async def _converse(self) -> Handoff | None:
        while True:
            try:
                raw = await self._next_head()
                if raw is None:
                    return None
                if raw == PREFACE and not self._requests and self.service.speaks_h2:
                    return Handoff("h2", raw + self.take_buffer())
                head = self.service.heads.read(raw)
                if head.length > self.service.limits.max_body:
                    raise HeadRefused(too_large(self.service.limits))
            except HeadRefused as error:
                if not await self._refuse_head(error):
                    return None
                continue
            if head.websocket:
                return Handoff("websocket", raw + self.take_buffer())
            if not await self._serve(head):
                return None

    # Reading.

    async def receive(self) -> bytes:
        """The next bytes of the client; empty at the end of the stream."""
        data = await self.wire.receive()
        self.lingers = True
        return data

    def take_buffer(self) -> bytes:
        """What has been read and not been used; it counts as used now."""
        data, self.buffer = self.buffer, b""
        return data

    async def _next_head(self) -> bytes | None:
        """The next head with its empty line; None if the connection ends instead.

        Raises:
            HeadRefused: it takes too long, grows too large, or can be none.
        """
        if self.buffer:
            # Pipelined: a client that sends without end must let others have their turn.
            await trio.lowlevel.checkpoint()
        while True:
            data = self.buffer
            if data.startswith(b"\r\n"):
                # One empty line before a request is forgiven (RFC 9112 section 2.2).
                data = data[2:]
            end = data.find(END)
            if end >= 0:
                self.buffer = data[end + 4 :]
                self._expires = math.inf
                self._head_began = 0.0
                return data[: end + 4]
            if data:
                self.service.heads.check_part(data)
                if not self._head_began:
                    self._head_began = trio.current_time()
                    self._expire_at(self._head_began + self.service.limits.head_timeout)
            if self.half_closed or not await self._fill():
                return None

    async def _fill(self) -> bool:
        """Read on; False at the connection's end."""
        try:
            if self._expired:
                raise trio.ClosedResourceError
            data = await self.wire.receive()
        except trio.ClosedResourceError as error:
            if self.buffer:
                raise HeadRefused(Refusal(408, "The head did not arrive in time.")) from error
            return False
        self.buffer = self.buffer + data if self.buffer else data
        return bool(data)

    # Time.

    def _expire_at(self, time: float) -> None:
        """Cut the client at ``time`` if it has sent nothing by then. Putting off costs nothing."""
        self._expires = time
        self._expired = False
        if time < self._reminded_at:
            if self._reminder is not None:
                self._reminder.drop()
            self._reminded_at = time
            self._reminder = self.service.alarm.remind(time, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        self._reminder, self._reminded_at = None, math.inf
        if self._expires > trio.current_time():
            if self._expires < math.inf:
                self._expire_at(self._expires)
        else:
            self._expired = True
            self.wire.interrupt()

    def drain(self, until: float) -> None:
        """The server is stopping: if no request comes until then, the connection ends."""
        if self._exchange is None and not self._head_began:
            self._expire_at(min(self._expires, until))

    def departed(self, reset: bool) -> None:
        """The kernel has seen the client's end of the stream."""
        if self._exchange is not None:
            self._exchange.departed(reset)

    # A request.

    async def _serve(self, head: Head) -> bool:
        """Run the application on one request; whether another one may follow."""
        service = self.service
        refusal = service.request_began()
        if refusal is not None:
            return await self._refuse_request(refusal, head)
        self._requests += 1
        self._exchange = exchange = Exchange(self, head)
        try:
            await notice_first_wait(
                service.app(self._scope_of(head), exchange.receive, exchange.send), exchange.about_to_wait
            )
            if not exchange.answered and not exchange.gone:
                raise ApplicationError("the application returned without a whole response")
        except BaseException as error:
            crash, rest = apart(error)
            if rest is not None:
                if crash is not None:
                    service.note_failure("request.crashed", crash)
                raise
            return await self._apologise(exchange, error)
        finally:
            self._exchange = None
            service.request_ended()
        if not exchange.keep_alive or not exchange.answered:
            if self.buffer or not exchange.body_is_read:
                self.lingers = True
            return False
        if not exchange.body_is_read and not await exchange.discard_body():
            return False
        if not self.buffer:
            self._expire_at(trio.current_time() + service.idle_timeout())
        return True

    async def _apologise(self, exchange: Exchange, error: BaseException) -> bool:
        """The application has crashed: log it, and answer if nothing has been answered. The connection ends."""
        if not (exchange.gone and is_nothing_but(ClientLeft, error)):
            self.service.note_failure("request.crashed", error)
        if exchange.unanswered and not exchange.gone:
            await self.refuse(Refusal(500, "The request failed inside the application."), new_request_id())
        return False

    def _scope_of(self, head: Head) -> dict[str, Any]:
        service, peer = self.service, self._peer
        raw_path, _, query = head.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": "https" if peer.secure else "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": service.config.root_path,
            "headers": head.fields,
            "client": peer.client,
            "server": peer.server,
            "state": service.state.copy(),
            "extensions": {_TRAILERS: {}} if head.takes_trailers else {},
        }

    def may_keep_alive(self) -> bool:
        """Whether another request may follow on this connection, as far as the server is concerned."""
        if self.half_closed and not self.buffer:
            return False
        return self._requests < self.service.config.keep_alive_max_requests and self.service.may_keep_alive()

    # Writing.

    async def write(self, data: bytes) -> None:
        """Hand bytes to the socket, each 64 KiB of them within the write timeout.

        Raises:
            trio.TooSlowError: the client does not read.
            trio.BrokenResourceError: it has gone.
        """
        sent = self.wire.send_now(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            for start in range(sent, len(view), PIECE):
                with trio.CancelScope(deadline=self.service.write_deadline()) as scope:
                    await self.wire.send_all(view[start : start + PIECE])
                if scope.cancelled_caught:
                    self.lingers = False
                    raise trio.TooSlowError

    # Refusing.

    async def _refuse_head(self, error: HeadRefused) -> bool:
        """Answer a request that no application gets to see; whether another one may follow."""
        self._requests += 1
        keep = error.sound and self.may_keep_alive()
        await self.refuse_unseen(error.refusal, "", "", keep)
        if keep:
            self._expire_at(trio.current_time() + self.service.idle_timeout())
        return keep

    async def _refuse_request(self, refusal: Refusal, head: Head) -> bool:
        keep = head.keep_alive and head.length == 0 and self.may_keep_alive()
        path = head.target.partition(b"?")[0].decode("ascii")
        await self.refuse_unseen(refusal, head.method, path, keep)
        if keep:
            self._expire_at(trio.current_time() + self.service.idle_timeout())
        return keep

    async def refuse_unseen(self, refusal: Refusal, method: str, path: str, keep: bool) -> None:
        """Answer and record a request that no application gets to see."""
        request_id, began, sent = new_request_id(), trio.current_time(), 0
        try:
            sent = await self.refuse(refusal, request_id, keep_alive=keep)
        finally:
            self.service.record_refusal(
                refusal,
                request_id=request_id,
                started_at=began,
                method=method,
                path=path,
                client=self._peer.address,
                scheme="https" if self._peer.secure else "http",
                bytes_sent=sent,
            )

    async def refuse(self, refusal: Refusal, request_id: str, *, keep_alive: bool = False) -> int:
        """Send the answer of ``refusal``; the bytes of its body."""
        headers, body = refusal.answer(request_id)
        lines = b"".join(b"%b: %b\r\n" % field for field in headers)
        close = b"" if keep_alive else b"connection: close\r\n"
        self.lingers = not keep_alive
        await self.write(
            b"".join((STATUS_LINES[refusal.status], self.service.date.line(), lines, close, b"\r\n", body))
        )
        return len(body)

    async def linger(self) -> None:
        """End our sending, and read on for a moment, so that the client gets to read our last answer."""
        self.wire.end()
        left = LINGER_MAX
        with trio.move_on_after(LINGER_TIMEOUT):
            while left > 0:
                try:
                    data = await self.wire.receive()
                except trio.ClosedResourceError:
                    return
                if not data:
                    return
                left -= len(data)
