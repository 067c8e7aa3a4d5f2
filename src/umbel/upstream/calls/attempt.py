"""One attempt of a call: one request to one replica, from the choice of the replica to the response or the failure.

Theory
------
**Problem.** An attempt on a kept connection should cost no task: its small request fits the socket's send buffer, and
the reader's task can push the response's bytes into the attempt as they arrive. An attempt that must wait (to connect,
or to send a large request) needs a task. Both kinds share one state machine, and each may be cut at any moment.

**States.** ``WAITING → SENT`` or ``WAITING → READY → SENT``; then ``SENT → HEAD → DONE``. Any state may go to DONE, and
SENT may go back to WAITING once (see "Replacement").

- WAITING: the attempt is new, or needs a task. If it needs a task, ``begin`` (or ``fail``, see "Replacement") calls
  ``AttemptOwner.attempt_waits``, and the owner has ``run`` awaited by a task. A task is needed for one of these
  reasons: no kept connection is free, or the kept one must be replaced; the request is larger than INLINE_MAX or its
  body is a stream; the stream cannot push (only streams of a given ``dial``). It may hold a kept connection already.
- READY: the attempt holds a connection that can push, and its whole request as bytes. ``send`` does not wait.
- SENT: the request was sent or is being sent, and the head of the response is not complete.
- HEAD: the head has been read and the body has not ended. Most responses that arrive in one read skip HEAD.
- DONE: the attempt has ended, with ``answer`` (a response), with ``error``, or with neither if it was cut.

**Invariants.**

- Only ``_close`` sets DONE, and each attempt passes ``_close`` once. If the attempt has a replica, ``_close`` records
  the attempt, then gives the replica back, then reports the end to the breaker unless its kind is in ``CUT``
  (client-gone, cancelled); an attempt that a time limit cut may have the kind timeout, and is reported. So each happens
  at most once, and the record precedes an ejection that the end causes.
- An attempt that is DONE holds no connection. Before ``_close`` its connection, if it had one, was either given back to
  the pool (the response is complete) or closed (``_close_connection``).
- Of the three ends, ``attempt_ended`` reports two to the owner: a response and an error. A cut is not reported, because
  the owner itself made it. (``stream_attempt.py`` says how attempts of stream calls differ.)
- No byte of a response is read after DONE: a cut drops the listener, and a complete response returns False from
  ``on_data``.

**Who calls what.** The owner calls ``begin``, then ``send`` (a second ``send`` does nothing); then ``run`` at most once
per ``attempt_waits``, and only while the attempt is WAITING; ``cut`` at any time; and ``discard`` for a response that
it does not use. The stream calls ``on_data``, ``on_eof`` and ``on_error`` in the reader's task, or in the task of
``run`` if the stream cannot push. ``send``, and the pool when it closes the connection, also cause ``on_error``. The
read timer calls ``fail``. Only ``run`` waits. Every other function is one
step that no task interrupts, so no lock is needed; after each ``await`` during which the state may have changed, it is
examined again.

**Replacement.** A kept connection may end before the first byte of the response: the peer closed the idle connection
while the request was on its way. An idempotent request then goes back to WAITING and is sent on another connection,
within the same attempt. It happens at most once: ``_reused`` is False from then on, and only a reused connection is
replaced. The task that still sends on the old connection sees WAITING and returns.

**Cancellation.** ``run`` has a cancel scope of its own.

- ``cut`` while connecting (DNS, connect, TLS handshake) cancels the scope; the dialer closes its socket. A connection
  that was made in the same turn is closed by ``run``, which finds the attempt DONE.
- ``cut`` while sending or receiving closes the connection at once and then cancels the scope.
- ``cut`` of a WAITING attempt before ``run`` closes the kept connection that it may hold. ``run`` is not called then.
- A cancel of the surrounding nursery passes through the scope. ``run`` cancels the call, which cuts the attempt, and
  re-raises the cancel.

In each case ``cut`` itself records the attempt, not the task when it has unwound.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from ...core.call import CallContext, PreparedRequest
from ...core.errors import UpstreamError
from ...core.events import AttemptEnded
from ...core.failure_kinds import CUT, Kind
from ...core.http.header_field import Field
from ...core.model import Attempt as AttemptRecord
from ...core.model import Cause, DialTimes
from ...core.statistics.histogram import DURATIONS
from ...http1.errors import MessageError, NoMessageError
from ...http1.response_reader import ResponseReader, whole_of
from ...net.exception_groups import cancel_reason, raise_cancels
from ...policy.failure_verdict import failed
from ...policy.hedge import RaceEntry
from ...policy.retry import AttemptResult
from ..errors import BudgetSpent, ConnectionReset, ReadTimedOut, WriteTimedOut, response_failed
from ..pool.connection import INLINE_MAX
from ..pool.request_head import encode_call, encode_plain_call, remember_beginning
from .attempt_fields import attempt_fields, lines_of_request
from .failure_kind import LOST, kind_of_cut, kind_of_error
from .response_body import Decoder, check_size, fields_and_decoder, limit_of
from .retry_safety import result_of

if TYPE_CHECKING:
    from ...http1.response_head import Head
    from ...net.stream import Stream
    from ...net.timers import Timer
    from ...policy.breaker import Ticket
    from ..pool.connection import Connection
    from ..replicas.balance import ReplicaSlot
    from .client_interface import ClientInterface

WAITING, READY, SENT, HEAD, DONE = "waiting", "ready", "sent", "head", "done"
"""States of an attempt."""

Answer = tuple["Head", Sequence[Field], Collection[bytes] | None, bytes]
"""A response: head, header fields that describe the decoded content, their names in lower case (None: not computed),
decoded content."""


class AttemptOwner(Protocol):
    """Interface of the call that an attempt belongs to. Its functions neither raise nor wait."""

    client: ClientInterface
    context: CallContext
    prepared: PreparedRequest
    idempotent: bool
    """Whether the request may be sent twice."""
    ticket: Ticket | None
    """The call's admission by the breaker; None if the upstream has no breaker."""
    tried: tuple[str, ...]
    """Names of the replicas that the call's attempts took, in order."""

    def attempt_waits(self, attempt: Attempt) -> None:
        """Have ``attempt.run`` awaited once, in a task."""

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """Handle the end of ``attempt`` with a response or an error. Not called for an attempt that was cut."""

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Count a connection that failed before the first byte of a response. ``attempt_ended`` follows."""

    def cancel(self, reason: str) -> None:
        """Cancel the call: the task that ran ``Attempt.run`` was cancelled."""

    def crashed(self, error: Exception, now: float) -> None:
        """Handle an internal error that a callback of the attempt raised."""


class Attempt:
    """One request to one replica; a ``net.stream.Listener`` of its connection. See the module for states and rules."""

    __slots__ = (
        "_close_after",
        "_connection",
        "_part",
        "_read_timer",
        "_request",
        "_reused",
        "_scope",
        "_sending",
        "answer",
        "call",
        "cancelled",
        "cause",
        "dial",
        "entry",
        "error",
        "first_at",
        "head_at",
        "slot",
        "span_id",
        "started_at",
        "state",
        "status",
    )

    entry: RaceEntry
    """Role in the race; set only in a call that may make several attempts."""
    _sending: bool
    """Whether a task is sending the request; exists only after ``_scope`` was set."""

    def __init__(self, call: AttemptOwner, cause: Cause) -> None:
        self.call = call
        self.cause = cause
        self.state = WAITING
        self.slot: ReplicaSlot | None = None
        """The replica; None before ``begin``, and if no replica was available."""
        self.started_at = 0.0
        self.status: int | None = None
        """Status of the response; None before its head."""
        self.error: Exception | None = None
        # The next four are for the record of the attempt (``core.model.Attempt``).
        self.first_at: float | None = None
        """Time of the head, if the body took longer; for a stream see ``head_at``."""
        self.head_at: float | None = None
        """Time of a streamed head, until which the attempt counts as lasting; None: until its end."""
        self.span_id = 0
        self.cancelled: str | None = None
        self.dial: DialTimes | None = None
        self.answer: Answer | None = None
        """The complete response; for a streamed response, its head."""
        self._request: bytes | None = b""
        """The whole request as bytes; None: a task sends the request piece by piece."""
        self._close_after = False
        """Whether the connection must be closed after this request."""
        self._connection: Connection | None = None
        self._reused = False
        """Whether the connection has served a request before."""
        self._scope: trio.CancelScope | None = None
        """Cancel scope around everything that ``run`` awaits."""
        self._part: PartialResponse | None = None
        """The incomplete response; None if nothing was received, or if one read had all of the response."""
        self._read_timer: Timer | None = None
        """Timer of httpx's ``read`` timeout; None without such a timeout."""

    @property
    def result(self) -> AttemptResult | None:
        """Result for the retry and hedge policies; None for an internal error, which is never retried."""
        if self.error is not None and not isinstance(self.error, UpstreamError):
            return None
        call = self.call
        fields: Sequence[Field] = () if self.answer is None else self.answer[1]
        return result_of(self.status, fields, self.error, others=lambda: call.client.balance.has_untried(call.tried))

    # Beginning.

    def begin(self, now: float) -> None:
        """Take a replica, encode the request and take a kept connection.

        Afterwards the attempt is READY for ``send``, or ``attempt_waits`` was called, or the attempt is DONE with an
        error. Raises nothing.
        """
        call = self.call
        client = call.client
        try:
            if now >= call.context.deadline:
                raise BudgetSpent("the call's deadline had passed before the attempt began")
            slot = client.balance.take(now, call.tried)
            if slot is None:
                missing = client.balance.missing()
                # ``_close`` reports nothing to the breaker without a replica, so this is reported here. A set of
                # replicas that stays empty then opens the breaker, and calls fail before they back off for retries.
                if call.ticket is not None:
                    call.ticket.attempted(now, missing.kind, None)
                raise missing
            self.slot, self.started_at = slot, now
            call.tried += (slot.name,)
            self._prepare(now)
            connection = client.pool.take(slot.replica.origin, now, once=not call.idempotent)
        except Exception as error:  # noqa: BLE001  # an upstream's error or an internal error: it ends the attempt
            self.fail(error, now)
            return
        self._connection = connection
        if connection is None:
            call.attempt_waits(self)
            return
        self._reused = True
        request = self._request
        if connection.pushing is None or request is None or len(request) > INLINE_MAX:
            call.attempt_waits(self)
            return
        self.state = READY

    def send(self) -> None:
        """Send the request if the attempt is READY. Never waits; a broken connection is reported to ``on_error``."""
        connection, request = self._connection, self._request
        if self.state is READY and connection is not None and request is not None:
            self.state = SENT
            try:
                connection.send_whole(request, self)
            except trio.ClosedResourceError as error:
                self.on_error(error)
                return
            if self.call.context.steps is not None:
                self._set_read_timer(trio.current_time())

    def _prepare(self, now: float) -> None:
        """Encode the request into ``_request``.

        Raises:
            BadRequest: the request cannot be written as HTTP/1.1.
        """
        call, slot = self.call, self.slot
        assert slot is not None
        client, context, prepared = call.client, call.context, call.prepared
        span = self.span_id = client.rng.getrandbits(64) or 1
        # The calls of one inbound request usually start at the same ``now``. Their lines differ only in the span id,
        # so the lines of the latest attempt are reused if request, gateway fields, time and deadline are the same.
        request, gateway, at, deadline, common, before, after = client.latest_lines
        same = gateway is prepared.gateway and request is context.request
        if not same or at != now or deadline != context.deadline:
            common, before, after = lines_of_request(client, prepared.gateway, context, now)
        beginnings, replica = prepared.beginnings, slot.replica
        if beginnings is not None and common is not None and (beginning := beginnings.get(slot)) is not None:
            self._request = b"%b%b%016x%b\r\n" % (beginning, common, span, after)
            return
        if before is not None:
            lines = b"%b%016x%b" % (before, span, after) if before else b""
            plain = encode_plain_call(prepared, replica.base, replica.host, lines, client.attempt_prefixes)
            if plain is not None:
                self._request = plain
                if beginnings is not None:
                    remember_beginning(beginnings, slot, prepared, replica.base, replica.host, client.attempt_prefixes)
                return
        encoded = encode_call(
            prepared, replica.base, replica.host, attempt_fields(context, client.deadline_header, now, span)
        )
        self._request, self._close_after = encoded.head + encoded.body, encoded.close

    def _set_read_timer(self, now: float) -> None:
        """Restart httpx's ``read`` timeout: it bounds the wait for the next head or the next piece of the body."""
        steps = self.call.context.steps
        if self._read_timer is not None:
            self._read_timer.cancel()
        if steps is not None and steps.read is not None and not self._is_sending and self.state is not DONE:
            self._read_timer = self.call.client.timers.add(now + steps.read, self._read_timed_out)

    def _read_timed_out(self) -> None:
        steps = self.call.context.steps
        if steps is not None:
            text = f"neither a head nor a part of a body came within the read timeout of {steps.read:g} s"
            self.fail(ReadTimedOut(text), trio.current_time())

    async def run(self) -> None:
        """Connect if necessary, and send the request; if the stream cannot push, receive the response as well.

        An error ends the attempt and is not raised. ``cut`` ends this function without an exception. Cancelled from
        outside, it cancels the call and re-raises the cancel.
        """
        scope = self._scope = trio.CancelScope()
        self._sending = False
        failure: Exception | None = None
        try:
            with scope:
                try:
                    await self._connect_and_send()
                except Exception as error:  # noqa: BLE001  # as in begin
                    failure = error
        except Exception as error:  # noqa: BLE001  # raised beside the cancel of ``cut``: DONE, so it is dropped below
            failure = error
        except BaseException as error:
            self.call.cancel(cancel_reason(error))
            # Only the cancel may leave: any other exception of the group would end the nursery and the calls in it.
            raise_cancels(error)
            raise
        if failure is not None and self.state is not DONE:
            self.fail(failure, trio.current_time())
        del failure  # Its traceback holds this frame.

    async def _connect_and_send(self) -> None:
        call, slot, connection = self.call, self.slot, self._connection
        assert slot is not None
        pool = call.client.pool
        if connection is not None and not pool.is_still_good(slot.replica.origin, connection, trio.current_time()):
            self._connection = connection = None
            self._reused = False
        if connection is None:
            steps = call.context.steps
            limit = call.client.connect_timeout if steps is None or steps.connect is None else steps.connect
            connection = await pool.open(slot.replica.origin, limit, self._dials)
            if self.state is DONE:
                # ``cut`` ran after the connection was made and before this task was scheduled.
                connection.close_now()
                pool.connection_lost(slot.replica.origin, connection)
                return
            self._connection = connection
        request = self._request
        if connection.pushing is not None and request is not None and len(request) <= INLINE_MAX:
            self.state = READY
            self.send()
            return
        stream = connection.begin_whole()
        self.state = SENT
        if connection.pushing is not None:
            connection.pushing.listen(self)
            await self._send_waiting(stream)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_beside, stream)
            await self._receive_until_done(stream, connection)
            nursery.cancel_scope.cancel(reason="the response is complete")

    def _dials(self, times: DialTimes) -> None:
        self.dial = times

    async def _send_waiting(self, stream: Stream) -> None:
        steps = self.call.context.steps
        limit = None if steps is None else steps.write
        self._sending = True
        request = self._request
        assert request is not None
        try:
            with trio.move_on_after(math.inf if limit is None else limit) as scope:
                await stream.send_all(request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.state is WAITING:
                return  # Replacement: another task sends the request on another connection.
            # The peer reads no more. Its response may still arrive, so only reading decides how the attempt ends.
            self._close_after = True
        else:
            if scope.cancelled_caught:
                raise WriteTimedOut(f"the request could not be sent within the write timeout of {limit:g} s")
        self._sending = False
        if steps is not None:
            self._set_read_timer(trio.current_time())

    async def _send_beside(self, stream: Stream) -> None:
        """Send while another task receives; an error ends the attempt, and so closes the connection of both tasks."""
        try:
            await self._send_waiting(stream)
        except Exception as error:  # noqa: BLE001  # as in begin
            self.fail(error, trio.current_time())

    async def _receive_until_done(self, stream: Stream, connection: Connection) -> None:
        """Receive the response in this task, from a stream that cannot push, until the attempt ends."""
        wants = True
        while wants:
            try:
                data = await stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.on_error(error)
                return
            if self._connection is not connection:
                # ``cut`` ran after the bytes had arrived and before this task was scheduled. A stream may then return
                # the bytes, although it is closed: they must not be read as a response of an attempt that is DONE.
                return
            if data:
                wants = self.on_data(data)
            else:
                self.on_eof()
                return

    # Events of the connection's stream; see ``net.stream.Listener``.

    def on_data(self, data: bytes) -> bool:
        """Process received bytes of the response. Return whether more are wanted: False after its end."""
        call = self.call
        client = call.client
        try:
            part, pool = self._part, client.pool
            if part is None:
                head = whole_of(data, call.prepared.method, pool.limits)
                if head is not None:
                    self._complete(head, data[head.size :], pool.clock.now)
                    return False
                part = self._part = PartialResponse(self._new_reader())
            reader = part.reader
            interim = reader.interim
            reader.feed(data)
            if self._read_timer is not None and reader.interim > interim:
                self._set_read_timer(trio.current_time())
            return self._read(part)
        except Exception as error:  # noqa: BLE001  # as in begin
            self.fail(error, trio.current_time())
            return False

    def _new_reader(self) -> ResponseReader:
        return ResponseReader(self.call.prepared.method, self.call.client.pool.limits)

    def on_eof(self) -> None:
        """Process the end of the stream: the end of a body without a length, or a failure."""
        try:
            part = self._part
            if part is None:
                raise NoMessageError
            part.reader.feed_eof()
            self._read(part)
        except Exception as error:  # noqa: BLE001  # as in on_data
            self.fail(error, trio.current_time())

    def on_error(self, error: Exception) -> None:
        """Fail the attempt: the stream broke, or the pool closed it."""
        connection = self._connection
        if connection is not None:
            reader = None if self._part is None else self._part.reader
            self.fail(connection.broken(error, reader), trio.current_time())

    @property
    def _is_sending(self) -> bool:
        return self._scope is not None and self._sending

    def _read(self, part: PartialResponse) -> bool:
        """Decode the body's bytes that the reader holds. Return whether more bytes are wanted."""
        reader = part.reader
        head = reader.head
        if head is None:
            return True
        ended, now = reader.ended, 0.0
        if ended:
            # Before decoding: a body that cannot be decoded says nothing about the connection, which may serve again.
            now = trio.current_time()
            self._release(head, now, reader.excess)
        decoder, progress = part.decoder, False
        try:
            if decoder is None:
                self.state, self.status = HEAD, head.status
                if not ended:
                    self.first_at = self.call.client.pool.clock.now
                limit = self.call.context.max_body or self.call.client.max_body
                part.kept, decoder = fields_and_decoder(self.call.prepared.method, head, limit)
                part.decoder = decoder
                progress = True
            piece = reader.take()
            decoder.feed(piece)
            content = decoder.end() if ended else b""
        except UpstreamError as error:
            error.answered = head.status, head.kept
            raise
        if self._read_timer is not None and (piece or progress):
            self._set_read_timer(trio.current_time())
        if not ended:
            return True
        self._answered(head, part.kept, content, now)
        return False

    def _complete(self, head: Head, content: bytes, now: float) -> None:
        """End with a response that arrived whole in one read."""
        call = self.call
        status = self.status = head.status
        self._release(head, now, False)
        limit = call.context.max_body or call.client.max_body
        try:
            if head.coded and content:
                kept, decoder = fields_and_decoder(call.prepared.method, head, limit)
                decoder.feed(content)
                self._answered(head, kept, decoder.end(), now)
                return
            if limit is None:
                limit = limit_of(head.fields)
            if head.length is not None and head.length > limit:
                check_size(head.length, limit)
        except UpstreamError as error:
            error.answered = head.status, head.kept
            raise
        # As ``_answered``, inlined: nearly every response passes here.
        self.answer = head, head.kept, head.names, content
        self._close(now, None, "", status >= 500)
        call.attempt_ended(self, now)

    def _release(self, head: Head, now: float, excess: bool) -> None:
        """Give the connection back to the pool: the response is complete.

        Args:
            excess: whether bytes arrived after the end of the response.
        """
        connection, self._connection = self._connection, None
        assert connection is not None and self.slot is not None
        pushing = connection.pushing
        # A connection with unsent bytes of this request must not be reused: the peer would read them as the beginning
        # of the next request. A task that is still sending means the same, and is cancelled below.
        usable = head.keep_alive and not (excess or self._close_after)
        if pushing is not None and (pushing.unsent or pushing.ended_at is not None):
            usable = False
        scope = self._scope if self._scope is not None and self._sending else None
        connection.keep_alive_hint = head.idle_hint
        self.call.client.pool.give_back(self.slot.replica.origin, connection, now, usable and scope is None, excess)
        if scope is not None:
            scope.cancel(reason="the response is complete")

    # End.

    def _answered(self, head: Head, fields: Sequence[Field], content: bytes, now: float) -> None:
        """End with a complete response."""
        self.answer = head, fields, frozenset(field[1] for field in fields), content
        status = self.status = head.status
        self._close(now, None, "", status >= 500)
        self.call.attempt_ended(self, now)

    def fail(self, error: Exception, now: float) -> None:
        """End with ``error``; or, after a failed kept connection, go back to WAITING (see "Replacement" above).

        After DONE nothing changes; an error that is no ``UpstreamError`` is then reported to ``AttemptOwner.crashed``.
        """
        if isinstance(error, MessageError):
            error = response_failed(error)
        if self.state is DONE:
            if not isinstance(error, UpstreamError):
                self.call.crashed(error, now)  # The owner's ``attempt_ended`` raised it.
            return
        crossed = self._reused and isinstance(error, ConnectionReset) and error.untouched
        if self._close_connection(crossed=crossed, replaced=crossed and self.call.idempotent):
            return
        if isinstance(error, UpstreamError):
            error.forget_frames()
        self.error = error
        kind = kind_of_error(error)
        self._close(now, kind, error.detail if isinstance(error, UpstreamError) else repr(error), failed(kind, None))
        if self.slot is not None and (kind is Kind.CONNECT or getattr(error, "untouched", False)):
            self.call.attempt_lost(self, now)
        self.call.attempt_ended(self, now)

    def cut(self, reason: str, now: float) -> Kind:
        """End the attempt from outside: close its connection, cancel its task and record the attempt.

        Returns:
            the kind of its end: client-gone, cancelled or timeout (``failure_kind.kind_of_cut``).
        """
        kind = kind_of_cut(reason, self.call.context, self.started_at, now)
        self._close_connection()
        if self._scope is not None:
            self._scope.cancel(reason=reason or None)
        if self.state is not DONE:
            self.cancelled = reason
            self._close(now, kind, f"cancelled: {reason or 'no reason given'}", failed(kind, None))
            if reason == LOST and self.cause != "hedge" and self.slot is not None:
                self.call.client.balance.overtaken(now, self.slot, self.started_at)
        return kind

    def discard(self, now: float) -> Connection | None:
        """Give up the response of an attempt that lost its race or is retried.

        Returns:
            the connection, which is closed or given back; None here, because only a streamed response still has one.
        """
        return None

    def _close_connection(self, *, crossed: bool = False, replaced: bool = False) -> bool:
        """Close the connection, if there is one.

        Args:
            crossed: the peer closed a kept connection while the request was on its way.
            replaced: whether the attempt goes back to WAITING, for another connection.

        Returns:
            whether the attempt has gone back to WAITING; False also if there was no connection.
        """
        connection, self._connection = self._connection, None
        if connection is None or self.slot is None:
            return False
        if connection.pushing is not None:
            connection.pushing.unlisten()
        connection.close_now()
        self.call.client.pool.connection_lost(self.slot.replica.origin, connection, crossed=crossed, replaced=replaced)
        if replaced:
            if self._read_timer is not None:
                self._read_timer.cancel()
            # Before ``attempt_waits``: the task that sends on the closed connection must find WAITING.
            self.state, self._reused, self._part, self._sending = WAITING, False, None, False
            self.call.attempt_waits(self)
        return replaced

    def _close(self, now: float, kind: Kind | None, detail: str, has_failed: bool | None) -> None:
        """Set DONE, record the attempt, give the replica back, report the end to the breaker. See "Invariants" above.

        Args:
            kind: kind of the failure or cut; None for a response.
            detail: text for the record, may name hosts.
            has_failed: verdict on the replica (``policy.failure_verdict.failed``).
        """
        self.state = DONE
        self._request, self._part = b"", None
        if self._read_timer is not None:
            self._read_timer.cancel()
        slot = self.slot
        if slot is None:
            return  # No replica was taken: there is no attempt to record.
        call = self.call
        context = call.context
        attempts = context.attempts
        record = AttemptRecord(
            len(attempts) + 1 if attempts else 1,
            slot.name,
            self.started_at,
            now,
            self.status,
            kind,
            self._reused,
            self.cause,
            False,
            context.item,
            context.started_at,
            self.first_at if self.head_at is None else self.head_at,
            self.span_id,
            None if context.request is None else context.request.trace,
            self.cancelled,
            detail,
            call.prepared.method,
            self.dial,
        )
        attempts.append(record)
        counts = call.client.attempt_counts
        counts.causes[self.cause] += 1
        if kind not in CUT:  # The duration of a cut attempt says nothing about the replica.
            try:
                cells = counts.durations[slot.name, self.status]
            except KeyError:
                cells = counts.new_durations(slot.name, self.status)
            seconds = (self.head_at or now) - self.started_at
            cells[bisect_left(DURATIONS, seconds)] += 1
            cells[-1] += seconds
        if context.takes_attempts:
            context.recorder.record(AttemptEnded(context.request, context.call, context.upstream, record, detail))
        # After the record: an ejection that this end causes is recorded behind its cause.
        began = self.started_at if self.head_at is None else self.started_at + now - self.head_at
        call.client.balance.ended(now, slot, began, has_failed)
        if call.ticket is not None and kind not in CUT:
            call.ticket.attempted(now, kind, self.status)


class PartialResponse:
    """The part of a response that has been received, if one read did not have all of it."""

    __slots__ = ("decoder", "kept", "reader")

    def __init__(self, reader: ResponseReader) -> None:
        self.reader = reader
        self.decoder: Decoder | None = None
        """Decoder of the body; None before the head."""
        self.kept: Sequence[Field] = ()
        """Header fields that describe the decoded body."""
