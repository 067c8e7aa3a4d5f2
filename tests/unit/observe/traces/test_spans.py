from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.observe.timelines import FACTS, TRACE, attempt, partial_answer
from umbel.core.diagnostics.redact import Redactor
from umbel.core.events import RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Outcome, Trace
from umbel.observe.timeline import timeline_of
from umbel.observe.traces.spans import SpanMaker, span_count

STANDARD = {
    value
    for module in (client_attributes, error_attributes, http_attributes, server_attributes, url_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
# Of the incubating conventions: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
RESEND = "http.request.resend_count"


def spans_of(event: RequestEnded) -> list[ReadableSpan]:
    timeline = timeline_of(event, Redactor(), "head", epoch=1_000_000.0)
    spans = SpanMaker(Resource({}), "1").spans_of(timeline)
    assert len(spans) == span_count(timeline)
    return spans


def by_id(spans: list[ReadableSpan], span_id: int) -> ReadableSpan:
    (span,) = [span for span in spans if span.context is not None and span.context.span_id == span_id]
    return span


def named(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def ended(**more: Any) -> RequestEnded:
    return RequestEnded(**{"request": FACTS, "status": 200, "ended_at": 100.5, **more})


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_the_request_is_the_parent_of_its_calls_and_each_call_of_its_attempts() -> None:
    spans = spans_of(partial_answer())
    server = named(spans, "GET /dashboard/<int:user_id>")
    assert (server.kind, server.parent.span_id, server.parent.is_remote) == (
        SpanKind.SERVER,
        int("b7ad6b7169203331", 16),
        True,
    )
    for name, ids in {"user": (0x61, 0x62), "offers": (0x71, 0x72), "news": (0x81,)}.items():
        call = named(spans, f"call {name}")
        assert call.parent == server.context
        for span_id in ids:
            assert by_id(spans, span_id).parent == call.context
            assert by_id(spans, span_id).kind is SpanKind.CLIENT
    assert "call extra" not in {span.name for span in spans}, "it never began"
    assert {span.context.trace_id for span in spans} == {int(TRACE.trace_id, 16)}
    assert all(span.context.trace_flags.sampled for span in spans)


def test_times_are_those_of_the_timeline() -> None:
    spans = spans_of(partial_answer())
    start = 1_000_100 * 10**9
    server = named(spans, "GET /dashboard/<int:user_id>")
    assert (server.start_time, server.end_time) == (start, start + 1_002_000_000)
    retry = by_id(spans, 0x62)
    assert (retry.start_time, retry.end_time) == (start + 150_000_000, start + 250_000_000)


def test_retries_and_hedges_are_siblings_with_their_resend_count() -> None:
    spans = spans_of(partial_answer())
    counts = {span_id: attributes(by_id(spans, span_id)).get(RESEND) for span_id in (0x61, 0x62, 0x71, 0x72)}
    assert counts == {0x61: None, 0x62: 1, 0x71: None, 0x72: 1}
    assert attributes(by_id(spans, 0x72))["umbel.cause"] == "hedge"


def test_a_lost_hedge_is_cancelled_with_its_reason_and_is_no_error() -> None:
    lost = by_id(spans_of(partial_answer()), 0x71)
    assert attributes(lost)["umbel.cancelled"] == "lost-hedge"
    assert lost.status.status_code is StatusCode.UNSET


def test_an_attempt_that_the_deadline_cut_is_an_error_of_the_type_timeout() -> None:
    cut = by_id(spans_of(partial_answer()), 0x81)
    assert (attributes(cut)["error.type"], attributes(cut)["umbel.cancelled"]) == ("timeout", "the route's deadline")
    assert cut.status.status_code is StatusCode.ERROR


def test_the_deadline_and_the_missing_calls_are_events_of_the_request() -> None:
    server = named(spans_of(partial_answer()), "GET /dashboard/<int:user_id>")
    deadline, partial = server.events
    assert (deadline.name, deadline.timestamp) == ("umbel.deadline", 1_000_101 * 10**9)
    assert (partial.name, dict(partial.attributes or {})) == ("umbel.partial", {"umbel.missing": ("news",)})
    assert server.status.status_code is StatusCode.UNSET
    assert named(spans_of(ended()), "GET /dashboard/<int:user_id>").events == ()


def test_attributes_have_the_names_of_the_conventions_or_begin_with_umbel() -> None:
    for event in (partial_answer(), ended(status=500), ended(kind=Kind.CLIENT_GONE, status=499)):
        for span in spans_of(event):
            assert {name for name in attributes(span) if not name.startswith("umbel.")} <= STANDARD | {RESEND}


def test_required_attributes_of_both_kinds_are_there() -> None:
    spans = spans_of(partial_answer())
    server = attributes(named(spans, "GET /dashboard/<int:user_id>"))
    assert (
        server
        | {
            "http.request.method": "GET",
            "url.path": "/dashboard/42",
            "url.scheme": "http",
            "http.route": "/dashboard/<int:user_id>",
            "http.response.status_code": 200,
            "client.address": "192.0.2.7",
        }
        == server
    )
    client = attributes(by_id(spans, 0x61))
    assert (
        client
        | {
            "http.request.method": "GET",
            "server.address": "users-1",
            "server.port": 80,
            "http.response.status_code": 503,
            "error.type": "503",
        }
        == client
    )


@pytest.mark.parametrize(
    ("event", "error", "code"),
    [
        (ended(status=404), None, StatusCode.UNSET),
        (ended(status=500), "500", StatusCode.ERROR),
        (ended(status=502, kind=Kind.CONNECT, completed=False), "connect", StatusCode.ERROR),
        (ended(kind=Kind.INTERNAL), "internal", StatusCode.ERROR),
        (ended(status=499, kind=Kind.CLIENT_GONE), None, StatusCode.UNSET),
    ],
)
def test_a_server_span_is_an_error_for_5xx_and_for_a_broken_response(event, error: str | None, code) -> None:
    (span,) = spans_of(event)
    assert (attributes(span).get("error.type"), span.status.status_code) == (error, code)


def test_methods_that_no_standard_names_are_shown_as_other() -> None:
    facts = msgspec.structs.replace(FACTS, method="BREW", route="")
    (span,) = spans_of(ended(request=facts))
    assert span.name == "HTTP"
    assert attributes(span)["http.request.method"] == "_OTHER"
    assert attributes(span)["http.request.method_original"] == "BREW"


def test_an_attempt_of_a_shared_call_has_a_link_to_what_was_sent() -> None:
    shared = attempt(1, "a", 0.0, 0.1, trace=Trace("c" * 32), coalesced=True, span_id=5)
    outcomes = tuple(Outcome(name, "value", None, None, 100.0, 100.1, (shared,)) for name in ("a", "b"))
    spans = [span for span in spans_of(ended(calls=outcomes)) if span.kind is SpanKind.CLIENT]
    assert len({span.context.span_id for span in spans}) == 2
    for span in spans:
        (link,) = span.links
        assert (link.context.trace_id, link.context.span_id) == (int("c" * 32, 16), 5)


def test_lone_surrogates_in_a_path_do_not_reach_the_spans() -> None:
    facts = msgspec.structs.replace(FACTS, path="/a\udcff")
    (span,) = spans_of(ended(request=facts))
    assert attributes(span)["url.path"] == "/a?"
