"""What all connections of a server share: application, settings, limits, counters, and how far it is in stopping.

One per server, made by ``serve.py`` or, under stock Hypercorn, by the guard. It reads and writes no connection.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
from trio_util import AsyncValue

from ..events import NULL, Noted, Recorder, RequestEnded
from ..model import RequestFacts, Trace
from .drain import Phase
from .limits import Limits, limits_of
from .refusal import NO_MEMORY_LEFT, OVERLOADED, Refusal

if TYPE_CHECKING:
    from hypercorn.config import Config

_log = logging.getLogger("umbel.server")


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """A snapshot of a server's counters."""

    phase: Phase
    connections: int
    connections_total: int
    requests_in_flight: int
    requests_total: int
    refused: Mapping[int, int] = field(default_factory=dict)
    """Requests that the server answered itself, by status."""
    failed: int = 0
    """Connections that an exception ended."""


class Service:
    """One server's shared state."""

    def __init__(self, app: Any, config: Config, limits: Limits | None = None) -> None:
        self.app = app
        self.config = config
        self.limits = limits if limits is not None else limits_of(app)
        self.state: dict[str, Any] = {}
        """What the lifespan left for each request (ASGI: ``scope["state"]``, a copy each)."""
        self.phase: AsyncValue[Phase] = AsyncValue(Phase.SERVING)
        self.cut_at = math.inf
        """When what is in flight is cancelled; known from ``DRAINING`` on."""
        self.connections: AsyncValue[int] = AsyncValue(0)
        self.in_flight = 0
        self._allowed = self.limits.connections_allowed
        self._connections_total = 0
        self._requests_total = 0
        self._refused: dict[int, int] = {}
        self._failed = 0

    @property
    def recorder(self) -> Recorder:
        """Where the application's records go at the moment; nowhere if it has no recorder."""
        recorder: Recorder = getattr(self.app, "recorder", NULL)
        return recorder

    def statistics(self) -> ServiceStatistics:
        """A snapshot of the counters."""
        return ServiceStatistics(
            self.phase.value,
            self.connections.value,
            self._connections_total,
            self.in_flight,
            self._requests_total,
            dict(self._refused),
            self._failed,
        )

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

    def request_began(self) -> Refusal | None:
        """Count a request in, or say why it is not taken (then it is not counted)."""
        if self.in_flight >= self.limits.max_in_flight:
            return OVERLOADED
        if self.is_out_of_memory():
            return NO_MEMORY_LEFT
        self.in_flight += 1
        self._requests_total += 1
        return None

    def request_ended(self) -> None:
        """Count a request out."""
        self.in_flight -= 1

    def is_out_of_memory(self) -> bool:
        """Whether ``memory_limit`` is nearly reached."""
        return False

    def write_deadline(self) -> float:
        """When a write that begins now must have got on: its own limit, or what is left of a drain."""
        return min(trio.current_time() + self.limits.write_timeout, self.cut_at + self.limits.cancel_timeout)

    # Records.

    def record_refusal(
        self, refusal: Refusal, *, request_id: str, method: str = "", path: str = "", client: str = "",
        scheme: str = "http", started_at: float, bytes_sent: int = 0,
    ) -> None:  # fmt: skip
        """Record a request that the application never saw: one access record, with the reason."""
        self._refused[refusal.status] = self._refused.get(refusal.status, 0) + 1
        facts = RequestFacts(request_id, Trace(request_id), method, path, "", started_at)
        now = trio.current_time()
        ended = RequestEnded(facts, refusal.status, now, bytes_sent, None, refusal.kind, client, scheme, refusal.detail)
        self.recorder.record(ended)

    def note_failure(self, event: str, error: BaseException) -> None:
        """Log an exception that ended a connection or a request: once, with its class and where it was raised."""
        self._failed += 1
        self.note(event, f"{type(error).__name__} {_place(error)}: {error}", error)

    def note(self, event: str, message: str, error: BaseException | None = None) -> None:
        """Log one line: into the application's records, or with Python's logging if it has none."""
        recorder = self.recorder
        if recorder is NULL:
            _log.error("%s: %s", event, message)
        else:
            recorder.record(Noted("error", event, message, error=error))


def _place(error: BaseException) -> str:
    """File and line of the innermost frame."""
    frame = error.__traceback__
    if frame is None:
        return "(nowhere)"
    while frame.tb_next is not None:
        frame = frame.tb_next
    return f"at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
