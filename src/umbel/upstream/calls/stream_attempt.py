"""An attempt whose response is received piece by piece, and whose connection may be taken over after a 101.

Theory
------
See ``attempt.py`` for the states and rules of attempts. This module differs in these points:

**Two ways to the head.**

- *Pushed*: a request in memory of at most INLINE_MAX bytes is sent, and its head received, as ``attempt.py`` says. So
  on a kept connection it needs no task. The reader pushes until the head is complete, and then no more: what came in
  the same read as the head (at most 64 KiB) is in memory, the rest stays in the socket.
- *Started*: any other request is sent with ``Pool.start_request``, in the task of ``run``, because a sender and a
  receiver must run side by side. ``start_request`` owns the connection until the head is read; ``_starting`` refers to
  it, so that a cut closes it at once.

**After the head** both ways are the same: the state is HEAD, and ``Connection.read`` receives the body in the task that
calls ``receive``. ``attempt_ended`` means the head, or an error before it; the end of the body is not reported. A
response whose end came in the same read as its head is complete: the attempt gives the connection back and is DONE
before ``attempt_ended``. (Not if a sender is still to be waited for.)

**Measure.** For load balancing and for the durations in the statistics, the attempt lasts until its head, because the
time of the body depends on the receiver.

**Cancellation.** ``cut`` closes the connection in every state, at once. Between SENT and HEAD of a started request it
also cancels the scope of ``run``; ``start_request`` then removes the connection from the pool when the task unwinds. If
the head was read in the same turn, ``run`` finds the attempt DONE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Protocol

import httpx
import trio

from ...core.call import Mode, StepTimeouts
from ...core.errors import UpstreamError
from ...core.failure_kinds import Kind
from ...core.http.header_field import Field
from ...core.model import Cause
from ...http1.response_head import Head
from ...http1.response_reader import OnInterim, ResponseReader
from ...policy.failure_verdict import failed
from ..errors import ReadTimedOut, WriteTimedOut
from ..pool.connection import INLINE_MAX, Connection, Sent, send_within
from ..pool.connection_state import State
from ..pool.request_head import EncodedRequest, encode_request
from .attempt import DONE, HEAD, SENT, Attempt, AttemptOwner, PartialResponse
from .attempt_fields import fields_and_lines
from .failure_kind import kind_of_error

_INTERIM_MAX = 4
"""Interim responses of an attempt that are held back; of more, the last ones."""


class StreamOwner(AttemptOwner, Protocol):
    """Interface of the call that a ``StreamAttempt`` belongs to. Its functions neither raise nor wait."""

    mode: ClassVar[Mode]

    @property
    def holds_interim(self) -> bool:
        """Whether interim responses are held back until ``pass_on_interim``."""
        ...

    def body_begins(self) -> None:
        """Note that the request's body is asked for its first piece."""

    def body_ended(self) -> None:
        """Note that the body is asked for no further piece: it was sent, or its sending has failed."""

    def upgraded_closed(self) -> None:
        """Handle the close of the ``UpgradedConnection``: the attempt is DONE."""


class StreamAttempt(Attempt):
    """An attempt whose body is received piece by piece. See the module for its states and rules."""

    __slots__ = ("_encoded", "_interim", "_starting", "trailers")

    call: StreamOwner
    _encoded: EncodedRequest

    def __init__(self, call: StreamOwner, cause: Cause) -> None:
        super().__init__(call, cause)
        self._starting: Connection | None = None
        """The connection that ``Pool.start_request`` uses now; None if it uses none."""
        self._interim: deque[tuple[int, Sequence[Field]]] | None = None
        """The interim responses that are held back, as status and fields; None: there are none."""
        self.trailers: Sequence[Field] = ()
        """The trailer fields of a response that has ended."""

    def _prepare(self, now: float) -> None:
        call, slot = self.call, self.slot
        assert slot is not None
        client, replica, prepared = call.client, slot.replica, call.prepared
        self.span_id = client.rng.getrandbits(64) or 1
        fields, lines = fields_and_lines(client, prepared, call.context, now, self.span_id)
        stream = None if prepared.body is None else _SentBody(call)
        encoded = self._encoded = encode_request(
            prepared.method,
            replica.base + prepared.target,
            fields,
            prepared.host or replica.host,
            encoded=lines,
            content=prepared.content or b"",
            stream=stream,
            mode=call.mode,
            expects_continue=prepared.expects_continue and stream is not None,
        )
        if not call.idempotent and encoded.replayable:
            encoded = self._encoded = encoded._replace(replayable=False)
        self._close_after = encoded.close
        whole = stream is None and len(encoded.head) + len(encoded.body) <= INLINE_MAX
        self._request = encoded.head + encoded.body if whole else None

    @property
    def _steps(self) -> StepTimeouts:
        """The timeouts until the head."""
        context = self.call.context
        steps, limits = context.steps or StepTimeouts(), context.stream_limits
        if limits is not None and steps.write is None:
            steps = steps._replace(write=limits.first_byte if limits.idle is None else limits.idle)
        return steps

    @property
    def _read_limit(self) -> float | None:
        """The timeout of each piece of the body."""
        context = self.call.context
        if context.stream_limits is not None:
            return context.stream_limits.idle
        return None if context.steps is None else context.steps.read

    # Until the head.

    async def _connect_and_send(self) -> None:
        if self._request is not None:
            await super()._connect_and_send()
            return
        call, slot = self.call, self.slot
        assert slot is not None
        pool, steps, origin = call.client.pool, self._steps, slot.replica.origin
        if steps.connect is None:
            steps = steps._replace(connect=call.client.connect_timeout)
        # ``start_request`` owns the connection until it returns, and reports it as lost if it fails or is cancelled. A
        # cut must not report it as well, so ``_connection`` is None during the await.
        kept, self._connection = self._connection, None
        self.state = SENT
        try:
            connection, head = await pool.start_request(
                origin, self._encoded, steps, kept, self._started, self._on_interim, self._dials
            )
        finally:
            self._starting = None
        if self.state is DONE:  # ``cut`` ran after the head was read and before this task was scheduled.
            connection.close_now()
            pool.connection_lost(origin, connection)
            return
        self._connection = connection
        connection.limit_reads(self._read_limit)
        now = trio.current_time()
        if connection.ended and connection.is_settled:
            content = connection.take()
            self.status, self.head_at = head.status, now
            self._give_back(now)
            self._report(head, content, now)
            return
        self._report_head(head, now)

    def _started(self, connection: Connection, kept: bool) -> None:
        self._starting, self._reused = connection, kept

    def _new_reader(self) -> ResponseReader:
        call = self.call
        return ResponseReader(call.prepared.method, call.client.pool.limits, self._on_interim, self._encoded.upgrade)

    @property
    def _on_interim(self) -> OnInterim | None:
        """What takes the interim responses."""
        call = self.call
        on_interim = call.context.on_interim
        return on_interim if on_interim is None or not call.holds_interim else self._hold_interim

    def _hold_interim(self, status: int, fields: Sequence[Field]) -> None:
        if self._interim is None:
            self._interim = deque(maxlen=_INTERIM_MAX)
        self._interim.append((status, fields))

    def pass_on_interim(self) -> None:
        """Pass on the interim responses that were held back: the head behind them is passed on too."""
        held, self._interim = self._interim, None
        on_interim = self.call.context.on_interim
        for status, fields in held or ():
            if on_interim is not None:
                on_interim(status, fields)

    def _read(self, part: PartialResponse) -> bool:
        reader = part.reader
        head = reader.head
        if self.state is DONE:
            return False  # The user's ``on_interim`` has cancelled the call.
        if head is None:
            return True
        now = trio.current_time()
        if reader.ended:
            self.trailers = reader.trailers
            self._end_whole(head, reader.take(), now, reader.excess)
            return False
        connection = self._connection
        assert connection is not None
        # A task that still sends (only on a stream that cannot push) is cancelled with the end of its ``run``.
        close_after = self._close_after or self._is_sending
        connection.receive_rest(reader, StepTimeouts(read=self._read_limit), close_after=close_after)
        self._report_head(head, now)
        return False

    def _complete(self, head: Head, content: bytes, now: float) -> None:
        self._end_whole(head, content, now, False)

    def _end_whole(self, head: Head, content: bytes, now: float, excess: bool) -> None:
        """End with a response whose end came in the same read as its head."""
        self.status, self.head_at = head.status, now
        self._release(head, now, excess)
        self._close(now, None, "", failed(None, head.status))
        self._report(head, content, now)

    def _report_head(self, head: Head, now: float) -> None:
        """Report a response whose body is not complete."""
        self.state = HEAD
        self.status, self.head_at = head.status, now
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._report(head, b"", now)

    def _report(self, head: Head, content: bytes, now: float) -> None:
        self.answer = head, head.fields, None, content
        self.call.attempt_ended(self, now)

    def fail(self, error: Exception, now: float) -> None:
        """End with ``error``; see ``Attempt.fail``. After the head only an internal error gets here."""
        if self.state is HEAD:
            self.call.crashed(error, now)
        else:
            super().fail(error, now)

    # After the head.

    @property
    def response_ended(self) -> bool:
        """Whether the whole response was received."""
        return self._connection is None or self._connection.ended

    async def receive(self, limit: int) -> bytes:
        """Receive the next bytes of the response's body, of a read of ``limit``; see ``core.call.StreamingCall``."""
        connection = self._connection
        if connection is None:
            return b""
        data = connection.take() if connection.ended else await connection.read(limit)
        while not data and not connection.ended:
            data = await connection.read(limit)
        if connection.ended and self._connection is connection:
            self._give_back(trio.current_time())
            if connection.unsettled:
                await connection.settle()
                connection.raise_failure()
        return data

    def take_rest(self) -> bytes:
        """Return the received bytes that were not returned yet; give the connection back if they are the last."""
        connection = self._connection
        if connection is None:
            return b""
        data = connection.take()
        self.trailers = connection.trailers
        if connection.ended and connection.is_settled:
            self._give_back(trio.current_time())
        return data

    def _give_back(self, now: float) -> None:
        """Give the connection back to the pool, and end: the response is complete."""
        connection, self._connection = self._connection, None
        assert connection is not None and self.slot is not None
        self.trailers = connection.trailers
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

    def cut(self, reason: str, now: float) -> Kind:
        """End the attempt from outside; see ``Attempt.cut``."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.close_now()  # ``start_request`` reports it as lost.
        return super().cut(reason, now)

    def upgraded(self) -> UpgradedConnection:
        """Take over the connection of a 101."""
        connection, limits = self._connection, self.call.context.stream_limits
        assert connection is not None
        return UpgradedConnection(self, connection, None if limits is None else limits.idle)


class UpgradedConnection:
    """The bytes of a connection after a 101: a ``core.call.UpgradedStream``.

    Args:
        idle: maximum seconds without a byte in either direction while a task receives, and of each send.
    """

    __slots__ = ("_active_at", "_attempt", "_connection", "_idle", "_receiving", "_stream")

    def __init__(self, attempt: StreamAttempt, connection: Connection, idle: float | None) -> None:
        self._attempt = attempt
        self._connection = connection
        self._stream = connection.take_stream()
        self._idle = idle
        self._active_at = trio.current_time()
        self._receiving: trio.CancelScope | None = None
        """Cancel scope around a receive that waits; None without one."""

    async def receive_some(self) -> bytes:
        """Receive at least one byte; see ``core.call.UpgradedStream``. A cancel loses no bytes."""
        await trio.lowlevel.checkpoint_if_cancelled()
        first = self._connection.take()
        if first and self._attempt.state is not DONE:
            return first
        if self._idle is None:
            return await self._stream.receive_some()
        pushing = self._connection.pushing
        data = None if pushing is None else await pushing.receive_ready()
        if data is None:
            with trio.CancelScope(deadline=self._active_at + self._idle) as scope:
                self._receiving = scope
                data = await self._stream.receive_some()
            self._receiving = None
            if data is None:
                raise ReadTimedOut(f"no byte in either direction within the idle limit of {self._idle:g} s")
        self._is_active()
        return data

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``; see ``core.call.UpgradedStream``."""
        if self._idle is None:
            await self._stream.send_all(data)
            return
        if await send_within(self._stream, data, self._idle) is Sent.NOT:
            raise WriteTimedOut(f"the idle limit of {self._idle:g} s has passed while sending")
        self._is_active()

    def _is_active(self) -> None:
        """Begin the idle limit anew, also for a receive that is already waiting."""
        assert self._idle is not None
        self._active_at = trio.current_time()
        if self._receiving is not None:
            self._receiving.deadline = self._active_at + self._idle

    def send_eof(self) -> None:
        """End the sending direction. Never raises."""
        self._stream.send_eof()

    def close_now(self) -> None:
        """Close the connection and end the call. May be called again."""
        if self._attempt.state is not DONE:
            self._attempt.discard(trio.current_time())
            self._attempt.call.upgraded_closed()


class _SentBody(httpx.AsyncByteStream):
    """``PreparedRequest.body`` as a connection sends it: it reports to the call when the body begins and ends."""

    def __init__(self, call: StreamOwner) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._call.prepared.body
        assert body is not None
        return _Pieces(self._call, aiter(body))


class _Pieces:
    """Iterator of a ``_SentBody``; no generator, so that its end never waits for the garbage collector."""

    __slots__ = ("_begun", "_call", "_iterator")

    def __init__(self, call: StreamOwner, iterator: AsyncIterator[bytes]) -> None:
        self._call = call
        self._iterator = iterator
        self._begun = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            self._call.body_begins()
        return await anext(self._iterator)

    def sent(self, *, at_once: bool) -> None:
        """Tell the body's own iterator, if it wants to know, that its last piece was sent; ``at_once``: not waiting."""
        if (sent := getattr(self._iterator, "sent", None)) is not None:
            sent(at_once=at_once)

    async def aclose(self) -> None:
        """Close the body's own iterator, if it can be closed. The connection calls this in any case."""
        if self._begun:
            self._call.body_ended()
        if (aclose := getattr(self._iterator, "aclose", None)) is not None:
            await aclose()
