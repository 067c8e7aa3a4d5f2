"""Events of requests, calls and attempts, and the interface of a recorder that takes them. No I/O.

Upstreams, compositions and the gateway give each event to a ``Recorder``. A recorder never calls back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from .failure_kinds import BREAKS, Kind
from .http.client_head import ClientHead
from .identity import AuthResult
from .model import Attempt, Outcome, RequestFacts

Level = Literal["debug", "info", "warning", "error"]


class RequestEnded(msgspec.Struct, frozen=True):
    """An inbound request is over. There is exactly one per request, however the request ended."""

    request: RequestFacts
    status: int
    """The status of the response; 499 if the client left before a response was begun."""
    ended_at: float
    """``trio.current_time()`` at the end of the request."""
    bytes_sent: int = 0
    """Bytes of response content that were sent."""
    completed: bool | None = None
    """Whether no call of a composed response failed; None for other responses."""
    kind: Kind | None = None
    """The failure kind that decided an unsuccessful response; None for a success."""
    client: str = ""
    """The client's address."""
    scheme: str = "http"
    detail: str = ""
    """Why the request was refused or failed, in one sentence; for records only."""
    own_ms: float | None = None
    """Milliseconds until a composed response was made, minus those of its longest chain of calls; None for others."""
    of_client: bool = False
    """Whether every failure in the response is the client's own mistake."""
    calls: Sequence[Outcome] = ()
    """The outcome of each call of the request, in the order of the configuration or code; in the order of their ends if
    the request was cut short."""
    head: ClientHead | None = None
    """Parts of the request's head, if the recorder takes them (``Recorder``) and the head was read."""
    switched_at: float | None = None
    """When the connection became a WebSocket (status 101), which ends the HTTP request; None: it did not."""
    auth: AuthResult | None = None
    """What authentication has come to; None: the route has no ``auth``, or the request did not get so far."""
    limit: str = ""
    """The name of the section ``[limits.NAME]`` that refused the request; empty: none did."""

    @property
    def broke_off(self) -> bool:
        """Whether the response, or the WebSocket, broke off behind a status that says success (``BREAKS``).

        Not of composed answers: ``completed`` and ``kind`` say how those ended.
        """
        return self.completed is None and self.status < 400 and self.kind in BREAKS


class RequestStarted(msgspec.Struct, frozen=True):
    """A stream (a response in parts, or a WebSocket) has lasted for ``Recorder.lasting_after``, and goes on.

    Its ``RequestEnded`` follows.
    """

    request: RequestFacts
    at: float
    """``trio.current_time()`` of this event."""
    client: str = ""
    """The client's address."""
    scheme: str = "http"
    auth: AuthResult | None = None
    """As of ``RequestEnded``."""


class CallEnded(NamedTuple):
    """A call of a composition has its outcome. There is exactly one per call, except with ``Recorder.slow_call``."""

    request: RequestFacts
    upstream: str
    outcome: Outcome
    items: int | None = None
    """Number of distinct items of an ``each`` call; None for another call."""


class AttemptEnded(NamedTuple):
    """An attempt is over, with any result."""

    request: RequestFacts | None
    call: str
    """The name of the call."""
    upstream: str
    attempt: Attempt
    detail: str = ""
    """Why the attempt failed, in one sentence; empty if it did not. For records only."""


@dataclass(frozen=True, slots=True)
class LogMessage:
    """Any other record, such as an internal error."""

    level: Level
    event: str
    """The stable dotted name of the event, such as ``expression.failed``."""
    message: str
    request: RequestFacts | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


Event = RequestEnded | RequestStarted | CallEnded | AttemptEnded | LogMessage


class Recorder(Protocol):
    """Recorder of events. ``record`` is a plain function that must not raise or block.

    Four optional attributes say what the recorder needs:

    - ``takes_attempts = False``: the recorder gets no ``AttemptEnded``. Attempts are in the call's outcome too.
    - ``slow_call`` (seconds): the recorder gets no ``CallEnded`` for a call that succeeded with one attempt in less
      than this time. ``RequestEnded.calls`` still holds the outcome.
    - ``takes_heads = True``: ``RequestEnded.head`` is set.
    - ``lasting_after`` (seconds): the recorder gets a ``RequestStarted`` for a stream that lasts this long.
    """

    def record(self, event: Event) -> None:
        """Take one event."""


class NullRecorder:
    """Recorder that drops all events; the default."""

    takes_attempts = False

    def record(self, event: Event) -> None:
        """Drop the event."""


NULL = NullRecorder()
