"""CountingRecorder: what is counted of a request, and that the number of time series is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.logs.event_factories import TRACE_ID, log_message, request_ended, request_facts
from tests.support.logs.records import Records
from umbel.core.failure_kinds import Kind
from umbel.core.identity import AuthResult
from umbel.core.model import FailedItem, Failure, Outcome
from umbel.core.statistics.histogram import DURATIONS
from umbel.observe.figures import Labels, Value
from umbel.observe.request_counts import CALLS_MAX, NAME_CHARS_MAX, ROUTES_MAX, CountingRecorder

ROUTE = "/dashboard/<user_id>"
TIMEOUT = Failure.of(Kind.TIMEOUT, "too slow")
CALLS = (Outcome("a", "value"),)


def values(counts: CountingRecorder, name: str) -> dict[Labels, Value]:
    return dict(counts.values()[name])


def counted(*events: Any) -> CountingRecorder:
    counts = CountingRecorder(Records())
    for event in events:
        counts.record(event)
    return counts


def test_every_event_is_passed_on_and_only_requests_are_counted() -> None:
    records = Records()
    counts = CountingRecorder(records)
    events = [request_ended(), log_message()]
    for event in events:
        counts.record(event)
    assert records.events == events
    assert counts.counted == 1


def test_a_request_is_counted_by_route_method_status_and_duration() -> None:
    counts = counted(request_ended(ended_at=10.25), request_ended(ended_at=10.3), request_ended(404, ended_at=30.0))
    cells = values(counts, "http_server_request_duration_seconds")
    ok, missing = cells[ROUTE, "GET", "200"], cells[ROUTE, "GET", "404"]
    assert isinstance(ok, list)
    assert isinstance(missing, list)
    assert (ok[DURATIONS.index(0.25)], ok[DURATIONS.index(0.5)], sum(ok[:-1])) == (1, 1, 2)
    assert ok[-1] == pytest.approx(0.55)
    assert missing[len(DURATIONS)] == 1


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"completed": True}, "complete"),
        ({"completed": False}, "partial"),
        ({"completed": False, "kind": Kind.TIMEOUT}, "failed"),
        ({"completed": False, "kind": Kind.CLIENT_GONE}, "cancelled"),
        ({"kind": Kind.CLIENT_GONE, "calls": CALLS}, "cancelled"),
        ({"kind": Kind.CANCELLED, "calls": CALLS}, "cancelled"),
        ({"kind": Kind.INTERNAL, "calls": CALLS}, "failed"),
        ({"status": 502, "calls": CALLS}, "failed"),
        ({"calls": CALLS}, None),
        ({}, None),
        ({"kind": Kind.INTERNAL}, None),
    ],
)
def test_an_answer_is_complete_partial_failed_or_cancelled_others_are_none(
    changes: dict[str, Any], outcome: str | None
) -> None:
    counts = counted(request_ended(**changes))
    assert values(counts, "umbel_answers_total") == ({} if outcome is None else {(ROUTE, outcome): 1})


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"kind": Kind.INTERNAL}, "internal"),
        ({"kind": Kind.INTERNAL, "calls": CALLS}, "internal"),
        ({"kind": Kind.TIMEOUT}, "timeout"),
        ({"kind": Kind.INTERNAL, "status": 101}, "internal"),
        ({"kind": Kind.INTERNAL, "status": 500}, None),
        ({"kind": Kind.TIMEOUT, "completed": False}, None),
        ({"kind": Kind.CLIENT_GONE}, None),
        ({"kind": Kind.CANCELLED}, None),
    ],
)
def test_a_response_that_a_failure_breaks_off_behind_a_status_of_success_is_counted(
    changes: dict[str, Any], kind: str | None
) -> None:
    counts = counted(request_ended(**changes))
    assert values(counts, "umbel_responses_cut_total") == {(ROUTE, "internal"): 0} | (
        {(ROUTE, kind): 1} if kind else {}
    )


def test_a_websocket_is_counted_with_the_duration_of_its_handshake() -> None:
    sockets = [request_ended(101, switched_at=10.02, ended_at=4000.0) for _ in range(2)]
    cells = values(counted(*sockets), "http_server_request_duration_seconds")[ROUTE, "GET", "101"]
    assert isinstance(cells, list)
    assert (cells[DURATIONS.index(0.025)], cells[-1]) == (2, pytest.approx(0.04))


def test_calls_are_counted_by_name_outcome_and_kind_of_the_failure() -> None:
    calls = (
        Outcome("user", "value"),
        Outcome("orders", "failed", failure=TIMEOUT),
        Outcome("offers", "skipped"),
        Outcome("items", "value", failed_items=(FailedItem((0,), TIMEOUT),)),
        Outcome("slow", "failed", failure=Failure.of(Kind.CANCELLED, "the answer was decided")),
        Outcome("slow", "failed", failure=Failure.of(Kind.CLIENT_GONE, "the client left")),
    )
    counts = counted(request_ended(calls=calls), request_ended(calls=calls[:1]))
    assert {labels: n for labels, n in values(counts, "umbel_calls_total").items() if n} == {
        (ROUTE, "user", "ok", ""): 2,
        (ROUTE, "orders", "failed", "timeout"): 1,
        (ROUTE, "offers", "skipped", ""): 1,
        (ROUTE, "items", "partial", "timeout"): 1,
        (ROUTE, "slow", "cancelled", "cancelled"): 1,
        (ROUTE, "slow", "cancelled", "client-gone"): 1,
    }


def test_own_time_is_counted_in_seconds() -> None:
    cells = values(counted(request_ended(completed=True, own_ms=0.4)), "umbel_own_seconds")[(ROUTE,)]
    assert isinstance(cells, list)
    assert (sum(cells[:-1]), cells[-1]) == (1, pytest.approx(0.0004))


def test_methods_that_no_standard_names_are_counted_together() -> None:
    counts = counted(*(request_ended(request=request_facts(method=f"M{n}")) for n in range(1000)))
    cells = values(counts, "http_server_request_duration_seconds")
    assert list(cells) == [(ROUTE, "_OTHER", "200")]
    assert sum(cells[ROUTE, "_OTHER", "200"][:-1]) == 1000  # type: ignore[index]


@pytest.mark.parametrize("state", ["value", "failed"])
def test_names_of_calls_beyond_the_bound_are_counted_together(state: Any) -> None:
    failure = TIMEOUT if state == "failed" else None
    counts = counted(*(request_ended(calls=(Outcome(f"c{n}", state, failure=failure),)) for n in range(CALLS_MAX + 50)))
    calls = {labels[1]: n for labels, n in values(counts, "umbel_calls_total").items() if n}
    assert calls["other"] == 50
    assert values(counts, "umbel_series_dropped_total") == {(): 50}
    assert sum(calls.values()) == CALLS_MAX + 50  # type: ignore[arg-type]


def test_routes_beyond_the_bound_are_counted_together() -> None:
    counts = counted(*(request_ended(request=request_facts(route=f"/{n}")) for n in range(ROUTES_MAX + 3)))
    cells = values(counts, "http_server_request_duration_seconds")["other", "GET", "200"]
    assert sum(cells[:-1]) == 3  # type: ignore[index]
    assert values(counts, "umbel_series_dropped_total") == {(): 3}


def test_a_long_name_of_a_call_is_cut() -> None:
    counts = counted(*(request_ended(calls=(Outcome("n" * 900 + end, "value"),)) for end in ("", "1")))
    assert values(counts, "umbel_calls_total") == {(ROUTE, "n" * NAME_CHARS_MAX + "…", "ok", ""): 2}


async def test_each_bucket_has_its_latest_request_as_exemplar(autojump_clock: object) -> None:
    counts = counted(request_ended(ended_at=10.24), request_ended(ended_at=10.25), request_ended(ended_at=12.0))
    ((labels, exemplars),) = counts.exemplars()["http_server_request_duration_seconds"]
    assert labels == (ROUTE, "GET", "200")
    assert [(each.bucket, each.trace_id, each.seconds) for each in exemplars] == [
        (DURATIONS.index(0.25), TRACE_ID, 0.25),
        (DURATIONS.index(2.5), TRACE_ID, 2.0),
    ]


def test_requests_for_routes_with_auth_are_counted_by_kind_and_outcome() -> None:
    admitted, missing = AuthResult("admitted", "jwt", "users"), AuthResult("missing")
    counts = counted(*[request_ended(auth=auth) for auth in (admitted, admitted, missing, None)])

    assert values(counts, "umbel_auth_requests_total") == {("jwt", "admitted"): 2, ("none", "missing"): 1}
