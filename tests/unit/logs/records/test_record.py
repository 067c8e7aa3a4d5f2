"""The fields, levels and bounds of each kind of record, and the encoding of odd values."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

import pytest
from msgspec import structs

from tests.support.logs.event_factories import TRACE_ID, attempt, call_ended, log_message, request_ended, request_facts
from umbel.core.diagnostics.exception_fields import STACK_FRAMES_MAX, exception_fields
from umbel.core.diagnostics.redact import Redactor
from umbel.core.events import RequestStarted
from umbel.core.failure_kinds import Kind
from umbel.core.identity import AuthResult
from umbel.core.model import FailedItem, Failure, Outcome
from umbel.logs.records.encode import RECORD_BYTES_MAX, Encoder, finish
from umbel.logs.records.record import CALLS_MAX, METHOD_CHARS_MAX, PARTS_MAX, PATH_CHARS_MAX, to_record

AT_NS = 1_772_600_767_890_123_456
HERE = {"service.name": "umbel", "host.name": socket.gethostname(), "process.pid": os.getpid()}
THREAD = {"task": f"thread {threading.current_thread().name}"}


def encoded(event: Any) -> bytes:
    stream, level, name, line, _ = to_record(event)
    encoder = Encoder(Redactor(), service="umbel", clock=lambda: AT_NS)
    return finish(encoder.struct(level, name, line, stream != "app"), 7)


def written(event: Any) -> dict[str, Any]:
    data = encoded(event)
    assert data.endswith(b"\n")
    assert len(data.decode().splitlines()) == 1
    return json.loads(data)


def record_of_message(*args: Any, **fields: Any) -> dict[str, Any]:
    return written(log_message(*args, **fields))


def test_records_encoded_together_may_be_none_empty_or_too_long() -> None:
    encoder = Encoder(Redactor(), service="umbel", clock=lambda: AT_NS)
    members = [b'"a":1', b"", b'"b":2']
    lines = [json.loads(finish(line, 1)) for line in encoder.complete("info", "e", members)]
    assert [line.keys() & {"a", "b"} for line in lines] == [{"a"}, set(), {"b"}]
    long = b'"a":"%b"' % (b"x" * RECORD_BYTES_MAX)
    cut, whole = (json.loads(finish(line, 1)) for line in encoder.complete("info", "e", [long, b'"b":2']))
    assert (cut["truncated"], whole["b"]) == (True, 2)
    assert encoder.complete("info", "e", []) == []
    assert len(encoder.complete("info", "e", [b""])) == 1


def test_the_record_of_a_request_has_opentelemetrys_names() -> None:
    event = request_ended(bytes_sent=123, completed=True, client="127.0.0.1", own_ms=0.43211)

    assert written(event) == {
        "ts": "2026-03-04T05:06:07.890123Z",
        "seq": 7,
        **THREAD,
        "level": "info",
        "severity": 9,
        "event": "request.end",
        "request_id": "req-1",
        "trace_id": TRACE_ID,
        "http.request.method": "GET",
        "url.path": "/dashboard/42",
        "http.route": "/dashboard/<user_id>",
        "http.response.status_code": 200,
        "duration_ms": 250.0,
        "own_ms": 0.432,
        "http.response.body.size": 123,
        "completed": True,
        "client.address": "127.0.0.1",
        "url.scheme": "http",
        **HERE,
    }


@pytest.mark.parametrize(
    ("auth", "fields"),
    [
        (None, {}),
        (AuthResult("admitted", "jwt", "users"), {"auth.kind": "jwt", "auth.name": "users"}),
        (AuthResult("missing"), {"auth.outcome": "missing"}),
        (
            AuthResult("unknown-key", "api-key", "partners"),
            {"auth.kind": "api-key", "auth.name": "partners", "auth.outcome": "unknown-key"},
        ),
    ],
    ids=["route without auth", "admitted", "missing", "refused"],
)
def test_the_record_of_a_request_says_what_authentication_came_to(
    auth: AuthResult | None, fields: dict[str, str]
) -> None:
    line = written(request_ended(auth=auth))

    assert {name: value for name, value in line.items() if name.startswith("auth.")} == fields


def test_the_record_of_a_streams_start_names_the_section_that_admitted_it() -> None:
    event = RequestStarted(request_facts(), 11.0, auth=AuthResult("admitted", "jwt", "users"))

    line = written(event)
    assert (line["event"], line["auth.kind"], line["auth.name"]) == ("request.start", "jwt", "users")


def test_the_record_of_a_request_lists_calls_with_time_outcome_and_attempts() -> None:
    failed = Failure.of(Kind.TIMEOUT, "late")
    calls = (
        Outcome("user", "value", {}, None, 10.0, 10.0032144, (attempt(status=200),)),
        Outcome("items", "value", [], None, 10.0, 10.1, (attempt(), attempt(2)), (FailedItem((0,), failed),)),
        Outcome("orders", "failed", None, failed, 10.0, 10.25, (attempt(kind=Kind.TIMEOUT),)),
        Outcome("badge", "skipped"),
    )

    assert written(request_ended(calls=calls))["calls"] == [
        {"name": "user", "ms": 3.214, "outcome": "ok", "attempts": 1},
        {"name": "items", "ms": 100.0, "outcome": "partial", "attempts": 2},
        {"name": "orders", "ms": 250.0, "outcome": "timeout", "attempts": 1},
        {"name": "badge", "ms": None, "outcome": "skipped", "attempts": 0},
    ]


def test_the_record_of_a_request_lists_a_bounded_number_of_calls_and_counts_all() -> None:
    calls = tuple(Outcome(f"c{number}", "value", 1, None, 10.0, 10.1) for number in range(CALLS_MAX + 1))

    line = written(request_ended(calls=calls))
    assert (len(line["calls"]), line["calls_total"]) == (CALLS_MAX, CALLS_MAX + 1)


@pytest.mark.parametrize(
    ("event", "level", "severity"),
    [
        (request_ended(200, completed=True), "info", 9),
        (request_ended(404), "info", 9),
        (request_ended(499, kind=Kind.CLIENT_GONE), "info", 9),
        (request_ended(200, completed=False), "warning", 13),
        (request_ended(500), "error", 17),
        (request_ended(200, kind=Kind.INTERNAL), "error", 17),
        (request_ended(101, kind=Kind.INTERNAL), "error", 17),
        (request_ended(200, kind=Kind.CLIENT_GONE), "info", 9),
        (request_ended(200, kind=Kind.CANCELLED), "info", 9),
        (request_ended(504, kind=Kind.TIMEOUT, completed=False), "error", 17),
        (request_ended(400, kind=Kind.BAD_REQUEST, completed=False, of_client=True), "info", 9),
        (request_ended(200, completed=False, of_client=True), "info", 9),
        (request_ended(502, kind=Kind.BAD_REQUEST, completed=False), "error", 17),
        (request_ended(404, kind=Kind.STATUS, completed=False), "warning", 13),
        (request_ended(501, kind=Kind.BAD_REQUEST), "info", 9),
        (request_ended(505, kind=Kind.BAD_REQUEST), "info", 9),
        (request_ended(501), "error", 17),
    ],
)
def test_a_partial_response_is_a_warning_and_a_server_error_an_error(event: Any, level: str, severity: int) -> None:
    record = written(event)

    assert (record["level"], record["severity"]) == (level, severity)


def test_the_record_of_a_call_lists_its_attempts() -> None:
    attempts = (
        attempt(kind=Kind.CONNECT, ended_at=10.05),
        attempt(2, started_at=10.05, status=503, reused=True, coalesced=True),
    )
    failure = Failure(Kind.STATUS, 502, "users answered 503", received_status=503)
    event = call_ended(Outcome("profile", "failed", None, failure, 10.0, 10.1, attempts))

    record = written(event)

    assert record["event"] == "call.end"
    assert (record["call"], record["upstream"], record["state"], record["kind"]) == (
        "profile",
        "users",
        "failed",
        "status",
    )
    assert record["level"] == "warning"
    assert record["msg"] == "users answered 503"
    assert record["http.response.status_code"] == 503
    assert record["duration_ms"] == 100.0
    assert record["attempts"] == [
        {"number": 1, "replica": "http://127.0.0.1:9001", "duration_ms": 50.0, "kind": "connect"},
        {
            "number": 2,
            "replica": "http://127.0.0.1:9001",
            "duration_ms": 50.0,
            "http.response.status_code": 503,
            "reused": True,
            "coalesced": True,
        },
    ]
    assert "attempts_total" not in record


def test_a_call_that_never_began_has_no_duration() -> None:
    failure = Failure.of(Kind.DEPENDENCY, "profile failed")

    record = written(call_ended(Outcome("offers", "failed", None, failure)))

    assert "duration_ms" not in record
    assert record["level"] == "info"


def test_a_call_that_failed_by_an_internal_error_is_an_error() -> None:
    failure = Failure.of(Kind.INTERNAL, "the expression raised")

    assert written(call_ended(Outcome("offers", "failed", None, failure)))["level"] == "error"


@pytest.mark.parametrize("kind", [Kind.BAD_REQUEST, Kind.TOO_MANY])
@pytest.mark.parametrize(("status", "public", "level"), [(400, "The body is a list.", "info"), (502, "", "warning")])
def test_a_call_that_failed_by_a_mistake_of_the_client_is_no_warning(
    kind: Kind, status: int, public: str, level: str
) -> None:
    outcome = Outcome("offers", "failed", None, Failure.of(kind, "items", status=status, public=public))
    assert written(call_ended(outcome))["level"] == level


def test_an_each_is_a_warning_unless_only_the_client_made_its_items_fail() -> None:
    mistake = FailedItem((0,), Failure.of(Kind.BAD_REQUEST, "d", status=400, public="The body is a list."))
    reset = FailedItem((1,), Failure.of(Kind.RESET, "d"))
    for failed, level in (((mistake,), "info"), ((mistake, reset), "warning"), ((reset, mistake), "warning")):
        outcome = Outcome("offers", "value", [], failed_items=failed)
        assert written(call_ended(outcome))["level"] == level


def test_failed_items_and_attempts_beyond_the_bound_are_counted_not_listed() -> None:
    failed = tuple(FailedItem((place,), Failure.of(Kind.TIMEOUT, "late")) for place in range(PARTS_MAX + 1))
    attempts = tuple(attempt(status=200) for _ in range(PARTS_MAX + 1))
    outcome = Outcome("items", "value", [], None, 10.0, 11.0, attempts, failed)

    record = written(call_ended(outcome, items=30))

    assert record["items"] == 30
    assert record["kind"] == "timeout"
    assert len(record["attempts"]) == len(record["failed_items"]) == PARTS_MAX
    assert record["attempts_total"] == record["failed_items_total"] == PARTS_MAX + 1
    assert record["failed_items"][0] == {"places": [0], "kind": "timeout", "msg": "late"}


def test_the_value_of_a_call_is_never_recorded() -> None:
    outcome = Outcome("profile", "value", "the-secret", None, 10.0, 10.1, headers=(("x-secret", "the-secret"),))

    assert b"the-secret" not in encoded(call_ended(outcome))


def test_a_log_message_has_its_request_its_fields_and_its_exception() -> None:
    try:
        raise ValueError("too blue")
    except ValueError as error:
        record = record_of_message(
            "shape failed", level="error", request=request_facts(), fields={"line": 3}, error=error
        )

    assert record["request_id"] == "req-1"
    assert record["http.route"] == "/dashboard/<user_id>"
    assert record["fields"] == {"line": 3}
    assert record["exception.type"] == "builtins.ValueError"
    assert record["exception.message"] == "too blue"
    assert "test_record.py" in record["exception.stacktrace"]


def raise_below(frames: int) -> None:
    if frames:
        raise_below(frames - 1)
        return
    raise ValueError("deep")


def test_a_deep_traceback_keeps_the_innermost_frames_and_counts_the_others() -> None:
    try:
        try:
            raise_below(3 * STACK_FRAMES_MAX)
        except ValueError as cause:
            raise ExceptionGroup("group", [KeyError("leaf")]) from cause
    except ExceptionGroup as error:
        stack = exception_fields(error)["exception.stacktrace"]

    assert isinstance(stack, str)
    # One frame of this test, one of each level of the recursion and one of its end.
    assert f"  [{2 * STACK_FRAMES_MAX + 2} outer frames are left out]\n" in stack
    assert stack.count(" outer frames are left out]") == 1
    assert 'raise ValueError("deep")' in stack
    assert "KeyError: 'leaf'" in stack


def test_every_leaf_of_an_exception_group_is_recorded() -> None:
    group = ExceptionGroup("two", [KeyError("left"), ExceptionGroup("inner", [OSError("right")])])

    record = record_of_message("group", error=group)

    stack = record["exception.stacktrace"]
    assert record["leaves"] == ["builtins.KeyError: 'left'", "builtins.OSError: right"]

    assert "KeyError: 'left'" in stack
    assert "OSError: right" in stack


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
def test_a_control_character_is_escaped(code: int) -> None:
    data = encoded(log_message(f"a{chr(code)}b"))

    assert chr(code) not in data.decode()[:-1]
    assert json.loads(data)["msg"] == f"a{chr(code)}b"


def test_text_of_any_language_is_not_escaped() -> None:
    assert "Doldenblütler 🌼".encode() in encoded(log_message("Doldenblütler 🌼"))


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def endless() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Rude(), "<Rude>"),
        ("\udcff", "\\udcff"),
        (10**5000, "<int>"),
        (2**70, 2**70),
        ({"\udcff": 1}, {"\\udcff": 1}),
        (b"\xff\x00ok", "\\xff\x00ok"),
        (float("inf"), None),
    ],
    ids=["rude", "surrogate", "huge", "big", "surrogate key", "bytes", "infinite"],
)
def test_a_value_without_a_json_form_is_converted(value: Any, said: Any) -> None:
    record = record_of_message("odd", level="warning", fields={"value": value, "fine": 1})

    assert record["fields"] == {"value": said, "fine": 1}
    assert "truncated" not in record


def test_a_value_that_contains_itself_is_recorded_to_a_bounded_depth() -> None:
    assert "<list>" in str(record_of_message("odd", fields={"value": endless()})["fields"])


def test_a_record_beyond_the_bound_is_shortened_and_marked_as_truncated() -> None:
    fields = {"value": "\x01" * RECORD_BYTES_MAX, "fine": 1}

    record = record_of_message("odd", level="warning", fields=fields)

    assert record["truncated"] is True
    assert (record["level"], record["msg"], record["fields"]["fine"]) == ("warning", "odd", 1)
    assert record["fields"]["value"].startswith("\x01\x01")
    assert record["ts"] == "2026-03-04T05:06:07.890123Z"
    assert record["process.pid"] == os.getpid()


def test_a_long_path_or_method_is_cut_in_the_access_record() -> None:
    long = structs.replace(request_facts(), method="GET" * 1000, path="/=" + "secret.a." * 900)
    record = written(request_ended(404, request=long))
    assert len(record["url.path"]) == PATH_CHARS_MAX + 1
    assert record["url.path"].endswith("…")
    assert len(record["http.request.method"]) == METHOD_CHARS_MAX + 1


def test_a_cut_path_shows_no_part_of_a_userinfo() -> None:
    path = "/" + "a" * (PATH_CHARS_MAX - 20) + "/http://user:hunter2-and-more@host/"
    assert "hunter" not in written(request_ended(request=structs.replace(request_facts(), path=path)))["url.path"]


def test_an_object_without_a_json_form_is_recorded_by_its_repr() -> None:
    assert record_of_message(fields={"where": range(3), "not a number": float("nan")})["fields"] == {
        "where": "range(0, 3)",
        "not a number": None,
    }


def test_a_record_is_never_longer_than_its_bound() -> None:
    fields = {str(number): "\x00" * 2000 for number in range(200)}

    data = encoded(log_message("x", fields=fields))

    assert len(data) <= RECORD_BYTES_MAX
    assert json.loads(data)["truncated"] is True


def test_an_exception_whose_text_raises_is_recorded_by_its_type() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert record_of_message(error=MuteError())["exception.message"] == "<MuteError>"
