"""Features for users' tests: ``transports=``, ``test_app()`` on a virtual clock; and the results of calls in code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from quart import websocket as quart_websocket
from quart.testing.app import LifespanError
from trio.testing import MockClock

from tests.support.upstream.raw_server import answering, raw_server, response
from umbel import Umbel
from umbel.composition.gather import CallHandle, CompositionFailedError
from umbel.core.errors import UmbelError
from umbel.upstream import Transport

TOML = """
[upstreams.users]
urls = ["http://127.0.0.1:9001/base", "http://127.0.0.1:9002"]
[[routes]]
path = "/user/<id>"
calls.user = { upstream = "users", path = "/users/{id}", params = { q = "path.id" } }
"""

Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]


def application(folder: Path, answer: Handler | httpx.AsyncBaseTransport | None, toml: str = TOML) -> Umbel:
    """An application whose upstream is a function, a transport, or (None) the configured one."""
    file = folder / "umbel.toml"
    file.write_text(toml)
    transport = httpx.MockTransport(answer) if callable(answer) else answer
    return Umbel.from_file(file, transports={} if transport is None else {"users": transport})


def found(request: httpx.Request) -> httpx.Response:
    """Answer with the URL of the request."""
    return httpx.Response(200, json={"url": str(request.url)}, headers=[("X-A", "1"), ("x-a", "2")])


async def found_late(request: httpx.Request) -> httpx.Response:
    """Answer with the URL of the request after three seconds."""
    await trio.sleep(3)
    return found(request)


async def get(app: Umbel, path: str) -> tuple[int, Any]:
    """Send a request with the application's test client; return the status and the JSON body."""
    reply = await app.test_client().get(path)
    return reply.status_code, json.loads(await reply.get_data())


async def test_a_transport_gets_the_url_of_the_upstream_with_the_target_of_the_call(tmp_path: Path) -> None:
    async with application(tmp_path, found).test_app() as running:
        assert await get(running.app, "/user/7") == (200, {"user": {"url": "http://127.0.0.1:9001/base/users/7?q=7"}})


async def test_a_test_app_starts_answers_and_stops_on_an_autojump_clock(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with application(tmp_path, found_late).test_app() as running:
        began = trio.current_time()
        assert (await get(running.app, "/user/7"))[0] == 200
        assert trio.current_time() - began == 3
    assert trio.current_time() - began < 5, "the clock jumped while the log files were closed"
    # The log files are complete.
    (record,) = map(json.loads, (tmp_path / "logs" / "access.jsonl").read_text().splitlines())
    assert record["http.response.status_code"] == 200
    last = json.loads((tmp_path / "logs" / "app.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["dropped"]) == ("log.closed", 0)


async def test_a_test_app_runs_on_a_clock_that_does_not_advance(tmp_path: Path, mock_clock: MockClock) -> None:
    async with application(tmp_path, found).test_app() as running:
        assert (await get(running.app, "/user/7"))[0] == 200
    assert trio.current_time() == 0


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Any]:
    """The test client of an application that runs within the fixture."""
    async with application(tmp_path, found_late).test_app() as running:
        yield running.test_client()


async def test_a_fixture_can_run_a_test_app_on_an_autojump_clock(client: Any, autojump_clock: MockClock) -> None:
    assert (await client.get("/user/7")).status_code == 200
    assert (await client.get("/user/8")).status_code == 200


async def test_a_route_deadline_passes_in_virtual_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    toml = TOML.replace('"/user/<id>"', '"/user/<id>"\ndeadline = "2s"')
    async with application(tmp_path, found_late, toml).test_app() as running:
        began = trio.current_time()
        status, problem = await get(running.app, "/user/7")
        assert (status, trio.current_time() - began) == (504, 2), problem


async def test_calls_over_sockets_work_on_an_autojump_clock(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with raw_server(answering(response(b'{"a": 1}', b"Content-Type: application/json"))) as port:
        toml = TOML.replace("9001/base", str(int(port))).replace(', "http://127.0.0.1:9002"', "")
        async with application(tmp_path, None, toml).test_app() as running:
            assert await get(running.app, "/user/7") == (200, {"user": {"a": 1}})
        async with (
            Transport([f"http://127.0.0.1:{int(port)}"]) as transport,
            application(tmp_path, transport).test_app() as running,
        ):
            assert await get(running.app, "/user/7") == (200, {"user": {"a": 1}})


async def test_test_app_raises_an_exception_of_its_block_unchanged(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)
    with pytest.raises(AssertionError, match="of the test"):
        async with app.test_app():
            raise AssertionError("of the test")
    assert app.current_runtime is None


@pytest.mark.parametrize("clock", ["mock_clock", "autojump_clock"])
async def test_a_failed_start_raises_an_error_with_the_reason(
    tmp_path: Path, clock: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(clock)
    (tmp_path / "file").write_text("")
    with pytest.raises(LifespanError, match=r"did not start: .*file.*cannot be written"):
        async with application(tmp_path, found, TOML + '[logs]\ndir = "file/logs"\n').test_app():
            raise AssertionError("the application has started")


async def test_a_failed_stop_raises_an_error_with_the_reason(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)

    @app.after_serving
    async def fail() -> None:
        raise ValueError("the pump is stuck")

    with pytest.raises(LifespanError, match="did not stop: the pump is stuck"):
        async with app.test_app():
            pass


async def test_a_start_that_takes_too_long_raises_too_slow_error(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)

    @app.before_serving
    async def hang() -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        async with app.test_app():
            raise AssertionError("the application has started")


async def test_a_hook_may_sleep_while_the_application_starts(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)

    @app.before_serving
    async def warm_up() -> None:
        await trio.sleep(4)

    async with app.test_app() as running:
        assert (await get(running.app, "/user/7"))[0] == 200


async def test_a_request_or_websocket_of_a_test_client_can_be_cancelled_at_any_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    app = application(tmp_path, found_late)

    @app.websocket("/silent")
    async def silent() -> None:
        await trio.sleep_forever()

    async def listen() -> None:
        async with app.test_client().websocket("/silent") as websocket:
            await websocket.receive()

    async with app.test_app():
        for work in (partial(get, app, "/user/7"), listen):
            for turns in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel(reason="the test has seen enough")
        assert (await get(app, "/user/7"))[0] == 200


async def test_a_test_client_can_close_its_websocket(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)

    @app.websocket("/echo")
    async def echo() -> None:
        await quart_websocket.send(await quart_websocket.receive())

    async with app.test_app(), app.test_client().websocket("/echo") as websocket:
        await websocket.send("hello")
        assert await websocket.receive() == "hello"
        await websocket.disconnect()


async def test_a_test_client_reads_a_response_of_many_parts(tmp_path: Path, autojump_clock: MockClock) -> None:
    app = application(tmp_path, found)

    @app.route("/parts")
    async def parts() -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x"

        return pieces(), 200

    async with app.test_app() as running:
        assert await (await running.test_client().get("/parts")).get_data() == b"x" * 50


# Calls in code.


def answers(request: httpx.Request) -> httpx.Response:
    """Answer by path: 201 with fields, 404 with a field, invalid JSON, a large body; otherwise connecting fails."""
    match request.url.path.removeprefix("/base"):
        case "/made":
            return httpx.Response(201, json={"id": 7}, headers=[("Location", "/made/7"), ("A", "1"), ("a", "2")])
        case "/missing":
            return httpx.Response(404, json={}, headers={"X-Why": "gone"})
        case "/broken":
            return httpx.Response(200, text="{", headers={"X-Why": "torn"})
        case "/large":
            return httpx.Response(200, json="x" * 100_000, headers={"X-Size": "large"})
    raise httpx.ConnectError("nobody is there")


async def calls_of(tmp_path: Path, handler: Callable[..., Awaitable[Any]]) -> Any:
    """Run a composing handler and return the JSON of its answer."""
    app = application(tmp_path, answers)
    app.compose("/")(handler)
    async with app.test_app() as running:
        return (await get(running.app, "/"))[1]


def said(handle: CallHandle, *names: str) -> list[Any]:
    return [handle.status, *(handle.headers.get(name) for name in names)]


async def test_a_call_in_code_has_the_status_and_headers_of_success_and_failure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def handler(compose: Any) -> Any:
        async with compose.gather() as g:
            made, missing, broken, refused, large = (
                g.post("users", path, optional=True) for path in ("/made", "/missing", "/broken", "/refused", "/large")
            )
            with pytest.raises(UmbelError, match="in flight"):
                assert made.status
            with pytest.raises(UmbelError, match="in flight"):
                assert made.headers
            await made
            early = said(made, "location")
        assert made.headers.get_list("a") == ["1", "2"]
        return {
            "early": early,
            "made": said(made, "LOCATION", "A"),
            "missing": said(missing, "x-why"),
            "broken": said(broken, "x-why"),
            "refused": [refused.status, len(refused.headers)],
            "large": said(large, "x-size"),
        }

    assert await calls_of(tmp_path, handler) == {
        "early": [201, "/made/7"],
        "made": [201, "/made/7", "1, 2"],
        "missing": [404, "gone"],
        "broken": [200, "torn"],
        "refused": [None, 0],
        "large": [200, "large"],
    }


async def test_a_failed_required_call_has_the_status_of_its_response(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def handler(compose: Any) -> Any:
        handles: list[CallHandle] = []
        with pytest.raises(CompositionFailedError):
            async with compose.gather() as g:
                await g.get("users", "/made", name="other")
                handles.append(g.get("users", "/missing"))
        return [said(handles[0], "x-why"), handles[0].outcome.failure.kind]

    assert await calls_of(tmp_path, handler) == [[404, "gone"], "status"]


@pytest.mark.parametrize("coalesce", [False, True])
async def test_a_call_in_code_over_a_socket_has_the_received_fields(
    coalesce: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    reply = response(b'{"a": 1}', b'ETag: "1"', b"Connection: keep-alive", b"Set-Cookie: a", b"Set-Cookie: b")
    async with raw_server(answering(reply)) as port, Transport([f"http://127.0.0.1:{int(port)}"]) as transport:
        app = application(tmp_path, transport)

        @app.compose("/")
        async def handler(compose: Any) -> Any:
            async with compose.gather() as g:
                call = g.get("users", "/", coalesce=coalesce)
            return [*said(call, "etag", "connection"), call.headers.get_list("set-cookie")]

        async with app.test_app() as running:
            assert (await get(running.app, "/"))[1] == [200, '"1"', None, ["a", "b"]]
