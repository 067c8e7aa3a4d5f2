from __future__ import annotations

import msgspec
import pytest

from tests.support.observe.timelines import CUT, FACTS, attempt, partial_answer
from umbel.core.diagnostics.redact import Redactor
from umbel.core.events import RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Failure, Outcome, Trace
from umbel.observe.timeline import ATTEMPTS_MAX, CALLS_MAX, TEXT_CHARS_MAX, CallLine, Timeline, outcome_of, timeline_of


def made(event: RequestEnded) -> Timeline:
    return timeline_of(event, Redactor(), epoch=1_000_000.0)


def calls_of(event: RequestEnded) -> dict[str, CallLine]:
    return {call.name: call for call in made(event).calls}


def phases(line) -> list[tuple[str, float, float]]:
    return [(phase.name, phase.start_ms, phase.end_ms) for phase in line.phases]


def ended(**more) -> RequestEnded:
    return RequestEnded(**{"request": FACTS, "status": 200, "ended_at": 100.5, **more})


def call(name: str, start: float, end: float, *needs: str, **more) -> Outcome:
    return Outcome(name, "value", None, None, 100.0 + start, 100.0 + end, **{"needs": needs, **more})


def test_the_request_has_its_times_from_its_start_and_the_reason_of_its_end() -> None:
    line = made(partial_answer())
    assert (line.received, line.duration_ms, line.deadline_ms, line.own_ms) == (1_000_100.0, 1002.0, 1000.0, 1.5)
    assert (line.outcome, line.deadline_reached, line.reason) == ("partial", True, "the route's deadline passed")
    assert (line.trace_id, line.parent_id, line.parent_sampled) == (FACTS.trace.trace_id, "b7ad6b7169203331", True)
    assert line.sampled == ""
    assert len(line.span_id) == 16


def test_attempts_stand_in_the_order_of_their_starts_with_their_resend_count() -> None:
    calls = calls_of(partial_answer())
    assert [(each.cause, each.resend, each.span_id[-2:]) for each in calls["user"].attempts] == [
        ("first", 0, "61"),
        ("retry", 1, "62"),
    ]
    assert [(each.cause, each.resend, each.outcome, each.reason) for each in calls["offers"].attempts] == [
        ("first", 0, "cancelled", "lost-hedge"),
        ("hedge", 1, "ok", ""),
    ]


def test_phases_follow_one_another_from_the_queue_to_the_body() -> None:
    first, retry = calls_of(partial_answer())["user"].attempts
    assert phases(first) == [("queue", 0.0, 20.0), ("wait", 20.0, 100.0)]
    assert phases(retry) == [
        ("dns", 150.0, 152.0),
        ("connect", 152.0, 155.0),
        ("tls", 155.0, 175.0),
        ("wait", 175.0, 210.0),
        ("body", 210.0, 250.0),
    ]


def test_a_phase_under_way_at_the_end_of_an_attempt_lasts_until_that_end() -> None:
    (cut,) = calls_of(partial_answer())["news"].attempts
    assert (cut.outcome, cut.kind, cut.reason) == ("cancelled", "timeout", "the route's deadline")
    assert phases(cut) == [("dns", 0.0, 1.0), ("connect", 1.0, 4.0), ("tls", 4.0, 1000.0)]


def test_calls_have_their_upstream_needs_outcome_and_reason() -> None:
    calls = calls_of(partial_answer())
    assert [(each.name, each.upstream, each.needs, each.outcome, each.kind) for each in calls.values()] == [
        ("user", "users", (), "ok", None),
        ("offers", "offers", ("user",), "ok", None),
        ("news", "news", (), "failed", "timeout"),
        ("extra", "news", ("user",), "skipped", None),
    ]
    assert calls["news"].reason == CUT.detail
    assert calls["extra"].start_ms is None


def test_the_critical_path_follows_the_needs_and_names_the_deciding_attempts() -> None:
    news = call("news", 0.0, 0.3)
    event = partial_answer(calls=(*partial_answer().calls[:2], news))
    calls = calls_of(event)
    assert [name for name, each in calls.items() if each.critical] == ["user", "offers"]
    critical = [line.span_id[-2:] for each in calls.values() for line in each.attempts if line.critical]
    assert critical == ["62", "72"]


def test_calls_of_code_follow_the_call_that_ended_before_they_began() -> None:
    calls = calls_of(ended(calls=(call("a", 0.0, 0.1), call("b", 0.0, 0.2), call("c", 0.21, 0.4))))
    assert [name for name, each in calls.items() if each.critical] == ["b", "c"]


def test_a_call_that_was_cut_by_the_decision_is_not_on_the_critical_path() -> None:
    cut = Outcome("slow", "failed", None, Failure.of(Kind.CANCELLED, "decided"), 100.0, 100.4)
    calls = calls_of(ended(calls=(call("fast", 0.0, 0.399), cut)))
    assert [(name, each.outcome, each.critical) for name, each in calls.items()] == [
        ("fast", "ok", True),
        ("slow", "cancelled", False),
    ]


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({}, "complete"),
        ({"completed": True}, "complete"),
        ({"completed": False}, "partial"),
        ({"completed": False, "kind": Kind.STATUS, "status": 502}, "failed"),
        ({"status": 404}, "failed"),
        ({"kind": Kind.INTERNAL}, "failed"),
        ({"kind": Kind.CLIENT_GONE, "status": 499}, "cancelled"),
        ({"kind": Kind.CANCELLED, "status": 200}, "cancelled"),
    ],
)
def test_the_outcome_of_a_request_follows_from_its_record(more, outcome: str) -> None:
    assert outcome_of(ended(**more)) == outcome


def test_the_resend_count_of_an_item_counts_its_own_attempts_only() -> None:
    attempts = (
        attempt(1, "a", 0.0, 0.1, 503, item=0),
        attempt(2, "a", 0.0, 0.2, item=1),
        attempt(3, "b", 0.15, 0.3, item=0, cause="retry"),
    )
    (line,) = calls_of(ended(calls=(call("each", 0.0, 0.3, attempts=attempts),))).values()
    assert [(each.item, each.resend) for each in line.attempts] == [(0, 0), (1, 0), (0, 1)]


def test_an_attempt_of_a_shared_call_names_the_trace_that_it_has_sent() -> None:
    shared = attempt(1, "a", -0.5, 0.1, trace=Trace("c" * 32), coalesced=True)
    (line,) = calls_of(ended(calls=(call("a", 0.0, 0.1, attempts=(shared,)),))).values()
    assert (line.attempts[0].trace_id, line.attempts[0].start_ms, line.attempts[0].coalesced) == (
        "c" * 32,
        -500.0,
        True,
    )


def test_calls_and_attempts_are_bounded_and_the_longest_are_kept() -> None:
    many = tuple(attempt(number, "a", 0.0, number / 1000, item=number) for number in range(ATTEMPTS_MAX + 5))
    calls = [call(f"c{number}", 0.0, number / 1000) for number in range(CALLS_MAX + 3)]
    line = made(ended(calls=(call("each", 0.0, 0.4, attempts=many), *calls)))
    assert (line.calls_total, len(line.calls)) == (CALLS_MAX + 4, CALLS_MAX)
    assert "c0" not in {each.name for each in line.calls}
    each = line.calls[0]
    assert (each.attempts_total, len(each.attempts), each.attempts[0].item) == (ATTEMPTS_MAX + 5, ATTEMPTS_MAX, 5)


def test_secrets_in_texts_are_hidden_and_long_texts_are_cut() -> None:
    failure = Failure.of(Kind.CONNECT, "http://user:hunter2@host refused; Authorization: Bearer hunter3")
    failed = Outcome("a", "failed", None, failure, 100.0, 100.1, (attempt(1, "u:hunter4@h", 0.0, 0.1),))
    event = ended(calls=(failed,), detail="password=hunter5 " + "x" * 5000, status=502, kind=Kind.CONNECT)
    encoded = msgspec.json.encode(made(event))
    assert b"hunter" not in encoded
    assert len(made(event).reason) < TEXT_CHARS_MAX + 20


def test_a_timeline_survives_its_json() -> None:
    line = made(partial_answer())
    assert msgspec.json.decode(msgspec.json.encode(line), type=Timeline) == line
