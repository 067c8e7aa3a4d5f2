"""Requests through Quart from head to record: clients that leave, servers that cancel, and Quart's own features."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from quart import Blueprint, Response, g, request, websocket
from werkzeug.wrappers import Response as WerkzeugResponse

from tests.support.server.asgi import ask, conversation, http_scope, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.core.failure_kinds import Kind
from umbel.gateway.request_context import current_request_context

MockClock = trio.testing.MockClock


async def never(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.usefixtures("way")
async def test_a_client_that_leaves_cancels_its_calls_and_gets_nothing(autojump_clock: MockClock) -> None:
    upstream = Function(never)
    app, records = gateway(route(), up=upstream)
    async with living(app), conversation(app, target="/r") as talk:
        await trio.testing.wait_all_tasks_blocked()
        assert app.statistics().requests_in_flight == 1
        began = trio.current_time()
        await talk.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.cut == 1
        assert app.statistics().requests_in_flight == 0
        assert trio.current_time() == began
    assert talk.answer.sends == 0
    (record,) = records.requests
    assert (record.status, record.kind, record.completed) == (499, Kind.CLIENT_GONE, None)
    (call,) = records.calls
    assert call.outcome.failure is not None
    # The access record comes last, after the records of the calls.
    assert records.events[-1] is record


@pytest.mark.usefixtures("way")
async def test_a_client_that_leaves_in_its_body_is_recorded_as_gone(autojump_clock: MockClock) -> None:
    calls = {"part": {"upstream": "up", "path": "/", "json": "body"}}
    app, records = gateway(route(calls=calls), up=says(1))
    json = [("content-type", "application/json")]
    async with living(app), conversation(app, "POST", "/r", headers=json) as talk:
        await talk.body(b"{", more=True)
        await talk.disconnect()
    assert talk.answer.sends == 0
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]


@pytest.mark.usefixtures("way")
async def test_a_server_that_cuts_the_request_is_recorded_as_cancelled(autojump_clock: MockClock) -> None:
    app, records = gateway(route(), up=never)
    async with living(app):
        with trio.CancelScope() as scope:
            async with conversation(app, target="/r"):
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel(reason="shutdown")
        assert scope.cancelled_caught
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CANCELLED)]


@pytest.mark.usefixtures("way")
async def test_a_client_that_leaves_during_a_large_response_is_recorded_as_gone(autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.get("/large")
    async def large() -> bytes:
        return b"x" * 2**20

    async with living(app), conversation(app, target="/large") as talk:
        talk.stop_reading()
        await talk.head.wait()
        await trio.testing.wait_all_tasks_blocked()
        await talk.disconnect()
    assert not talk.answer.complete
    assert [(record.status, record.kind, record.bytes_sent) for record in records.requests] == [
        (200, Kind.CLIENT_GONE, 0)
    ]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("streamed", [False, True])
async def test_no_end_is_sent_after_a_part_that_the_client_did_not_get(
    streamed: bool, autojump_clock: MockClock
) -> None:
    app, records = gateway()
    data = b"x" * 2**20

    @app.get("/large")
    async def large() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield data

        await trio.testing.wait_all_tasks_blocked()
        return Response(parts() if streamed else data)

    async with living(app):
        for _ in range(20):  # trio chooses at random which task runs first.
            to_app, from_server = trio.open_memory_channel[dict[str, Any]](10)
            sent: list[dict[str, Any]] = []

            async def send(message: dict[str, Any], to_app=to_app, sent=sent) -> None:
                sent.append(message)
                if message.get("body"):
                    # Hypercorn raises no error if the socket is broken; it only posts this message.
                    await to_app.send({"type": "http.disconnect"})

            await app(http_scope(target="/large"), from_server.receive, send)
            assert [message.get("more_body") for message in sent] == [None, True]
    assert [(record.status, record.kind) for record in records.requests] == [(200, Kind.CLIENT_GONE)] * 20


@pytest.mark.usefixtures("way")
async def test_the_servers_disconnect_at_the_end_does_not_cancel_the_last_send(autojump_clock: MockClock) -> None:
    app, records = gateway()
    after = []

    @app.get("/x")
    async def x() -> str:
        return "x"

    async with living(app):

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and not message["more_body"]:
                await to_app.send({"type": "http.disconnect"})
                # After this message Hypercorn restarts the idle timer or closes the connection.
                await trio.testing.wait_all_tasks_blocked()
                after.append("served")

        to_app, from_server = trio.open_memory_channel[dict[str, Any]](10)
        await app(http_scope(target="/x"), from_server.receive, send)
    assert after == ["served"]
    assert records.requests[0].kind is None


@pytest.mark.usefixtures("way")
async def test_a_full_queue_of_messages_does_not_block_the_end_of_a_request(autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.post("/early")
    async def early() -> tuple[str, int]:
        return "no thanks", 200

    async with living(app), conversation(app, "POST", "/early", queue=1) as talk:
        with trio.move_on_after(1):
            for _ in range(50):
                await talk.body(b"x" * 100, more=True)
    assert talk.answer.complete
    assert len(records.requests) == 1


async def test_blueprints_hooks_and_views_of_quart_work() -> None:
    app, records = gateway(route(), up=says({"a": 1}))
    blueprint = Blueprint("shop", __name__, url_prefix="/shop")

    @blueprint.get("/<int:n>")
    async def item(n: int) -> dict[str, int]:
        return {"n": n, "hook": g.hook}

    @app.before_request
    async def before() -> None:
        g.hook = 7

    @app.after_request
    async def after(response: Response) -> Response:
        response.headers["x-after"] = "yes"
        return response

    @app.get("/sync")
    def sync() -> str:
        return "from a thread"

    @app.get("/parts")
    async def parts() -> Any:
        async def generate() -> Any:
            for n in range(15):
                yield f"{n} "

        return generate(), 202, {"x-own": "1"}

    @app.get("/werkzeug")
    async def werkzeug() -> WerkzeugResponse:
        return WerkzeugResponse("plain", 203)

    @app.get("/werkzeug-parts")
    async def werkzeug_parts() -> WerkzeugResponse:
        return WerkzeugResponse(iter([b"a", b"b"]))

    app.register_blueprint(blueprint)
    async with living(app):
        assert (await ask(app, target="/shop/3")).json == {"n": 3, "hook": 7}
        assert (await ask(app, target="/r"))["x-after"] == "yes"
        assert (await ask(app, target="/sync")).body == b"from a thread"
        answer = await ask(app, target="/parts")
        assert (answer.status, answer["x-own"]) == (202, "1")
        assert answer.body == b"".join(b"%d " % n for n in range(15))
        assert (await ask(app, target="/werkzeug")).body == b"plain"
        assert (await ask(app, target="/werkzeug-parts")).body == b"ab"
        assert (await ask(app, "HEAD", "/parts")).body == b""
        assert (await ask(app, "HEAD", "/werkzeug")).body == b""
    assert len(records.requests) == 8
    assert {record.request.route for record in records.requests} == {
        "/shop/<int:n>",
        "/r",
        "/sync",
        "/parts",
        "/werkzeug",
        "/werkzeug-parts",
    }


async def test_quarts_test_client_and_test_app_work() -> None:
    app, _ = gateway(route(), up=says({"a": 1}))
    async with app.test_app() as test_app:
        response = await test_app.test_client().get("/r")
        assert await response.get_json() == {"part": {"a": 1}}


async def test_a_websocket_is_answered_by_a_quart_view() -> None:
    app, _ = gateway()

    @app.websocket("/ws")
    async def echo() -> None:
        await websocket.send(await websocket.receive())

    async with app.test_client().websocket("/ws") as socket:
        await socket.send("hello")
        assert await socket.receive() == "hello"


async def test_a_view_finds_the_request_context_of_its_request() -> None:
    app, records = gateway()

    @app.get("/who")
    async def who() -> dict[str, str]:
        ctx = current_request_context()
        assert request.scope["umbel"] is ctx
        return {"id": ctx.facts.request_id, "client": ctx.origin.client}

    async with living(app):
        answer = await ask(app, target="/who", client=("192.0.2.1", 1))
    assert answer.json == {"id": answer["x-request-id"], "client": "192.0.2.1"}
    assert records.requests[0].client == "192.0.2.1"


async def test_forwarded_fields_of_an_untrusted_peer_reach_no_view() -> None:
    app, _ = gateway()

    @app.get("/headers")
    async def headers() -> dict[str, str]:
        return dict(request.headers)

    async with living(app):
        answer = await ask(app, target="/headers", headers=[("x-forwarded-for", "1.1.1.1"), ("remote-addr", "1.1.1.1")])
    assert "1.1.1.1" not in answer.body.decode()


async def test_a_forwarded_response_field_keeps_its_bytes() -> None:
    app, _ = gateway()

    @app.get("/latin")
    async def latin() -> Response:
        return Response("x", headers={"x-name": "caf\xe9", "x-far": "\u4e2d"})

    async with living(app):
        answer = await ask(app, target="/latin")
    assert answer["x-name"].encode("latin-1") == b"caf\xe9"
    assert answer["x-far"].encode("latin-1") == "\u4e2d".encode()


async def test_a_request_error_in_a_websocket_causes_no_second_error() -> None:
    from umbel.core.errors import RequestError

    app, records = gateway()

    @app.websocket("/ws")
    async def refuse() -> None:
        await websocket.receive()
        raise RequestError(400, "not like that")

    # Any exception by which Quart's test client reports a closed websocket.
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="1000"), flatten_subgroups=True):
        async with app.test_client().websocket("/ws") as socket:
            await socket.send("x")
            await socket.receive()
    assert [(note.event, str(note.error)) for note in records.logged] == [("app.crashed", "not like that")]
