"""One HTTP/1.1 connection to an upstream, with one request at a time.

Theory
------
**Problem.** A request and its response overlap: a peer may answer before it has read the whole request, may stop
reading, or may close at any byte. After each of these the connection must be either exactly at the boundary between two
messages, or closed. The pool decides on reuse; a connection never retries.

**States** (``connection_state.TRANSITIONS`` is the table)::

    IDLE ─START─► SENDING ─SENT─► AWAITING ─HEAD─► RECEIVING ─END─► IDLE
                     └─HEAD─► EARLY ─SENT─► RECEIVING ─LAST─► CLOSED
                                └─END, LAST─► CLOSED

``START_WHOLE`` leads from IDLE to AWAITING directly. CLOSE leads from every state to CLOSED, and CLOSED is final. A
response that ends in EARLY closes the connection: the peer would read the rest of the request as the next one. A 101
leads to RECEIVING like any head; its connection leaves the pool (``take_stream``) and only CLOSE follows.

**Two ways of use.**

- ``start``, then ``read`` until ``ended``: a task drives the connection, for httpx and for large or streamed requests.
  ``start`` and ``read`` close the connection on every error and every cancel.
- ``send_whole`` or ``begin_whole``: the caller (``calls/attempt.py``) sends and parses by itself, and the state stays
  AWAITING. The caller then gives the connection back to the pool, or calls ``close_now``; also after a cancel. Or it
  hands its reader over after the head (``receive_rest``), and continues with ``read``.

**Sending in start.** A request of at most INLINE_MAX bytes in memory is sent by the task that then receives. The
request fits the empty send buffer, so sending does not wait. A larger request, or one whose body is a stream, is sent
by a *sender* task in the pool's nursery, while the first task receives. The two tasks share this object without a lock,
and these rules keep them apart:

- Only the sender makes the event SENT; only the receiving task makes HEAD, END and LAST.
- A send that fails because the peer stopped reading is no error. The failure is kept (``_send_failure``), the
  connection is not reused, and the response decides how the request ends.
- Any other exception of the sender (the request's own body failed, or the write timeout) is kept as ``_failure``, and
  the sender closes the stream. The receiving task wakes with ClosedResourceError and raises ``_failure``.
- Before END or LAST the receiving task passes a checkpoint if the state is EARLY. The sender may have sent its last
  byte and not have run since; without the checkpoint a request that was sent completely would count as cut off.
- A request that expects 100 (Continue): the sender waits for ``_continued``, which the receiving task sets at a 100 and
  at the final head, for at most CONTINUE_WAIT. After a final status from 300 on, the sender ends without asking for
  the body; the state stays EARLY, so the connection is closed after the response.

**Read timeout.** It bounds the wait for the next head (an interim response restarts it) and for each piece of the body.
While the sender runs it does not apply, because a peer may be silent until it has the whole request; the write timeout
bounds each send, and nothing here bounds the wait for the next piece of a body stream. ``_run_sender`` sets the
deadline of a receive that is already waiting.

**Cancellation.** ``start`` and ``read`` call ``close_now``, which cancels the sender, and then ``settle``, which waits
for the sender's end: shielded, and for at most SETTLE_TIMEOUT, because the sender unwinds the caller's own body stream.
Then the cancel propagates. The sender runs in the pool's nursery, so the end of the pool cancels it.

**The stream may be closed by others at any await** (the pool's exit). So the state is examined after each receive, and
CLOSED becomes ConnectionReset. Closed during the checkpoint before END, the response is complete all the same.
"""

from __future__ import annotations

import enum
import math
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any

import httpx
import trio

from ...core.call import CONTINUE_WAIT, StepTimeouts
from ...core.errors import UpstreamError
from ...core.http.header_field import Field
from ...core.pieces import PIECE
from ...http1.errors import MessageError
from ...http1.response_head import Head
from ...http1.response_reader import Limits, OnInterim, ResponseReader
from ...net.stream import Listener, PlainStream, Stream
from ..aclosing_iter import pieces_of
from ..errors import BadRequest, ConnectionReset, ReadTimedOut, WriteTimedOut, incomplete, response_failed, tls_failed
from .connection_state import TRANSITIONS, Event, State
from .request_head import EncodedRequest

INLINE_MAX = 16 * 1024
"""Bytes of the largest request that is sent before anything is received. The send buffer of an idle connection is empty
and holds this much (the smallest default of Linux), so the send does not wait. A larger request is sent by a task of
its own, because the peer may answer early and read no further."""
_IDLE, _AWAITING = State.IDLE, State.AWAITING  # Reading a member of an enumeration is slow, and these are hot paths.
SETTLE_TIMEOUT = 1.0
"""Bound in seconds on the wait for a cancelled sender, whose body stream is the caller's code."""


class Connection:
    """An HTTP/1.1 connection with its current request. See the module for its states and its two ways of use.

    After a request the state is IDLE, and the connection may serve again, or CLOSED.

    Args:
        stream: a connected stream; the connection owns it.
        nursery: the pool's nursery, for tasks that send large requests.
        where: the origin in words, for messages.
    """

    __slots__ = (
        "_close_after",
        "_continued",
        "_failure",
        "_nursery",
        "_on_interim",
        "_read_deadline",
        "_reader",
        "_reading",
        "_send_failure",
        "_sender",
        "_sender_done",
        "_sent_at_once",
        "_stream",
        "_timeouts",
        "_where",
        "expires_at",
        "idle_since",
        "is_quiet",
        "keep_alive_hint",
        "pushing",
        "served",
        "state",
    )

    def __init__(self, stream: Stream, nursery: trio.Nursery, where: str) -> None:
        self._stream = stream
        self._nursery = nursery
        self._where = where
        self._close_after = False
        self.pushing = stream if isinstance(stream, PlainStream) else None
        """The stream, if it can push received bytes to a listener; else None."""
        self.is_quiet = stream.is_quiet
        """Function: whether nothing is to be read, not even the peer's end; an idle connection must be quiet."""
        self.state = State.IDLE
        self.served = 0
        """Number of requests that the connection has begun to send."""
        self.expires_at = math.inf
        """Time at which the connection is closed if it is still idle; set by the pool."""
        self.idle_since = math.inf
        """Time at which the last response ended; set by the pool."""
        self.keep_alive_hint: float | None = None
        """The ``timeout`` of the last Keep-Alive field, in seconds; None without such a field."""
        self._sender: trio.CancelScope | None = None
        """Cancel scope of the sender; None if none runs."""
        self._sender_done: trio.Event | None = None
        """Set when the sender has ended; None for a request without a sender."""
        self._reading: trio.CancelScope | None = None
        """Cancel scope around the latest receive with a read timeout."""
        self._read_deadline = math.inf
        self._failure: Exception | None = None
        """Exception of the sender; raised by the receiving task."""
        self._send_failure: trio.BrokenResourceError | None = None
        """Error of a send after the peer stopped reading."""
        self._sent_at_once = False
        """Whether the socket took the last piece of the request's body without a wait."""
        self._on_interim: OnInterim | None = None
        self._continued: trio.Event | None = None
        """Set at a 100 and at the final head; None if the request does not expect a 100."""

    def _on(self, event: Event) -> State:
        state = self.state = TRANSITIONS[self.state, event]
        return state

    async def start(
        self, request: EncodedRequest, limits: Limits, timeouts: StepTimeouts, on_interim: OnInterim | None = None
    ) -> Head:
        """Send ``request``, and return the head of the response as soon as it is read.

        After an error or a cancel the connection is closed, and the sender has been waited for (``settle``).

        Args:
            limits: limits of the response's head and trailer section.
            timeouts: of these, ``read`` and ``write`` apply until the end of the request and its response.
            on_interim: gets the interim responses.

        Raises:
            UpstreamError: of kind reset, malformed, too-big, tls, timeout or bad-request.
            Exception: an exception of the request's own body stream.
        """
        method, head, body, stream, _, _, self._close_after, upgrade, expects_continue = request
        whole = stream is None and len(head) + len(body) <= INLINE_MAX
        self.state = TRANSITIONS[self.state, Event.START_WHOLE if whole else Event.START]
        self.served += 1
        self._continued = None
        if expects_continue and stream is not None:
            self._continued, self._on_interim, on_interim = trio.Event(), on_interim, self._note_interim
        reader = self._reader = ResponseReader(method, limits, on_interim, upgrade)
        self._timeouts = timeouts
        self._sender_done = self._reading = None
        self._reset_read_deadline()
        try:
            # A request that is already cancelled must send nothing, and sending need not be a checkpoint.
            await trio.lowlevel.checkpoint_if_cancelled()
            if whole:
                await self._send(head + body)
            else:
                self._begin_sending(request)
            while (answer := reader.head) is None:
                interim = reader.interim
                await self._receive()
                if reader.interim > interim:
                    self._reset_read_deadline()
            state = self.state = TRANSITIONS[self.state, Event.HEAD]
            if self._continued is not None:
                self._continued.set()
                self._on_interim = None
            if reader.ended:
                if state is State.EARLY:
                    await trio.lowlevel.checkpoint()
                self._end(reader, answer)
        except BaseException:
            self.close_now()
            await self.settle()
            raise
        return answer

    def _note_interim(self, status: int, fields: Sequence[Field]) -> None:
        """Handle an interim response to a request that expects a 100."""
        if status == 100 and self._continued is not None:
            self._continued.set()
        if self._on_interim is not None:
            self._on_interim(status, fields)

    @property
    def ended_at(self) -> float | None:
        """Time at which the reader reported the end of the peer's stream; None without such a report."""
        return None if self.pushing is None else self.pushing.ended_at

    def idle_for(self, now: float) -> float:
        """Seconds since the last response arrived."""
        idle = now - self.idle_since
        # The peer counts from the moment at which it sent the response. A busy process may have read it much later.
        received_ago = None if self.pushing is None else self.pushing.received_ago()
        return idle if received_ago is None else max(idle, received_ago)

    @property
    def ended(self) -> bool:
        """Whether the response was received to its end. ``take`` returns what ``read`` has not returned."""
        return self._reader.ended

    @property
    def excess(self) -> bool:
        """Whether bytes arrived after the end of the response."""
        return self._reader.excess

    @property
    def trailers(self) -> Sequence[Field]:
        """Trailer fields of the response, once it has ended; see ``ResponseReader``."""
        return self._reader.trailers

    def take(self) -> bytes:
        """Return the received bytes of the body that were not returned yet. Never waits."""
        return self._reader.take()

    def take_stream(self) -> Stream:
        """The stream of a connection whose response is a 101, for the other protocol.

        ``take`` returns the bytes that came behind the head. The connection must be closed in the end.
        """
        return self._stream

    async def read(self, limit: int = PIECE) -> bytes:
        """Receive the next bytes of the body, of reads of at most ``limit`` bytes; may return no bytes at its end.

        Must not be called after ``ended``.

        After an error or a cancel the connection is closed, and the sender has been waited for (``settle``).

        Raises:
            as ``start``.
        """
        reader = self._reader
        self._reset_read_deadline()
        try:
            while not (data := reader.take()) and not reader.ended:
                await self._receive(limit)
                if reader.ended and reader.head is not None:
                    if self.state is State.EARLY:
                        await trio.lowlevel.checkpoint()
                    self._end(reader, reader.head)
        except BaseException:
            self.close_now()
            await self.settle()
            raise
        return data

    def close_now(self) -> None:
        """Close in any state, without waiting and without a TLS close_notify. May be called twice."""
        self._on(Event.CLOSE)
        if self._sender is not None:
            self._sender.cancel(reason="the request is over")
        self._stream.close_now()

    # For callers that send and receive by themselves; see "Two ways of use" in the module.

    def send_whole(self, request: bytes, listener: Listener) -> None:
        """Send a request of at most INLINE_MAX bytes on a stream that pushes, and push the response to ``listener``.

        Never waits. A broken connection is reported to ``listener``.

        Raises:
            trio.ClosedResourceError: the pool has closed the connection.
        """
        stream = self.pushing
        assert stream is not None and self.state is _IDLE
        self.state = _AWAITING  # As Event.START_WHOLE says.
        self.served += 1
        stream.send_and_listen(request, listener)

    def receive_rest(self, reader: ResponseReader, timeouts: StepTimeouts, *, close_after: bool) -> None:
        """Have ``read`` receive the rest of a response whose head the caller of ``send_whole`` has read.

        Args:
            reader: has the head, and has not ended.
            timeouts: of these, ``read`` applies.
            close_after: whether the connection must be closed after the response.
        """
        self.state = TRANSITIONS[self.state, Event.HEAD]
        self._reader, self._timeouts, self._close_after = reader, timeouts, close_after
        self._sender_done = self._reading = self._continued = None

    def limit_reads(self, seconds: float | None) -> None:
        """Set the ``read`` timeout for the rest of the response; None: no limit."""
        self._timeouts = self._timeouts._replace(read=seconds)

    def begin_whole(self) -> Stream:
        """Begin a request, and return the stream on which the caller sends it."""
        self.state = TRANSITIONS[self.state, Event.START_WHOLE]
        self.served += 1
        return self._stream

    def broken(self, error: Exception, reader: ResponseReader | None) -> Exception:
        """Return the error of an attempt whose stream has failed with ``error``.

        Args:
            reader: reader of the response; None before its first byte.

        Returns:
            an ``UpstreamError`` if the stream is broken or closed; any other ``error`` itself.
        """
        if isinstance(error, trio.ClosedResourceError):
            return self._closed()
        if not isinstance(error, trio.BrokenResourceError):
            return error
        sending = self.pushing.send_error if self.pushing is not None else self._send_failure
        return _error_of(error, self._where, reader, sending)

    @property
    def unsettled(self) -> bool:
        """Whether the request had a sender, also after its end. If not, ``settle`` and ``raise_failure`` do nothing."""
        return self._sender_done is not None

    @property
    def is_settled(self) -> bool:
        """Whether ``settle`` would not wait, and ``raise_failure`` would not raise."""
        return self._failure is None and (self._sender_done is None or self._sender_done.is_set())

    async def settle(self) -> None:
        """Wait for the end of the sender, if there is one: at most SETTLE_TIMEOUT (1 s), even if cancelled."""
        if self._sender_done is not None:
            with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
                await self._sender_done.wait()

    def raise_failure(self) -> None:
        """Raise the exception that ended the sender, if there is one, such as one of the request's own body."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Close without waiting; over TLS with a close_notify, if the socket takes it at once."""
        self._on(Event.CLOSE)
        self._stream.close()

    # Receiving

    def _reset_read_deadline(self) -> None:
        """Restart the read timeout, also for a receive that is already waiting."""
        if (limit := self._timeouts.read) is not None:
            self._read_deadline = trio.current_time() + limit
            if self._reading is not None:
                self._reading.deadline = self._read_deadline

    async def _receive(self, size: int = PIECE) -> None:
        """Receive once from the stream, at most ``size`` bytes, and feed the reader.

        Raises:
            as ``start``.
        """
        limit, pushing = self._timeouts.read, self.pushing
        data: bytes | None = None
        try:
            if pushing is not None:
                data = await pushing.receive_ready(size)
            if data is not None:
                # Bytes that bring no part of a body (the framing of chunks) must not put the timeout off.
                if limit is not None and trio.current_time() > self._next_deadline:
                    raise self._read_timed_out(limit)
            elif limit is None:
                data = await self._receive_some(size)
            else:
                with trio.CancelScope(deadline=self._next_deadline) as self._reading:
                    data = await self._receive_some(size)
                if self._reading.cancelled_caught:
                    raise self._read_timed_out(limit)
        except trio.ClosedResourceError:
            pass  # The sender closed the stream (``_failure`` is set), or the pool did.
        except trio.BrokenResourceError as error:
            raise self._broken(error) from error
        if self._failure is not None:
            raise self._failure
        # The pool may have closed the connection during the await, and ``receive_some`` may have data all the same.
        if data is None or self._is_closed:
            raise self._closed()
        try:
            if data:
                self._reader.feed(data)
            else:
                self._reader.feed_eof()
        except MessageError as error:
            raise response_failed(error) from error
        if self._is_closed:  # The user's ``on_interim`` has cancelled the call.
            raise self._closed()

    def _receive_some(self, size: int) -> Coroutine[Any, Any, bytes]:
        """Wait for at most ``size`` bytes; only a stream that can push has another limit than its own."""
        return self._stream.receive_some() if self.pushing is None else self.pushing.receive_some(size)

    @property
    def _is_closed(self) -> bool:
        return self.state is State.CLOSED

    def _closed(self) -> ConnectionReset:
        return ConnectionReset(f"{self._where}: the connection was closed by its pool")

    @property
    def _next_deadline(self) -> float:
        """When the read timeout passes; infinity while the sender runs. See "Read timeout" in the module."""
        sending = self.state in (State.SENDING, State.EARLY) and self._sender is not None
        return math.inf if sending else self._read_deadline

    def _read_timed_out(self, limit: float) -> ReadTimedOut:
        return ReadTimedOut(f"{self._where}: no head or part of a body within the read timeout of {limit:g} s")

    def _broken(self, error: trio.BrokenResourceError) -> UpstreamError:
        return _error_of(error, self._where, self._reader, self._send_failure)

    def _end(self, reader: ResponseReader, head: Head) -> None:
        """End the request: the response is complete. In state EARLY a checkpoint must precede: "Sending in start"."""
        if self.state is State.CLOSED:
            return
        self.keep_alive_hint = head.idle_hint
        pushing = self.pushing
        # Unsent bytes of the request would be read by the peer as the beginning of the next one.
        ended = pushing is not None and (pushing.ended_at is not None or bool(pushing.unsent))
        usable = head.keep_alive and not (reader.excess or ended or self._close_after or self._send_failure)
        if self._on(Event.END if usable else Event.LAST) is State.CLOSED and self._sender is not None:
            self._sender.cancel(reason="the response is complete")

    # Sending

    def _begin_sending(self, request: EncodedRequest) -> None:
        """Start the sender."""
        self._sender = trio.CancelScope()
        self._sender_done = trio.Event()
        self._nursery.start_soon(self._run_sender, request, self._sender, self._sender_done)

    async def _run_sender(self, request: EncodedRequest, scope: trio.CancelScope, done: trio.Event) -> None:
        """The sender's task. An error is kept as ``_failure``; only a cancel of the pool's nursery is raised."""
        try:
            with scope:
                if await self._send_large(request) and self.state is not State.CLOSED:
                    self._on(Event.SENT)
                self._reset_read_deadline()
        except Exception as error:  # noqa: BLE001 - the caller's body may raise anything; the receiving task raises it
            self._failure = error
            self._stream.close_now()
        finally:
            self._sender = None
            done.set()

    async def _send_large(self, request: EncodedRequest) -> bool:
        """Send head and body. Return False if the peer stopped reading."""
        if not await self._send(request.head):
            return False
        if request.stream is None:
            return await self._send(request.body)
        if not await self._send_stream(request.stream, request.length):
            return False
        return request.length is not None or await self._send(b"0\r\n\r\n")

    async def _send_stream(self, stream: httpx.AsyncByteStream, length: int | None) -> bool:
        """Send a body stream, with chunked framing if ``length`` is None. Return False if the peer stopped reading.

        Raises:
            BadRequest: the body has not ``length`` bytes.
            Exception: an exception of ``stream``.
        """
        if self._continued is not None:
            with trio.move_on_after(CONTINUE_WAIT):
                await self._continued.wait()
            head = self._reader.head
            if head is not None and head.status >= 300:
                return False
        sent = 0
        async with pieces_of(stream) as pieces:
            report = getattr(pieces, "sent", None)
            async for piece in pieces:
                sent += len(piece)
                if length is not None and sent > length:
                    raise BadRequest("the body is longer than its Content-Length")
                framed = piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
                # An empty piece is not sent: a chunk of size 0 would end the body.
                if piece and not await self._send(framed):
                    return False
                if report is not None:
                    report(at_once=self._sent_at_once)
                # Neither the body's iterator nor ``_send`` need be a checkpoint.
                if self.pushing is None:
                    await trio.lowlevel.checkpoint()
                else:
                    await self.pushing.pass_turn()
        if length is not None and sent < length:
            raise BadRequest("the body is shorter than its Content-Length")
        return True

    async def _send(self, data: bytes) -> bool:
        """Send ``data``. Return False if the peer stopped reading, or if the stream was closed.

        Raises:
            WriteTimedOut: ``data`` could not be sent within the write timeout.
        """
        limit = self._timeouts.write
        try:
            sent = await send_within(self._stream, data, math.inf if limit is None else limit)
            if sent is Sent.NOT:
                raise WriteTimedOut(f"{self._where}: the write timeout of {limit:g} s has passed while sending")
            self._sent_at_once = sent is Sent.AT_ONCE
        except trio.BrokenResourceError as error:
            error.__traceback__ = None  # The frames refer to this connection: a cycle.
            self._send_failure = error
        except trio.ClosedResourceError:
            pass  # The request is over, and ``close_now`` was called.
        else:
            return True
        return False


class Sent(enum.Enum):
    """Result of ``send_within``."""

    AT_ONCE = enum.auto()
    """The socket took everything without a wait."""
    AFTER_WAIT = enum.auto()
    """The socket took everything, maybe after a wait."""
    NOT = enum.auto()
    """The time has passed, and the stream can only be closed."""


async def send_within(stream: Stream, data: bytes, seconds: float) -> Sent:
    """Send all of ``data``, within ``seconds``.

    Not a checkpoint if the socket takes it at once; sends nothing in a cancelled scope.

    Raises:
        trio.BrokenResourceError, trio.ClosedResourceError: as ``send_all``.
    """
    if isinstance(stream, PlainStream):
        # Most sends do not wait, and a scope costs more than the send.
        await trio.lowlevel.checkpoint_if_cancelled()
        given = stream.send_part(data)
        if not stream.unsent:
            return Sent.AT_ONCE
        with trio.move_on_after(seconds) as scope:
            await stream.drained()
            if given < len(data):
                await stream.send_all(data[given:])
    else:
        with trio.move_on_after(seconds) as scope:
            await stream.send_all(data)
    return Sent.NOT if scope.cancelled_caught else Sent.AFTER_WAIT


def _error_of(
    error: trio.BrokenResourceError, where: str, reader: ResponseReader | None, sending: Exception | None
) -> UpstreamError:
    """The error of a request whose stream broke: a TLS error, an incomplete response, or ConnectionReset.

    Args:
        reader: reader of the response; None before its first byte.
        sending: error of an earlier send, for the message.
    """
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return tls_failed(cause, where)
    if isinstance(cause, ssl.SSLEOFError) and reader is not None and reader.head is not None:
        return incomplete(f"{where}: TLS was cut off inside the response's body")
    of_sending = f" (sending: {sending})" if sending else ""
    return ConnectionReset(
        f"{where}: the connection broke: {cause or error}{of_sending}",
        untouched=reader is None or not reader.started,
    )
