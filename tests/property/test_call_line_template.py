"""The line of a call's record is the same rendered from a template and encoded anew, for any values."""

from __future__ import annotations

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from umbel.core.diagnostics.redact import Redactor
from umbel.core.events import CallEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt, Outcome, RequestFacts, Trace
from umbel.logs.records.call_line_template import TEMPLATES_MAX, CallLineTemplates
from umbel.logs.records.encode import RECORD_BYTES_MAX, Encoder
from umbel.logs.records.record import to_record

NAMES = st.one_of(
    st.sampled_from(
        ["orders", "token", "a b", 'quo"te', "é", "\x7f", "eyJhbGciOi.x.y", "\x01request\x01", "p=1&password=x"]
    ),
    st.text(max_size=12),
)
IDS = st.one_of(
    st.uuids().map(lambda each: each.hex),
    st.sampled_from(["", "a-b", "é", 'x"y', "eyJhbGciOi", "bearer x", "١٢"]),
    st.text(max_size=12),
)
TIMES = st.floats(0, 1e6)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    began = draw(TIMES)
    return Attempt(
        draw(st.sampled_from([1, 1, 1, 2])),
        draw(st.one_of(st.just("http://127.0.0.1:9001"), st.just("http://u:secret@host"), NAMES)),
        began,
        began + draw(TIMES),
        draw(st.sampled_from([None, 200, 404])),
        draw(st.sampled_from([None, None, None, Kind.RESET])),
        draw(st.booleans()),
        draw(st.sampled_from(["first", "first", "retry"])),
        draw(st.sampled_from([False, False, True])),
    )


@st.composite
def events(draw: st.DrawFn) -> CallEnded:
    began = draw(TIMES)
    facts = RequestFacts(draw(IDS), Trace(draw(st.uuids()).hex), "GET", "/x", draw(NAMES), began)
    outcome = Outcome(
        draw(NAMES),
        "value",
        None,
        None,
        draw(st.sampled_from([began, None])),
        began + draw(TIMES),
        tuple(draw(st.lists(attempts(), min_size=1, max_size=2))),
    )
    return CallEnded(facts, draw(NAMES), outcome, draw(st.sampled_from([None, None, 3])))


ORDINARY = CallEnded(
    RequestFacts("00ff", Trace("0" * 32), "GET", "/x", "/x/<id>", 1.0),
    "orders",
    Outcome("orders", "value", {}, None, 1.0, 1.25, (Attempt(1, "http://127.0.0.1:9002", 1.0, 1.2, 200, None, True),)),
)


@given(st.lists(events(), min_size=1, max_size=6))
@example([ORDINARY, ORDINARY])
def test_a_line_from_a_template_equals_the_line_encoded_anew(made: list[CallEnded]) -> None:
    encoder = Encoder(Redactor(()), service="umbel", clock=lambda: 0)
    templates = CallLineTemplates(encoder.members)
    for event in [*made, *made]:
        rendered = templates.render(event)
        if rendered is not None:
            _, level, name, line, _ = to_record(event)
            assert encoder.complete(level, name, [rendered]) == [encoder.struct(level, name, line)]


def test_lines_completed_together_equal_those_completed_alone() -> None:
    encoder = Encoder(Redactor(()), service="umbel", clock=lambda: 0)
    templates = CallLineTemplates(encoder.members)
    members = [templates.render(ORDINARY._replace(upstream=name)) for name in ("a", "b", "c" * RECORD_BYTES_MAX)]
    for several in (members[:1], members[:2], members, members[::-1]):
        assert None not in several
        rendered = encoder.complete("info", "call.end", [each or b"" for each in several])
        assert rendered == [encoder.complete("info", "call.end", [each or b""])[0] for each in several]


def test_a_call_with_one_successful_attempt_is_rendered() -> None:
    encoder = Encoder(Redactor(()), service="umbel", clock=lambda: 0)
    rendered = CallLineTemplates(encoder.members).render(ORDINARY)
    assert rendered is not None
    assert msgspec.json.decode(b"{" + rendered + b"}")["duration_ms"] == 250.0


def test_templates_are_bounded() -> None:
    encoder = Encoder(Redactor(()), service="umbel", clock=lambda: 0)
    templates = CallLineTemplates(encoder.members)
    for number in range(TEMPLATES_MAX * 2 + 5):
        templates.render(ORDINARY._replace(upstream=f"u{number}"))
        assert len(templates._templates.entries) <= TEMPLATES_MAX
