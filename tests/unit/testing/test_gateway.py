"""The gateway in memory: what it takes, what it replaces, and that it leaves nothing, wherever it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from quart import websocket
from trio.testing import MockClock

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.records import Records
from tests.support.testing.pages import one_call, page
from umbel import ConfigError, Umbel, UmbelError
from umbel.config.loading.load import load_given
from umbel.testing import LeakError, UpstreamRequest, delay, fail, gateway, hang, json, stream
from umbel.upstream import Client
from umbel.upstream.replicas.origin import Origin


@pytest.mark.parametrize("kind", ["path", "path as text", "text", "data", "application"])
async def test_a_configuration_is_a_path_a_text_data_or_an_application(
    kind: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    text, file = one_call(), tmp_path / "umbel.toml"
    file.write_text(text)
    configs: dict[str, Any] = {
        "path": file,
        "path as text": str(file),
        "text": text,
        "data": tomllib.loads(text),
        "application": Umbel(__name__, load_given(text)),
    }
    async with gateway(configs[kind], {"u": json(1)}) as client:
        assert (await client.get("/")).json() == {"it": 1}
    assert {entry.name for entry in os.scandir(tmp_path)} == {"umbel.toml"}, "no log is written"


async def test_no_socket_is_opened(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tomllib.loads(one_call().replace("http://u", "dns+https://users.example"))
    data["admin"] = {"bind": "127.0.0.1:0", "token": "0123456789" * 5}
    data["traces"] = {"otlp": "http://127.0.0.1:4318"}
    data["upstreams"]["u"]["health"] = {"path": "/health", "every": "1s"}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was made")

    app = Umbel(__name__, load_given(data))
    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    async with gateway(app, {"u": json(1)}) as client:
        assert (await client.get("/")).json() == {"it": 1}
        await trio.sleep(10)
    (asked,) = client.received("u")
    assert str(asked.url) == "https://users.example/it"


async def test_health_checks_are_made_on_request(autojump_clock: MockClock) -> None:
    config = one_call(upstream='health = { path = "/health", every = "1s" }')
    async with gateway(config, {"u": {"/health": fail("malformed"), "/it": json(1)}}, health_checks=True) as client:
        await trio.sleep(10)
        (replica,) = client.app.runtime.callers["u"].statistics().balance.replicas  # type: ignore[attr-defined]
        assert not replica.up


async def test_an_application_with_handlers_and_hooks_runs_as_it_is(autojump_clock: MockClock) -> None:
    records = Records()
    app = Umbel(__name__, load_given(one_call()), recorder=records)

    @app.compose("/sum", deadline=1)
    async def total(compose: Any) -> Any:
        async with compose.gather() as g:
            calls = [g.get("u", f"/{n}", name=str(n)) for n in range(3)]
        return {"sum": sum(call.value for call in calls)}

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    for _ in range(2):
        async with gateway(app, {"u": lambda request: json(int(request.path[1:]))}) as client:
            assert (await client.get("/sum")).json() == {"sum": 3}
            assert client.trace().outcomes == {"0": "ok", "1": "ok", "2": "ok"}
            assert (await client.get("/plain")).text == "plain"
            assert client.app is app
    assert len(records.requests) == 4, "the application's own recorder gets the records too"
    assert (app.given_network, app.given_recorder) == (None, records)


async def test_a_websocket_is_opened_with_the_test_client_of_quart(autojump_clock: MockClock) -> None:
    app = Umbel(__name__)

    @app.websocket("/echo")
    async def echo() -> None:
        await websocket.send(await websocket.receive())

    async with gateway(app) as client, client.app.test_client().websocket("/echo") as connection:
        await connection.send("hello")
        assert await connection.receive() == "hello"


async def test_a_crash_of_a_handler_is_logged_with_its_traceback(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = Umbel(__name__)

    @app.compose("/")
    async def broken(compose: Any) -> Any:
        raise ValueError("the pump is stuck")

    with caplog.at_level(logging.ERROR, "umbel.testing"):
        async with gateway(app) as client:
            assert (await client.get("/")).status_code == 500
    assert any(record.exc_info and "the pump is stuck" in str(record.exc_info[1]) for record in caplog.records)


async def test_the_client_has_the_given_address_and_scheme(autojump_clock: MockClock) -> None:
    async with gateway(one_call(), {"u": json(1)}, base_url="https://shop.example", peer="203.0.113.9") as client:
        await client.get("/")
    timeline = client.trace().timeline
    assert (timeline.client, timeline.scheme) == ("203.0.113.9", "https")


async def test_a_client_that_gives_up_leaves_nothing(autojump_clock: MockClock) -> None:
    async with gateway(one_call(), {"u": hang()}) as client:
        with trio.move_on_after(3) as scope:
            await client.get("/")
        assert scope.cancelled_caught
        trace = client.trace()
    assert (trace.status, trace.kind, trace.duration) == (499, "client-gone", 3)
    assert trace.calls["it"].attempts[0].reason == "client-gone"


async def test_a_client_that_leaves_a_stream_has_a_trace_at_once(autojump_clock: MockClock) -> None:
    config = '[upstreams.u]\nurls = ["http://u"]\n[[routes]]\npath = "/"\nproxy.upstream = "u"\n'
    async with gateway(config, {"u": stream(b"part", hang())}) as client:
        with trio.move_on_after(3) as scope:
            async with client.stream("GET", "/") as response:
                await response.aread()
        assert scope.cancelled_caught
        assert (client.trace().kind, client.trace().duration) == ("client-gone", 3)


@pytest.mark.parametrize("phase", ["start", "stop"])
async def test_a_lifespan_function_that_hangs_is_named(phase: str, autojump_clock: MockClock) -> None:
    app = Umbel(__name__, load_given(one_call()))
    (app.before_serving if phase == "start" else app.after_serving)(trio.sleep_forever)
    with pytest.raises(trio.TooSlowError, match=f"did not {phase} within 60 s: a function of before_serving"):
        async with gateway(app):
            assert phase == "stop"


async def test_requests_at_the_same_time_run_beside_each_other(autojump_clock: MockClock) -> None:
    async with gateway(one_call(), {"u": delay(1).then(json(1))}) as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.get, "/")
        assert trio.current_time() - began == 1
    assert [trace.status for trace in client.traces()] == [200] * 20


async def test_time_stands_still_while_threads_work(autojump_clock: MockClock) -> None:
    large = ["x" * 100] * 8_000  # A thread decodes it, and another one compresses the answer.
    config = one_call() + "[compress]\n"

    def block(request: UpstreamRequest) -> None:
        time.sleep(0.05)

    async def in_a_thread(request: UpstreamRequest) -> Any:
        await trio.to_thread.run_sync(block, request)
        return json(large)

    async with gateway(config, {"u": in_a_thread}) as client:
        reply = await client.get("/", headers={"accept-encoding": "gzip"})
        assert (reply.json(), reply.headers["content-encoding"]) == ({"it": large}, "gzip")
    assert client.trace().duration == 0
    assert autojump_clock.autojump_threshold == 0
    await trio.sleep(5)  # The clock jumps again.


# What is refused.


def test_a_clock_that_is_not_virtual_is_refused() -> None:
    async def main() -> None:
        async with gateway(one_call()):
            raise AssertionError("the gateway has started")

    with pytest.raises(UmbelError, match="virtual clock"):
        trio.run(main)
    with pytest.raises(UmbelError, match="under asyncio it cannot run"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "upstreams", "error", "message"),
    [
        ("[upstreams\n", {}, ConfigError, "is not TOML"),
        ("no-such-file.toml", {}, ConfigError, "there is no such file"),
        (one_call(), {"v": json(1)}, ValueError, "no upstream 'v'; it has u"),
        (one_call(), {"u": delay(1)}, ValueError, "ends with an answer"),
        (one_call(), {"u": 7}, TypeError, "neither a scripted answer"),
        (42, {}, TypeError, "42 is no configuration: give the path"),
        (one_call(), json(1), TypeError, "upstreams maps names to answers"),
        (one_call(), {"u": {"/": fail("dns")}}, ValueError, "'/' fails before a request"),
        (
            Umbel(
                __name__, load_given(one_call()), transports={"u": httpx.MockTransport(lambda _: httpx.Response(200))}
            ),
            {"u": json(1)},
            ValueError,
            "has a transport",
        ),
    ],
)
async def test_what_cannot_be_run_is_refused(
    config: Any, upstreams: Any, error: type[Exception], message: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(error, match=message):
        async with gateway(config, upstreams):
            raise AssertionError("the gateway has started")


async def test_an_application_that_runs_already_is_refused(autojump_clock: MockClock) -> None:
    app = Umbel(__name__, load_given(one_call()))
    async with gateway(app, {"u": json(1)}) as client:
        with pytest.raises(UmbelError, match="runs already"):
            async with gateway(app):
                raise AssertionError("the gateway has started")
        assert (await client.get("/")).status_code == 200


async def test_a_gateway_can_be_the_upstream_of_another(autojump_clock: MockClock) -> None:
    async with gateway(one_call(), {"u": delay(1).then(json(1))}) as inner:
        async with gateway(one_call(), {"u": lambda request: inner.get("/")}) as outer:
            assert (await outer.get("/")).json() == {"it": {"it": 1}}
        assert (inner.trace().duration, outer.trace().duration) == (1, 1)


async def test_an_exception_of_the_block_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with gateway(one_call(), {"u": json(1)}) as client:
            await client.get("/")
            raise ZeroDivisionError


# Leaks.


async def test_a_response_that_is_not_closed_is_a_leak(autojump_clock: MockClock) -> None:
    config = '[upstreams.u]\nurls = ["http://u"]\n[[routes]]\npath = "/"\nproxy.upstream = "u"\n'
    with pytest.raises(LeakError, match="1 requests in flight; was a response not read") as caught:
        async with gateway(config, {"u": stream(b"part", hang())}) as client:
            await client.send(client.build_request("GET", "/"), stream=True)
    assert len(caught.value.left) == 1


def leaking() -> Umbel:
    """An application whose handler starts a task that outlasts its request."""
    app = Umbel(__name__)

    @app.compose("/")
    async def leak(compose: Any) -> Any:
        app.nursery.start_soon(trio.sleep, 30)
        return {}

    @app.before_serving
    async def begin() -> None:
        app.nursery.start_soon(trio.sleep, 20, name="the application's own task")

    return app


async def test_a_task_that_outlasts_its_request_is_a_leak(autojump_clock: MockClock) -> None:
    with pytest.raises(LeakError, match=r"the task trio.*sleep") as caught:
        async with gateway(leaking()) as client:
            await client.get("/")
    assert len(caught.value.left) == 1, "a task that the application starts at its startup is none"


async def test_the_check_for_leaks_can_be_switched_off(autojump_clock: MockClock) -> None:
    async with gateway(leaking(), leaks=False) as client:
        await client.get("/")


async def test_a_place_and_a_connection_that_are_not_given_back_are_leaks(autojump_clock: MockClock) -> None:
    with pytest.raises(LeakError) as caught:
        async with gateway(one_call(), {"u": json(1)}) as client:
            upstream = client.app.runtime.callers["u"]
            assert isinstance(upstream, Client)
            assert upstream.bulkhead.take()
            await upstream.pool.open(Origin("http", "u", 80), None)
    assert caught.value.left == (
        "upstream 'u': 1 calls that hold a place",
        "upstream 'u': 1 connections that are leased",
    )


async def test_a_copy_of_a_request_may_outlast_it(autojump_clock: MockClock) -> None:
    config = (
        one_call(call='mirror = { upstream = "copies", share = "100%" }')
        + '[upstreams.copies]\nurls = ["http://copies"]\n'
    )
    async with gateway(config, {"u": json(1), "copies": delay(3).then(json(2))}) as client:
        assert (await client.get("/")).status_code == 200
        assert trio.current_time() == 0
    assert trio.current_time() >= 3
    assert len(client.received("copies")) == 1


# Cancelling.


async def test_a_gateway_can_be_cancelled_at_every_checkpoint(autojump_clock: MockClock) -> None:
    held: list[Any] = []

    async def run() -> None:
        held.clear()
        upstreams = {"users": fail("reset").then(json(1)), "orders": delay(0.1).then(json(2))}
        async with gateway(page("retry = { attempts = 2 }"), upstreams) as client:
            held.append(client)
            await client.get("/page/7")

    def check() -> None:
        for client in held:
            assert client.app.current_runtime is None
            assert client.app.statistics().requests_in_flight == 0
            assert client.app.given_network is None

    assert await for_every_checkpoint(run, check, reason="the test is over", any_task=True) > 50
