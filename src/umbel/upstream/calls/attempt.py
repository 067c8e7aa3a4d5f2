"""One attempt of a call: one request to one replica, from the choice of the replica to the response or the failure.

The theory stands in ``call.py``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from ...core.call import CallContext, PreparedRequest
from ...core.errors import UpstreamError
from ...core.events import AttemptEnded
from ...core.failure_kinds import CUT, Kind
from ...core.http.header_field import Field
from ...core.model import Attempt as AttemptRecord
from ...http1.errors import MessageError, NoMessageError
from ...http1.response_reader import ResponseReader, whole_of
from ...net.exception_groups import cancel_reason, raise_cancels
from ...policy.failure_verdict import failed
from ...policy.hedge import RaceEntry
from ...policy.retry import AttemptResult
from ..errors import BudgetSpent, ConnectionReset, ReadTimedOut, WriteTimedOut, response_failed
from ..pool.connection import INLINE_MAX
from ..pool.request_head import encode_call, encode_plain_call, lines_of_blocks, remember_beginning
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

Cause = Literal["first", "retry", "hedge"]
"""Why an attempt is made."""

WAITING, READY, SENT, HEAD, DONE = "waiting", "ready", "sent", "head", "done"
"""States of an attempt."""


Answer = tuple["Head", Sequence[Field], Collection[bytes] | None, bytes]
"""A response: its head, the fields that are true of its content, their names in lower case, and its content."""


class AttemptOwner(Protocol):
    """The call that an attempt is made for. Its functions neither raise nor wait."""

    client: ClientInterface
    context: CallContext
    prepared: PreparedRequest
    idempotent: bool
    """Whether the request may be sent twice."""
    ticket: Ticket | None
    """Of the breaker; None without one."""
    tried: tuple[str, ...]
    """The names of the replicas that the call's attempts took, in order."""

    def attempt_waits(self, attempt: Attempt) -> None:
        """The attempt needs a task, which is to run ``Attempt.run``."""

    def attempt_ended(self, attempt: Attempt, now: float) -> None:
        """The attempt has a response or an error, and was not cut."""

    def attempt_lost(self, attempt: Attempt, now: float) -> None:
        """Its connection failed before the upstream had answered at all."""

    def cancel(self, reason: str) -> None:
        """The task that runs ``Attempt.run`` was cancelled."""

    def crashed(self, error: Exception, now: float) -> None:
        """A bug of ours came up in a callback of the attempt."""


class Attempt:
    """One request to one replica. A ``net.stream.Listener`` of its connection; see the module."""

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
        "cause",
        "entry",
        "error",
        "slot",
        "started_at",
        "state",
        "status",
    )

    entry: RaceEntry
    """Why it is in the race; set where the attempt is made."""
    _sending: bool
    """Whether a task is sending the request; set together with ``_scope``."""

    def __init__(self, call: AttemptOwner, cause: Cause) -> None:
        self.call = call
        self.cause = cause
        self.state = WAITING
        self.slot: ReplicaSlot | None = None
        """Its replica; None if there was none to take."""
        self.started_at = 0.0
        self.status: int | None = None
        """Of the response's head, as soon as that is there."""
        self.error: Exception | None = None
        self.answer: Answer | None = None
        """The response, once it is complete (of a stream: its head)."""
        self._request: bytes | None = b""
        """The request's bytes; None: it is sent piece by piece, by a task."""
        self._close_after = False
        """Whether the connection must not serve again after this request."""
        self._connection: Connection | None = None
        self._reused = False
        """Whether its connection had served before."""
        self._scope: trio.CancelScope | None = None
        """Around what ``run`` awaits."""
        self._part: PartialResponse | None = None
        """The response so far, where it does not come in one read."""
        self._read_timer: Timer | None = None
        """The timer of httpx's ``read`` limit, where there is one."""

    @property
    def result(self) -> AttemptResult | None:
        """How it ended; None for a bug of ours, which no other attempt mends."""
        if self.error is not None and not isinstance(self.error, UpstreamError):
            return None
        call = self.call
        fields: Sequence[Field] = () if self.answer is None else self.answer[1]
        return result_of(self.status, fields, self.error, others=lambda: call.client.balance.has_untried(call.tried))

    # The beginning.

    def begin(self, now: float) -> None:
        """Take a replica and make the request ready, or say that a task is needed. An error is the attempt's end."""
        call = self.call
        client = call.client
        try:
            if now >= call.context.deadline:
                raise BudgetSpent("nothing of the call's time was left")
            slot = client.balance.take(now, call.tried)
            if slot is None:
                missing = client.balance.missing()
                # The breaker counts it as the attempt that it would have been, as the table of kinds says.
                # Nothing is sent either way; but an open breaker ends the call before its retries wait.
                if call.ticket is not None:
                    call.ticket.attempted(now, missing.kind, None)
                raise missing
            self.slot, self.started_at = slot, now
            call.tried = (*call.tried, slot.name)
            self._prepare(now)
            connection = client.pool.take(slot.replica.origin, now, once=not call.idempotent)
        except Exception as error:  # noqa: BLE001  # of an upstream, or a bug: it is the attempt's end
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
        """Send the request, if it is ready. A broken connection is noticed when it is read."""
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
        """Make the request's bytes.

        Raises:
            BadRequest: it cannot be written as HTTP/1.1. Nothing is sent.
        """
        call, slot = self.call, self.slot
        assert slot is not None
        client, context, prepared = call.client, call.context, call.prepared
        span = client.rng.getrandbits(64) or 1
        # Most calls of a request start in one turn, one after the other. They differ in their spans alone.
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
        """Give the next head, or the next piece of the body, httpx's ``read`` limit as a whole, from now on."""
        steps = self.call.context.steps
        if self._read_timer is not None:
            self._read_timer.cancel()
        if steps is not None and steps.read is not None and not self._is_sending and self.state is not DONE:
            self._read_timer = self.call.client.timers.add(now + steps.read, self._read_timed_out)

    def _read_timed_out(self) -> None:
        steps = self.call.context.steps
        if steps is not None:
            text = f"neither a head nor a part of a body came within {steps.read:g} s"
            self.fail(ReadTimedOut(text), trio.current_time())

    async def run(self) -> None:
        """Connect and send, in a task. Raises nothing but a cancel from outside, which cancels the call."""
        scope = self._scope = trio.CancelScope()
        self._sending = False
        failure: Exception | None = None
        try:
            with scope:
                try:
                    await self._connect_and_send()
                except Exception as error:  # noqa: BLE001  # as in begin
                    failure = error
        except Exception as error:  # noqa: BLE001  # it failed while it was cut: it is DONE, and has its result
            failure = error
        except BaseException as error:
            self.call.cancel(cancel_reason(error))
            # What failed while it was cancelled would end the calls of others that have the same nursery.
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
            connection = await pool.open(slot.replica.origin, limit)
            if self.state is DONE:  # Cut in the turn in which the connection was made.
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
                return  # The kept connection was dead: the request goes out anew, on another one, by another task.
            # The peer reads no more, which is no error yet: it may have answered all the same.
            self._close_after = True
        else:
            if scope.cancelled_caught:
                raise WriteTimedOut(f"not all could be sent within {limit:g} s")
        self._sending = False
        if steps is not None:
            self._set_read_timer(trio.current_time())

    async def _send_beside(self, stream: Stream) -> None:
        """Send while another task receives, which ends when the connection is closed."""
        try:
            await self._send_waiting(stream)
        except Exception as error:  # noqa: BLE001  # as in begin
            self.fail(error, trio.current_time())

    async def _receive_until_done(self, stream: Stream, connection: Connection) -> None:
        """Receive the response in this task, from a stream that cannot push."""
        wants = True
        while wants and self._connection is connection:
            try:
                data = await stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.on_error(error)
                return
            if data:
                wants = self.on_data(data)
            else:
                self.on_eof()
                return

    # What the stream of its connection calls; see ``net.stream.Listener``.

    def on_data(self, data: bytes) -> bool:
        """Take bytes of the response; whether more are wanted."""
        call = self.call
        client = call.client
        try:
            part, pool = self._part, client.pool
            if part is None:
                head = whole_of(data, call.prepared.method, pool.limits)
                if head is not None:
                    self._complete(head, data[head.size :], pool.clock.now)
                    return False
                part = self._part = PartialResponse(ResponseReader(call.prepared.method, pool.limits))
            reader = part.reader
            interim = reader.interim
            reader.feed(data)
            if self._read_timer is not None and reader.interim > interim:
                self._set_read_timer(trio.current_time())
            return self._read(part)
        except Exception as error:  # noqa: BLE001  # of the upstream, or a bug: it is the attempt's end
            self.fail(error, trio.current_time())
            return False

    def on_eof(self) -> None:
        """Take the end of the stream, which may be the end of the body."""
        try:
            part = self._part
            if part is None:
                raise NoMessageError
            part.reader.feed_eof()
            self._read(part)
        except Exception as error:  # noqa: BLE001  # as in on_data
            self.fail(error, trio.current_time())

    def on_error(self, error: Exception) -> None:
        """Fail: the stream is broken, or the pool has closed it."""
        connection = self._connection
        if connection is not None:
            reader = None if self._part is None else self._part.reader
            self.fail(connection.broken(error, reader), trio.current_time())

    @property
    def _is_sending(self) -> bool:
        return self._scope is not None and self._sending

    def _read(self, part: PartialResponse) -> bool:
        """Decode what the reader has; whether more bytes are wanted."""
        reader = part.reader
        head = reader.head
        if head is None:
            return True
        ended, now = reader.ended, 0.0
        if ended:
            # Before the body is looked at: what is wrong with a body says nothing of its connection.
            now = trio.current_time()
            self._release(head, now, reader.excess)
        decoder, progress = part.decoder, False
        try:
            if decoder is None:
                self.state, self.status = HEAD, head.status
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
        """End with a response that came in one read."""
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
        # The same as _answered: this is the plain way of nearly every call.
        self.answer = head, head.kept, head.names, content
        self._close(now, None, "", status >= 500)
        call.attempt_ended(self, now)

    def _release(self, head: Head, now: float, excess: bool) -> None:
        """Give the connection back: the response is complete."""
        connection, self._connection = self._connection, None
        assert connection is not None and self.slot is not None
        pushing = connection.pushing
        # What is left of a request whose answer is complete would be read as the beginning of the next one.
        usable = head.keep_alive and not (excess or self._close_after)
        if pushing is not None and (pushing.unsent or pushing.ended_at is not None):
            usable = False
        scope = self._scope if self._scope is not None and self._sending else None
        connection.keep_alive_hint = head.idle_hint
        self.call.client.pool.give_back(self.slot.replica.origin, connection, now, usable and scope is None, excess)
        if scope is not None:
            scope.cancel(reason="the response is complete")

    # The end.

    def _answered(self, head: Head, fields: Sequence[Field], content: bytes, now: float) -> None:
        self.answer = head, fields, frozenset(field[1] for field in fields), content
        status = self.status = head.status
        self._close(now, None, "", status >= 500)
        self.call.attempt_ended(self, now)

    def fail(self, error: Exception, now: float) -> None:
        """End with ``error``, unless only a kept connection was dead and the request is sent anew."""
        if isinstance(error, MessageError):
            error = response_failed(error)
        if self.state is DONE:
            if not isinstance(error, UpstreamError):
                self.call.crashed(error, now)  # A bug in a callback of its end.
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
        """Cut it: close its connection, cancel its task, and record it. Returns the kind of its end."""
        kind = kind_of_cut(reason, self.call.context, self.started_at, now)
        self._close_connection()
        if self._scope is not None:
            self._scope.cancel(reason=reason or None)
        if self.state is not DONE:
            self._close(now, kind, f"cancelled: {reason or 'no reason given'}", failed(kind, None))
            if reason == LOST and self.cause != "hedge" and self.slot is not None:
                self.call.client.balance.overtaken(now, self.slot, self.started_at)
        return kind

    def discard(self, now: float) -> Connection | None:
        """Give up its response. Returns the connection, closed, if it has one: only one that streams does."""
        return None

    def _close_connection(self, *, crossed: bool = False, replaced: bool = False) -> bool:
        """Close the connection, if there is one; whether its request is to be sent anew on another."""
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
            self.state, self._reused, self._part, self._sending = WAITING, False, None, False
            self.call.attempt_waits(self)
        return replaced

    def _close(self, now: float, kind: Kind | None, detail: str, has_failed: bool | None) -> None:
        """Leave to DONE: give the replica back, record the attempt, report to the breaker. The one place that does."""
        self.state = DONE
        self._request, self._part = b"", None
        if self._read_timer is not None:
            self._read_timer.cancel()
        slot = self.slot
        if slot is None:
            return  # It was never made.
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
        )
        attempts.append(record)
        if context.takes_attempts:
            context.recorder.record(AttemptEnded(context.request, context.call, context.upstream, record, detail))
        # After the record: what follows from an attempt (a replica that is ejected) is recorded after it.
        call.client.balance.ended(now, slot, self.started_at, has_failed)
        if call.ticket is not None and kind not in CUT:
            call.ticket.attempted(now, kind, self.status)


class PartialResponse:
    """A response that does not come in one read: what has come of it."""

    __slots__ = ("decoder", "kept", "reader")

    def __init__(self, reader: ResponseReader) -> None:
        self.reader = reader
        self.decoder: Decoder | None = None
        """From the head on."""
        self.kept: Sequence[Field] = ()
        """The fields that are true of the decoded body."""


def lines_of_request(
    client: ClientInterface, gateway: tuple[tuple[Field, ...], ...], context: CallContext, now: float
) -> tuple[bytes | None, bytes | None, bytes]:
    """The lines that all attempts have in common that are made now for one request; kept in ``client.latest_lines``.

    Returns:
        The gateway's fields and the beginning of ``traceparent``; that beginning alone (empty where there is no
        request); and its end, behind the span, with the deadline's line. The first two are None where it needs a closer
        look (``attempt_fields``).
    """
    request, header, left = context.request, client.deadline_header, context.deadline - now
    if request is None:
        return None, b"", b""
    common: bytes | None = None
    before: bytes | None = None
    after = _end_of_parent(request.trace.flags)
    if header is not None and left != math.inf:
        after = b"%b%b: %d\r\n" % (after, header, int(left * 1000) or 1)
    if not request.trace.state:
        before = f"traceparent: 00-{request.trace.trace_id}-".encode("ascii")
        lines = lines_of_blocks(gateway, client.attempt_prefixes)
        common = None if lines is None else lines + before
    client.latest_lines = request, gateway, now, context.deadline, common, before, after
    return common, before, after


@lru_cache(maxsize=256)
def _end_of_parent(flags: str) -> bytes:
    return f"-{flags}\r\n".encode("ascii")


def attempt_fields(context: CallContext, deadline_header: bytes | None, now: float, span: int) -> list[Field]:
    """The fields that an attempt adds. ``span`` is not 0, which means "none" (W3C Trace Context section 3.2.2.4)."""
    request = context.request
    if request is None:
        return []
    values = {b"traceparent": request.trace.header(f"{span:016x}").encode("ascii")}
    if request.trace.state:
        values[b"tracestate"] = request.trace.state.encode("ascii")
    if deadline_header is not None and context.deadline < math.inf:
        values[deadline_header] = b"%d" % max(1, int((context.deadline - now) * 1000))
    return [(name, name, value) for name, value in values.items()]
