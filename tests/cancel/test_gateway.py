"""Cancels of a request and of a lifespan at each checkpoint in turn: one record, nothing in flight, nothing open."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.records import check_cancelled
from tests.support.server.asgi import ask, conversation, http_scope, living
from tests.unit.gateway.gateways import Function, gateway, route
from umbel.core.failure_kinds import Kind

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock


def answering(status: int) -> Function:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(status, json={"a": 1})

    return Function(answer)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/event-stream"])
async def test_a_request_cancelled_at_any_checkpoint_has_one_record_and_leaves_nothing(
    status: int, accept: str, autojump_clock: MockClock
) -> None:
    calls: dict[str, Any] = {
        "first": {"upstream": "up", "path": "/"},
        "second": {"upstream": "up", "path": "/{first.a}", "optional": True},
    }
    app, records = gateway(route(calls=calls), up=answering(status))

    async def operation() -> None:
        records.events.clear()
        await ask(app, target="/r", headers=[("accept", accept)])

    async with living(app):
        # The reason is the server's; "client-gone" would stand for a client that left.
        cut = await for_every_checkpoint(operation, partial(check_cancelled, app, records), reason="the grace is over")
    assert cut > 10


async def test_a_client_that_leaves_at_any_time_has_one_record_and_leaves_nothing(
    autojump_clock: MockClock,
) -> None:
    upstream = answering(200)
    app, records = gateway(route(), up=upstream)

    async def leaving_after(steps: int) -> bool:
        """Whether the request was still going on when its client left."""
        to_app, from_server = trio.open_memory_channel[dict[str, Any]](10)
        left = finished = False

        async def send(message: dict[str, Any]) -> None:
            nonlocal finished
            await trio.lowlevel.checkpoint()
            finished = message["type"] == "http.response.body" and not message["more_body"]

        async def leave() -> None:
            nonlocal left
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            left = not finished
            await to_app.send({"type": "http.disconnect"})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await app(http_scope(target="/r"), from_server.receive, send)
        return left

    async with living(app):
        for steps in range(100):
            records.events.clear()
            going_on = await leaving_after(steps)
            (record,) = records.requests
            assert record.kind in (None, Kind.CLIENT_GONE)
            assert app.statistics().requests_in_flight == 0
            if not going_on:
                assert steps > 3
                return
    raise AssertionError("the request never ended")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("body", [None, b'{"a": 1}'], ids=["no body", "a body"])
async def test_a_client_that_leaves_cuts_all_calls_within_a_turn(
    accept: str, body: bytes | None, autojump_clock: MockClock
) -> None:
    cut: list[float] = []

    async def slow(request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep(1)
        finally:
            cut.append(trio.current_time())
        return httpx.Response(200, json={"a": 1})

    calls: dict[str, Any] = {
        "first": {"upstream": "up", "path": "/", **({"json": "body"} if body else {})},
        "second": {"upstream": "up", "path": "/{first.a}", "optional": True},
    }
    app, records = gateway(route(calls=calls, methods=["POST" if body else "GET"]), up=Function(slow))
    fields = [("accept", accept), *([("content-type", "application/json")] if body else [])]

    async def leaving_after(steps: int) -> bool:
        """Whether the request was still going on when its client left."""
        async with conversation(app, "POST" if body else "GET", "/r", headers=fields) as talk:
            for step in range(steps):
                await trio.lowlevel.checkpoint()
                if body and step == 2:
                    await talk.body(body[:4], more=True)
                if body and step == 5:
                    await talk.body(body[4:])
                if step % 8 == 7:
                    await trio.sleep(0.1)
            going_on = not talk.answer.complete
            left_at = trio.current_time()
            if going_on:
                await talk.disconnect()
            sent = talk.answer.sends
        assert not going_on or talk.answer.sends == sent
        assert not going_on or trio.current_time() == left_at
        return going_on

    async with living(app):
        for steps in range(400):
            records.events.clear()
            cut.clear()
            going_on = await leaving_after(steps)
            assert app.statistics().requests_in_flight == 0
            if records.events or steps:
                (record,) = records.requests
                assert records.events[-1] is record
                assert record.kind is (Kind.CLIENT_GONE if going_on else None)
                # A client that leaves before the composition begins has no calls; otherwise each call has its record.
                told = sorted(call.outcome.call for call in records.calls)
                assert told == ["first", "second"] or (not told and not cut)
            if not going_on:
                assert steps > 100
                return
    raise AssertionError("the request never ended")


async def test_a_lifespan_cancelled_at_any_checkpoint_is_closed(autojump_clock: MockClock) -> None:
    app, _ = gateway(up=answering(200))
    opened = []

    @app.before_serving
    async def before() -> None:
        opened.append(1)

    async def operation() -> None:
        async with living(app):
            await trio.lowlevel.checkpoint()

    def check() -> None:
        assert app.current_runtime is None
        assert not app.ready

    assert await for_every_checkpoint(operation, check) > 10
    assert opened
