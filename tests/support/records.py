"""A recorder that keeps what it takes, for tests to look at."""

from __future__ import annotations

from umbel.events import CallEnded, Event, Noted, RequestEnded


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
    def notes(self) -> list[Noted]:
        return [event for event in self.events if isinstance(event, Noted)]
