"""A streaming call: the response is received piece by piece, and the request's body may be sent piece by piece.

Theory
------
See ``call.py`` and ``repeatable_call.py`` for the states of a call, ``stream_attempt.py`` for its attempts, and
``core.call.StreamingCall`` for the interface.

**Two ends.** ``call_ended`` reports the head of the response (``head``, ``status``, ``fields`` as received), or an
``error``. After a head the call stays RUNNING, and its body belongs to the task that calls ``receive``. The call is
DONE when ``receive`` or ``take_rest`` has returned the last bytes, when ``receive`` has raised, when ``aclose`` or
``cancel`` was called, when the ``UpgradedConnection`` was closed, or when a limit has passed. Until then the call holds
its place of the bulkhead (or one of the streams, see below), its replica and its connection; its attempt is recorded at
that end. A response that came whole with its head makes the call DONE before ``call_ended``; ``_rest`` is its body.

**Flow control.** Beyond what came in one read with the head, only ``receive`` reads the body from the socket. So a slow
receiver makes the peer wait, and at most one read (``receive_max``; see ``core/pieces.py``) is in memory.

**Policies.** Retries and hedges are decided by the heads of responses, and end with the head that is passed on. Every
other response is discarded: its connection is closed, or given back if the body is complete, and its attempt is
recorded. A hedge's failure is discarded at once. A first attempt's failure is kept, because it may be the call's
result: until the race is decided, or until the retry begins after its pause. A request whose body is a stream, or that
is to be sent once, is not repeated after a connection has begun to send it. The breaker counts an attempt at its end,
with two exceptions. The probe of a half-open breaker is counted by its head, because all other calls are refused until
then. A call that becomes a stream is counted then, by its head, because it may last for hours.

**Interim responses** belong to the head that follows them. While other attempts are possible, an attempt holds its
interim responses back (``holds_interim``); ``_conclude`` passes on those of the attempt whose head it reports.

**Streams.** ``become_stream`` moves the call from the bulkhead to the upstream's count of streams (``max_streams``):
a long response must not keep a place that short calls wait for. ``_is_stream`` says where the call counts now.

**Limits** (``StreamLimits``). ``first_byte`` and ``lifetime`` are timers of the call; ``idle`` is a timeout of the
connection. The timer of ``first_byte`` stops at the head. It is not set while the request's body is being sent: each
send has the limit ``idle``, and a body that waits for the client has the limits of the server.

**Tasks.** An attempt needs a task until its head only without a kept connection, or with a large or streamed request.
A cancel of that task closes the connection. A cancel within ``receive`` cancels the call. ``cancel`` closes the
connection within the step in which it is called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import trio

from ...core.call import CallContext, Mode, PreparedRequest
from ...core.http.header_field import Field
from ...core.pieces import PIECE
from ...net.exception_groups import cancel_reason
from ..errors import CallTimedOut, ConnectionReset, copy_of_failure
from .attempt import DONE, Attempt
from .failure_kind import STREAM_LIMIT
from .repeatable_call import RepeatableCall
from .stream_attempt import StreamAttempt, UpgradedConnection

if TYPE_CHECKING:
    from ...net.timers import Timer
    from .client_interface import ClientInterface


class StreamCall(RepeatableCall):
    """A ``core.call.StreamingCall``: ``call_ended`` reports the head, and ``receive`` returns the body."""

    __slots__ = (
        "_first_byte_timer",
        "_is_stream",
        "_lifetime_timer",
        "_rest",
        "_streaming",
        "_was_received",
        "receive_max",
        "trailers",
    )

    mode: ClassVar[Mode] = "stream"

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(client, prepared, context)
        # The pieces of a streamed body are gone once they were sent.
        self.idempotent = self.idempotent and prepared.body is None and not prepared.once
        self.trailers: Sequence[Field] = ()
        """Trailer fields of the response, once it has ended."""
        self.receive_max = PIECE
        """Most bytes of one read of the body."""
        self._streaming: StreamAttempt | None = None
        """Attempt whose head was passed on; None before that and when the call is DONE."""
        self._rest = b""
        """What ``receive`` has not returned yet of a response that came whole with its head."""
        self._was_received = False
        """Whether the call is DONE because the whole response was received."""
        self._is_stream = False
        """Whether the call holds one of the upstream's streams, and no place of the bulkhead."""
        self._first_byte_timer: Timer | None = None
        """Timer of ``StreamLimits.first_byte``; None after the head, and while the request's body is sent."""
        self._lifetime_timer: Timer | None = None

    @property
    def under_way(self) -> list[Attempt]:
        """The attempts of the call that have not ended, with the one whose body is being streamed."""
        found = super().under_way
        if self._streaming is not None:
            found.append(self._streaming)
        return found

    @property
    def holds_interim(self) -> bool:
        """Whether the interim responses of an attempt wait for its head, since another one's may be passed on."""
        repeats = self._hedge is not None or (self._retry is not None and self.idempotent)
        return repeats or self.context.hold_interim

    # Until the head.

    def start(self, now: float) -> None:
        """Admit the call and make its request, without waiting; see ``core.call.Call``."""
        limits = self.context.stream_limits
        if limits is not None:
            self._set_first_byte_timer(now)
            if limits.lifetime is not None:
                self._lifetime_timer = self.client.timers.add(now + limits.lifetime, self._lifetime_passed)
        super().start(now)

    def _set_first_byte_timer(self, now: float) -> None:
        limits = self.context.stream_limits
        if limits is not None and limits.first_byte is not None:
            self._first_byte_timer = self.client.timers.add(now + limits.first_byte, self._first_byte_passed)

    def _stop_first_byte_timer(self) -> None:
        if self._first_byte_timer is not None:
            self._first_byte_timer.cancel()
            self._first_byte_timer = None

    def _first_byte_passed(self) -> None:
        """Timer: end the call with ``CallTimedOut``, because no head has come."""
        limits = self.context.stream_limits
        if limits is not None and limits.first_byte is not None:
            self._time_out(f"no response began within the first-byte limit of {limits.first_byte:g} s")

    def _lifetime_passed(self) -> None:
        """Timer: end the call with ``CallTimedOut``, because it has lasted for too long."""
        limits = self.context.stream_limits
        if limits is not None and limits.lifetime is not None:
            self._time_out(f"the call was not over within its lifetime of {limits.lifetime:g} s")

    def _time_out(self, text: str) -> None:
        """End the call because a limit has passed; before the head with ``call_ended``."""
        if self.state is DONE:
            return
        now, streaming = trio.current_time(), self._streaming is not None
        # A long response is no failure of the upstream: only the lack of a head counts against it.
        self._abandon(text if streaming else STREAM_LIMIT, now)
        self.error = CallTimedOut(text)
        if not streaming:
            self.context.owner.call_ended(self)

    def body_begins(self) -> None:
        """Stop the limit of the first byte; see ``stream_attempt.StreamOwner``."""
        self._stop_first_byte_timer()

    def body_ended(self) -> None:
        """Begin the limit of the first byte anew, if no head has come; see ``stream_attempt.StreamOwner``."""
        if self.state is not DONE and self._streaming is None and self._first_byte_timer is None:
            self._set_first_byte_timer(trio.current_time())

    def _conclude(self, attempt: Attempt, now: float) -> None:
        """Report ``call_ended``: with an error, or with the head of ``attempt``.

        After a head the call stays RUNNING, unless the response is complete.
        """
        self._stop_first_byte_timer()
        if attempt.error is not None or not isinstance(attempt, StreamAttempt):
            super()._conclude(attempt, now)
            return
        self._count_mended(attempt)
        self.status = attempt.status
        if attempt.answer is not None:
            self.head, self.fields, self.names, self._rest = attempt.answer
        # The learned limit counts the time to the head: the body's time depends on the receiver.
        learns = self.client.gradient is not None and (attempt.status or 500) < 500
        if attempt.state is DONE:
            self._was_received, self.trailers = True, attempt.trailers
            self._close(now, learns=learns)
        else:
            self._streaming = attempt
            self._learn_from_head(now, learns)
        attempt.pass_on_interim()
        if self._streaming is not None or self._was_received:  # Else the user's ``on_interim`` has cancelled the call.
            self.context.owner.call_ended(self)

    def _learn_from_head(self, now: float, learns: bool) -> None:
        """Count the head for the learned concurrency limit, and for the breaker if it is the breaker's probe."""
        client = self.client
        if learns and client.gradient is not None and self._placed_at is not None:
            client.gradient.ended(now, now - self._placed_at, client.bulkhead.in_use)
            client.bulkhead.resize(client.gradient.limit)
        if self.ticket is not None and self.ticket.is_probe:
            # All other calls are refused until the probe has a result; a long body must not prolong that.
            self.ticket.attempted(now, None, self.status)

    # After the head.

    @property
    def response_ended(self) -> bool:
        """Whether the whole response was received; see ``core.call.StreamingCall``."""
        return self._was_received or (self._streaming is not None and self._streaming.response_ended)

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; see ``core.call.StreamingCall``."""
        attempt = self._streaming
        if attempt is None or self.state is DONE:
            if self.error is not None:
                raise copy_of_failure(self.error)
            rest, self._rest = self._rest, b""
            return rest
        try:
            data = await attempt.receive(self.receive_max)
        except Exception as error:
            # The traceback of the raised exception refers to this call, so the call keeps only a copy without a
            # traceback: a cycle would wait for the garbage collector.
            if self.state is DONE and self.error is not None:
                raise copy_of_failure(self.error) from error
            attempt.response_failed(error, trio.current_time())
            self._end(copy_of_failure(error))
            raise
        except BaseException as error:
            self.cancel(cancel_reason(error))
            raise
        if attempt.state is DONE:
            self._end_received(attempt)
        return data

    def take_rest(self) -> bytes:
        """Return the received bytes that were not returned yet; see ``core.call.StreamingCall``."""
        attempt = self._streaming
        if attempt is None or self.state is DONE:
            rest, self._rest = self._rest, b""
            return rest
        data = attempt.take_rest()
        self.trailers = attempt.trailers
        if attempt.state is DONE:
            self._end_received(attempt)
        return data

    async def aclose(self) -> None:
        """End the call, in any state; see ``core.call.StreamingCall``.

        If a task still sends the request's body, waits for its end: at most SETTLE_TIMEOUT (1 s), even if cancelled.
        """
        attempt = self._streaming
        if self.state is DONE:
            return
        if attempt is None:
            self.cancel("the call was closed")
            return
        connection = attempt.discard(trio.current_time())
        self._end(None)
        if connection is not None:
            await connection.settle()

    def become_stream(self) -> bool:
        """Count the call as a stream from now on; see ``core.call.StreamingCall``."""
        if self._is_stream or self._streaming is None or self.state is DONE:
            return True
        client = self.client
        if not client.streams.take():
            return False
        self._is_stream, self._placed_at = True, None
        ticket, self.ticket = self.ticket, None  # None: the attempt does not count its end as well.
        if ticket is not None and not ticket.is_probe:
            ticket.attempted(trio.current_time(), None, self.status)
        # Last: releasing the place may begin a waiting call within this step.
        client.bulkhead.give_back(self.request_key)
        return True

    def take(self) -> UpgradedConnection:
        """Take over the connection after a 101; see ``core.call.StreamingCall``."""
        if self._streaming is None or self.state is DONE or self.status != 101:
            raise RuntimeError("only a connection whose response is a 101 can be taken over, before the call has ended")
        return self._streaming.upgraded()

    def upgraded_closed(self) -> None:
        """Set DONE: the ``UpgradedConnection`` was closed."""
        self._end(None)

    # End.

    def _limit_passed(self) -> None:
        limit = self.context.limit
        if self._streaming is None:
            super()._limit_passed()
        elif limit is not None:
            self.error = CallTimedOut.after(limit)
            self._abandon("the call's own limit", trio.current_time())

    def cancel(self, reason: str) -> None:
        """End the call at once, in any state, and close its connection; see ``core.call.Call``.

        If the body has begun and not ended, a ``receive`` that waits and later ones raise ``ConnectionReset``. After a
        cancel before the head, ``receive`` returns ``b""``.
        """
        if self._streaming is not None and self.state is not DONE:
            self.error = ConnectionReset(f"the call was cancelled: {reason or 'no reason given'}")
        super().cancel(reason)

    def _abandon(self, reason: str, now: float) -> None:
        if self._is_stream:
            self._cut(reason, now)  # Without a place, ``UpstreamCall._abandon`` finds no attempt to cut.
        super()._abandon(reason, now)

    def _close(self, now: float, *, learns: bool = False) -> None:
        body = self.prepared.body
        if isinstance(body, RequestBody):
            body.abandon()
        self._stop_first_byte_timer()
        if self._lifetime_timer is not None:
            self._lifetime_timer.cancel()
        if self._is_stream:
            self._is_stream = False
            self.client.streams.give_back()
        super()._close(now, learns=learns and self._streaming is None)
        self._streaming = None  # The attempt refers to this call: a cycle would wait for the garbage collector.

    def _end_received(self, attempt: StreamAttempt) -> None:
        """Set DONE: the last bytes of the response were received."""
        self._was_received, self.trailers = True, attempt.trailers
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        """Set DONE after the body, with the error that later calls of ``receive`` raise."""
        if self.state is not DONE:
            self.error = error
            self._streaming = None
            self._close(trio.current_time())


class UpgradeCall(StreamCall):
    """A ``StreamCall`` of mode "upgrade", whose response may be a 101."""

    __slots__ = ()

    mode: ClassVar[Mode] = "upgrade"


class RequestBody:
    """Request body (a ``PreparedRequest.body``) that a task sends piece by piece while the call is under way.

    ``send`` waits until the connection takes the piece, so at most one piece is in memory. ``send`` may be called
    before the call has a connection; it then waits for the connection.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](0)

    def abandon(self) -> None:
        """End the body, because the call is over: ``send`` raises from now on."""
        self._receive.close()

    async def send(self, data: bytes) -> None:
        """Hand over the next piece, and wait until the connection takes it. Cancelled, the piece is not sent.

        Raises:
            trio.BrokenResourceError: the call is over.
            trio.ClosedResourceError: ``send_eof`` was called.
        """
        await self._send.send(data)

    def send_eof(self) -> None:
        """Mark the end of the body."""
        self._send.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        async with self._receive:
            async for piece in self._receive:
                yield piece


StreamCall.attempt_type = StreamAttempt
