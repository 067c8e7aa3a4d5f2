"""The levels of records: their names, and OpenTelemetry's number of each.

Read by everything that makes, keeps or filters records. Pure data.
"""

from __future__ import annotations

from typing import Literal

LevelName = Literal["debug", "info", "warning", "error", "critical"]

SEVERITY: dict[LevelName, int] = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""SeverityNumber of the log data model (https://opentelemetry.io/docs/specs/otel/logs/data-model/)."""

WARNING = SEVERITY["warning"]
"""From here on a record is urgent: never sampled away, written at once, and there is room kept for it."""


def from_stdlib(number: int) -> LevelName:
    """The level that a number of the standard library's logging belongs to: the highest that it reaches."""
    if number >= 50:
        return "critical"
    if number >= 40:
        return "error"
    if number >= 30:
        return "warning"
    return "info" if number >= 20 else "debug"
