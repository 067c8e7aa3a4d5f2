"""The state that all connections of a server share: application, settings, limits, counters and phase.

One object per server. It reads and writes no connection.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import trio
from trio_util import AsyncValue

from ..core.diagnostics.crash_console import show_crash
from ..core.diagnostics.redact import Redactor
from ..core.events import NULL, Level, LogMessage, Recorder, RequestEnded
from ..core.inbound import ClientGoneError, InboundApplication, RequestHead
from ..core.model import RequestFacts, Trace
from ..net.epoll import AnyReader, new_reader
from ..net.exception_groups import described, holds_only, split_application_crash
from ..net.timers import TimerQueue
from .http1.host import Hosts
from .http1.request_head import HeadReader
from .limits.memory import NO_KEEP_ALIVE_SHARE, REFUSE_SHARE, MemoryLimit
from .limits.probe_reserve import RESERVED_REQUESTS, Reserve, ReservedConnection
from .limits.server_limits import Limits, limits_of
from .limits.upload_slots import UploadSlots
from .peer import Peer
from .phase import Phase
from .process.heap_trim import HeapTrimmer
from .response.error_response import NO_CONNECTION_LEFT, NO_MEMORY_LEFT, OVERLOADED, ErrorResponse, ServerResponse
from .response.own_fields import OwnFields

if TYPE_CHECKING:
    from hypercorn.config import Config


_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""Exceptions of a connection whose client has gone or does not read."""

_log = logging.getLogger("umbel.server")
_redactor = Redactor()

DISPLACED_SHARE = 4
"""A quarter of ``max_in_flight`` may be in flight beyond it, while the responses of displaced requests are sent."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of a server's counters."""

    phase: Phase
    connections: int
    connections_total: int
    requests_in_flight: int
    requests_total: int
    refused: Mapping[int, int] = field(default_factory=dict)
    """Requests that the server answered itself, by status."""
    failed: int = 0
    """Connections and requests that an exception ended."""
    endless: int = 0
    """Applications that were cancelled because they went on calling ``receive`` or ``send`` after their end."""
    uploads: int = 0
    """Requests whose body is being waited for; they are not among those in flight."""
    uploads_waiting: int = 0
    """Requests that wait for a place among the uploads, their body unread."""


Handler = Callable[[Any], Awaitable[None]]
"""Answers an ``InboundRequest``."""


class Drainable(Protocol):
    """A connection that can be notified that the server is stopping."""

    def drain(self, until: float) -> None:
        """End with the next response, or at ``until`` if no request comes."""


class ServerState:
    """One server's shared state. ``run`` must run for as long as there are connections."""

    def __init__(
        self, app: Any, config: Config, limits: Limits | None = None, recorder: Recorder = NULL, *, handle: Handler
    ) -> None:
        self.app = app
        self.given_recorder = recorder
        """Takes the records of an application that has no recorder of its own."""
        self.config = config
        self.limits = limits if limits is not None else limits_of(app)
        self.lifespan_state: dict[str, Any] = {}
        """What the lifespan left for each request (ASGI: ``scope["state"]``, a copy each)."""
        self.phase: AsyncValue[Phase] = AsyncValue(Phase.SERVING)
        self.cut_at = math.inf
        """When what is in flight is cancelled; known from ``DRAINING`` on."""
        self.connections: AsyncValue[int] = AsyncValue(0)
        self.open: set[Drainable] = set()
        """The connections that must be notified when the server drains."""
        self.accept_batch = 64
        """Connections accepted in one go, so that a flood of them does not hold up the others.

        Whoever shares its sockets with other processes makes it smaller, or one of them gets the whole flood.
        """
        self.in_flight = 0
        self.uploads = UploadSlots(self.limits)
        """The slots of requests whose body is still to come; these requests are not in flight."""
        self.late_at = math.inf
        """When, on ``time.monotonic``, the loop's other tasks have waited for too long: then ``on_late`` is called."""
        self.on_late: Callable[[], None] = _nothing
        """Called at the end of each request from ``late_at`` on, by a loop that is busy and not hung. Must not wait."""
        self.reserve = Reserve()
        """What is kept for probes beyond ``max_connections`` and ``max_in_flight``."""
        self.timers = TimerQueue()
        self._heap_trimmer = HeapTrimmer(self.timers, lambda: self.in_flight)
        self.reader: AnyReader
        """Watches the sockets of the connections: the application's own reader where it has one, for its upstreams."""
        self.handle = handle
        """Answers an ``InboundRequest`` by the application (``handler.handler_of``)."""
        self.own_fields = OwnFields(config)
        self.heads = HeadReader(self.limits, Hosts((*self.limits.hosts, *config.server_names)))
        self.speaks_h2 = "h2" in config.alpn_protocols
        self.exhausted = trio.Event()
        """``max_requests`` have been served; whoever runs the server stops it."""
        self.root_path = config.root_path
        self.keeps_alive = True
        """Whether connections may serve again after their response."""
        self.idle_timeout = float(config.keep_alive_timeout)
        """Seconds that a connection may wait for its next request."""
        self._make_room: Callable[[], bool] | None = getattr(app, "make_room", None)
        self._displaced = 0
        """Requests that were taken in place of one that was refused for them, since there was one more than may be."""
        self._memory = MemoryLimit(self.limits.memory_limit) if self.limits.memory_limit is not None else None
        self._places = self.limits.max_in_flight if self._memory is None else 0
        """Requests in flight from which on ``check_capacity`` is asked for another one."""
        self._max_requests = _max_requests(config)
        self._allowed = self.limits.connections_allowed
        self._connections_total = self._requests_total = 0
        self._refused: dict[int, int] = {}
        self._failed = self._endless = 0
        if (add_server := getattr(app, "add_server", None)) is not None:
            add_server(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the timers and the reader, until cancelled. The application has started before that."""
        shared: AnyReader | None = getattr(self.app, "socket_reader", None)
        self.reader = new_reader() if shared is None else shared
        async with trio.open_nursery() as nursery:
            if shared is None:
                nursery.start_soon(self.reader.run)
            nursery.start_soon(self._heap_trimmer.run)
            task_status.started()
            await self.timers.run()

    @property
    def recorder(self) -> Recorder:
        """Where records go at the moment: to the application's recorder, or to the one that was given."""
        recorder: Recorder = getattr(self.app, "recorder", self.given_recorder)
        return recorder

    def statistics(self) -> ServerStatistics:
        """A snapshot of the counters."""
        return ServerStatistics(
            self.phase.value,
            self.connections.value,
            self._connections_total,
            self.in_flight,
            self._requests_total,
            dict(self._refused),
            self._failed,
            self._endless,
            self.uploads.taken,
            self.uploads.waiting,
        )

    def begin_draining(self, cut_at: float) -> None:
        """Let every connection end: with its next response, or after ``drain_idle`` without a request.

        Whoever calls this cuts at ``cut_at`` what is still in flight.
        """
        self.cut_at = cut_at
        self.keeps_alive = False
        self.idle_timeout = self.limits.drain_idle
        self.phase.value = max(self.phase.value, Phase.DRAINING)
        self.reserve.clear("the server drains")
        for connection in tuple(self.open):
            connection.drain(trio.current_time() + self.limits.drain_idle)

    # Connections, and requests in flight.

    def connection_began(self) -> bool:
        """Count a connection in; False (and not counted) if there are as many as may be."""
        if self.connections.value >= self._allowed:
            return False
        self.connections.value += 1
        self._connections_total += 1
        return True

    def connection_ended(self) -> None:
        """Count a connection out."""
        self.connections.value -= 1

    def request_began(self) -> ErrorResponse | None:
        """Count a request in; if it is not admitted, the error response, and it is not counted."""
        in_flight = self.in_flight
        if in_flight >= self._places:
            if (error_response := self.check_capacity()) is not None:
                return error_response
            in_flight = self.in_flight  # One may have been displaced.
        self.in_flight = in_flight = in_flight + 1
        if in_flight > self._heap_trimmer.peak:
            self._heap_trimmer.peak_rose(in_flight)
        self._requests_total += 1
        if self._requests_total == self._max_requests:
            self.exhausted.set()
        return None

    def check_capacity(self) -> ErrorResponse | None:
        """The error response to a further request, if none may be in flight now; None if one may."""
        if self.in_flight >= self.limits.max_in_flight and not self._displace_waiting():
            return OVERLOADED
        if self._memory is not None:
            share = self._memory.share()
            self.keeps_alive = share < NO_KEEP_ALIVE_SHARE and self.phase.value < Phase.DRAINING
            if share >= REFUSE_SHARE:
                return NO_MEMORY_LEFT
        return None

    def _displace_waiting(self) -> bool:
        """Whether the application refuses a request that waits in vain, so that another can be served in its place.

        The refused one is in flight until its response is sent: for that while there are more than ``max_in_flight``.
        """
        beyond = self.in_flight - self.limits.max_in_flight
        if not beyond:
            self._displaced = 0
        if self._make_room is None or beyond * DISPLACED_SHARE >= self.limits.max_in_flight or not self._make_room():
            return False
        self._displaced += 1
        return True

    def is_probe(self, method: str, target: bytes, body_length: int) -> bool:
        """Whether a request is a probe: a GET or HEAD of one of ``probes``, without a body."""
        return body_length == 0 and self.limits.is_probe(method, target)

    def admit(
        self, reserved: ReservedConnection | None, method: str, target: bytes, body_length: int
    ) -> ErrorResponse | None:
        """``request_began``, else ``probe_began``; on a ``reserved`` connection nothing but a probe is taken."""
        if reserved is not None and not self.is_probe(method, target, body_length):
            return NO_CONNECTION_LEFT
        error_response = self.request_began()
        return None if error_response is None or self.probe_began(method, target, body_length) else error_response

    def probe_began(self, method: str, target: bytes, body_length: int) -> bool:
        """Count a request in that ``request_began`` has refused, if it is a probe and one of the places kept is free.

        A busy server must answer its probes, or it would be taken for dead.
        """
        if not self.is_probe(method, target, body_length):
            return False
        in_flight = self.in_flight - self._displaced
        if in_flight >= self.limits.max_in_flight + RESERVED_REQUESTS and not self.reserve.make_room():
            return False
        self.in_flight += 1
        self._requests_total += 1
        if self._requests_total == self._max_requests:
            self.exhausted.set()
        return True

    def request_ended(self) -> None:
        """Count a request in flight out."""
        self.in_flight = in_flight = self.in_flight - 1
        if in_flight <= self._heap_trimmer.burst_ends_at:
            self._heap_trimmer.burst_ended(in_flight)
        if monotonic() >= self.late_at:  # As in note_progress.
            self.on_late()

    def uploads_ended(self) -> None:
        """Note that the last upload has ended."""
        self._heap_trimmer.uploads_ended()

    def note_progress(self) -> None:
        """Note that the event loop is busy and not blocked; to be called where foreign code has ended."""
        # A call of C's and no clock of trio's: this runs for every request.
        if monotonic() >= self.late_at:
            self.on_late()

    def write_deadline(self) -> float:
        """The time by which a write that begins now must have made progress: its own limit, or the end of a drain."""
        return min(trio.current_time() + self.limits.write_timeout, self.cut_at + self.limits.cancel_timeout)

    def fields_and_body(
        self, error_response: ErrorResponse, request_id: str, head: RequestHead | None = None
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The header fields and the body of an error response, with those that the application has for all."""
        fields, body = error_response.fields_and_body(request_id)
        if isinstance(self.app, InboundApplication):
            return [*fields, *self.app.error_response_fields(head)], body
        return [*fields, *getattr(self.app, "error_response_fields", ())], body

    # Records.

    def count_rejected(self, error_response: ErrorResponse) -> None:
        """Count a response of the server's own that the application records."""
        self._refused[error_response.status] = self._refused.get(error_response.status, 0) + 1

    def leaves_record(self, response: ServerResponse) -> bool:
        """Whether the application, which keeps records and has been notified, makes the record of such a response.

        An ``InboundApplication`` that wants a record has filed one.
        """
        keeps_records = self.recorder is not self.given_recorder and not isinstance(self.app, InboundApplication)
        return response.notified and keeps_records

    def record_rejected(
        self,
        error_response: ErrorResponse,
        *,
        request_id: str,
        started_at: float,
        peer: Peer,
        method: str = "",
        path: str = "",
        fields: Sequence[tuple[bytes, bytes]] = (),
        bytes_sent: int = 0,
        counts: bool = True,
    ) -> None:
        """Record a request that no application records: one access record, with the reason.

        ``fields`` are the request's, as far as its head could be read. An application that knows who is to be believed
        (``client_of``) says whom they come from; else it is the peer. ``counts``: the request counts as one that the
        server has answered itself.
        """
        if counts:
            self.count_rejected(error_response)
        client, scheme = peer.address, "https" if peer.secure else "http"
        if fields and (client_of := getattr(self.app, "client_of", None)) is not None:
            client, scheme = client_of(peer.client[0] if peer.client is not None else None, fields, scheme)
        facts = RequestFacts(request_id, Trace(request_id), method, path, "", started_at)
        now = trio.current_time()
        ended = RequestEnded(
            facts,
            error_response.status,
            now,
            bytes_sent,
            None,
            error_response.kind,
            client,
            scheme,
            error_response.detail,
        )
        self.recorder.record(ended)

    def note_failure(self, event: str, error: BaseException) -> None:
        """Log an exception that ended a connection or a request: once, with its class and where it was raised."""
        self._failed += 1
        self.note(event, described(error), error)

    def application_failed(self, what: str, crash: BaseException, *, gone: bool) -> None:
        """Log what an application raised, once. ``what`` is a "request" or a "websocket".

        ``gone``: its client had left before. Then it is nothing but the way in which the application, or its framework,
        ends for that reason, and no failure: ``ClientGoneError`` is not logged, anything else at level info.
        """
        if not gone:
            self.note_failure(f"{what}.crashed", crash)
        elif not holds_only(crash, ClientGoneError):
            self.note(f"{what}.abandoned", described(crash), crash, "info")

    def note_endless(self, reason: str) -> None:
        """Count and log an application that is cancelled because it calls on after its end (``fairness.py``)."""
        self._endless += 1
        self.note("application.endless", f"an application called receive or send without end: {reason}")

    def connection_failed(self, error: BaseException) -> BaseException | None:
        """End what a connection's own code has raised: log it, unless it only says that the client has gone.

        The rest, cancels and the like, is returned to be raised on.
        """
        crash, rest = split_application_crash(error)
        if crash is not None and not isinstance(crash, _GONE):
            self.note_failure("connection.crashed", crash)
        return rest

    def note(self, event: str, message: str, error: BaseException | None = None, level: Level = "error") -> None:
        """Log one line: into the application's records, or with Python's logging, without secrets, if it has none."""
        recorder = self.recorder
        if recorder is NULL:
            _log.log(logging.getLevelNamesMapping()[level.upper()], "%s: %s", event, _redactor.text(message))
            if error is not None and level == "error":
                show_crash(event, "", error, _redactor)
        else:
            recorder.record(LogMessage(level, event, message, error=error))


def _max_requests(config: Config) -> int | None:
    """Hypercorn's ``max_requests``, spread by its jitter so that workers do not end together."""
    if config.max_requests is None:
        return None
    return config.max_requests + random.randint(0, config.max_requests_jitter)


def _nothing() -> None:
    """Do nothing: the default of ``on_late``."""
