"""Request cycle of a configured route: response, clients that leave, cancels, the one record, and nothing left."""

from __future__ import annotations

import gc
from contextvars import copy_context
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.records import check_cancelled
from tests.support.server.asgi import living
from tests.support.server.inbound import MemoryRequest, too_slow
from umbel.core.failure_kinds import Kind
from umbel.logs import context

from .gateways import Function, gateway, route, says

MockClock = trio.testing.MockClock
NDJSON = [("accept", "application/x-ndjson")]
JSON = [("content-type", "application/json")]
WITH_BODY = {"part": {"upstream": "up", "path": "/", "json": "body"}}


class LeavesWithItsBody(MemoryRequest):
    """Request whose client leaves when the end of the body has been received."""

    async def receive(self) -> bytes:
        data = await super().receive()
        if not data:
            self.leave()
        return data


async def never(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


async def crash(request: httpx.Request) -> httpx.Response:
    raise LookupError("a crash of a transport")


async def test_a_whole_response_is_given_at_once_with_one_record(autojump_clock: MockClock) -> None:
    app, records = gateway(route("/r/<int:n>"), up=says({"v": 1}))
    async with living(app):
        request = MemoryRequest(target="/r/7?a=b")
        await request.served_by(app)
    answer = request.answer
    assert (answer.status, answer.json, answer.sends) == (200, {"part": {"v": 1}}, 1)
    assert answer["content-length"] == str(len(answer.body))
    (record,) = records.requests
    assert records.events[-1] is record
    assert (record.status, record.bytes_sent, record.kind, record.completed) == (200, len(answer.body), None, True)
    assert answer["x-request-id"] == record.request.request_id
    assert (record.request.path, record.request.route, record.client) == ("/r/7", "/r/<int:n>", "127.0.0.1")
    assert request.received == 0
    assert request.discard_max == 10**6


async def test_head_and_304_have_no_content_and_the_fields_of_the_whole(autojump_clock: MockClock) -> None:
    app, records = gateway(route(), up=says(1))
    async with living(app):
        whole, head = MemoryRequest(target="/r"), MemoryRequest("HEAD", "/r")
        for request in (whole, head):
            await request.served_by(app)
        same = MemoryRequest(target="/r", fields=[("if-none-match", whole.answer["etag"])])
        await same.served_by(app)
        stream = MemoryRequest("HEAD", "/r", fields=NDJSON)
        await stream.served_by(app)
    assert (head.answer.status, head.answer.body) == (200, b"")
    assert head.answer["content-length"] == whole.answer["content-length"]
    assert (same.answer.status, same.answer.body, same.answer.all("content-length")) == (304, b"", [])
    assert (stream.answer.status, stream.answer.body, stream.answer.complete) == (200, b"", True)
    assert stream.answer["content-type"] == "application/x-ndjson"
    assert [record.bytes_sent for record in records.requests] == [len(whole.answer.body), 0, 0, 0]


async def test_a_body_is_received_before_the_calls(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = gateway(route(calls=WITH_BODY, max_body="1KB"), up=upstream)
    async with living(app):
        request = MemoryRequest("POST", "/r", fields=JSON, parts=[b'{"a"', b":1}"])
        await request.served_by(app)
    assert request.answer.status == 200
    assert upstream.asked[0].content == b'{"a":1}'
    assert (request.received, request.taken_at_most) == (3, 1000)


@pytest.mark.parametrize(
    ("fields", "parts", "status", "received"),
    [
        ([("content-type", "text/plain")], [b"x"], 415, 0),
        (JSON, [b"{"], 400, 2),
        ([*JSON, ("content-length", "2000")], [b" " * 2000], 413, 0),
        (JSON, [b" " * 600, b" " * 600], 413, 2),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_and_no_call_starts(
    fields: list[tuple[str, str]], parts: list[bytes], status: int, received: int, autojump_clock: MockClock
) -> None:
    upstream = Function(says(1))
    app, records = gateway(route(calls=WITH_BODY, max_body="1KB"), up=upstream)
    async with living(app):
        request = MemoryRequest("POST", "/r", fields=fields, parts=parts)
        await request.served_by(app)
    assert (request.answer.status, request.answer["content-type"]) == (status, "application/problem+json")
    assert [record.status for record in records.requests] == [status]
    assert request.received == received
    assert upstream.asked == []


async def test_a_body_that_the_server_refuses_is_recorded_with_its_response(autojump_clock: MockClock) -> None:
    app, records = gateway(route(calls=WITH_BODY), up=says(1))
    async with living(app):
        request = MemoryRequest("POST", "/r", fields=JSON, parts=[b"{"], refused=too_slow())
        await request.served_by(app)
    (record,) = records.requests
    assert (record.status, record.kind, record.detail) == (408, Kind.BAD_REQUEST, "The body did not arrive in time.")
    assert record.request.request_id == "of-the-server"
    assert request.answer.sends == 0
    assert request.status == 0


@pytest.mark.parametrize("body", [False, True], ids=["no body", "after the body"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_no_call_starts_for_a_client_that_has_left(body: bool, accept: str, autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, records = gateway(route(calls=WITH_BODY) if body else route(), up=upstream)
    async with living(app):
        if body:
            request: MemoryRequest = LeavesWithItsBody("POST", "/r", fields=[*JSON, ("accept", accept)], parts=[b"{}"])
        else:
            request = MemoryRequest("GET", "/r", fields=[("accept", accept)])
            request.leave()
        await request.served_by(app)
    assert upstream.asked == []
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]
    assert request.answer.sends == 0


@pytest.mark.parametrize("fields", [[], NDJSON], ids=["whole", "stream"])
async def test_a_client_that_leaves_during_the_calls_cuts_them_and_gets_nothing(
    fields: list[tuple[str, str]], autojump_clock: MockClock
) -> None:
    calls = {"quick": {"upstream": "fast", "path": "/"}, "part": {"upstream": "up", "path": "/"}}
    slow = Function(never)
    app, records = gateway(route(calls=calls, answer={"shape": "sum(`[1e308, 1e308]`)"}), up=slow, fast=says(1))
    async with living(app):
        request = MemoryRequest(target="/r", fields=fields)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.served_by, app)
            await trio.testing.wait_all_tasks_blocked()
            assert request.waited
            began = trio.current_time()
            request.leave()
        assert trio.current_time() == began
        assert app.statistics().requests_in_flight == 0
    assert slow.cut == 1
    (record,) = records.requests
    assert (record.status, record.kind, record.completed) == (200 if fields else 499, Kind.CLIENT_GONE, None)
    kinds = {outcome.call: outcome.failure and outcome.failure.kind for outcome in record.calls}
    assert kinds == {"quick": None, "part": Kind.CLIENT_GONE}
    assert records.events[-1] is record
    assert records.logged == []  # The answer's shape was not evaluated.


async def test_a_client_that_leaves_in_the_middle_of_its_body_has_no_call_started(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, records = gateway(route(calls=WITH_BODY), up=upstream)
    async with living(app):
        request = MemoryRequest("POST", "/r", fields=JSON, parts=[b"{"], ends=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.served_by, app)
            await trio.testing.wait_all_tasks_blocked()
            request.leave()
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]
    assert upstream.asked == []


async def test_a_client_that_leaves_during_the_response_is_recorded_with_the_status(
    autojump_clock: MockClock,
) -> None:
    app, records = gateway(route(), up=says(1))
    async with living(app):
        for leaves in (True, False):
            request = MemoryRequest(target="/r")
            request.stop_reading()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.served_by, app)
                await trio.testing.wait_all_tasks_blocked()
                assert not request.response_complete
                (request.leave if leaves else request.read_on)()
    assert request.answer.complete
    assert [(record.status, record.kind) for record in records.requests] == [(200, Kind.CLIENT_GONE), (200, None)]
    assert [record.bytes_sent > 0 for record in records.requests] == [False, True]


async def test_a_crash_is_recorded_and_answered_with_500(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    app, records = gateway(route(krakend_compat=True), up=says(1))

    def broken(*args: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("umbel.gateway.request_cycle.answer", broken)
    async with living(app):
        request = MemoryRequest(target="/r")
        await request.served_by(app)
    assert (request.answer.status, request.answer["x-krakend-completed"]) == (500, "false")
    assert [(record.status, record.kind) for record in records.requests] == [(500, Kind.INTERNAL)]
    assert [(note.event, note.message) for note in records.logged] == [("request.crashed", "LookupError: a bug")]


async def test_a_stream_that_crashes_in_its_middle_stays_incomplete(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    app, records = gateway(route(), up=says(1))

    def broken(*args: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("umbel.gateway.response.streaming.keep_result", broken)
    async with living(app):
        request = MemoryRequest(target="/r", fields=NDJSON)
        await request.served_by(app)
    assert (request.answer.status, request.answer.complete, request.crash_recorded) == (200, False, True)
    (record,) = records.requests
    assert (record.status, record.kind, record.broke_off) == (200, Kind.INTERNAL, True)
    assert record.detail.endswith("the response was cut off before its end")


async def test_a_stream_sends_a_line_per_outcome_and_a_last_line(autojump_clock: MockClock) -> None:
    app, records = gateway(route(), up=says(1))
    async with living(app):
        request = MemoryRequest(target="/r", fields=NDJSON)
        await request.served_by(app)
    assert [line.count(b"\n") for line in request.answer.parts] == [1, 1]
    assert b'"completed":true' in request.answer.parts[-1]
    (record,) = records.requests
    assert (record.status, record.completed, record.bytes_sent) == (200, True, len(request.answer.body))


async def test_a_request_for_no_configured_route_is_left_to_quart(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), up=says(1))
    async with living(app):
        for method, target in [("GET", "/nowhere"), ("OPTIONS", "/r"), ("DELETE", "/r"), ("GET", "//r")]:
            assert app.route_table.find(method, target.encode()) is None


@pytest.mark.parametrize("end", ["response_complete", "refused", "gone before", "gone during"])
async def test_a_request_leaves_no_reference_cycle(end: str, autojump_clock: MockClock) -> None:
    app, _ = gateway(route(calls=WITH_BODY, path="/r"), up=never if end == "gone during" else says(1))

    async def one() -> None:
        parts = [b"{"] if end == "refused" else [b"{}"]
        request = MemoryRequest(
            "POST", "/r", fields=JSON, parts=parts, refused=too_slow() if end == "refused" else None
        )
        async with trio.open_nursery() as nursery:
            if end == "gone before":
                request.leave()
            nursery.start_soon(request.served_by, app)
            await trio.testing.wait_all_tasks_blocked()
            request.leave()

    async with living(app):
        await one()
        gc.collect()
        gc.disable()
        try:
            await one()
            assert gc.collect() == 0
        finally:
            gc.enable()


async def test_context_variables_are_set_for_foreign_transports_only(
    autojump_clock: MockClock,
) -> None:
    seen: list[dict[str, object]] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(dict(context.current().fields))
        return httpx.Response(200, json=1)

    app, records = gateway(route(), up=look)
    async with living(app):
        for fields in ([], NDJSON):
            before = dict(copy_context())
            request = MemoryRequest(target="/r", fields=fields)
            await request.served_by(app)
            assert dict(copy_context()) == before
    for names, record in zip(seen, records.requests, strict=True):
        facts = record.request
        expected = {"request_id": facts.request_id, "trace_id": facts.trace.trace_id, "http.route": "/r"}
        assert names == expected


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_a_request_cancelled_at_any_checkpoint_has_one_record(
    status: int, accept: str, autojump_clock: MockClock
) -> None:
    async def answering(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(status, json={"a": 1})

    calls = {"first": WITH_BODY["part"], "second": {"upstream": "up", "path": "/{first.a}", "optional": True}}
    app, records = gateway(route(calls=calls), up=answering)

    async def operation() -> None:
        records.events.clear()
        fields = [*JSON, ("accept", accept)]
        await MemoryRequest("POST", "/r", fields=fields, parts=[b"{", b"}"]).served_by(app)

    async with living(app):
        cut = await for_every_checkpoint(operation, partial(check_cancelled, app, records), reason="the grace is over")
    assert cut > 6


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_a_client_that_leaves_at_any_step_has_one_record_and_nothing_is_left(
    accept: str, autojump_clock: MockClock
) -> None:
    async def answering(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(200, json={"a": 1})

    app, records = gateway(route(calls=WITH_BODY), up=answering)

    async def leaving_after(steps: int) -> bool:
        records.events.clear()
        request = MemoryRequest("POST", "/r", fields=[*JSON, ("accept", accept)], parts=[b"{}"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.served_by, app)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            request.leave()
        assert app.statistics().requests_in_flight == 0
        (record,) = records.requests
        assert (record.kind is Kind.CLIENT_GONE) is request.gone
        assert request.answer.complete is not request.gone
        return request.gone

    async with living(app):
        steps = 0
        while await leaving_after(steps):
            steps += 1
        assert steps > 4
