"""An HTTP/1.1 connection: read a head, have the request answered in this task, and repeat until the end.

Theory
------
One task serves a connection. Between requests the task is parked in ``stream.wait_readable`` and costs nothing else. It
reads a head (``request_head.py``), makes a ``RequestResponseCycle`` of it, and awaits the application
(``server.handle``), which answers through that object. ``request_head.py``, ``request_body.py``, ``cycle.py`` and
``response/response_head.py`` decide what a request and its response are. This module decides their order, the time that
they may take, and the end of the connection.

**The client's end.** The reader calls ``stream.on_end`` whenever the kernel reports it, also behind bytes
that nobody has read. Between requests it means that no further request will come (``half_closed``), and the next read
finds the end. During a request ``RequestResponseCycle.departed`` decides. Nothing of that cancels this task: the
application is notified by its own callback.

**Foreign code** runs on this task too, with context variables of its own (``own_context.py``), inside a scope that is
entered once per connection. To cancel it is to end the connection: its client has gone, or it does not come to an end.
The loop itself is not cancelled, and goes on outside of the scope.

**Time.** One idle timer per connection says when the client must have sent what it owes: the first head, the rest of a
head, the next request. Its deadline is moved with each request, which costs nothing. It interrupts only a read between
requests. Reads of a body and writes have clocks of their own (``client_clocks.py``).

**Fairness.** A client may send many requests in one segment. After ``REQUESTS_PER_TURN`` of them that did not wait, or
``TURN_S``, the other tasks of the program run. A drain ends such a client with its next response.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from ...net.exception_groups import split_application_crash
from ..idle_timer import IdleTimer
from ..limits.client_clocks import PIECE, WriteClock
from ..response.access_record import LAST_RESPONSE_S, cut_response, error_response_for
from ..response.error_response import REFUSED_MAX, ErrorResponse, ServerResponse, new_request_id
from ..response.response_head import STATUS_LINES, ApplicationError
from .cycle import RequestResponseCycle
from .head_errors import HeadError, method_and_path
from .request_body import too_large
from .request_head import END, PREFACE, Head

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..peer import Peer
    from ..state import ServerState

REQUESTS_PER_TURN = 16
"""Pipelined requests that are answered without a wait until other tasks have their turn."""
TURN_S = 0.001
"""Seconds of such requests until then."""
_HEAD_MAX_READ, _BODY_MAX_READ = 16 * 1024, 64 * 1024
"""Bytes of one read. Room that a head does not use costs more to make than the head to read."""
_EMPTY_LINES_MAX = 16
"""Empty lines that may stand before a request (RFC 9112 section 2.2 asks for at least one): some clients end a body
with one, and some users type them. More than one begins the time of a head."""
_CR = 13
_NOTHING = (b"", b"\r")
"""No part of a request, or the first half of an empty line."""
_LINGER_S = 2.0
"""Seconds that a client gets to read a last response, where it may still be sending."""
_LINGER_MAX = 256 * 1024
"""Bytes that are read meanwhile. A socket that is closed with bytes unread takes its last response back."""


@dataclass(frozen=True, slots=True)
class SwitchToHttp2:
    """HTTP/2 has the connection from here on: its client began with the preface."""

    received: bytes
    """All that has been read: the preface, and what came behind it."""


def serve_http1(server: ServerState, stream: PlainStream, peer: Peer) -> Coroutine[Any, Any, SwitchToHttp2 | None]:
    """Serve requests in this task until the connection ends or turns out to speak something else.

    The stream is left open in both cases. A client that goes, or does not read, ends it quietly. Cancelled, it cuts the
    request in flight and passes the cancel on.
    """
    return Http1Connection(server, stream, peer).serve()


class Http1Connection:
    """One connection; ``RequestResponseCycle`` is each request of it."""

    def __init__(self, server: ServerState, stream: PlainStream, peer: Peer) -> None:
        self.server = server
        self.stream = stream
        self.peer = peer
        self.scheme = "https" if peer.secure else "http"
        self.buffer = b""
        """What has been read and not been used."""
        self.half_closed = False
        """Whether the client has ended its sending, and waits for its responses all the same."""
        self.lingers = False
        """Whether the client may be sending while we close."""
        self.head_began = 0.0
        """When the head that is being read began; 0 between requests."""
        self._empty_lines = 0
        """Those that came before that head."""
        self._looked_at = 0
        """Bytes of that head that ``check_part`` has seen: a head that comes byte by byte is gone through once."""
        self._clock: WriteClock | None = None
        """Made with the first write that has to wait, as ``_sending`` is."""
        self._sending: trio.Lock | None = None
        """Held by the task that waits for the socket: an application may send from several."""
        self._sent_now = 0
        """Bytes that the socket took without a wait, and that the write clock has not counted yet."""
        self._unsent: list[memoryview] = []
        """What is still to be handed to the stream."""
        self._cycle: RequestResponseCycle | None = None
        self._apart = trio.CancelScope()
        """Around the requests; cancelled where foreign code is to be ended, and with it the connection."""
        self._requests = 0
        self._requests_max = server.config.keep_alive_max_requests
        self._refused = 0
        self._displaced = False
        self._unbroken = 0
        """Requests that were answered since other tasks had their turn."""
        self._turn_began = 0.0
        self._read_at = 0.0
        """When what is looked at came; 0 where some time may have passed since."""
        self._idle = IdleTimer(server.timers, stream.stop_receiving)
        began = trio.current_time() if peer.accepted_at is None else peer.accepted_at
        self._idle.set(began + server.limits.head_timeout)

    async def serve(self) -> SwitchToHttp2 | None:
        """Read and serve until the end, or until another protocol has the connection."""
        self.stream.on_end = self._client_ended
        self.server.open.add(self)
        switch: SwitchToHttp2 | None = None
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError), self._apart:
                switch = await self._run()
        finally:
            self.server.open.discard(self)
            self._idle.cancel()
            self.stream.on_end = None
        return switch

    async def _run(self) -> SwitchToHttp2 | None:
        """Read and serve until the end, or until something else than HTTP/1.1 comes."""
        stream, reader = self.stream, self.server.reader
        while self._idle.until != -math.inf:
            looked_at = reader.now
            try:
                await stream.wait_readable()
                data = stream.receive_now(_HEAD_MAX_READ)
            except trio.TooSlowError:
                # Its time is up; but perhaps it is we who have not looked.
                data = self.receive_now()
                if not data:
                    break
            if data is None:
                continue
            if not data:
                return None
            self.buffer = self.buffer + data if self.buffer else data
            # What has come while another request was served may have waited here since the reader's last look.
            self._read_at = 0.0 if reader.now == looked_at else reader.now
            self._unbroken = 0  # The read had a checkpoint.
            while self.buffer:
                raw = b""
                try:
                    raw = self._cut_head()
                    if not raw:
                        break
                    if not self._requests and raw == PREFACE and self.server.speaks_h2:
                        return SwitchToHttp2(raw + self.take_buffer())
                    head = self.server.heads.read(raw)
                except HeadError as error:
                    goes_on = await self._refuse_head(error, raw or self.buffer)
                else:
                    goes_on = await self._serve(head)
                    del head
                if not goes_on:
                    await self.linger()
                    return None
                if self.buffer:
                    await self._let_other_tasks_run()
            del data, raw  # An idle connection keeps nothing of what it has read.
        await self.give_up()
        return None

    async def _let_other_tasks_run(self) -> None:
        """Checkpoint now and then between pipelined requests: an endless pipeline must not hold the loop."""
        now = perf_counter()
        if not self._unbroken:
            self._turn_began = now
        self._unbroken += 1
        if self._unbroken >= REQUESTS_PER_TURN or now - self._turn_began > TURN_S:
            self._unbroken = 0
            await trio.lowlevel.checkpoint()

    def _cut_head(self) -> bytes:
        """Take the next head with its empty line off the buffer; empty if it is not there yet.

        Raises:
            HeadError: it grows too large, or can be none.
        """
        if self.buffer[0] == _CR:
            self._skip_empty_lines()
        data = self.buffer
        end = data.find(END) + 4
        if end > 3:
            self._idle.until = math.inf
            if self.head_began or self._empty_lines:
                self.head_began = 0.0
                self._looked_at = self._empty_lines = 0
            if end == len(data):
                self.buffer = b""
                return data
            self.buffer = data[end:]
            return data[:end]
        if data not in _NOTHING or self._empty_lines > 1:
            self.server.heads.check_part(data, self._looked_at)
            self._looked_at = len(data)
            if not self.head_began:
                self.head_began = trio.current_time()
                self._idle.set(self.head_began + self.server.limits.head_timeout)
        return b""

    def _skip_empty_lines(self) -> None:
        """Drop the empty lines that the buffer begins with.

        Raises:
            HeadError: there are more than may stand before a request.
        """
        data, end = self.buffer, 0
        while data.startswith(b"\r\n", end):
            end += 2
            self._empty_lines += 1
            if self._empty_lines > _EMPTY_LINES_MAX:
                raise HeadError(
                    ErrorResponse(400, f"More than {_EMPTY_LINES_MAX} empty lines come before the request.")
                )
        if end:
            self.buffer = data[end:]

    # Reading, for the request in flight.

    def take_buffer(self) -> bytes:
        """What has been read and not been used; it counts as used now."""
        data, self.buffer = self.buffer, b""
        return data

    def receive_now(self) -> bytes | None:
        """What is there without waiting; empty at the end of the stream, however it ended; None if nothing is."""
        try:
            self.stream.poll_readable()
            return self.stream.receive_now(_BODY_MAX_READ)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def receive(self) -> bytes:
        """What comes next; empty at the end of the stream, however it ended."""
        try:
            return await self.stream.receive_some(_BODY_MAX_READ)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    # The client's end, and the time it may take.

    def _client_ended(self, broken: bool) -> None:
        """The kernel has seen the end of what the client sends."""
        if self._cycle is not None:
            self._cycle.departed(broken=broken)
        else:
            self.half_closed = True

    @property
    def response_started(self) -> bool:
        """Whether the application has begun to answer the request in flight."""
        return self._cycle is not None and self._cycle.begun

    def displace(self, reason: str) -> None:
        """End the connection; the request in flight counts as ended from now on."""
        self._displaced = True
        self.server.request_ended()
        if self._cycle is not None:
            self._cycle.keep_alive = False
            self._cycle.client_left()
        self.stream.close_now()

    def drain(self, until: float) -> None:
        """The server is stopping: if no request comes until then, the connection ends."""
        if math.isfinite(self._idle.until) and not self.head_began:
            self._idle.set(min(self._idle.until, until))

    def _be_idle(self, since: float = 0.0) -> None:
        """A request is over, ``since`` then (0: now); the next one must begin within the idle timeout."""
        if not self.buffer or self.buffer[0] == _CR:
            server, idle = self.server, self._idle
            until = (since or server.timers.now()) + server.idle_timeout
            if until < idle.timer_at:
                idle.set(until)
            else:
                idle.until = until

    async def give_up(self) -> None:
        """The next head has not come in time: answer 408 if it had begun."""
        if self.buffer not in _NOTHING:
            self.lingers = True
            late = HeadError(ErrorResponse(408, "The head did not arrive in time."))
            await self._refuse_head(late, self.buffer)
            await self.linger()

    async def linger(self) -> None:
        """End the connection so that the client gets to read our last response."""
        if not self.lingers:
            return
        self._idle.cancel()
        self.stream.send_eof()
        left = _LINGER_MAX
        with trio.move_on_after(_LINGER_S):
            while left > 0 and (data := await self.receive()):
                left -= len(data)

    # A request.

    async def _serve(self, head: Head) -> bool:
        """Have one request answered; whether another one may follow."""
        server, parsed = self.server, head.parsed
        websocket = parsed.websocket and head.method == "GET"
        oversized = parsed.length and parsed.length > server.limits.max_body
        error_response = too_large(server.limits) if oversized else None if websocket else server.request_began()
        if error_response is not None and not server.probe_began(head.method, head.target, parsed.length):
            return await self._refuse_request(error_response, head)
        self._requests += 1
        # The reader has just read the time, unless this request has waited for another one.
        began, self._read_at, rest = self._read_at or trio.current_time(), 0.0, None
        self._cycle = cycle = RequestResponseCycle(self, head, began)
        if server.in_flight > server.limits.max_in_flight and server.is_probe(head.method, head.target, parsed.length):
            server.reserve.requests[self] = None
        try:
            try:
                await server.handle(cycle)
                if not (cycle.response_complete or cycle.gone or cycle.taken or cycle.crash_recorded):
                    raise ApplicationError("the application returned without a whole response")
            except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
                crash, rest = split_application_crash(error)
                if crash is not None:
                    server.application_failed("request", crash, gone=cycle.gone)
            if cycle.waits:
                cycle.on_gone(None)
            if not cycle.response_complete:
                if cycle.ends_with_connection and not cycle.taken:
                    self.stream.reset_on_close()  # The client must be able to see that it has not got all.
                if not cycle.gone:
                    await self._respond_for(cycle, rest)
            if rest is not None:
                raise rest
        finally:
            self._cycle = None
            if server.reserve.requests:
                server.reserve.requests.pop(self, None)
            if cycle.upload is not None:
                cycle.upload.end()
            elif not (self._displaced or websocket):
                server.request_ended()
            if cycle.filed is not None or not cycle.response_complete or cycle.server_response is not None:
                self._record_end(cycle, head, rest)
        if cycle.keep_alive and cycle.response_complete and cycle.body is None:
            self._be_idle(cycle.ended_at)
            return True
        return await self._may_go_on(cycle)

    async def _may_go_on(self, cycle: RequestResponseCycle) -> bool:
        """Whether the connection can serve another request behind this one."""
        if not cycle.keep_alive or not cycle.response_complete:
            if not cycle.gone:
                self.lingers = not cycle.taken and (bool(self.buffer) or not cycle.body_complete)
            return False
        if not cycle.body_complete and not await cycle.discard_body():
            self.lingers = True
            return False
        self._be_idle(cycle.ended_at)
        return True

    def cancel_apart(self, reason: str) -> None:
        """Cancel the foreign code that serves the request in flight. The connection ends with it."""
        self._apart.cancel(reason=reason)

    async def _respond_for(self, cycle: RequestResponseCycle, rest: BaseException | None) -> None:
        """Answer in the place of an application that ended, or was cut by a server that stops, before its first byte.

        ``rest`` is what goes on upwards; nothing else is raised then.
        """
        error_response = error_response_for(self.server, rest) if cycle.can_respond and not self._displaced else None
        if error_response is None:
            return
        request_id, method = cycle.request_id, cycle.method
        cycle.server_response = ServerResponse(error_response, request_id)
        if rest is None:
            cycle.server_response = ServerResponse(
                error_response, request_id, await self.refuse(error_response, request_id, method)
            )
            return
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError),
            trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_RESPONSE_S),
        ):
            cycle.server_response = ServerResponse(
                error_response, request_id, await self.refuse(error_response, request_id, method)
            )
            if self.buffer or not cycle.body_complete:
                # The close would take the response back.
                await self.linger()

    def _record_end(self, cycle: RequestResponseCycle, head: Head, rest: BaseException | None) -> None:
        """Have the request's one record written: the application's, or the server's."""
        filed, response = cycle.record_filed(), cycle.server_response
        if response is None and (filed or cycle.response_complete or cycle.gone or not cycle.begun or cycle.taken):
            return
        if response is not None and (filed or self.server.leaves_record(response)):
            self.server.count_rejected(response.error_response)
            return
        counts, path = response is not None, head.target.partition(b"?")[0].decode("ascii")
        response = response or cut_response(cycle.status, cycle.bytes_sent, rest)
        self._record(response, head.method, path, cycle.started, head.parsed.fields, counts=counts)

    def keeps_alive(self) -> bool:
        """Whether another request may follow on this connection, as far as the server is concerned."""
        server = self.server
        return (
            server.keeps_alive
            and self._requests < self._requests_max
            and self._refused < REFUSED_MAX
            and not (self.half_closed and self._all_was_read())
        )

    def _all_was_read(self) -> bool:
        """Whether a client that has ended its sending has sent nothing behind the requests that were read."""
        if not self.buffer and (self._cycle is None or self._cycle.body_complete):
            self.buffer = self.receive_now() or b""
        return not self.buffer

    # Writing.

    def send_now(self, data: bytes) -> bool:
        """Send what the socket takes, and keep the rest for ``send_rest``; whether it took all.

        Raises:
            trio.BrokenResourceError: the client has gone.
        """
        stream, size = self.stream, len(data)
        if self._unsent or stream.unsent:
            self._unsent.append(memoryview(data))
            return False
        if size <= PIECE:
            if stream.send_now(data):
                self._sent_now += size
                return True
            return False
        view = memoryview(data)
        for start in range(0, size, PIECE):
            if not stream.send_now(view[start : start + PIECE]):
                self._unsent.append(view[start + PIECE :])
                return False
            self._sent_now += PIECE
        return True

    async def send_rest(self) -> None:
        """Wait until the socket has taken all, 64 KiB of this and other responses per write timeout.

        Raises:
            trio.TooSlowError: the client does not read.
            trio.BrokenResourceError: it has gone.
        """
        if self._sending is None:
            self._sending = trio.Lock()
            self._clock = WriteClock(self.server)
        assert self._clock is not None
        async with self._sending:
            try:
                await self._send_rest(self._clock)
            except trio.TooSlowError:
                self.lingers = False
                raise

    async def _send_rest(self, clock: WriteClock) -> None:
        stream, unsent = self.stream, self._unsent
        clock.took(self._sent_now)
        self._sent_now = 0
        while stream.unsent or unsent:
            size = len(stream.unsent)
            if size:
                with trio.CancelScope(deadline=clock.begin()) as scope:
                    try:
                        await stream.drained()
                    finally:
                        await clock.end_write()
                if scope.cancelled_caught:
                    # The kernel reports room only when there is much of it.
                    stream.send_more()
                    if len(stream.unsent) == size:
                        raise trio.TooSlowError
                clock.took(size - len(stream.unsent))
                continue
            piece, rest = unsent[0][: clock.room], unsent[0][clock.room :]
            unsent[:1] = [rest] if rest else []
            if stream.send_now(piece):
                clock.took(len(piece))

    # Refusing.

    async def _refuse_head(self, error: HeadError, raw: bytes) -> bool:
        """Refuse a request for its head; whether another request may follow."""
        self._requests += 1
        self._refused += 1
        keep = error.sound and self.keeps_alive()
        await self.refuse_unseen(error.error_response, *method_and_path(raw), keep, fields=error.fields)
        if keep:
            self._be_idle()
        return keep

    async def _refuse_request(self, error_response: ErrorResponse, head: Head) -> bool:
        self._refused += 1
        keep = head.parsed.keep_alive and head.parsed.length == 0 and self.keeps_alive()
        path = head.target.partition(b"?")[0].decode("ascii")
        parsed = head.parsed
        await self.refuse_unseen(
            error_response, head.method, path, keep, old=parsed.version == "1.0", fields=parsed.fields
        )
        if keep:
            self._be_idle()
        return keep

    async def refuse_unseen(
        self,
        error_response: ErrorResponse,
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
            sent = await self.refuse(error_response, request_id, method, keep_alive=keep, old=old)
        finally:
            self._record(ServerResponse(error_response, request_id, sent), method, path, began, fields)

    def _record(
        self,
        response: ServerResponse,
        method: str,
        path: str,
        began: float,
        fields: Sequence[tuple[bytes, bytes]],
        *,
        counts: bool = True,
    ) -> None:
        self.server.record_rejected(
            response.error_response,
            counts=counts,
            request_id=response.request_id,
            started_at=began,
            method=method,
            path=path,
            peer=self.peer,
            fields=fields,
            bytes_sent=response.bytes_sent,
        )

    async def refuse(
        self,
        error_response: ErrorResponse,
        request_id: str,
        method: str,
        *,
        keep_alive: bool = False,
        old: bool = False,
    ) -> int:
        """Send ``error_response`` to a request with this method; the bytes of its body."""
        headers, body = self.server.fields_and_body(error_response, request_id)
        if method == "HEAD":
            body = b""
        lines = b"".join(b"%b: %b\r\n" % field for field in headers)
        stays = b"connection: keep-alive\r\n" if old else b""
        close = stays if keep_alive else b"connection: close\r\n"
        self.lingers = not keep_alive
        response = b"".join(
            (STATUS_LINES[error_response.status], self.server.own_fields.lines(), lines, close, b"\r\n", body)
        )
        if not self.send_now(response):
            await self.send_rest()
        return len(body)
