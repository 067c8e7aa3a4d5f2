"""Interface between compositions, which have calls made, and upstreams, which make them.

Theory
------
A *caller* (one named upstream) makes *calls*. An *owner* (a composition) has calls made and hears of their ends.

- ``Caller.new_call(prepared, context)`` makes a call and does nothing else.
- ``Call.start(now)`` begins it, without waiting and without raising: it is admitted, and its request is made.
- ``Call.send()`` sends what ``start`` has made ready. The two are separate so that the owner of several calls can
  send them one right after the other: a peer on this machine is then woken once for all of them, and a send that wakes
  it takes longer.
- The owner hears of it by two functions, which may be called at any time: inside ``start``, from the task of the socket
  reader, from a timer. They only record the event and wake the owner's task; they never start a task.

  - ``call_ended(call)``: the call has its result (``status`` or ``error``). Exactly once per call, and never after
    ``cancel``.
  - ``call_waits(call)``: the call must wait for something (a connection, say). Each time this is said, the owner runs
    ``await call.finish()`` once, in a nursery that it waits for.

A call of mode "stream" ends in two steps. ``call_ended`` says that the head of its response is there, or that there
will be none; then the response is received from it (``upstream/calls/stream_call.py``).

- ``Call.cancel(reason)`` ends the call at once, in every state; the owner hears nothing of it afterwards.

So a call that need not wait costs no task, and ``finish`` ends by ``call_ended`` and not by an exception. Only a cancel
of the task that runs ``finish`` passes through it; the call is cancelled by it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Awaitable, Collection, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import trio

from ..net.bounded_cache import BoundedCache
from ..net.exception_groups import cancel_reason, raise_first_cancelled
from .events import NULL
from .http.header_field import Field, raw_value

if TYPE_CHECKING:
    from .events import Recorder
    from .model import Attempt, RequestFacts

Mode = Literal["whole", "stream"]
"""Whether a call's end is a complete response, or its head, after which the body is received piece by piece."""


class FieldBlock(tuple["Field", ...]):
    """Header fields that several requests have in common: those of all calls of a request, or of all requests."""

    lines: bytes | None = None
    """How they stand in a head, for an upstream that replaces the fields that ``lines_for`` names; None: not known, or
    they need a closer look. Remembered by who writes them (``upstream/pool/request_head.py``)."""
    lines_for: object = None
    """``EVERY``: upstreams replace none of them."""


EVERY = "every upstream"


class FieldBlocks(tuple[tuple["Field", ...], ...]):
    """Blocks that the calls of one request have in common, with a memory of them as lines, as that of a block."""

    lines: bytes | None = None
    lines_for: object = None


def block_of(fields: Iterable[tuple[str, str]]) -> FieldBlock:
    """Fields as a block, named in lower case; less those whose value no field can hold."""
    values = [(name.lower().encode("ascii"), raw_value(value)) for name, value in fields]
    return FieldBlock([(lower, lower, value) for lower, value in values if value is not None])


class PreparedRequest(msgspec.Struct, frozen=True):
    """Request of a call, ready to be sent: everything but the replica."""

    method: str
    target: bytes
    """Origin form, relative to the upstream's base URL."""
    headers: Sequence[Field]
    """The fields that the configuration, the client's request and other calls gave. None bears a name that one of
    ``gateway`` bears. A ``FieldBlock`` where they are the same for every request."""
    content: bytes | None = None
    gateway: tuple[tuple[Field, ...], ...] = ()
    """The fields that the gateway writes of itself and of its client, in blocks that other requests have too."""
    body: AsyncIterable[bytes] | None = None
    """A body that comes piece by piece, instead of ``content``; for calls of mode "stream". It is framed by the
    Content-Length among ``headers``, or chunked. Who iterates it closes its iterator."""
    beginnings: BoundedCache[object, bytes] | None = None
    """How the heads of such requests begin, for a request that is the same but for ``gateway`` each time it is made:
    remembered by upstreams, by what a head goes to. None: the next one is another."""

    @property
    def fields(self) -> Sequence[Field]:
        """All of the request's fields."""
        return [*self.headers, *chain(*self.gateway)]

    @property
    def gateway_names(self) -> frozenset[bytes]:
        """The names of the gateway's fields, in lower case."""
        return frozenset(field[1] for field in chain(*self.gateway))


class CallOwner(Protocol):
    """Owner of a call: hears of its end. See the module: its functions record and wake, never raise and never wait."""

    def call_ended(self, call: Call) -> None:
        """The call has its result."""

    def call_waits(self, call: Call) -> None:
        """``await call.finish()`` is to be run once, in a nursery."""


class StepTimeouts(NamedTuple):
    """httpx's limits of single steps, in seconds; ``read`` is for a whole head, and for each piece of the body."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


class CallContext(msgspec.Struct, eq=False):
    """Context of one call: its inbound request, its deadline, its recorder, its own policies.

    Callbacks run in the tasks of readers and timers, which know nothing of any request; so whatever a record needs is
    here. It is equal to itself alone. A struct, because it is made for each call and hardly ever changed.
    """

    owner: CallOwner
    call: str
    """Its name."""
    upstream: str
    request: RequestFacts | None = None
    """The inbound request; None where there is none (a call made through httpx)."""
    deadline: float = math.inf
    """When it ends at the latest, in ``trio.current_time()``: the request's deadline, or earlier by ``limit``."""
    recorder: Recorder = NULL
    limit: float | None = None
    """Seconds of the call's own limit, where that and not the request's deadline makes ``deadline``. The call ends
    itself then, with ``CallTimedOut``; at the request's deadline its owner cancels it."""
    max_body: int | None = None
    """Bytes of the body after decompression; None: the upstream's own bound."""
    attempts: list[Attempt] = []
    """The attempts that have ended. The calls of one ``each`` share a list."""
    # The call's own policies, in place of its upstream's; None: the upstream's. What they are is the upstream's
    # matter: ``policy.retry.RetryRules``, ``policy.hedge.HedgeRules``, and whether to coalesce.
    retry: Any = None
    hedge: Any = None
    coalesce: bool | None = None
    takes_attempts: bool = False
    """Whether the recorder wants to hear of attempts by themselves."""
    steps: StepTimeouts | None = None
    """Limits of single steps, for calls made through httpx; None: there are none but the upstream's own."""


class Call(Protocol):
    """One call. See the module."""

    @property
    def context(self) -> Any:
        """What it was made with: a ``CallContext``, or its owner's subclass of that."""

    @property
    def ended_at(self) -> float:
        """When it ended, in ``trio.current_time()``."""
        ...

    @property
    def status(self) -> int | None:
        """The response's status; None where there is no response."""

    error: Exception | None
    """Why there is no response: an ``UpstreamError``, an ``httpx.HTTPError`` of a foreign transport, or a bug. Whoever
    raises it takes it out: an exception that is held by what its frames hold waits for the garbage collector."""

    @property
    def fields(self) -> Sequence[Field]:
        """The response's header fields, true of the decoded body."""

    @property
    def names(self) -> Collection[bytes] | None:
        """The names of the fields in lower case, where they are known without looking."""

    @property
    def content(self) -> bytes:
        """The response's body, decoded."""

    def start(self, now: float) -> None:
        """Admit the call and make its request. ``now`` is ``trio.current_time()``."""

    def send(self) -> None:
        """Send what ``start`` has made ready, if anything. Called once, after ``start``."""

    async def finish(self) -> None:
        """Wait for what the call said it waits for, and go on from there."""

    def cancel(self, reason: str) -> None:
        """End at once, whatever the state. Its connection is closed at once. Does nothing after the end."""


class CallBase:
    """Base of calls: request, context and result."""

    __slots__ = ("content", "context", "ended_at", "error", "fields", "names", "prepared", "status")

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
    """Maker of calls to one upstream."""

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """A call that has not begun."""
        ...


class Parking:
    """Wait of one task for callbacks of others.

    ``wake`` before ``park`` is not lost: it sets ``woken``, and the task does not park where that is set::

        if not parking.woken:
            await parking.park()
        parking.woken = False

    A task that was woken and is then cancelled returns from ``park``; it sees the cancel at its next checkpoint. So
    each ``park`` ends by a wake or by a cancel, never by both.
    """

    woken = False
    """Whether there was a wake that no ``park`` has ended by."""
    _task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let the waiting task go on, or keep it from waiting."""
        task = self._task
        if task is None:
            self.woken = True
        else:
            # Taken out first: a second wake must not reschedule a task that is scheduled already.
            self._task = None
            trio.lowlevel.reschedule(task)

    def park(self) -> Awaitable[object]:
        """Wait for ``wake``. One task at a time; to be awaited at once."""
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105  # awaited by the caller

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class SingleCallOwner:
    """Owner of a single call, which one task waits for."""

    __slots__ = ("_parking", "_waiting", "ended")

    def __init__(self) -> None:
        self._parking = Parking()
        self._waiting: list[Call] = []
        self.ended: Call | None = None
        """What holds the result, once it is there."""

    def call_ended(self, call: Call) -> None:
        """See ``CallOwner``."""
        self.ended = call
        self._parking.wake()

    def call_waits(self, call: Call) -> None:
        """See ``CallOwner``."""
        self._waiting.append(call)
        self._parking.wake()

    async def perform(self, call: Call) -> Call:
        """Run ``call``, whose context names this as its owner, to its end; what holds the result is returned.

        Cancelled, it cancels the call.
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
            self.ended = None  # It may have ended in the turn of the cancel.
            self._waiting.clear()
            # ``finish`` raises nothing but a cancel, so nothing else is in a group.
            raise_first_cancelled(error)
            raise
        ended, self.ended = self.ended, None  # The call holds this owner: the two must not hold each other.
        self._waiting.clear()
        assert ended is not None
        return ended
