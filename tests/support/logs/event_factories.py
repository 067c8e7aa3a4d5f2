"""Factories of events with defaults, for tests of recorders."""

from __future__ import annotations

from typing import Any

from umbel.core.events import CallEnded, LogMessage, RequestEnded
from umbel.core.model import Attempt, Outcome, RequestFacts, Trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def request_facts(**changes: Any) -> RequestFacts:
    facts: dict[str, Any] = {
        "request_id": "req-1",
        "trace": Trace(TRACE_ID),
        "method": "GET",
        "path": "/dashboard/42",
        "route": "/dashboard/<user_id>",
        "started_at": 10.0,
    }
    return RequestFacts(**facts | changes)


def request_ended(status: int = 200, **changes: Any) -> RequestEnded:
    return RequestEnded(changes.pop("request", request_facts()), status, changes.pop("ended_at", 10.25), **changes)


def attempt(number: int = 1, **changes: Any) -> Attempt:
    return Attempt(
        number, "http://127.0.0.1:9001", changes.pop("started_at", 10.0), changes.pop("ended_at", 10.1), **changes
    )


def call_ended(outcome: Outcome | None = None, **changes: Any) -> CallEnded:
    if outcome is None:
        outcome = Outcome("profile", "value", {"id": 42}, None, 10.0, 10.1, (attempt(status=200),))
    return CallEnded(request_facts(), "users", outcome, **changes)


def log_message(message: str = "hello", **changes: Any) -> LogMessage:
    return LogMessage(changes.pop("level", "info"), changes.pop("event", "test.note"), message, **changes)
