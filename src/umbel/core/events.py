"""Events of requests, calls and attempts, and the interface of what records them.

Upstreams, compositions and the gateway give events to a ``Recorder``, which never calls back. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from .failure_kinds import Kind
from .model import Attempt, Outcome, RequestFacts

Level = Literal["debug", "info", "warning", "error"]


class RequestEnded(msgspec.Struct, frozen=True):
    """An inbound request is over. Exactly one per request, whoever ended it."""

    request: RequestFacts
    status: int
    """The status sent; 499 where the client had gone before an answer."""
    ended_at: float
    bytes_sent: int = 0
    completed: bool | None = None
    """Whether a composed answer was complete; None for other answers."""
    kind: Kind | None = None
    """The kind that decided an answer that is no success."""
    client: str = ""
    scheme: str = "http"
    detail: str = ""
    """Why it was refused or what went wrong, in one sentence; for records only."""
    own_ms: float | None = None
    """Milliseconds that a composed answer took beside its longest call; None for other answers."""
    of_client: bool = False
    """Whether all that an answer lacks is the client's own mistake."""
    calls: Sequence[Outcome] = ()
    """What became of each call that was made for it: in the order of the configuration or of the code, but where it was
    cut in that in which they ended."""


class CallEnded(NamedTuple):
    """A call of a composition has its outcome. Exactly one per call, but see ``Recorder`` for those that say
    nothing."""

    request: RequestFacts
    upstream: str
    outcome: Outcome
    items: int | None = None
    """How many distinct items an ``each`` made; None for a plain call."""


class AttemptEnded(NamedTuple):
    """An attempt is over, whatever came of it."""

    request: RequestFacts | None
    call: str
    upstream: str
    attempt: Attempt
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LogMessage:
    """Any other record: an internal error, a lost background task, a drop."""

    level: Level
    event: str
    """A stable dotted name, such as ``expression.failed``."""
    message: str
    request: RequestFacts | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


Event = RequestEnded | CallEnded | AttemptEnded | LogMessage


class Recorder(Protocol):
    """Recorder of events. ``record`` is a plain function: it never awaits, never raises and never blocks.

    One with ``takes_attempts = False`` has no use for ``AttemptEnded``: attempts stand in their call's outcome too.

    One with an attribute ``slow_call`` (seconds) is not given ``CallEnded`` of calls that say nothing: those that
    neither failed nor were attempted more than once, and took less than that. ``RequestEnded`` holds their outcomes all
    the same.
    """

    def record(self, event: Event) -> None:
        """Take one event."""


class NullRecorder:
    """Recorder that drops all events: the default."""

    takes_attempts = False

    def record(self, event: Event) -> None:
        """Drop the event."""


NULL = NullRecorder()
