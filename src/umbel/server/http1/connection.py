"""HTTP/1.1 connection: one task reads a head, has the request answered, and repeats until the connection ends.

Theory
------
HTTP/1.1 allows one response at a time, in the order of the requests. So one task serves a connection (decision 0008)
and needs no queue of requests. This module decides the order of the requests, their time limits and the end of the
connection. ``request_head.py``, ``request_body.py``, ``cycle.py`` and ``response_head.py`` decide what the messages
mean.

**States.**

- *Reading*: ``_cycle`` is None. The task is parked in ``stream.wait_readable``, or cuts heads off ``buffer``.
- *Serving*: ``_cycle`` is the request. The task runs ``server.handle(cycle)``. Nothing is read from the socket unless
  the application asks for the body, so a client that pipelines is held back by TCP. (After a half-close ``keeps_alive``
  reads once, to learn whether another request follows.) Bytes that were read behind the request stay in ``buffer``.
- *Discarding* (``_may_go_on``): the response is complete, and the task reads the rest of the request's body.
- *Lingering* (``linger``): the last response is sent. The task reads on for a moment, because a socket that is closed
  with unread bytes sends a RST, and the RST makes the client's kernel discard a response that was not read yet.

Transitions::

    Reading --a complete head--> Serving
    Reading --the client's end, a timeout, the preface of HTTP/2, a bad head--> end
    Serving --a complete response, cycle.keep_alive--> Reading, through Discarding if the body is unread
    Serving --anything else--> end

A *bad head* is any refused head except one: if only the path is malformed and the request surely has no body
(``HeadError.sound``), the task goes on reading. It also goes on after a request without a body that was not admitted.
Both hold only while ``keeps_alive`` is true. The way to the end leads through Lingering if the client may be sending.

**Invariants.** Each admitted request is counted out once (``server.request_ended`` or ``RequestPlace.end``): by
``_serve`` in a ``finally``, unless ``displace`` has done so already. The same ``finally`` writes at most one access
record. (If the application files a second one, ``file_record`` writes the first at once.) The bytes of two responses
never mix (``response_writer.py``).

**Time.** ``_idle.until`` is the deadline for what the client owes: the first head, the rest of a head, the next
request. It is infinite while a request is served. At the deadline the timer sets ``until`` to minus infinity and wakes
the read. A late event loop must not count against the client, so the task then asks the kernel once more. A complete
head that is there makes ``until`` infinite again. Bodies and writes have clocks of their own (``client_clocks.py``).

**The client's end.** The socket reader calls ``_client_ended`` in its own task, also while received bytes are unread.
While there is no cycle the call sets ``half_closed``, and the next read finds the end. During a request
``RequestResponseCycle.departed`` decides between a half-close and a client that left. The call cancels nothing.

**Cancellation.** ``_apart`` encloses the whole loop. ``cancel_apart`` cancels it when foreign code must end: HTTP/1.1
cannot skip a response, so the connection ends too. The end of a drain, and the time of a reserved connection, cancel
from outside. Either way ``Cancelled`` is raised by the await in progress:

- in Reading, Discarding and Lingering the connection ends; no request is open;
- in Serving, ``_serve`` sends a last response, shielded for ``LAST_RESPONSE_S``, if the time of a drain is over and no
  byte of a response was sent. Then it counts the request out, records it and raises ``Cancelled`` again;
- in ``send_rest``, the unsent bytes stay in order, and nothing is sent twice.

**Who calls what.** The connection's task awaits ``serve``, once. The cycle calls the methods of ``RequestTransport``,
from any task of the application. ``drain``, ``displace`` and ``_client_ended`` are synchronous, and any task may call
them at any time.

**Fairness.** One segment may hold many requests. After ``REQUESTS_PER_TURN`` of them, or ``TURN_S``, without a wait,
a checkpoint lets other tasks run. During a drain ``keeps_alive`` is false, so the next response ends the pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from ...core.inbound import AnyHead, RequestHead
from ...net.exception_groups import split_application_crash
from ..idle_timer import IdleTimer
from ..limits.client_clocks import PIECE
from ..response.access_record import LAST_RESPONSE_S, cut_response, error_response_for
from ..response.error_response import REFUSED_MAX, ErrorResponse, ServerResponse, new_request_id
from ..response.response_head import STATUS_LINES, ApplicationError
from .cycle import RequestResponseCycle
from .head_errors import HeadError, fields_of_refused, method_path_version
from .request_body import too_large
from .request_head import END, PREFACE, Head
from .response_writer import ResponseWriter

if TYPE_CHECKING:
    from ...net.stream import PlainStream
    from ..peer import Peer
    from ..state import ServerState

REQUESTS_PER_TURN = 16
"""Pipelined requests that are answered without a wait before a checkpoint lets other tasks run."""
TURN_S = 0.001
"""Seconds of such requests before a checkpoint."""
_HEAD_MAX_READ = 16 * 1024
"""Most bytes of one ``recv``, which allocates its whole buffer first: more for a small head would only cost time."""
_EMPTY_LINES_MAX = 16
"""Empty lines allowed before a request. RFC 9112 section 2.2 asks for at least one: some clients send a line end after
a body, and people who type requests send several. From the second one on ``head_timeout`` runs."""
_CR = 13
_NOTHING = (b"", b"\r")
"""Contents of a buffer that holds no part of a request: nothing, or the first half of an empty line."""
_LINGER_S = 2.0
"""Seconds for which the connection is read after its last response, if the client may still be sending."""
_LINGER_MAX = 256 * 1024
"""Most bytes that are read in that time."""


@dataclass(frozen=True, slots=True)
class SwitchToHttp2:
    """Result of a connection that began with the preface of HTTP/2."""

    received: bytes
    """All bytes that were read: the preface, and what came after it."""


def serve_http1(server: ServerState, stream: PlainStream, peer: Peer) -> Coroutine[Any, Any, SwitchToHttp2 | None]:
    """Serve requests in the calling task until the connection ends. Return None then.

    Return ``SwitchToHttp2`` if the first bytes are the preface of HTTP/2 and the server supports it. The stream is left
    open in both cases. A client that leaves or does not read is no error. A cancel ends the request in flight and is
    raised again.
    """
    return Http1Connection(server, stream, peer).serve()


class Http1Connection(ResponseWriter):
    """One HTTP/1.1 connection. Each of its requests is a ``RequestResponseCycle``."""

    def __init__(self, server: ServerState, stream: PlainStream, peer: Peer) -> None:
        super().__init__(server, stream)
        self.peer = peer
        self._heads = server.heads_for(peer)
        self.scheme = "https" if peer.secure else "http"
        self.half_closed = False
        """Whether the client has ended its sending and still waits for responses."""
        self.head_began = 0.0
        """When the first byte of an incomplete head came (trio's clock); 0 if there is none."""
        self._empty_lines = 0
        """Empty lines before that head."""
        self._looked_at = 0
        """Bytes of that head that ``check_part`` has seen: no byte is checked twice, however small the parts are."""
        self._cycle: RequestResponseCycle | None = None
        """The request in flight."""
        self._apart = trio.CancelScope()
        """Encloses the loop; ``cancel_apart`` cancels it."""
        self._requests = 0
        self._requests_max = server.config.keep_alive_max_requests
        self._refused = 0
        """Requests that the server refused; at ``REFUSED_MAX`` the connection ends."""
        self._displaced = False
        """Whether ``displace`` was called: nothing may be sent any more."""
        self._unbroken = 0
        """Requests that were answered since the last checkpoint."""
        self._turn_began = 0.0
        self._read_at = 0.0
        """When the bytes in ``buffer`` came (trio's clock); 0 if that is not known well enough."""
        self._idle = IdleTimer(server.timers, stream.stop_receiving)
        began = trio.current_time() if peer.accepted_at is None else peer.accepted_at
        self._idle.set(began + server.limits.head_timeout)

    async def serve(self) -> SwitchToHttp2 | None:
        """Read and serve requests until the connection ends, or switches to HTTP/2; see ``serve_http1``."""
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
        """Serve until the connection ends. Raises BrokenResourceError, ClosedResourceError, TooSlowError: it broke."""
        stream, reader = self.stream, self.server.reader
        while self._idle.until != -math.inf:
            looked_at = reader.now
            if self.rest_is_due:
                # The client is not idle while it has not taken a response; ``send_rest`` has its own limit.
                self._idle.until = math.inf
                await self.send_rest()
                self._be_idle()
            try:
                await stream.wait_readable()
                data = stream.receive_now(_HEAD_MAX_READ)
            except trio.TooSlowError:
                # The deadline has passed. If the event loop was late, the bytes may be in the socket already.
                data = self.receive_now()
                if not data:
                    break
            if data is None:
                continue
            if not data:
                return None
            self.buffer = self.buffer + data if self.buffer else data
            # reader.now is the time of arrival only if the reader has polled since this read began. Otherwise the bytes
            # came during the last request, and the time of the last poll may be long past.
            self._read_at = 0.0 if reader.now == looked_at else reader.now
            self._unbroken = 0  # wait_readable is a checkpoint.
            while self.buffer:
                raw = b""
                try:
                    raw = self._cut_head()
                    if not raw:
                        break
                    if not self._requests and raw == PREFACE and self.server.speaks_h2:
                        return SwitchToHttp2(raw + self.take_buffer())
                    head = self._heads.read(raw)
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
            del data, raw  # An idle connection must not hold the bytes of its last request.
        await self.give_up()
        return None

    async def _let_other_tasks_run(self) -> None:
        """Run a checkpoint after ``REQUESTS_PER_TURN`` requests, or ``TURN_S``, without one."""
        now = perf_counter()
        if not self._unbroken:
            self._turn_began = now
        self._unbroken += 1
        if self._unbroken >= REQUESTS_PER_TURN or now - self._turn_began > TURN_S:
            self._unbroken = 0
            await trio.lowlevel.checkpoint()

    def _cut_head(self) -> bytes:
        """Take the next complete head, its empty line included, off the buffer; ``b""`` if the head is incomplete.

        A complete head stops the idle timer. The first byte of an incomplete one starts ``head_timeout``.

        Raises:
            HeadError: the incomplete head is too large, or cannot become a head of HTTP/1.1.
        """
        if self.buffer[0] == _CR:
            self._skip_empty_lines()
        data = self.buffer
        end = data.find(END) + 4
        if end > 3:
            # Assigned, not cancelled: the timer stays in its queue, fires once and finds that nothing is due.
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
            self._heads.check_part(data, self._looked_at)
            self._looked_at = len(data)
            # Set once per head: later bytes of a slow client must not extend the deadline.
            if not self.head_began:
                self.head_began = trio.current_time()
                self._idle.set(self.head_began + self.server.limits.head_timeout)
        return b""

    def _skip_empty_lines(self) -> None:
        """Drop the empty lines at the start of the buffer (RFC 9112 section 2.2).

        Raises:
            HeadError: more than ``_EMPTY_LINES_MAX`` came before this request.
        """
        data, end = self.buffer, 0
        while data.startswith(b"\r\n", end):
            end += 2
            self._empty_lines += 1
            if self._empty_lines > _EMPTY_LINES_MAX:
                raise HeadError(ErrorResponse(400, f"More than {_EMPTY_LINES_MAX} empty lines precede the request."))
        if end:
            self.buffer = data[end:]

    # Reading, for the request in flight (``RequestTransport``).

    def take_buffer(self) -> bytes:
        """Take all bytes of ``buffer``."""
        data, self.buffer = self.buffer, b""
        return data

    def receive_now(self) -> bytes | None:
        """Receive without a wait: None if no byte is there, ``b""`` at the end of the stream or if it is broken."""
        try:
            self.stream.poll_readable()
            return self.stream.receive_now(PIECE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def receive_ready(self, limit: int) -> bytes | None:
        """Receive what the reader has reported: None if nothing, ``b""`` at the end of the stream or if it is broken.

        Never waits for the client, but passes the turn to other tasks (``PlainStream.pass_turn``).
        """
        try:
            return await self.stream.receive_ready(limit)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def receive(self, limit: int = PIECE) -> bytes:
        """Wait for bytes: ``b""`` at the end of the stream or if it is broken. A cancel loses no byte."""
        try:
            return await self.stream.receive_some(limit)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    # The end of the client's sending, and deadlines.

    def _client_ended(self, broken: bool) -> None:
        """Note that the kernel has reported the end of the client's sending; ``broken``: of both directions."""
        if self._cycle is not None:
            self._cycle.departed(broken=broken)
        else:
            self.half_closed = True

    def displace(self) -> None:
        """Close the connection at once: its request is counted out, to make room for a newer probe."""
        self._displaced = True
        if self._cycle is not None:
            self._cycle.keep_alive = False
            self._cycle.client_left()
        self.stream.close_now()

    def drain(self, until: float) -> None:
        """End the connection at the time ``until`` if no head has begun by then; a begun head keeps its deadline."""
        # Infinite: a request is served, and its response says "Connection: close". Minus infinity: time is up already.
        if math.isfinite(self._idle.until) and not self.head_began:
            self._idle.set(min(self._idle.until, until))

    def _be_idle(self, since: float = 0.0) -> None:
        """Start the idle timeout at ``since`` (0: now), unless a byte of the next request is here already."""
        if not self.buffer or self.buffer[0] == _CR:
            server, idle = self.server, self._idle
            until = (since or server.timers.now()) + server.idle_timeout
            if until < idle.timer_at:
                idle.set(until)
            else:
                idle.until = until

    async def give_up(self) -> None:
        """End the connection at its deadline: with a 408 if a head has begun, else without a response."""
        if self.buffer not in _NOTHING:
            self.lingers = True
            late = HeadError(ErrorResponse(408, "The head did not arrive in time."))
            await self._refuse_head(late, self.buffer)
            await self.linger()

    async def linger(self) -> None:
        """If the client may be sending, end the sending half and read on, so that the last response is not lost."""
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
        """Have one request answered. Return whether the connection can serve another one.

        Raises:
            BaseException: a cancel or the like, after the request's end was counted and recorded.
        """
        server, parsed = self.server, head.parsed
        oversized = parsed.length and parsed.length > server.limits.max_body and not self._takes_any_size(head)
        error_response = too_large(server.limits) if oversized else server.request_began()
        if error_response is not None and not server.probe_began(head.method, head.target, parsed.length):
            return await self._refuse_request(error_response, head)
        self._requests += 1
        # _read_at holds for the first request of a read. The pipelined ones behind it waited for that one.
        began, self._read_at, rest = self._read_at or trio.current_time(), 0.0, None
        self._cycle = cycle = RequestResponseCycle(self, head, began)
        if server.in_flight > server.limits.max_in_flight and server.is_probe(head.method, head.target, parsed.length):
            server.reserve.requests[cycle] = None
        try:
            try:
                await server.handle(cycle)
                if not (cycle.response_complete or cycle.gone or cycle.taken or cycle.crash_recorded):
                    raise ApplicationError("the application returned without a whole response")
            except BaseException as error:  # noqa: BLE001 - cancels and the like are raised again
                crash, rest = split_application_crash(error)
                if crash is not None:
                    server.application_failed("request", crash, gone=cycle.gone)
            if cycle.waits:
                cycle.on_gone(None)  # The application has ended: its callback must not be called any more.
            if not cycle.response_complete:
                if cycle.ends_with_connection and not cycle.taken:
                    # A FIN would end the content in order. Only a RST shows the client that it is incomplete.
                    self.stream.reset_on_close()
                if not cycle.gone:
                    await self._respond_for(cycle, rest)
            if rest is not None:
                raise rest
        finally:
            self._cycle = None
            if server.reserve.requests:
                server.reserve.leave(cycle)
            if server.on_drain:
                server.on_drain.pop(cycle, None)
            if cycle.place is None:
                server.request_ended()
            else:
                cycle.place.end()
            if cycle.filed is not None or not cycle.response_complete or cycle.server_response is not None:
                self._record_end(cycle, head, rest)
            else:
                server.show_unrecorded(cycle)
        if cycle.keep_alive and cycle.response_complete and cycle.body is None:
            self._be_idle(cycle.ended_at)
            return True
        return await self._may_go_on(cycle)

    def _takes_any_size(self, head: Head) -> bool:
        """Whether the application takes the request of ``head`` although its body is larger than ``max_body``."""
        seen = RequestHead(head.method, head.target, head.parsed.fields, self.scheme, self.peer.client)
        return self.server.takes_any_size(seen)

    async def _may_go_on(self, cycle: RequestResponseCycle) -> bool:
        """Return whether the connection can serve another request. Reads the rest of the body if that is small."""
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
        """Cancel the foreign code of the request in flight, and with it the connection."""
        self._apart.cancel(reason=reason)

    async def _respond_for(self, cycle: RequestResponseCycle, rest: BaseException | None) -> None:
        """Send an error response for an application that failed or was cancelled before its first byte.

        ``rest``: the cancel that the caller raises next; None: the application failed. With ``rest`` the sending is
        shielded for ``LAST_RESPONSE_S``, and a client that left or does not read raises nothing.
        """
        error_response = error_response_for(self.server, rest) if cycle.can_respond and not self._displaced else None
        if error_response is None:
            return
        request_id = cycle.request_id
        # Noted before it is sent: where the sending fails, the record still names this response, with 0 bytes.
        cycle.server_response = ServerResponse(error_response, request_id)
        if rest is None:
            cycle.server_response = ServerResponse(
                error_response, request_id, await self.refuse(error_response, request_id, cycle)
            )
            return
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError),
            trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_RESPONSE_S),
        ):
            cycle.server_response = ServerResponse(
                error_response, request_id, await self.refuse(error_response, request_id, cycle)
            )
            if self.buffer or not cycle.body_complete:
                await self.linger()  # The caller closes the socket next, and unread bytes would make that a RST.

    def _record_end(self, cycle: RequestResponseCycle, head: Head, rest: BaseException | None) -> None:
        """Write the request's one access record: the one that the application filed, else the server's own.

        The server writes its own only for an error response of its own, or for a response that ended early without the
        client's doing. It leaves the record to an ASGI application that keeps records (``leaves_record``).
        """
        filed, response = cycle.record_filed(), cycle.server_response
        if response is None and (filed or cycle.response_complete or cycle.gone or not cycle.begun or cycle.taken):
            if not filed:
                self.server.show_unrecorded(cycle)
            return
        if response is not None and (filed or self.server.leaves_record(response)):
            self.server.count_rejected(response.error_response)
            return
        counts, path = response is not None, head.target.partition(b"?")[0].decode("ascii")
        response = response or cut_response(cycle.status, cycle.bytes_sent, rest)
        version, fields = head.parsed.version, head.parsed.fields
        self._record(response, head.method, path, cycle.started, version, fields, counts=counts)

    def keeps_alive(self) -> bool:
        """Whether another request may follow.

        False during a drain, near the memory limit, after ``keep_alive_max_requests`` requests or ``REFUSED_MAX``
        refused ones, and after a half-close if nothing is left to read.
        """
        server = self.server
        return (
            server.keeps_alive
            and self._requests < self._requests_max
            and self._refused < REFUSED_MAX
            and not (self.half_closed and self._all_was_read())
        )

    def _all_was_read(self) -> bool:
        """Whether a client that has ended its sending has no further request in ``buffer`` or in the socket."""
        # Only behind a complete body: before that, the next bytes belong to the body.
        if not self.buffer and (self._cycle is None or self._cycle.body_complete):
            self.buffer = self.receive_now() or b""
        return not self.buffer

    # Refusing.

    async def _refuse_head(self, error: HeadError, raw: bytes) -> bool:
        """Refuse a request because of its head. Return whether another request may follow."""
        self._requests += 1
        self._refused += 1
        keep = error.sound and self.keeps_alive()
        method, path, version = method_path_version(raw)
        fields = error.fields or fields_of_refused(raw)
        await self.refuse_unseen(error.error_response, method, path, keep, version=version, fields=fields)
        if keep:
            self._be_idle()
        return keep

    async def _refuse_request(self, error_response: ErrorResponse, head: Head) -> bool:
        """Refuse a request that was not admitted. Return whether another request may follow."""
        self._refused += 1
        keep = head.parsed.keep_alive and head.parsed.length == 0 and self.keeps_alive()
        path, parsed = head.target.partition(b"?")[0].decode("ascii"), head.parsed
        version, old = parsed.version, parsed.version == "1.0"
        await self.refuse_unseen(
            error_response, head.method, path, keep, old=old, version=version, fields=parsed.fields
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
        version: str = "",
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send an error response to a request that no application sees (``unadmitted``), and record it.

        ``keep``: the connection stays open. ``old``: the request is HTTP/1.0, so the response must say keep-alive.
        The record is written also if the sending fails or is cancelled. Raises as ``send_rest``.
        """
        request_id, began, sent = new_request_id(), trio.current_time(), 0
        head = RequestHead(method, path.encode("utf-8", "replace"), fields, self.scheme, self.peer.client)
        error_response = self.server.unadmitted(error_response, head)
        try:
            sent = await self.refuse(error_response, request_id, head, keep_alive=keep, old=old)
        finally:
            self._record(ServerResponse(error_response, request_id, sent), method, path, began, version, fields)

    def _record(
        self,
        response: ServerResponse,
        method: str,
        path: str,
        began: float,
        version: str,
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
            version=version,
            fields=fields,
            bytes_sent=response.bytes_sent,
        )

    async def refuse(
        self,
        error_response: ErrorResponse,
        request_id: str,
        head: AnyHead,
        *,
        keep_alive: bool = False,
        old: bool = False,
    ) -> int:
        """Send ``error_response``, without its body to HEAD. Return the bytes of the body; raises as ``send_rest``.

        ``keep_alive``, ``old``: as ``keep`` and ``old`` of ``refuse_unseen``.
        """
        headers, body = self.server.fields_and_body(error_response, request_id, head)
        if head.method == "HEAD":
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
