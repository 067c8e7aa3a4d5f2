"""The levels of records: their names and OpenTelemetry's severity numbers. Pure data."""

from __future__ import annotations

from typing import Literal

LevelName = Literal["debug", "info", "warning", "error", "critical"]

SEVERITY: dict[LevelName, int] = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""SeverityNumber of the log data model (https://opentelemetry.io/docs/specs/otel/logs/data-model/)."""

WARNING = SEVERITY["warning"]
"""The severity from which on a record is never sampled away, wakes the writer at once, and has reserved room."""


def from_stdlib(number: int) -> LevelName:
    """Return the highest level that a level number of the standard library's ``logging`` reaches."""
    if number >= 50:
        return "critical"
    if number >= 40:
        return "error"
    if number >= 30:
        return "warning"
    return "info" if number >= 20 else "debug"
