"""One HTTP/1.1 connection with one request at a time; it closes itself when that fails or is cancelled.

The pool owns it, decides on its reuse, and hands it to one request at a time. A connection never retries. Who sends
and receives without ``start`` and ``read`` (``calls/attempt.py``) calls ``close_now`` on an error or a cancel.
"""

from __future__ import annotations

import math
import ssl

import httpx
import trio

from ...core.call import StepTimeouts
from ...core.errors import UpstreamError
from ...http1.errors import MessageError
from ...http1.response_head import Head
from ...http1.response_reader import Limits, ResponseReader
from ...net.stream import Listener, PlainStream, Stream
from ..aclosing_iter import pieces_of
from ..errors import BadRequest, ConnectionReset, ReadTimedOut, WriteTimedOut, incomplete, response_failed, tls_failed
from .connection_state import TRANSITIONS, Event, State
from .request_head import EncodedRequest

INLINE_MAX = 16 * 1024
"""Bytes of a request that are sent before the response is read. The send buffer of an idle connection is empty and
holds this much (the smallest default of Linux), so such a send never waits for the peer. A larger request is sent by a
task of its own while the response is awaited: the peer may answer early and read no further."""
_IDLE, _AWAITING = State.IDLE, State.AWAITING  # To read a member of an enumeration costs as much as ten variables.
SETTLE_TIMEOUT = 1.0
"""Seconds that a request that is over waits for its sending task to unwind (it is the caller's body that unwinds)."""


class Connection:
    """A connection and its request.

    A request is ``start``, then ``read`` until ``ended``, or ``close_now`` at any point and then ``settle``. Every
    error and every cancel closes the connection, synchronously. After the request ``state`` is IDLE, and it may serve
    again, or CLOSED, and it must be closed.

    Args:
        nursery: the pool's, for sending large requests.
        where: the origin in words, for messages.
    """

    __slots__ = (
        "_close_after",
        "_failure",
        "_nursery",
        "_read_deadline",
        "_reader",
        "_reading",
        "_send_failure",
        "_sender",
        "_sender_done",
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
        """The stream, if it can push what it receives, so that a response needs no task that waits for it."""
        self.is_quiet = stream.is_quiet
        """Whether an idle connection is still fit to serve (``Stream.is_quiet``)."""
        self.state = State.IDLE
        self.served = 0
        """The number of requests that it has begun to send."""
        self.expires_at = math.inf
        """When it is to be closed if it is still idle; set by the pool."""
        self.idle_since = math.inf
        """When its last response ended; set by the pool."""
        self.keep_alive_hint: float | None = None
        """The ``timeout`` of the last Keep-Alive field, in seconds; None where the peer sent none."""
        self._sender: trio.CancelScope | None = None
        self._sender_done: trio.Event | None = None
        self._reading: trio.CancelScope | None = None
        self._read_deadline = math.inf
        self._failure: Exception | None = None
        self._send_failure: trio.BrokenResourceError | None = None

    def _on(self, event: Event) -> State:
        state = self.state = TRANSITIONS[self.state, event]
        return state

    async def start(self, request: EncodedRequest, limits: Limits, timeouts: StepTimeouts) -> Head:
        """Send ``request``; return the head of the response as soon as it is there.

        Raises:
            UpstreamError: of kind reset, malformed, too-big, tls, timeout or bad-request; the connection is closed.
            Exception: what the request's own body stream raised; the connection is closed.
        """
        method, head, body, stream, _, _, self._close_after = request
        whole = stream is None and len(head) + len(body) <= INLINE_MAX
        self.state = TRANSITIONS[self.state, Event.START_WHOLE if whole else Event.START]
        self.served += 1
        reader = self._reader = ResponseReader(method, limits)
        self._timeouts = timeouts
        self._sender_done = self._reading = None
        self._reset_read_deadline()
        try:
            # Cancelled as the connection was made, it must send nothing; sending need not be a checkpoint.
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
            if reader.ended:
                if state is State.EARLY:
                    await trio.lowlevel.checkpoint()
                self._end(reader, answer)
        except BaseException:
            self.close_now()
            await self.settle()
            raise
        return answer

    @property
    def ended_at(self) -> float | None:
        """When the peer ended its sending; None if it has not, or if that is not known."""
        return None if self.pushing is None else self.pushing.ended_at

    def idle_for(self, now: float) -> float:
        """Seconds since its last response ended, also where that was read later than it came."""
        idle = now - self.idle_since
        # The peer counts from when it sent the response. A busy loop may read that so late that this matters.
        received_ago = None if self.pushing is None else self.pushing.received_ago()
        return idle if received_ago is None else max(idle, received_ago)

    @property
    def ended(self) -> bool:
        """Whether the response is complete and ``read`` has given all of it (or ``take`` will, without waiting)."""
        return self._reader.ended

    @property
    def excess(self) -> bool:
        """Whether bytes came behind the response's end."""
        return self._reader.excess

    def take(self) -> bytes:
        """The bytes of the body that have come and were not read yet. Never waits."""
        return self._reader.take()

    async def read(self) -> bytes:
        """The next bytes of the response's body; may be empty at its end. Not to be called once ``ended``.

        Raises:
            as ``start``.
        """
        reader = self._reader
        self._reset_read_deadline()
        try:
            while not (data := reader.take()) and not reader.ended:
                await self._receive()
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

    # For callers that send and receive themselves; they give the connection back or close it.

    def send_whole(self, request: bytes, listener: Listener) -> None:
        """Send a request on a stream that pushes, and let ``listener`` hear what comes.

        Raises:
            trio.ClosedResourceError: the pool has closed the connection. What is broken shows when it is read.
        """
        stream = self.pushing
        assert stream is not None and self.state is _IDLE
        self.state = _AWAITING  # As Event.START_WHOLE says.
        self.served += 1
        stream.send_and_listen(request, listener)

    def begin_whole(self) -> Stream:
        """Begin a request that its caller sends on the stream that is returned."""
        self.state = TRANSITIONS[self.state, Event.START_WHOLE]
        self.served += 1
        return self._stream

    def broken(self, error: Exception, reader: ResponseReader | None) -> Exception:
        """The error of a broken stream at this point of the response; ``reader`` is None before its first byte."""
        if isinstance(error, trio.ClosedResourceError):
            return ConnectionReset(f"{self._where}: the connection was closed by its pool")
        if not isinstance(error, trio.BrokenResourceError):
            return error
        sending = self.pushing.send_error if self.pushing is not None else self._send_failure
        return _error_of(error, self._where, reader, sending)

    @property
    def unsettled(self) -> bool:
        """Whether ``settle`` and ``raise_failure`` have anything to do: only a large request leaves them any."""
        return self._sender_done is not None

    async def settle(self) -> None:
        """Wait until the sending task of a request that is over is gone, at most SETTLE_TIMEOUT, even if cancelled."""
        if self._sender_done is not None:
            with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
                await self._sender_done.wait()

    def raise_failure(self) -> None:
        """Raise what the request's own body raised, although its response is complete."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Close, over TLS with a close_notify."""
        self._on(Event.CLOSE)
        self._stream.close()

    # Receiving

    def _reset_read_deadline(self) -> None:
        """Give the next head, or the next piece of the body, the whole read limit from now on."""
        if (limit := self._timeouts.read) is not None:
            self._read_deadline = trio.current_time() + limit
            if self._reading is not None:
                self._reading.deadline = self._read_deadline

    async def _receive(self) -> None:
        """Receive once from the stream into the reader."""
        limit = self._timeouts.read
        data: bytes | None = None
        try:
            if limit is None:
                data = await self._stream.receive_some()
            else:
                # As long as the request goes out its own limit holds: a peer may well be silent until it has it all.
                sending = self.state in (State.SENDING, State.EARLY) and self._sender is not None
                with trio.CancelScope() as self._reading:
                    self._reading.deadline = math.inf if sending else self._read_deadline
                    data = await self._stream.receive_some()
                if self._reading.cancelled_caught:
                    raise ReadTimedOut(f"{self._where}: neither a head nor a part of a body came within {limit:g} s")
        except trio.ClosedResourceError:
            pass  # The sending task closed the stream because the request's body failed, or the pool did.
        except trio.BrokenResourceError as error:
            raise self._broken(error) from error
        if self._failure is not None:
            raise self._failure
        # Asked after every await: the pool may have been closed meanwhile.
        if data is None or self.state is State.CLOSED:
            raise ConnectionReset(f"{self._where}: the connection was closed by its pool")
        try:
            if data:
                self._reader.feed(data)
            else:
                self._reader.feed_eof()
        except MessageError as error:
            raise response_failed(error) from error

    def _broken(self, error: trio.BrokenResourceError) -> UpstreamError:
        return _error_of(error, self._where, self._reader, self._send_failure)

    def _end(self, reader: ResponseReader, head: Head) -> None:
        """End the request: the response is complete.

        To be called after a checkpoint if EARLY: the sending task may have handed its last byte to the stream without
        having run since.
        """
        if self.state is State.CLOSED:
            return
        self.keep_alive_hint = head.idle_hint
        ended = self.ended_at is not None
        usable = head.keep_alive and not (reader.excess or ended or self._close_after or self._send_failure)
        if self._on(Event.END if usable else Event.LAST) is State.CLOSED and self._sender is not None:
            self._sender.cancel(reason="the response is complete")

    # Sending

    def _begin_sending(self, request: EncodedRequest) -> None:
        self._sender = trio.CancelScope()
        self._sender_done = trio.Event()
        self._nursery.start_soon(self._run_sender, request, self._sender, self._sender_done)

    async def _run_sender(self, request: EncodedRequest, scope: trio.CancelScope, done: trio.Event) -> None:
        """Send a large request. Raises nothing: ``start``, ``read`` or ``raise_failure`` raises what fails here."""
        try:
            with scope:
                if await self._send_large(request) and self.state is not State.CLOSED:
                    self._on(Event.SENT)
                self._reset_read_deadline()
        except Exception as error:  # noqa: BLE001 - the caller's own body may raise anything; start or read raises it
            self._failure = error
            self._stream.close_now()
        finally:
            self._sender = None
            done.set()

    async def _send_large(self, request: EncodedRequest) -> bool:
        """Send head and body; False if the peer stopped reading."""
        if not await self._send(request.head):
            return False
        if request.stream is None:
            return await self._send(request.body)
        if not await self._send_stream(request.stream, request.length):
            return False
        return request.length is not None or await self._send(b"0\r\n\r\n")

    async def _send_stream(self, stream: httpx.AsyncByteStream, length: int | None) -> bool:
        sent = 0
        async with pieces_of(stream) as pieces:
            async for piece in pieces:
                sent += len(piece)
                if length is not None and sent > length:
                    raise BadRequest("the body is longer than its Content-Length")
                framed = piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
                # A chunk of no bytes would be the last one.
                if piece and not await self._send(framed):
                    return False
                # Neither the body nor the stream need have let another task run.
                await trio.lowlevel.checkpoint()
        if length is not None and sent < length:
            raise BadRequest("the body is shorter than its Content-Length")
        return True

    async def _send(self, data: bytes) -> bool:
        """Send; False if the peer reads no more, which is no error yet: it may have answered all the same."""
        limit = self._timeouts.write
        try:
            if limit is None:
                await self._stream.send_all(data)
            else:
                with trio.move_on_after(limit) as scope:
                    await self._stream.send_all(data)
                if scope.cancelled_caught:
                    raise WriteTimedOut(f"{self._where}: nothing could be sent for {limit:g} s")
        except trio.BrokenResourceError as error:
            error.__traceback__ = None  # Its frames hold this connection.
            self._send_failure = error
        except trio.ClosedResourceError:
            pass  # The request is over.
        else:
            return True
        return False


def _error_of(
    error: trio.BrokenResourceError, where: str, reader: ResponseReader | None, sending: Exception | None
) -> UpstreamError:
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
