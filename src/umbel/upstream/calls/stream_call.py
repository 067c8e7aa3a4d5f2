"""A streaming call: the response is received piece by piece, and the request's body may be sent piece by piece.

Theory
------
See ``call.py`` and ``repeatable_call.py`` for the states of a call.

**Two ends.** ``call_ended`` reports the head of the response (``head``, ``status``, ``fields`` as received), or an
``error``. After a head the call stays RUNNING, and its body belongs to the task that calls ``receive``. The call is
DONE when ``receive`` has returned the last bytes or has raised, when ``aclose`` or ``cancel`` was called, or when its
own limit has passed. Until then the call holds its place of the bulkhead, its replica and its connection; its attempt
is recorded at that end.

**Flow control.** Only ``receive`` reads the body from the socket. So a slow receiver makes the peer wait, and at most
one read (64 KiB) is in memory.

**Policies.** Retries and hedges are decided by the heads of responses, and end with the head that is passed on. Every
other response is discarded: its connection is closed, or given back if the body is complete, and its attempt is
recorded. A hedge's failure is discarded at once. A first attempt's failure is kept, because it may be the call's
result: until the race is decided, or until the retry begins after its pause. A request whose body is a stream is not
repeated after a connection has begun to send it. The breaker counts an attempt at its end, with one
exception: the probe of a half-open breaker is counted by its head, because all other calls are refused until then.

**Tasks.** Each attempt has a task until its head is read, because its connection is read with ``Connection.start``.
A cancel of that task closes the connection. A cancel within ``receive`` cancels the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, ClassVar

import httpx
import trio

from ...core.call import CallContext, Mode, PreparedRequest, StepTimeouts
from ...core.errors import UpstreamError
from ...net.exception_groups import cancel_reason
from ...policy.failure_verdict import failed
from ..errors import CallTimedOut, ConnectionReset, copy_of_failure
from ..pool.connection import Connection
from ..pool.connection_state import State
from ..pool.request_head import EncodedRequest, encode_request
from .attempt import DONE, HEAD, SENT, Attempt
from .attempt_fields import attempt_fields
from .failure_kind import kind_of_error
from .repeatable_call import RepeatableCall

if TYPE_CHECKING:
    from .client_interface import ClientInterface


class StreamCall(RepeatableCall):
    """A ``core.call.Call`` of mode "stream": ``call_ended`` reports the head, and ``receive`` returns the body."""

    __slots__ = ("_streaming",)

    mode: ClassVar[Mode] = "stream"

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(client, prepared, context)
        # The pieces of a streamed body are gone once they were sent.
        self.idempotent = self.idempotent and prepared.body is None
        self._streaming: StreamAttempt | None = None
        """Attempt whose head was passed on; None before that and when the call is DONE."""

    @property
    def under_way(self) -> list[Attempt]:
        """The attempts of the call that have not ended, with the one whose body is being streamed."""
        found = super().under_way
        if self._streaming is not None:
            found.append(self._streaming)
        return found

    def _conclude(self, attempt: Attempt, now: float) -> None:
        """Report ``call_ended``: with the head of ``attempt``, after which the call stays RUNNING, or with an error."""
        if attempt.error is not None or not isinstance(attempt, StreamAttempt):
            super()._conclude(attempt, now)
            return
        self._count_mended(attempt)
        self.status = attempt.status
        if attempt.answer is not None:
            self.head, self.fields, self.names, self.content = attempt.answer
        self._streaming = attempt
        client = self.client
        # The learned limit counts the time to the head: the body's time depends on the receiver.
        if client.gradient is not None and self._placed_at is not None and (attempt.status or 500) < 500:
            client.gradient.ended(now, now - self._placed_at, client.bulkhead.in_use)
            client.bulkhead.resize(client.gradient.limit)
        if self.ticket is not None and self.ticket.is_probe:
            # All other calls are refused until the probe has a result; a long body must not prolong that.
            self.ticket.attempted(now, None, attempt.status)
        self.context.owner.call_ended(self)

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

    def _close(self, now: float, *, learns: bool = False) -> None:
        body = self.prepared.body
        if isinstance(body, RequestBody):
            body.abandon()
        super()._close(now, learns=learns and self._streaming is None)
        self._streaming = None  # The attempt refers to this call: a cycle would wait for the garbage collector.

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; empty at its end. The content coding is not decoded.

        To be called after ``call_ended`` has reported a head, by one task at a time. Cancelled, it cancels the call.

        Raises:
            UpstreamError: the response broke off, the call was cancelled, or the call's own limit has passed.
            Exception: an exception of the request's own body.
        """
        attempt = self._streaming
        if attempt is None or self.state is DONE:
            if self.error is not None:
                raise copy_of_failure(self.error)
            return b""
        try:
            data = await attempt.receive()
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
            self._end(None)
        return data

    async def aclose(self) -> None:
        """End the call, in any state. The connection is closed, unless the response is complete.

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

    def _end(self, error: Exception | None) -> None:
        """Set DONE after the body, with the error that later calls of ``receive`` raise."""
        if self.state is not DONE:
            self.error = error
            self._streaming = None
            self._close(trio.current_time())


class StreamAttempt(Attempt):
    """An attempt whose body is received piece by piece. It always needs a task until its head is read."""

    __slots__ = ("_encoded",)

    _encoded: EncodedRequest

    def _prepare(self, now: float) -> None:
        call, slot = self.call, self.slot
        assert slot is not None
        client, replica, prepared = call.client, slot.replica, call.prepared
        added = attempt_fields(call.context, client.deadline_header, now, client.rng.getrandbits(64) or 1)
        replaced = {field[1] for field in added} | {b"host"}
        fields = [*(field for field in prepared.fields if field[1] not in replaced), *added]
        self._request = None
        stream = None if prepared.body is None else _BodyStream(prepared)
        self._encoded = encode_request(
            prepared.method,
            replica.base + prepared.target,
            fields,
            replica.host,
            content=prepared.content or b"",
            stream=stream,
        )

    async def _connect_and_send(self) -> None:
        call, slot = self.call, self.slot
        assert slot is not None
        pool, steps = call.client.pool, call.context.steps or StepTimeouts()
        if steps.connect is None:
            steps = steps._replace(connect=call.client.connect_timeout)
        # ``start_request`` owns the connection until it returns, and closes it if it fails or is cancelled. A cut must
        # not close it as well, so ``_connection`` is None during the await.
        kept, self._connection = self._connection, None
        self.state = SENT
        connection, head = await pool.start_request(slot.replica.origin, self._encoded, steps, kept, self._opened)
        if self.state is DONE:  # ``cut`` ran after the head was read and before this task was scheduled.
            connection.close_now()
            pool.connection_lost(slot.replica.origin, connection)
            return
        self._connection, self.state = connection, HEAD
        self.status, self.answer = head.status, (head, head.fields, None, b"")
        call.attempt_ended(self, trio.current_time())

    def _opened(self) -> None:
        self._reused = False

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; see ``StreamCall.receive``."""
        connection = self._connection
        if connection is None:
            return b""
        data = connection.take() if connection.ended else await connection.read()
        while not data and not connection.ended:
            data = await connection.read()
        if connection.ended and self._connection is connection:
            self._give_back(trio.current_time())
            if connection.unsettled:
                await connection.settle()
                connection.raise_failure()
        return data

    def _give_back(self, now: float) -> None:
        """Give the connection back to the pool, and end: the response is complete."""
        connection, self._connection = self._connection, None
        assert connection is not None and self.slot is not None
        usable = connection.state is State.IDLE
        self.call.client.pool.give_back(self.slot.replica.origin, connection, now, usable, connection.excess)
        self._close(now, None, "", failed(None, self.status))

    def response_failed(self, error: Exception, now: float) -> None:
        """Close the connection and end with ``error``: receiving the body has failed."""
        if self.state is not DONE:
            self._close_connection()
            kind = kind_of_error(error)
            detail = error.detail if isinstance(error, UpstreamError) else repr(error)
            self._close(now, kind, detail, failed(kind, None))

    def discard(self, now: float) -> Connection | None:
        """Give up a response whose head was read: give the connection back if the body is complete, else close it."""
        connection = self._connection
        if connection is not None and connection.ended:
            self._give_back(now)
        elif self.state is not DONE:
            self._close_connection()
            self._close(now, None, "", failed(None, self.status))
        return connection


class _BodyStream(httpx.AsyncByteStream):
    """Adapter from ``PreparedRequest.body`` to the ``httpx.AsyncByteStream`` that a connection sends."""

    def __init__(self, prepared: PreparedRequest) -> None:
        assert prepared.body is not None
        self._body = prepared.body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)


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
