from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from tests.support.logs.records import Records
from tests.support.observe.timelines import FACTS, partial_answer
from umbel.core.events import RequestEnded
from umbel.core.model import Trace
from umbel.gateway.request.trace_ids import new_identity, trace
from umbel.observe.request_counts import CountingRecorder
from umbel.observe.timeline import Timeline
from umbel.observe.traces.sampling import TAIL_PER_S, Traces, head_bound


class Sink:
    def __init__(self) -> None:
        self.taken: list[Timeline] = []
        self.dropped = 0

    def take(self, timeline: Timeline) -> None:
        self.taken.append(timeline)

    def drop(self, spans: int) -> None:
        self.dropped += spans


def ended(seconds: float = 0.01, flags: str = "00", parent: str | None = None, **more: Any) -> RequestEnded:
    facts = msgspec.structs.replace(FACTS, trace=Trace("1" * 32, parent, flags))
    return RequestEnded(**{"request": facts, "status": 200, "ended_at": 100.0 + seconds, **more})


def sampled(event: RequestEnded, *, force: bool = False, slow: float = 1.0) -> list[str]:
    sink, counts = Sink(), CountingRecorder(Records())
    counts.traces = Traces(sink, slow, force=force)
    counts.record(event)
    return [timeline.sampled for timeline in sink.taken]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_the_share_of_new_traces_is_chosen_as_opentelemetry_does(share: float) -> None:
    bound, reference = head_bound(share), TraceIdRatioBased(share)
    chosen = 0
    for _ in range(2000):
        _, own = new_identity(bound)
        expected = reference.should_sample(None, int(own.trace_id, 16), "x").decision is Decision.RECORD_AND_SAMPLE
        assert own.is_sampled is expected
        chosen += own.is_sampled
    assert abs(chosen / 2000 - share) < 0.08


def test_a_new_trace_beside_a_malformed_traceparent_is_chosen_in_the_same_way() -> None:
    assert {trace("nonsense", None, head_bound(0.0)).flags for _ in range(20)} == {"00"}
    assert {trace("nonsense", None, head_bound(1.0)).flags for _ in range(20)} == {"01"}


@pytest.mark.parametrize(("flags", "is_sampled"), [("01", True), ("00", False), ("03", True), ("02", False)])
def test_the_decision_of_the_client_holds_whatever_the_share(flags: str, is_sampled: bool) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-{flags}"
    assert trace(parent, None, head_bound(0.0)).is_sampled is is_sampled
    assert trace(parent, None, head_bound(1.0)).is_sampled is is_sampled


def test_without_an_export_each_new_trace_keeps_the_flag_sampled() -> None:
    assert new_identity()[1].flags == trace(None, None).flags == "01"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (ended(flags="01"), ["head"]),
        (ended(flags="03"), ["head"]),
        (ended(), []),
        (ended(1.5), ["tail"]),
        (ended(status=500), ["tail"]),
        (ended(completed=False), ["tail"]),
        (ended(status=404), []),
        (ended(status=500, parent="2" * 16), []),
        (ended(1.5, parent="2" * 16), []),
        (ended(status=500, flags="01", parent="2" * 16), ["head"]),
    ],
)
def test_notable_requests_have_a_trace_unless_the_client_says_no(event: RequestEnded, expected: list[str]) -> None:
    assert sampled(event) == expected


def test_force_keeps_notable_requests_although_the_client_says_no() -> None:
    assert sampled(ended(status=500, parent="2" * 16), force=True) == ["tail"]
    assert sampled(ended(parent="2" * 16), force=True) == []


def test_the_threshold_of_slow_requests_is_that_of_the_section() -> None:
    assert sampled(ended(0.3), slow=0.25) == ["tail"]
    assert sampled(ended(0.2), slow=0.25) == []


def test_notable_requests_beyond_the_rate_are_dropped_and_counted() -> None:
    sink, counts = Sink(), CountingRecorder(Records())
    counts.traces = Traces(sink, 1.0)
    event = msgspec.structs.replace(partial_answer(), request=ended().request)
    for _ in range(TAIL_PER_S + 3):
        counts.record(event)
    assert (len(sink.taken), sink.dropped) == (TAIL_PER_S, 3 * 9)
    counts.record(msgspec.structs.replace(event, ended_at=103.0))
    assert len(sink.taken) == TAIL_PER_S + 1
