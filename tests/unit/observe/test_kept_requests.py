from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tests.support.logs.records import Records
from tests.support.observe.timelines import FACTS, partial_answer
from umbel.core.events import RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.observe.kept_requests import (
    BUCKET_REQUESTS_MAX,
    BUCKETS,
    ENTRY_BYTES,
    KeptRequests,
    Listing,
    as_answer,
    as_request,
)
from umbel.observe.request_counts import CountingRecorder


def ended(seconds: float = 0.01, number: int = 0, *, at: float = 100.0, **more: Any) -> RequestEnded:
    facts = msgspec.structs.replace(FACTS, started_at=at, request_id=f"r{number}", path=f"/{number}")
    return RequestEnded(**{"request": facts, "status": 200, "ended_at": at + seconds, **more})


def kept(*events: RequestEnded, store: KeptRequests | None = None) -> Listing:
    counts = CountingRecorder(Records())
    if store is not None:
        counts.kept = store
    for event in events:
        counts.record(event)
    return counts.kept.listing()


@pytest.mark.parametrize(
    ("event", "bucket"),
    [
        (ended(0.0), "0"),
        (ended(0.049), "0"),
        (ended(0.0501), "50 ms"),
        (ended(0.15), "100 ms"),
        (ended(0.25), "200 ms"),
        (ended(0.75), "500 ms"),
        (ended(9), "1 s"),
        (ended(11), "10 s"),
        (partial_answer(), "partial"),
        (ended(status=502, kind=Kind.CONNECT, completed=False), "error"),
        (ended(status=500), "error"),
        (ended(kind=Kind.INTERNAL), "error"),
        (ended(status=404, kind=Kind.BAD_REQUEST), "0"),
        (ended(0.3, status=499, kind=Kind.CLIENT_GONE), "200 ms"),
    ],
)
def test_a_request_belongs_to_the_bucket_of_its_end_or_its_duration(event: RequestEnded, bucket: str) -> None:
    listing = kept(event)
    assert [each.bucket for each in listing.requests] == [bucket]
    assert listing.seen == {FACTS.route: {bucket: 1}}


def test_a_bucket_keeps_the_first_ones_and_then_one_in_a_second() -> None:
    quick = [ended(number=number, at=100 + number / 1000) for number in range(30)]
    later = [ended(number=number, at=102 + number / 1000) for number in range(30, 60)]
    listing = kept(*quick, *later)
    assert [each.path for each in listing.requests] == ["/30", *(f"/{number}" for number in range(9, 0, -1))]
    assert listing.seen == {FACTS.route: {"0": 60}}
    assert listing.dropped == 0, "a request that is replaced by a later one is not lost for lack of room"


def test_slow_and_failed_requests_are_not_replaced_by_quick_ones() -> None:
    quick = [ended(number=number, at=200 + 2 * number) for number in range(50)]
    listing = kept(ended(0.7), ended(status=500), *quick)
    assert [each.bucket for each in listing.requests][-2:] == ["error", "500 ms"]
    assert len(listing.requests) == BUCKET_REQUESTS_MAX + 2


@pytest.mark.parametrize("store", [KeptRequests(requests_max=3), KeptRequests(bytes_max=3 * (ENTRY_BYTES + 700))])
def test_beyond_the_bounds_quick_requests_are_dropped_first_and_counted(store: KeptRequests) -> None:
    listing = kept(ended(status=500), *(ended(number=number) for number in range(6)), store=store)
    assert "error" in {each.bucket for each in listing.requests}
    assert next(each.path for each in listing.requests if each.bucket == "0") == "/5"
    assert len(listing.requests) + listing.dropped == 7
    assert listing.dropped >= 3


def test_a_kept_request_is_found_by_its_id_until_it_is_replaced() -> None:
    store = KeptRequests(requests_max=1)
    counts = CountingRecorder(Records())
    counts.kept = store
    counts.record(partial_answer())
    (summary,) = store.listing().requests
    timeline = store.find(summary.id)
    assert timeline is not None
    assert msgspec.json.decode(timeline)["calls"][0]["name"] == "user"
    counts.record(ended(status=500))
    assert store.find(summary.id) is None


@pytest.mark.parametrize("request_id", ["", "1", "x-1", "1-1", "PID-", "PID-x", "PID-²", "PID--1", "PID-" + "9" * 5000])
def test_an_unknown_or_malformed_id_finds_nothing(request_id: str) -> None:
    store = KeptRequests()
    assert store.find(request_id.replace("PID", str(os.getpid()))) is None


def test_lists_of_several_processes_are_joined_the_latest_request_first() -> None:
    early, late = kept(ended(at=100.0)), kept(ended(at=200.0, number=2), ended(status=500, number=1))
    first = msgspec.structs.replace(early.requests[0], received=10.0)
    second = msgspec.structs.replace(late.requests[0], received=20.0)
    answer = as_answer(
        {
            "worker 1": Listing((first,), {"/a": {"0": 1}}, 2),
            "worker 2": Listing((second,), {"/a": {"0": 1, "error": 1}}, 1),
            "worker 3": None,
        }
    )
    assert [(each["process"], each["received"]) for each in answer["requests"]] == [
        ("worker 2", 20.0),
        ("worker 1", 10.0),
    ]
    assert answer["seen"] == {"/a": {"0": 2, "error": 1}}
    assert (answer["dropped"], answer["silent"], answer["buckets"]) == (3, ["worker 3"], list(BUCKETS))


def test_a_kept_request_is_shown_with_its_process_and_its_timeline() -> None:
    shown = msgspec.json.decode(msgspec.json.encode(as_request("main", "1-2", b'{"status":200}')))
    assert shown == {"id": "1-2", "process": "main", "timeline": {"status": 200}}
