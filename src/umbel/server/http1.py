"""Our HTTP/1.1 on one connection: read a head, run the application in this task, and again until it ends.

What a request and its response are is decided in ``head.py``, ``body.py``, ``exchange.py`` and ``response.py``; here
are their order, the time they may take, and the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote

import trio

from ..kinds import Kind
from .body import too_large
from .clocks import WriteClock
from .crash import apart
from .crew import RESET
from .diagnosis import HeadRefused, glimpse
from .ending import LAST_ANSWER_S, Said, cut_answer, refusal_for
from .exchange import ASGI, CANCELS, Exchange
from .handoff import Handoff
from .head import END, PREFACE, Head
from .patience import Patience
from .refusal import REFUSED_MAX, Refusal, new_request_id
from .response import STATUS_LINES, ApplicationError
from .stepping import in_own_context
from .wire import has_left, linger, send_in_pieces

if TYPE_CHECKING:
    from typing import Any

    from .peer import Peer
    from .service import Service
    from .wire import Wire

_EMPTY_LINES_MAX = 16
"""Empty lines that may stand before a request (RFC 9112 section 2.2 asks for at least one): some clients end a body
with one, and some users type them. More than one begins the time of a head."""
_NOTHING = (b"", b"\r")
"""No part of a request, or the first half of an empty line."""
_TRAILERS = "http.response.trailers"


async def serve_http1(service: Service, wire: Wire, peer: Peer) -> Handoff | None:
    """Serve requests in this task until the connection ends or turns out to speak something else.

    The wire is left open in both cases. Cancelled, it cuts the request in flight and passes the cancel on.
    """
    connection = Http1Connection(service, wire, peer, wire.interrupt)
    try:
        with connection.scope:
            return await connection.run()
    finally:
        connection.forget()
    return None


class Http1Connection:
    """One connection; ``Exchange`` is each request of it.

    ``late`` is called when its client has sent nothing for as long as it may; ``scope`` is what is cancelled when the
    client of a request in flight leaves.
    """

    def __init__(self, service: Service, wire: Wire, peer: Peer, late: Callable[[], None]) -> None:
        self.service = service
        self.wire = wire
        self.buffer = b""
        """What has been read and not been used."""
        self.scope = trio.CancelScope()
        self.cancelled = False
        """Whether ``scope`` was cancelled from here."""
        self.half_closed = False
        """Whether the client has ended its sending, and waits for its answers all the same."""
        self.lingers = False
        """Whether the client may be sending while we close."""
        self.sent_now = 0
        """Bytes that the socket took without a wait, and that the write clock has not been told of."""
        self.head_began = 0.0
        """When the head that is being read began; 0 between requests."""
        self._empty_lines = 0
        """Those that came before that head."""
        self._looked_at = 0
        """Bytes of that head that ``check_part`` has seen: a head that comes byte by byte is gone through once."""
        self._peer = peer
        self._clock: WriteClock | None = None
        """Made with the first write that has to wait."""
        self._exchange: Exchange | None = None
        self._requests = 0
        self._refused = 0
        self._forgotten = False
        self._displaced = False
        self._patience = Patience(service.timers, late)
        began = trio.current_time() if peer.accepted_at is None else peer.accepted_at
        self._patience.last(began + service.limits.head_timeout)
        service.open.add(self)

    def forget(self) -> None:
        """The connection is over; its wire goes elsewhere or is closed.

        Done once: whoever has the wire may close it, and then its descriptor is the next connection's.
        """
        if self._forgotten:
            return
        self._forgotten = True
        self.service.open.discard(self)
        self.service.crew.forget(self.wire.fd)
        self._patience.forget()

    async def run(self) -> Handoff | None:
        """Read and serve until the end."""
        self.service.crew.watch(self.wire.fd, self.changed)
        more: Handoff | bool = True
        try:
            while more is True:
                try:
                    data: bytes | None = await self.wire.receive()
                except trio.ClosedResourceError:
                    # Its time is up; but perhaps it is we who have not looked.
                    if (data := self.wire.receive_now()) is None:
                        raise
                if not data:
                    return None
                self.buffer = self.buffer + data if self.buffer else data
                more = await self.advance()
                if more is True and self.is_late:
                    await self.give_up()
                    return None
        except trio.ClosedResourceError:
            await self.give_up()
            return None
        if isinstance(more, Handoff):
            return more
        await self.part()
        return None

    async def advance(self) -> Handoff | bool:
        """Serve the requests that have been read. True if more must be read, False at the connection's end."""
        first = True
        while True:
            raw = b""
            try:
                raw = self._cut_head()
                if not raw:
                    return True
                if not first:
                    # Pipelined: a client that sends without end must let others have their turn.
                    await trio.lowlevel.checkpoint()
                first = False
                if raw == PREFACE and not self._requests and self.service.speaks_h2:
                    return Handoff("h2", raw + self.take_buffer())
                head = self.service.heads.read(raw)
            except HeadRefused as error:
                if not await self._refuse_head(error, raw or self.buffer):
                    return False
                continue
            if head.meaning.websocket and head.method == "GET":
                return Handoff("websocket", raw + self.take_buffer())
            if not await self._serve(head):
                return False
            if not self.buffer:
                return True

    def _cut_head(self) -> bytes:
        """Take the next head with its empty line off the buffer; empty if it is not there yet.

        Raises:
            HeadRefused: it grows too large, or can be none.
        """
        if self.buffer[:1] == b"\r":
            self._skip_empty_lines()
        data = self.buffer
        end = data.find(END)
        if end >= 0:
            self._patience.until = math.inf
            self.head_began = 0.0
            self._looked_at = self._empty_lines = 0
            self.buffer = data[end + 4 :]
            return data[: end + 4]
        if data not in _NOTHING or self._empty_lines > 1:
            self.service.heads.check_part(data, self._looked_at)
            self._looked_at = len(data)
            if not self.head_began:
                self.head_began = trio.current_time()
                self._patience.last(self.head_began + self.service.limits.head_timeout)
        return b""

    def _skip_empty_lines(self) -> None:
        """Drop the empty lines that the buffer begins with.

        Raises:
            HeadRefused: there are more than may stand before a request.
        """
        data, end = self.buffer, 0
        while data.startswith(b"\r\n", end):
            end += 2
            self._empty_lines += 1
            if self._empty_lines > _EMPTY_LINES_MAX:
                raise HeadRefused(Refusal(400, f"More than {_EMPTY_LINES_MAX} empty lines come before the request."))
        if end:
            self.buffer = data[end:]

    def take_buffer(self) -> bytes:
        """What has been read and not been used; it counts as used now."""
        data, self.buffer = self.buffer, b""
        return data

    # The client's going, and the time it may take.

    def changed(self, flags: int) -> None:
        """The kernel has seen the end of what the client sends."""
        if self._exchange is not None:
            self._exchange.departed(bool(flags & RESET))
        else:
            self.half_closed = True

    def _about_to_wait(self) -> None:
        """The application waits: from now on a client that leaves is heard.

        A client that has ended its sending by then has only closed its half, and gets its answer.
        """
        if self._exchange is not None and self._exchange.body_is_read and has_left(self.wire.fd):
            self.half_closed = True

    def cancel(self, reason: str = str(Kind.CLIENT_GONE)) -> None:
        """Cancel what serves the client: usually because it has gone."""
        self.cancelled = True
        self.scope.cancel(reason=reason)

    @property
    def answering(self) -> bool:
        """Whether the application has begun to answer the request in flight."""
        return self._exchange is not None and self._exchange.begun

    def displace(self, reason: str) -> None:
        """End the connection; the request in flight counts as ended from now on."""
        self._displaced = True
        self.service.request_ended()
        self.cancel(reason)

    def drain(self, until: float) -> None:
        """The server is stopping: if no request comes until then, the connection ends."""
        if self._exchange is None and not self.head_began:
            self._patience.last(min(self._patience.until, until))

    def _be_idle(self) -> None:
        if self.buffer in _NOTHING or self.buffer[:1] == b"\r":
            until = trio.current_time() + self.service.idle_timeout
            if until < self._patience.timer_at:
                self._patience.last(until)
            else:
                self._patience.until = until

    @property
    def is_late(self) -> bool:
        """Whether the client has not sent in time what it must, though all that it has sent was looked at."""
        return self._patience.until == -math.inf

    async def give_up(self) -> None:
        """The client has not sent what it must in time: say so, if it had begun to."""
        if self.buffer not in _NOTHING and self._exchange is None:
            self.lingers = True
            late = HeadRefused(Refusal(408, "The head did not arrive in time."))
            await self._refuse_head(late, self.buffer)
            await self.part()

    async def part(self) -> None:
        """End the connection so that the client gets to read our last answer."""
        if self.lingers:
            await linger(self.wire)

    # A request.

    async def _serve(self, head: Head) -> bool:
        """Run the application on one request; whether another one may follow."""
        service = self.service
        oversized = head.meaning.length > service.limits.max_body
        refusal = too_large(service.limits) if oversized else service.request_began()
        if refusal is not None and not service.probe_began(head.method, head.target, head.meaning.length):
            return await self._refuse_request(refusal, head)
        self._requests += 1
        self._exchange = exchange = Exchange(self, head)
        if service.in_flight > service.limits.max_in_flight and service.is_probe(
            head.method, head.target, head.meaning.length
        ):
            service.reserve.requests[self] = None
        began, rest = trio.current_time(), None
        try:
            try:
                await in_own_context(
                    service.app(self._scope_of(head, exchange), exchange.receive, exchange.send), self._about_to_wait
                )
                if not (exchange.answered or exchange.gone or exchange.crash_recorded):
                    raise ApplicationError("the application returned without a whole response")
            except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
                crash, rest = apart(error)
                if crash is not None:
                    service.application_failed("request", crash, gone=exchange.gone)
            if not (exchange.answered or exchange.gone):
                await self._answer_for(exchange, head.method, rest)
            if rest is not None:
                raise rest
        finally:
            self._exchange = None
            service.reserve.requests.pop(self, None)
            if exchange.upload is not None:
                exchange.upload.end()
            elif not self._displaced:
                service.request_ended()
            self._record_end(exchange, head, began, rest)
        if not exchange.keep_alive or not exchange.answered:
            if not exchange.gone:
                self.lingers = bool(self.buffer) or not exchange.body_is_read
            return False
        if not exchange.body_is_read and not await exchange.discard_body():
            self.lingers = True
            return False
        self._be_idle()
        return True

    async def _answer_for(self, exchange: Exchange, method: str, rest: BaseException | None) -> None:
        """Answer in the place of an application that ended, or was cut by a server that stops, before its first byte.

        After it the client must be able to tell. ``rest`` is what goes on upwards; nothing else is raised then.
        """
        if exchange.ends_with_connection:
            self.wire.cut()
        refusal = refusal_for(self.service, rest) if exchange.unanswered and not self._displaced else None
        if refusal is None:
            return
        request_id = exchange.request_id
        exchange.said = Said(refusal, request_id)
        if rest is None:
            exchange.said = Said(refusal, request_id, await self.refuse(refusal, request_id, method))
            return
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError),
            trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_ANSWER_S),
        ):
            exchange.said = Said(refusal, request_id, await self.refuse(refusal, request_id, method))
            if self.buffer or not exchange.body_is_read:
                # The close would take the answer back.
                await self.part()

    def _record_end(self, exchange: Exchange, head: Head, began: float, rest: BaseException | None) -> None:
        """Have the request's one record written: the application's, or ours of what it did not answer."""
        filed, said = exchange.record_filed(), exchange.said
        if said is None and (filed or exchange.answered or exchange.gone or not exchange.begun or self.cancelled):
            return
        if said is not None and (filed or self.service.leaves_record(said)):
            self.service.count_refusal(said.refusal)
            return
        counts, path = said is not None, head.target.partition(b"?")[0].decode("ascii")
        said = said or cut_answer(exchange.status, exchange.bytes_sent, rest)
        self._record(said, head.method, path, began, head.meaning.fields, counts=counts)

    def _scope_of(self, head: Head, exchange: Exchange) -> dict[str, Any]:
        service, peer, meaning = self.service, self._peer, head.meaning
        raw_path, _, query = head.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": meaning.version,
            "method": head.method,
            "scheme": "https" if peer.secure else "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": service.root_path,
            "headers": list(meaning.fields),
            "client": peer.client,
            "server": peer.server,
            "state": service.state.copy(),
            "extensions": {CANCELS: exchange, _TRAILERS: {}} if meaning.takes_trailers else {CANCELS: exchange},
        }

    def keeps_alive(self) -> bool:
        """Whether another request may follow on this connection, as far as the server is concerned."""
        service = self.service
        return (
            service.keeps_alive
            and self._requests < service.config.keep_alive_max_requests
            and self._refused < REFUSED_MAX
            and not (self.half_closed and not self.buffer)
        )

    # Writing.

    async def write(self, data: bytes, sent: int = 0) -> None:
        """Hand the bytes after the first ``sent`` to the socket, 64 KiB of this and other answers per write timeout.

        Raises:
            trio.TooSlowError: the client does not read.
            trio.BrokenResourceError: it has gone.
        """
        if self._clock is None:
            self._clock = WriteClock(self.service)
        self._clock.took(self.sent_now)
        self.sent_now = 0
        try:
            await send_in_pieces(self.wire, data, sent, self._clock)
        except trio.TooSlowError:
            self.lingers = False
            raise

    # Refusing.

    async def _refuse_head(self, error: HeadRefused, raw: bytes) -> bool:
        """Answer a request that no application gets to see; whether another one may follow."""
        self._requests += 1
        self._refused += 1
        keep = error.sound and self.keeps_alive()
        await self.refuse_unseen(error.refusal, *glimpse(raw), keep, fields=error.fields)
        if keep:
            self._be_idle()
        return keep

    async def _refuse_request(self, refusal: Refusal, head: Head) -> bool:
        self._refused += 1
        keep = head.meaning.keep_alive and head.meaning.length == 0 and self.keeps_alive()
        path = head.target.partition(b"?")[0].decode("ascii")
        meaning = head.meaning
        await self.refuse_unseen(refusal, head.method, path, keep, old=meaning.version == "1.0", fields=meaning.fields)
        if keep:
            self._be_idle()
        return keep

    async def refuse_unseen(
        self,
        refusal: Refusal,
        method: str,
        path: str,
        keep: bool,
        *,
        old: bool = False,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer and record a request that no application gets to see. ``old``: it is one of HTTP/1.0."""
        request_id, began, sent = new_request_id(), trio.current_time(), 0
        try:
            sent = await self.refuse(refusal, request_id, method, keep_alive=keep, old=old)
        finally:
            self._record(Said(refusal, request_id, sent), method, path, began, fields)

    def _record(
        self,
        said: Said,
        method: str,
        path: str,
        began: float,
        fields: Sequence[tuple[bytes, bytes]],
        *,
        counts: bool = True,
    ) -> None:
        self.service.record_refusal(
            said.refusal,
            counts=counts,
            request_id=said.request_id,
            started_at=began,
            method=method,
            path=path,
            peer=self._peer,
            fields=fields,
            bytes_sent=said.bytes_sent,
        )

    async def refuse(
        self, refusal: Refusal, request_id: str, method: str, *, keep_alive: bool = False, old: bool = False
    ) -> int:
        """Send the answer of ``refusal`` to a request with this method; the bytes of its body."""
        headers, body = self.service.answer_to(refusal, request_id)
        if method == "HEAD":
            body = b""
        lines = b"".join(b"%b: %b\r\n" % field for field in headers)
        stays = b"connection: keep-alive\r\n" if old else b""
        close = stays if keep_alive else b"connection: close\r\n"
        self.lingers = not keep_alive
        await self.write(
            b"".join((STATUS_LINES[refusal.status], self.service.own_fields.lines(), lines, close, b"\r\n", body))
        )
        return len(body)
