"""Server state: what all connections of one server share (application, settings, limits, counters, phase).

It also decides whether a request is admitted, and writes the server's own records. It reads and writes no connection.
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
from ..core.http.client_head import client_head
from ..core.inbound import AnyHead, ClientGoneError, InboundApplication, InboundRequest, RequestHead
from ..core.model import RequestFacts, Trace
from ..core.networks import Admission
from ..net.epoll import Reader, new_reader
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
from .response.error_response import (
    NO_CONNECTION_LEFT,
    NO_MEMORY_LEFT,
    OVERLOADED,
    PREFLIGHT,
    ErrorResponse,
    ServerResponse,
)
from .response.own_fields import OwnFields

if TYPE_CHECKING:
    from hypercorn.config import Config


_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""Exceptions that only say that the client has gone or does not read."""

_log = logging.getLogger("umbel.server")
_redactor = Redactor()

DISPLACED_SHARE = 4
"""``max_in_flight`` divided by this is how many displaced requests, whose error responses are being sent, may exceed
``max_in_flight``."""

KEEP_ALIVE_S = 75.0
"""The default of ``keep_alive_timeout``, in place of Hypercorn's 5 s. Load balancers keep idle connections for 60 s,
and no request must meet a connection that this server is closing."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of a server's counters."""

    phase: Phase
    connections: int
    """Open connections, without those beyond ``max_connections``."""
    connections_total: int
    """Connections since the start, counted in the same way."""
    requests_in_flight: int
    requests_total: int
    """Requests since the start that were admitted."""
    refused: Mapping[int, int] = field(default_factory=dict)
    """Error responses that the server sent in the application's place, by status."""
    failed: int = 0
    """Connections and requests that ended by an unexpected exception."""
    endless: int = 0
    """Applications that were cancelled because they called ``receive`` or ``send`` too often after their end."""
    uploads: int = 0
    """Requests that hold an upload slot; they are not in flight."""
    uploads_waiting: int = 0
    """Requests that wait for an upload slot. Only a small body is read meanwhile."""
    streams: int = 0
    """Streams (``max_streams``): long responses and open WebSockets. They are not in flight."""
    streams_total: int = 0
    """Streams since the start."""


Handler = Callable[[Any], Awaitable[None]]
"""Answers an ``InboundRequest``."""


class Drainable(Protocol):
    """A connection or WebSocket that can be notified of a drain."""

    def drain(self, until: float) -> None:
        """End with the next response, or at the time ``until`` (trio's clock) if no request comes."""


class ServerState:
    """State that all connections of one server share. ``run`` must run as long as there are connections.

    Args:
        app: the application. ``app.add_server``, if there is one, is called with this object.
        config: Hypercorn's settings.
        limits: the limits on clients. Default: ``app.limits``, else the default limits.
        recorder: takes the server's records if the application has no recorder.
        handle: has the application answer a request (``handler.handler_of``).
    """

    def __init__(
        self, app: Any, config: Config, limits: Limits | None = None, recorder: Recorder = NULL, *, handle: Handler
    ) -> None:
        self.app, self.config, self.given_recorder = app, config, recorder
        """``given_recorder``: the recorder for an application without one of its own."""
        self.limits = limits if limits is not None else limits_of(app)
        self.lifespan_state: dict[str, Any] = {}
        """The lifespan state. Each ASGI scope gets a copy of it (``scope["state"]``)."""
        self.phase: AsyncValue[Phase] = AsyncValue(Phase.SERVING)
        self.cut_at = math.inf
        """When the requests in flight are cancelled (trio's clock); infinite before ``DRAINING``."""
        self.connections: AsyncValue[int] = AsyncValue(0)
        """Open connections, without the reserved ones."""
        self.open: set[Drainable] = set()
        """The connections and WebSockets that a drain notifies."""
        self.on_drain: dict[object, Callable[[], object]] = {}
        """The callbacks of ``InboundRequest.on_drain``, by request."""
        self.accept_batch = 64
        """Connections accepted without a checkpoint. A small batch spreads a flood over all that share the socket."""
        self.in_flight = self.streams = 0
        """Requests in flight; and requests that count as streams, which are not in flight."""
        self.uploads = UploadSlots(self.limits)
        """The slots of requests whose body is still to come; these requests are not in flight."""
        self.late_at = math.inf
        """The time (``time.monotonic``) from which on ``on_late`` is called."""
        self.on_late: Callable[[], None] = _nothing
        """Called at each end of a request from ``late_at`` on: the event loop is not blocked. Must not wait."""
        self.reserve = Reserve()
        """The capacity for probes beyond ``max_connections`` and ``max_in_flight``."""
        self.timers = TimerQueue()
        self._heap_trimmer = HeapTrimmer(self.timers, lambda: self.in_flight)
        self.reader: Reader
        """The socket reader of the connections; the application's own, if it has one for its upstreams."""
        self.handle = handle
        """Answers an ``InboundRequest`` by the application (``handler.handler_of``)."""
        self.own_fields = OwnFields(config)
        self.heads = HeadReader(self.limits, Hosts((*self.limits.hosts, *config.server_names)))
        self.admission = Admission(self.limits.allow_networks, self.limits.deny_networks)
        """The peers that may make requests."""
        self.speaks_h2 = "h2" in config.alpn_protocols
        self.exhausted = trio.Event()
        """Set when ``max_requests`` have begun. The server's owner then stops it."""
        self.root_path = config.root_path
        self.keeps_alive = True
        """Whether HTTP/1.1 connections stay open after a response; false near ``memory_limit`` and during a drain."""
        self.keep_alive_timeout = self.idle_timeout = float(vars(config).get("keep_alive_timeout", KEEP_ALIVE_S))
        """Seconds that a connection may wait for its next request; ``idle_timeout`` is less during a drain."""
        self._make_room: Callable[[], bool] | None = getattr(app, "make_room", None)
        self._displaced = 0
        """Requests that were admitted beyond ``max_in_flight`` because the application displaced another one."""
        self._memory = MemoryLimit(self.limits.memory_limit) if self.limits.memory_limit is not None else None
        self._places = self.limits.max_in_flight if self._memory is None else 0
        """Requests in flight from which on a further one needs ``check_capacity``."""
        self._max_requests = _max_requests(config)
        self._allowed = self.limits.connections_allowed
        self._connections_total = self._requests_total = self._streams_total = 0
        self._failed = self._endless = 0
        self._refused: dict[int, int] = {}
        if (add_server := getattr(app, "add_server", None)) is not None:
            add_server(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the timers, the heap trimmer and, unless the application has one, the socket reader, until cancelled.

        The application's startup must be complete. ``task_status`` is started when connections can be served.
        """
        shared: Reader | None = getattr(self.app, "socket_reader", None)
        self.reader = new_reader() if shared is None else shared
        async with trio.open_nursery() as nursery:
            if shared is None:
                nursery.start_soon(self.reader.run)
            nursery.start_soon(self._heap_trimmer.run)
            task_status.started()
            await self.timers.run()

    @property
    def recorder(self) -> Recorder:
        """The application's recorder at the moment, or ``given_recorder``."""
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
            self.streams,
            self._streams_total,
        )

    def begin_draining(self, cut_at: float) -> None:
        """Enter ``DRAINING``, and have each connection end: with its next response, or idle after ``drain_idle``.

        The caller cancels the remaining connections at the time ``cut_at`` (trio's clock).
        """
        # First: the connections that are notified below compute deadlines from these values.
        self.cut_at = cut_at
        self.keeps_alive = False
        self.idle_timeout = self.limits.drain_idle
        self.phase.value = max(self.phase.value, Phase.DRAINING)
        self.reserve.clear("the server drains")
        for connection in tuple(self.open):
            connection.drain(trio.current_time() + self.limits.drain_idle)
        while self.on_drain:  # A callback may remove others: one request may end another.
            _, callback = self.on_drain.popitem()
            callback()

    def heads_for(self, peer: Peer) -> HeadReader:
        """The parser of the heads that ``peer`` sends over HTTP/1.1: if the peer is not admitted, one that refuses."""
        return self.heads if self.admission.admits(peer.client and peer.client[0]) else self.heads.refusing

    # Connections, and requests in flight.

    def connection_began(self) -> bool:
        """Count a connection in. Return False, without counting it, if there are ``connections_allowed`` already."""
        if self.connections.value >= self._allowed:
            return False
        self.connections.value += 1
        self._connections_total += 1
        return True

    def connection_ended(self) -> None:
        """Count a connection out."""
        self.connections.value -= 1

    def request_began(self) -> ErrorResponse | None:
        """Count a request in. Return the error response, without counting it, if it is not admitted."""
        in_flight = self.in_flight
        if in_flight >= self._places:
            if (error_response := self.check_capacity()) is not None:
                return error_response
            in_flight = self.in_flight  # check_capacity may have displaced a request.
        self.in_flight = in_flight = in_flight + 1
        if in_flight > self._heap_trimmer.peak:
            self._heap_trimmer.peak_rose(in_flight)
        self._requests_total += 1
        if self._requests_total == self._max_requests:
            self.exhausted.set()
        return None

    def check_capacity(self) -> ErrorResponse | None:
        """Return None if a further request may be in flight, else its error response. Also updates ``keeps_alive``."""
        if self.in_flight >= self.limits.max_in_flight and not self._displace_waiting():
            return OVERLOADED
        if self._memory is not None:
            share = self._memory.share()
            self.keeps_alive = share < NO_KEEP_ALIVE_SHARE and self.phase.value < Phase.DRAINING
            if share >= REFUSE_SHARE:
                return NO_MEMORY_LEFT
        return None

    def _displace_waiting(self) -> bool:
        """Have the application refuse a request that only waits, and return whether another one can take its place.

        The refused request stays in flight until its error response is sent. Until then more than ``max_in_flight``
        requests are in flight, by a share of 1 / ``DISPLACED_SHARE`` at most.
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
        """Count a request in, as a probe on the reserve if necessary. Return the error response if it is not admitted.

        On a ``reserved`` connection only a probe is admitted. ``body_length`` is -1 if it is unknown.
        """
        if reserved is not None and not self.is_probe(method, target, body_length):
            return NO_CONNECTION_LEFT
        error_response = self.request_began()
        return None if error_response is None or self.probe_began(method, target, body_length) else error_response

    def probe_began(self, method: str, target: bytes, body_length: int) -> bool:
        """Count a request in that ``request_began`` did not admit, if it is a probe and the reserve has room.

        Return whether it was counted in. A busy server must answer its probes, or a supervisor would kill it.
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
        if monotonic() >= self.late_at:  # note_progress, inlined.
            self.on_late()

    def uploads_ended(self) -> None:
        """Note that the last upload has ended."""
        self._heap_trimmer.long_requests_ended()

    def stream_began(self) -> bool:
        """Count a stream in. Return False, without counting it, if there are ``max_streams`` already."""
        if self.streams >= self.limits.max_streams:
            return False
        self.streams += 1
        self._streams_total += 1
        return True

    def stream_ended(self) -> None:
        """Count a stream out."""
        self.streams -= 1
        if not self.streams:
            self._heap_trimmer.long_requests_ended()
        self.note_progress()

    def takes_any_size(self, head: RequestHead) -> bool:
        """Whether the application takes a request of ``head`` although its body is larger than ``max_body``."""
        return isinstance(self.app, InboundApplication) and self.app.takes_any_size(head)

    def note_progress(self) -> None:
        """Call ``on_late`` if it is due. To be called after foreign code: the event loop is busy, but not blocked."""
        # time.monotonic and not trio's clock: this runs for every request, and costs one C call.
        if monotonic() >= self.late_at:
            self.on_late()

    def write_deadline(self) -> float:
        """The deadline (trio's clock) of a write that begins now.

        ``write_timeout`` from now, but at most ``cancel_timeout`` after ``cut_at``.
        """
        return min(trio.current_time() + self.limits.write_timeout, self.cut_at + self.limits.cancel_timeout)

    def unadmitted(self, error_response: ErrorResponse, head: AnyHead) -> ErrorResponse:
        """The response to a request that is not admitted: ``PREFLIGHT`` if only capacity is missing for a preflight.

        Otherwise ``error_response``. A 204 takes no more capacity than the 503, and without it a page could not read
        any 503, because its browser would not send the request.
        """
        app = self.app
        if error_response.status == 503 and isinstance(app, InboundApplication) and app.is_preflight(head):
            return PREFLIGHT
        return error_response

    def fields_and_body(
        self, error_response: ErrorResponse, request_id: str, head: AnyHead
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The header fields of an error response to ``head``, as the application completes them, and its body."""
        fields, body = error_response.fields_and_body(request_id)
        return self.completed_fields(head, fields), body

    def completed_fields(self, head: AnyHead, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The header fields of a response to ``head`` that the server makes of ``fields`` itself."""
        return [*self.app.error_response_fields(head, fields)] if isinstance(self.app, InboundApplication) else fields

    # Records.

    def count_rejected(self, error_response: ErrorResponse) -> None:
        """Count an error response of the server by its status."""
        if error_response is PREFLIGHT:
            return
        self._refused[error_response.status] = self._refused.get(error_response.status, 0) + 1

    def leaves_record(self, response: ServerResponse) -> bool:
        """Whether an ASGI application records ``response``: it keeps records, and was notified of the response.

        An ``InboundApplication`` files its records instead.
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
        version: str = "",
        fields: Sequence[tuple[bytes, bytes]] = (),
        bytes_sent: int = 0,
        counts: bool = True,
    ) -> None:
        """Write the access record of a request that no application records.

        ``version``, ``fields``: of the request, as far as they could be read. The client in the record is the peer, or
        the one that the application's ``client_of`` finds in ``fields`` (trusted proxies). ``counts``: call
        ``count_rejected`` too. ``started_at`` is on trio's clock.
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
            error_response.kind if error_response is not PREFLIGHT else None,
            client,
            scheme,
            error_response.detail,
            head=client_head(version, fields) if getattr(self.recorder, "takes_heads", False) else None,
        )
        self.recorder.record(ended)

    def show_unrecorded(self, request: InboundRequest) -> None:
        """Show an ended request that has no access record, if the given recorder shows requests."""
        recorder: Any = self.given_recorder
        if not getattr(recorder, "shows_requests", False):
            return
        path = request.target.partition(b"?")[0].decode("latin-1")
        facts = RequestFacts("", Trace(""), request.method, path, "", request.started)
        recorder.show(RequestEnded(facts, request.status or 499, trio.current_time(), request.bytes_sent))

    def note_failure(self, event: str, error: BaseException) -> None:
        """Count and log an exception that ended a connection or a request, with its class and location."""
        self._failed += 1
        self.note(event, described(error), error)

    def application_failed(self, what: str, crash: BaseException, *, gone: bool) -> None:
        """Log what an application raised. ``what`` is "request" or "websocket".

        ``gone``: the client had left before. Then the exception is how the application ended, and no failure:
        ``ClientGoneError`` is not logged, any other exception at level info.
        """
        if not gone:
            self.note_failure(f"{what}.crashed", crash)
        elif not holds_only(crash, ClientGoneError):
            self.note(f"{what}.abandoned", described(crash), crash, "info")

    def note_endless(self, reason: str) -> None:
        """Count and log an application that is cancelled for too many calls after the end (``fairness.py``)."""
        self._endless += 1
        self.note(
            "application.endless",
            f"an application was cancelled because it kept calling receive or send after its request's end ({reason})",
        )

    def connection_failed(self, error: BaseException) -> BaseException | None:
        """Log an exception of a connection's code, unless it only says that the client has gone.

        Return the part that must be raised again (cancels and the like), or None.
        """
        crash, rest = split_application_crash(error)
        if crash is not None and not isinstance(crash, _GONE):
            self.note_failure("connection.crashed", crash)
        return rest

    def note(self, event: str, message: str, error: BaseException | None = None, level: Level = "error") -> None:
        """Record one line. Without a recorder: log it with Python's logging, and show the traceback of an error.

        Secrets are hidden in both.
        """
        recorder = self.recorder
        if recorder is NULL:
            _log.log(logging.getLevelNamesMapping()[level.upper()], "%s: %s", event, _redactor.text(message))
            if error is not None and level == "error":
                show_crash(event, "", error, _redactor)
        else:
            recorder.record(LogMessage(level, event, message, error=error))


def _max_requests(config: Config) -> int | None:
    """Hypercorn's ``max_requests`` plus a random jitter, so that workers do not end together. None: no limit."""
    if config.max_requests is None:
        return None
    return config.max_requests + random.randint(0, config.max_requests_jitter)


def _nothing() -> None:
    """The default of ``on_late``."""
