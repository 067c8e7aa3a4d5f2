"""Streaming responses: lines, SSE comments, clients that leave or do not read, deadline and crash."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from tests.support.server.asgi import ask, conversation, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.core.failure_kinds import Kind

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock
NDJSON = [("accept", "application/x-ndjson")]
SSE = [("accept", "text/event-stream")]


def after(seconds: float, value: object, status: int = 200) -> Function:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(seconds)
        return httpx.Response(status, json=value)

    return Function(answer)


def two_calls(**slow: object) -> dict[str, object]:
    return route(
        calls={"fast": {"upstream": "up", "path": "/"}, "slow": {"upstream": "slow", "path": "/", **slow}},
        deadline="1h",
    )


async def test_each_outcome_is_sent_when_its_call_ends(autojump_clock: MockClock) -> None:
    app, records = gateway(two_calls(), up=after(1, "a"), slow=after(5, "b"))
    async with living(app), conversation(app, target="/r", headers=NDJSON) as talk:
        began = trio.current_time()
        await talk.head.wait()
        assert trio.current_time() - began == pytest.approx(1)
        await trio.testing.wait_all_tasks_blocked()
        assert talk.answer.body == b'{"call":"fast","value":"a"}\n'
    lines = [json.loads(line) for line in talk.answer.body.splitlines()]
    assert lines[1:] == [
        {"call": "slow", "value": "b"},
        {"end": True, "completed": True, "answer": {"fast": "a", "slow": "b"}},
    ]
    answer = talk.answer
    assert answer["content-type"] == "application/x-ndjson"
    assert answer["cache-control"] == "no-store"
    names = {name for name, _ in answer.headers}
    assert not names & {"etag", "umbel-completed", "proxy-status", "server-timing", "content-length"}
    (record,) = records.requests
    assert (record.status, record.completed, record.bytes_sent) == (200, True, len(answer.body))


async def test_a_failure_before_the_head_is_a_problem_document(autojump_clock: MockClock) -> None:
    app, records = gateway(two_calls(), up=after(5, "a"), slow=after(1, "", 500))
    async with living(app):
        answer = await ask(app, target="/r", headers=NDJSON)
    assert (answer.status, answer["content-type"]) == (502, "application/problem+json")
    assert answer["umbel-completed"] == "false"
    assert records.requests[0].kind is Kind.STATUS


async def test_a_failure_after_the_head_is_the_last_line(autojump_clock: MockClock) -> None:
    app, records = gateway(two_calls(), up=after(1, "a"), slow=after(5, "", 500))
    async with living(app):
        answer = await ask(app, target="/r", headers=NDJSON)
    assert answer.status == 200
    last = json.loads(answer.body.splitlines()[-1])
    assert last["end"] is True
    assert (last["problem"]["status"], last["problem"]["request_id"]) == (502, answer["x-request-id"])
    (record,) = records.requests
    assert (record.status, record.completed, record.kind) == (200, False, Kind.STATUS)


async def test_sse_names_the_calls_and_sends_a_comment_every_15_seconds(autojump_clock: MockClock) -> None:
    app, _ = gateway(two_calls(), up=after(1, "a"), slow=after(47, "b"))
    async with living(app):
        answer = await ask(app, target="/r", headers=SSE)
    assert answer["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.body.decode().split("\n\n")
    assert [event.partition("\n")[0] for event in events] == [
        "event: fast",
        ": still composing",
        ": still composing",
        ": still composing",
        "event: slow",
        "event: end",
        "",
    ]


async def test_a_route_can_always_stream(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(stream=True), up=says(1))
    async with living(app):
        assert (await ask(app, target="/r"))["content-type"] == "application/x-ndjson"
        assert (await ask(app, target="/r", headers=SSE))["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_head_request_for_a_stream_gets_the_head_and_leaves_no_call(autojump_clock: MockClock) -> None:
    slow = after(60, "b")
    app, records = gateway(two_calls(), up=after(1, "a"), slow=slow)
    async with living(app):
        began = trio.current_time()
        answer = await ask(app, "HEAD", "/r", headers=NDJSON)
        assert trio.current_time() - began == pytest.approx(1)
    assert (answer.status, answer.body, answer["content-type"]) == (200, b"", "application/x-ndjson")
    assert slow.cut == 1
    assert len(records.requests) == 1


async def test_a_client_that_leaves_a_stream_cancels_its_calls(autojump_clock: MockClock) -> None:
    slow = after(3600, "b")
    app, records = gateway(two_calls(), up=after(1, "a"), slow=slow)
    async with living(app), conversation(app, target="/r", headers=NDJSON) as talk:
        await talk.part.wait()
        await talk.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        assert slow.cut == 1
    assert not talk.answer.complete
    (record,) = records.requests
    assert (record.status, record.kind) == (200, Kind.CLIENT_GONE)
    assert records.events[-1] is record
    assert {call.outcome.call for call in records.calls} == {"fast", "slow"}


async def test_a_client_that_does_not_read_delays_no_call(autojump_clock: MockClock) -> None:
    values = list(range(50))
    calls = {
        "list": {"upstream": "up", "path": "/"},
        "each": {"upstream": "one", "path": "/{item}", "each": "list"},
    }
    one = after(1, "x")
    app, records = gateway(route(calls=calls, deadline="1m"), up=says(values), one=one)
    async with living(app), conversation(app, target="/r", headers=NDJSON) as talk:
        talk.stop_reading()
        await trio.sleep(30)
        assert len(one.asked) == 50
        assert len(records.calls) == 2
        await talk.disconnect()
    assert [record.kind for record in records.requests] == [Kind.CLIENT_GONE]


async def test_a_stream_at_its_deadline_ends_with_the_outcomes_so_far(autojump_clock: MockClock) -> None:
    app, records = gateway(
        {**two_calls(optional=True, default="none"), "deadline": "2s"}, up=after(1, "a"), slow=after(60, "b")
    )
    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/r", headers=NDJSON)
        assert trio.current_time() - began == pytest.approx(2)
    last = json.loads(answer.body.splitlines()[-1])
    assert last == {"end": True, "completed": False, "answer": {"fast": "a", "slow": "none"}}
    assert records.requests[0].completed is False


async def test_a_crash_in_the_middle_of_a_stream_leaves_it_incomplete(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from umbel.gateway.response import streaming

    original = streaming.run_stream

    async def crash_after_the_first_line(*arguments: Any) -> None:
        *others, send, outcomes, copies = arguments
        inner, lines = trio.open_memory_channel[Any](10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(original, *others, inner, outcomes, copies)
            with send:
                await send.send(await lines.receive())
                raise ValueError("a defect")

    monkeypatch.setattr(streaming, "run_stream", crash_after_the_first_line)
    app, records = gateway(two_calls(), up=after(1, "a"), slow=after(5, "b"))
    async with living(app):
        answer = await ask(app, target="/r", headers=NDJSON)
    assert answer.status == 200
    assert not answer.complete
    assert records.requests[0].kind is Kind.INTERNAL
    assert "a defect" in [str(note.error) for note in records.logged]
