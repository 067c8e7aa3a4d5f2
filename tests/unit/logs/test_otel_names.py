"""The names of fields, compared with OpenTelemetry's published semantic conventions."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.logs.event_factories import call_ended, log_message, request_ended
from umbel.core.diagnostics.exception_fields import exception_fields
from umbel.core.diagnostics.redact import Redactor
from umbel.core.identity import AuthResult
from umbel.logs.records.encode import Encoder, finish
from umbel.logs.records.level import SEVERITY
from umbel.logs.records.record import to_record

# The log data model has these as fields of its own, without names for JSON lines; no convention names the others.
OWN = frozenset(
    ["ts", "level", "severity", "event", "msg", "logger", "seq", "task", "worker", "request_id", "trace_id", "span_id"]
)
OURS = frozenset(
    [
        "duration_ms",
        "own_ms",
        "completed",
        "kind",
        "call",
        "upstream",
        "state",
        "attempts",
        "attempts_total",
        "items",
        "failed_items",
        "failed_items_total",
        "number",
        "replica",
        "reused",
        "cause",
        "places",
        "fields",
        "leaves",
        "leaves_total",
        "sample",
        "truncated",
    ]
)


OURS_OF_AUTH = frozenset(["auth.kind", "auth.name", "auth.outcome"])
"""The conventions name users and security rules, but not how a client was authenticated."""


def published() -> set[str]:
    """The names of all attributes of the conventions, including experimental ones."""
    names: set[str] = set()
    for package in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        home = importlib.import_module(package)
        for module in pkgutil.iter_modules(home.__path__, f"{package}."):
            members = vars(importlib.import_module(module.name))
            names |= {value for name, value in members.items() if name.isupper() and isinstance(value, str)}
    return names


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize(
    "event",
    [
        request_ended(500, completed=False, client="::1", auth=AuthResult("invalid", "jwt", "users")),
        call_ended(),
        log_message(error=ExceptionGroup("g", [OSError()])),
    ],
    ids=["access", "calls", "app"],
)
def test_every_dotted_name_is_a_published_convention_and_every_other_is_listed(event: Any) -> None:
    _, level, name, line_, _ = to_record(event)
    line = finish(Encoder(Redactor(), service="t", worker="1").struct(level, name, line_), 1)
    names = set(keys(json.loads(line)))

    assert {name for name in names if "." in name} <= published() | OURS_OF_AUTH
    assert {name for name in names if "." not in name} <= OWN | OURS


def test_no_convention_has_names_that_begin_like_those_of_auth() -> None:
    assert {name for name in published() if name.startswith("auth.")} == set()


def test_the_names_of_exceptions_and_of_the_bridge_are_published() -> None:
    names = published()
    for name in exception_fields(ValueError()):
        assert name in names
    for name in ("code.file.path", "code.line.number", "code.function.name", "code.stacktrace", "thread.name"):
        assert name in names


def test_the_severities_are_those_of_the_log_data_model() -> None:
    # https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
    assert SEVERITY == {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
