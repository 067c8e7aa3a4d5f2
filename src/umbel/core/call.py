"""Interface between the owner of a call (a composition) and the caller that makes the call (an upstream).

Theory
------
*Problem.* Most calls find an idle connection: the request is sent at once, and the response is read by the reader's
task. Such a call needs no task of its own. Other calls must wait, for a connection for example, and waiting needs a
task. The interface serves both: plain methods that do not wait, callbacks for the result, and one async method.

*Roles.* A ``Caller`` stands for one named upstream and makes calls. A ``CallOwner`` owns calls and gets their results.

*Life of a call*, in this order:

    call = caller.new_call(prepared, context)   makes the object, and does nothing else
    call.start(now)                             admits the call and makes its request; neither waits nor raises
    call.send()                                 sends what ``start`` has made ready
    owner.call_waits(call)                      any number of times: the owner must run ``await call.finish()`` once
    owner.call_ended(call)                      once, unless the call is cancelled: the result is there (``status`` or
                                                ``error``)

``start`` and ``send`` are separate so that an owner of several calls can send all requests directly after each other.
An upstream on the same machine is then woken once for all of them.

*Callbacks.* The call may call ``call_waits`` and ``call_ended`` at any time: inside ``start``, in the reader's task, in
a timer. The owner's functions must not raise or wait. An owner with a task records the event and wakes that task, which
starts ``finish``. An owner without one (``SharedCall``) starts ``finish`` in its upstream's nursery.

*Waiting.* ``finish`` waits for whatever the call needs and continues the call. The owner runs it in a nursery that the
owner waits for. The result of the call is reported by ``call_ended``, never by an exception of ``finish``.

*Cancellation.* ``call.cancel(reason)`` ends the call at once, in every state. The owner gets no callback afterwards.
After the end ``cancel`` does nothing; a ``StreamingCall`` has its end after the body, so ``cancel`` also works after
``call_ended``. If the task that runs ``finish`` is cancelled, ``finish`` cancels the call and raises
``Cancelled``.

*Streams.* A call of mode "stream" or "upgrade" is a ``StreamingCall`` and ends in two steps. ``call_ended`` means that
the head of the response is there, or that the call has failed. The owner then receives the body from the call, or after
a 101 takes over the connection. A response that came whole in one read has ended the call already.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import trio

from ..net.bounded_cache import BoundedCache
from ..net.exception_groups import cancel_reason, raise_first_cancelled
from ..net.parking import Parking
from .events import NULL
from .http.header_field import Field, raw_value

if TYPE_CHECKING:
    from .events import Recorder
    from .model import Attempt, RequestFacts

Mode = Literal["whole", "stream", "upgrade"]
"""What ``call_ended`` reports: "whole": the complete response; "stream": the head, after which the body is received in
parts; "upgrade": as "stream", and the response may be 101 with the protocol that the request's Upgrade names."""

CONTINUE_WAIT = 1.0
"""Maximum seconds for which a request that expects 100 (Continue) waits for it before its body is sent."""


class FieldBlock(tuple["Field", ...]):
    """Header fields that several requests share. It caches their encoded HTTP/1.1 lines."""

    lines: bytes | None = None
    """The encoded lines, for an upstream that replaces the fields that ``lines_for`` names; None: not encoded yet, or
    not possible. Set and read by the encoder of request heads (``upstream/pool/request_head.py``)."""
    lines_for: object = None
    """The names of the replaced fields for which ``lines`` is right, or ``EVERY``."""


EVERY = "every upstream"
"""The value of ``FieldBlock.lines_for`` if ``lines`` is right for every upstream, since none replaces a field."""


class FieldBlocks(tuple[tuple["Field", ...], ...]):
    """Field blocks that the calls of one request share. It caches their encoded HTTP/1.1 lines like ``FieldBlock``."""

    lines: bytes | None = None
    lines_for: object = None


def block_of(fields: Iterable[tuple[str, str]]) -> FieldBlock:
    """Make a block of ``fields``, with names in lower case. Fields whose values HTTP does not allow are left out.

    The names must be ASCII.
    """
    values = [(name.lower().encode("ascii"), raw_value(value)) for name, value in fields]
    return FieldBlock([(lower, lower, value) for lower, value in values if value is not None])


class PreparedRequest(msgspec.Struct, frozen=True):
    """Request of a call, complete except for the replica."""

    method: str
    target: bytes
    """Origin form, relative to the upstream's base URL."""
    headers: Sequence[Field]
    """Fields from the configuration, the client's request and other calls. No name occurs in ``gateway`` too. A
    ``FieldBlock`` if the fields are the same for every request."""
    content: bytes | None = None
    """The body; None: no body."""
    gateway: tuple[tuple[Field, ...], ...] = ()
    """Fields that the gateway adds (Via, X-Forwarded-*, …), in blocks that several requests share."""
    body: AsyncIterable[bytes] | None = None
    """A body in parts, instead of ``content``; for calls of mode "stream". Its framing is the Content-Length in
    ``headers``, or chunked. The code that iterates over it must close the iterator. An exception of the iterator ends
    the call, and is the call's ``error``, or is raised by ``receive``."""
    beginnings: BoundedCache[object, bytes] | None = None
    """Cache for the first bytes of the encoded head, by destination; for a request whose every part but ``gateway`` is
    always the same. None: the request is different each time."""
    host: bytes | None = None
    """The value of Host, for a ``StreamingCall``; None: that of the replica."""
    expects_continue: bool = False
    """Whether the request has ``Expect: 100-continue``, for a request with ``body``. The body's iterator is not asked
    for its first piece before a 100 of the upstream, a final status below 300, or CONTINUE_WAIT. After any other final
    status it is never asked."""
    once: bool = False
    """Whether no byte of ``content`` may be sent twice, whatever the method is; for a ``StreamingCall``. So nothing is
    hedged, and a retry follows only an attempt of which certainly nothing was sent."""

    @property
    def fields(self) -> Sequence[Field]:
        """All fields: ``headers``, then ``gateway``."""
        return [*self.headers, *chain(*self.gateway)]

    @property
    def gateway_names(self) -> frozenset[bytes]:
        """The names of the fields in ``gateway``, in lower case."""
        return frozenset(field[1] for field in chain(*self.gateway))


class CallOwner(Protocol):
    """Owner of calls, which gets their results. Its functions must not raise or wait; see the module."""

    def call_ended(self, call: Call) -> None:
        """Note that ``call`` has its result. Called once per call, unless the call was cancelled."""

    def call_waits(self, call: Call) -> None:
        """Note that ``call`` must wait: the owner has to run ``await call.finish()`` once, in a nursery."""


class StepTimeouts(NamedTuple):
    """httpx's timeouts of single steps, in seconds; None: none. ``read`` applies to the head and to each body part."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


class StreamLimits(NamedTuple):
    """Time limits of a ``StreamingCall``, in seconds; None: none. Each ends the call with an error of kind timeout."""

    first_byte: float | None = None
    """From the start of the call to the head of the response (``CallTimedOut``). The time from the first request for a
    piece of the request's body to the end of the body does not count, and after it the limit begins anew."""
    idle: float | None = None
    """Each send (``WriteTimedOut``), and after the head each wait for a piece of the body (``ReadTimedOut``), but not
    while the request's body is still being sent. After ``take``: the time without a byte in either direction."""
    lifetime: float | None = None
    """The whole call (``CallTimedOut``)."""


class CallContext(msgspec.Struct, eq=False):
    """Everything that a call needs besides its request: owner, inbound request, deadline, recorder and policies.

    Callbacks run in the tasks of readers and timers, which have no context variables of a request. So all data for
    records is here. Compared by identity.
    """

    owner: CallOwner
    call: str
    """The name of the call."""
    upstream: str
    request: RequestFacts | None = None
    """The inbound request; None if the call belongs to none."""
    deadline: float = math.inf
    """When the call must be over, in ``trio.current_time()``: the request's deadline, or earlier due to ``limit``."""
    recorder: Recorder = NULL
    """Gets the events of the call."""
    limit: float | None = None
    """The call's own timeout in seconds, if it determines ``deadline``: the call then ends itself with
    ``CallTimedOut``. None: ``deadline`` is that of the request, at which the owner cancels the call."""
    max_body: int | None = None
    """Maximum bytes of the body after decompression; None: the upstream's limit."""
    attempts: list[Attempt] = []
    """The attempts that have ended. The calls of one ``each`` share one list."""
    # Policies of the call in place of those of the upstream; None: the upstream's. The types are
    # ``policy.retry.RetryRules`` and ``policy.hedge.HedgeRules``, which this package must not import.
    retry: Any = None
    hedge: Any = None
    coalesce: bool | None = None
    takes_attempts: bool = False
    """Whether the recorder takes ``AttemptEnded`` events."""
    steps: StepTimeouts | None = None
    """Timeouts of single steps, for calls through httpx; None: the upstream's."""
    follows: bool = False
    """Whether redirects are followed; without effect on a ``StreamingCall``."""
    stream_limits: StreamLimits | None = None
    """Time limits of a ``StreamingCall``, beside ``deadline`` and ``limit``; None: none."""
    on_interim: Callable[[int, Sequence[Field]], object] | None = None
    """Called with status and end-to-end fields of each interim response (1xx but 101) of a ``StreamingCall``. Must not
    raise or wait. Only the attempt whose head is reported counts: if other attempts are possible, its interim responses
    are held back until that head, and at most the last four."""
    hold_interim: bool = False
    """Whether a ``StreamingCall`` holds interim responses back until its head in any case, because the request may be
    repeated by another call if this one fails."""
    started_at: float | None = None
    """When the owner began the call, in ``trio.current_time()``; None: not known. For the records of attempts."""
    item: int | None = None
    """The number of the item of an ``each`` that the call is made for; None: the call has no ``each``."""


class Call(Protocol):
    """One logical request to an upstream; see the module."""

    @property
    def context(self) -> Any:
        """The ``CallContext``, or the owner's subclass of it, with which the call was made."""

    @property
    def ended_at(self) -> float:
        """When the call ended, in ``trio.current_time()``; 0.0 before."""
        ...

    @property
    def status(self) -> int | None:
        """The status of the response; None without a response."""

    error: Exception | None
    """Why there is no response: an ``UpstreamError``, an ``httpx.HTTPError`` of a foreign transport, or a bug.

    Code that raises the error must set this to None: the traceback holds the call, which would be a reference cycle."""

    @property
    def fields(self) -> Sequence[Field]:
        """The header fields of the response, as they apply to the decoded body."""

    @property
    def names(self) -> Collection[bytes] | None:
        """The names of ``fields`` in lower case, if they are known already; else None."""

    @property
    def content(self) -> bytes:
        """The decoded body of the response; empty without one, and for a ``StreamingCall``."""

    @property
    def note(self) -> str:
        """A few words for records about the response, such as why a redirect was not followed; usually empty."""

    def start(self, now: float) -> None:
        """Admit the call and make its request; neither waits nor raises. ``now`` is ``trio.current_time()``."""

    def send(self) -> None:
        """Send what ``start`` has made ready, if anything. To be called once, after ``start``."""

    async def finish(self) -> None:
        """Wait for what the call needs, and continue the call. To be run once after each ``call_waits``.

        Raises no ``Exception``; a cancel of the task cancels the call and is raised.
        """

    def cancel(self, reason: str) -> None:
        """End the call at once, in any state, and close its connection. Does nothing if the call has ended."""


class ResponseHead(Protocol):
    """What a ``StreamingCall`` tells of the response beside ``status`` and ``fields``."""

    @property
    def reason(self) -> bytes:
        """The reason phrase; may be empty."""
        ...

    @property
    def upgrade(self) -> bytes | None:
        """The value of Upgrade in lower case, if Connection names it too; else None."""
        ...


class UpgradedStream(Protocol):
    """Bytes in both directions of an upstream's connection after a 101. It must be closed.

    One task receives, and one task sends at a time. trio's BrokenResourceError: the connection broke.
    ClosedResourceError: this side closed it, by ``close_now`` or by a cancel of the call.
    """

    async def receive_some(self) -> bytes:
        """Receive at least one byte, first the bytes that came with the 101; ``b""`` at the end of the peer's sending.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: see the class.
            UpstreamError: a limit of the call has passed.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``. Raises as ``receive_some``. After a cancel in the middle it can only be closed."""

    def send_eof(self) -> None:
        """End the sending direction. Never raises."""

    def close_now(self) -> None:
        """Close the connection and end the call. May be called again."""


@runtime_checkable
class StreamingCall(Call, Protocol):
    """A call of mode "stream" or "upgrade". After ``call_ended`` has reported a head, its owner receives the body.

    ``status`` and ``fields`` are as received: only the hop-by-hop fields are left out, and no content coding is
    decoded. The owner must await ``aclose`` at the end, unless the call was cancelled. One task at a time uses the
    call; ``cancel`` may be called by any.
    """

    @property
    def head(self) -> ResponseHead | None:
        """The head of the response; None before ``call_ended``, and after a failure."""

    @property
    def response_ended(self) -> bool:
        """Whether the whole response was received, so that neither ``take_rest`` nor ``receive`` waits for the peer."""
        ...

    @property
    def trailers(self) -> Sequence[Field]:
        """The trailer fields of a chunked body, once the response has ended; empty before, and without any."""

    receive_max: int
    """Most bytes that ``receive`` reads from the socket at once; may be changed between two calls."""

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; empty at its end. Cancelled, it cancels the call.

        Raises:
            UpstreamError: the response broke off, the call was cancelled, or a limit has passed.
            Exception: an exception of the request's own body.
        """
        ...

    def take_rest(self) -> bytes:
        """Return the received bytes of the body that were not returned yet, without waiting.

        With ``response_ended`` this is the rest of the body. ``aclose`` must follow in any case.
        """
        ...

    async def aclose(self) -> None:
        """End the call, in any state. The connection is closed, unless the response was received to its end.

        If the request's body is still being sent, waits for the end of that: at most 1 s, even if cancelled.
        """

    def become_stream(self) -> bool:
        """Count the call as a stream from now on: give back its place in the bulkhead, and take one of the streams.

        To be called after the head. Does nothing if the call has ended or is a stream already.

        Returns:
            False if the upstream has ``max_streams`` streams; nothing has changed then.
        """
        ...

    def take(self) -> UpgradedStream:
        """Take over the connection after a 101; once. The call goes on until the returned stream is closed.

        Raises:
            RuntimeError: the response is no 101, or the call has ended.
        """
        ...


class CallBase:
    """Base class of calls: request, context and result."""

    __slots__ = ("content", "context", "ended_at", "error", "fields", "names", "prepared", "status")

    note = ""
    """See ``Call.note``. A class attribute, so that no call sets it that has nothing to note."""

    def __init__(self, prepared: PreparedRequest, context: CallContext) -> None:
        self.prepared = prepared
        self.context = context
        self.status: int | None = None
        self.error: Exception | None = None
        self.ended_at = 0.0
        self.fields: Sequence[Field] = ()
        self.names: Collection[bytes] | None = None
        self.content = b""


@runtime_checkable
class Caller(Protocol):
    """Object that makes calls to one upstream."""

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """Make a call, without starting it."""
        ...


class SingleCallOwner:
    """Owner of a single call, for a task that waits for the call."""

    __slots__ = ("_parking", "_waiting", "ended")

    def __init__(self) -> None:
        self._parking = Parking()
        self._waiting: list[Call] = []
        self.ended: Call | None = None
        """The call with the result; None until it ends."""

    def call_ended(self, call: Call) -> None:
        """Note that ``call`` has its result; see ``CallOwner``."""
        self.ended = call
        self._parking.wake()

    def call_waits(self, call: Call) -> None:
        """Note that ``call`` must wait; see ``CallOwner``."""
        self._waiting.append(call)
        self._parking.wake()

    async def perform(self, call: Call) -> Call:
        """Start ``call``, wait for its end, and return the call with the result, also if the call has failed.

        ``call.context.owner`` must be this object. A cancel cancels the call.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call.start(trio.current_time())
        call.send()
        parking = self._parking
        try:
            while self.ended is None and not self._waiting:
                await parking.park()
            if self.ended is None:
                async with trio.open_nursery() as nursery:
                    while self.ended is None:
                        waiting, self._waiting = self._waiting, []
                        for each in waiting:
                            nursery.start_soon(each.finish)
                        if not parking.woken:
                            await parking.park()
                        parking.woken = False
        except BaseException as error:
            call.cancel(cancel_reason(error))
            self.ended = None  # The call may have ended in the same turn as the cancel.
            self._waiting.clear()
            # ``finish`` raises nothing but ``Cancelled``, so a group holds nothing else that could be lost.
            raise_first_cancelled(error)
            raise
        ended, self.ended = self.ended, None  # The call holds this owner: keeping the call would be a cycle.
        self._waiting.clear()
        assert ended is not None
        return ended
