"""A recorder that keeps events in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel.core.events import CallEnded, Event, LogMessage, RequestEnded
from umbel.core.failure_kinds import Kind

if TYPE_CHECKING:
    from umbel.gateway.app import Umbel


class Records:
    """A recorder; ``events`` has every event in order, the properties those of one class."""

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
        """The names of the recorded calls, sorted."""
        return sorted(event.outcome.call for event in self.calls)

    @property
    def logged(self) -> list[LogMessage]:
        return [event for event in self.events if isinstance(event, LogMessage)]


def check_cancelled(app: Umbel, records: Records) -> None:
    """Assert that a request which the server cancelled is not in flight, and that it has one record, the last one."""
    assert app.statistics().requests_in_flight == 0
    # A request that is cancelled before the application was called has no record.
    assert len(records.requests) == 1 or not records.events
    if records.events:
        # The request ends after all its calls, so its record is the last.
        assert records.events[-1] is records.requests[0]
        assert records.requests[0].kind in (None, Kind.CANCELLED, Kind.STATUS)
    assert len({call.outcome.call for call in records.calls}) == len(records.calls)
