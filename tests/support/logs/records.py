"""A recorder that keeps what it takes, for tests to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel.core.events import CallEnded, Event, LogMessage, RequestEnded
from umbel.core.failure_kinds import Kind

if TYPE_CHECKING:
    from umbel.gateway.app import Umbel


class Records:
    """Events in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)

    @property
    def requests(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]

    @property
    def calls(self) -> list[CallEnded]:
        return [event for event in self.events if isinstance(event, CallEnded)]

    @property
    def ended_calls(self) -> list[str]:
        """The names of the calls that are recorded, sorted."""
        return sorted(event.outcome.call for event in self.calls)

    @property
    def logged(self) -> list[LogMessage]:
        return [event for event in self.events if isinstance(event, LogMessage)]


def check_cancelled(app: Umbel, records: Records) -> None:
    """A request that a server cancelled at some step has left nothing, and has one record, the last."""
    assert app.statistics().requests_in_flight == 0
    # A cut before the first step of all may come before the application was called.
    assert len(records.requests) == 1 or not records.events
    if records.events:
        # The request's record comes last, when all else has ended and been recorded.
        assert records.events[-1] is records.requests[0]
        assert records.requests[0].kind in (None, Kind.CANCELLED, Kind.STATUS)
    assert len({call.outcome.call for call in records.calls}) == len(records.calls)
