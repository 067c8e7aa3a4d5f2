"""Behaviour of the server with three kinds of ASGI applications for trio, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.support.server.asgi_apps import APPS, Happened
from tests.support.server.http_channels import PROTOCOLS, ask, opened, rest
from tests.support.server.serving import serving

OVER = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture
def happened() -> Happened:
    return Happened()


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest, happened: Happened) -> Iterator[object]:
    yield APPS[request.param](happened)


@OVER
async def test_a_text_response_has_length_type_and_date(app: object, protocol: str) -> None:
    async with serving(app) as port:
        status, headers, body = await ask(protocol, port, "GET", "/hello")
    assert (status, body) == (200, b"hello")
    assert headers["content-length"] == "5"
    assert headers["content-type"].startswith("text/plain")
    assert "date" in headers
    assert "server" not in headers


@OVER
async def test_the_scope_holds_the_request(app: object, protocol: str) -> None:
    target = "/where?a=1&b=%20"
    async with serving(app) as port:
        _, _, body = await ask(protocol, port, "GET", target, [("x-one", "1"), ("x-two", "a"), ("x-two", "b")])
    facts = json.loads(body)
    assert facts["http_version"] == protocol.removeprefix("HTTP/")
    assert (facts["method"], facts["scheme"], facts["root_path"]) == ("GET", "http", "")
    assert (facts["path"], facts["raw_path"], facts["query_string"]) == ("/where", "/where", "a=1&b=%20")
    assert facts["client"][0] == "127.0.0.1"
    assert facts["server"] == ["127.0.0.1", port]
    assert (facts["asgi"]["version"], facts["asgi"]["spec_version"][:2]) == ("3.0", "2.")
    headers = [(name, value) for name, value in facts["headers"] if not name.startswith(":")]
    assert all(name == name.lower() for name, _ in headers)
    assert [pair for pair in headers if pair[0].startswith("x-")] == [("x-one", "1"), ("x-two", "a"), ("x-two", "b")]
    assert [value for name, value in headers if name == "host"] == ["gateway.test"]


@OVER
async def test_the_path_is_decoded_once_and_raw_path_is_unchanged(app: object, protocol: str) -> None:
    async with serving(app) as port:
        _, _, body = await ask(protocol, port, "GET", "/%77her%65?x=%77")
    facts = json.loads(body)
    assert (facts["path"], facts["raw_path"], facts["query_string"]) == ("/where", "/%77her%65", "x=%77")


@OVER
async def test_the_root_path_is_that_of_the_settings(app: object, protocol: str) -> None:
    async with serving(app, root_path="/mounted") as port:
        status, _, body = await ask(protocol, port, "GET", "/mounted/where")
        if status == 404:
            # Quart expects the path without root_path.
            status, _, body = await ask(protocol, port, "GET", "/where")
    assert (status, json.loads(body)["root_path"]) == (200, "/mounted")


@OVER
async def test_a_response_in_parts_has_no_content_length(app: object, protocol: str) -> None:
    async with serving(app) as port:
        status, headers, body = await ask(protocol, port, "GET", "/numbers")
    assert (status, body) == (200, b"".join(b"%d\n" % number for number in range(100)))
    assert "content-length" not in headers
    assert ("transfer-encoding" in headers) == (protocol == "HTTP/1.1")


@OVER
async def test_a_response_to_head_has_the_same_head_and_no_body(app: object, protocol: str) -> None:
    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            for _ in range(2):
                await channel.request("HEAD", "/hello")
                status, headers = await channel.answer()
                assert (status, headers["content-length"], await rest(channel)) == (200, "5", b"")


@OVER
@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
async def test_a_body_with_a_known_length_arrives_whole(app: object, protocol: str, size: int) -> None:
    async with serving(app) as port:
        status, _, body = await ask(protocol, port, "POST", "/count", body=b"x" * size)
    assert (status, body) == (200, b"%d" % size)


@OVER
async def test_tasks_that_receive_together_share_the_body_and_each_get_its_end(protocol: str) -> None:
    parts: list[bytes] = []
    ends: list[bool] = []
    disconnects = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("there is none")
        whole = trio.Event()

        async def listen() -> None:
            nonlocal disconnects
            while (message := await receive())["type"] == "http.request":
                parts.append(message["body"])
                if not message["more_body"]:
                    ends.append(True)
                    whole.set()
            disconnects += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(listen)
            await whole.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"".join(parts)})

    async with serving(app) as port:
        status, _, body = await ask(protocol, port, "POST", "/", body=b"x" * 300_000)
        assert (status, len(body)) == (200, 300_000)
    assert (ends, disconnects) == ([True], 3)


@OVER
async def test_a_body_of_unknown_length_streams_both_ways_at_once(app: object, protocol: str) -> None:
    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            await channel.request("POST", "/echo", end=False)
            await channel.body(b"part 0")
            status, _ = await channel.answer()
            assert status == 200
            for number in range(1, 20):
                assert await channel.part() == b"part %d" % (number - 1)
                await channel.body(b"part %d" % number)
            assert await channel.part() == b"part 19"
            await channel.body(b"last", end=True)
            assert await rest(channel) == b"last"


@OVER
async def test_a_response_may_precede_the_request_body(app: object, protocol: str) -> None:
    async with serving(app) as port:
        async with opened(protocol, port) as channel:
            with trio.fail_after(5):
                await channel.request("POST", "/early", [("content-length", "1000000")], end=False)
                status, _ = await channel.answer()
                assert (status, await rest(channel)) == (413, b"too much")
        # The server must serve further connections.
        assert (await ask(protocol, port, "GET", "/hello"))[0] == 200


@OVER
async def test_a_connection_carries_many_requests(app: object, protocol: str) -> None:
    async with serving(app) as port, opened(protocol, port) as channel:
        with trio.fail_after(5):
            for number in range(20):
                await channel.request("POST", "/count", [("content-length", str(number))], end=False)
                await channel.body(b"x" * number, end=True)
                status, _ = await channel.answer()
                assert (status, await rest(channel)) == (200, b"%d" % number)


@OVER
async def test_requests_have_the_lifespan_state_and_shutdown_comes_last(
    app: object, happened: Happened, protocol: str
) -> None:
    async with serving(app) as port:
        assert (await ask(protocol, port, "GET", "/state"))[2] == b"from the lifespan"
        assert happened.log == []
    assert happened.log == ["shut down"]


@OVER
async def test_a_client_that_leaves_ends_its_request_at_the_application(
    app: object, happened: Happened, protocol: str
) -> None:
    async with serving(app) as port, opened(protocol, port) as channel:
        await channel.request("GET", "/hang")
        await happened.wait_for("hanging")
        await channel.abandon()
        await happened.wait_for("left")
        assert (await ask(protocol, port, "GET", "/hello"))[0] == 200


@OVER
async def test_an_exception_before_the_head_is_a_500(
    app: object, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app) as port:
        status, _, _ = await ask(protocol, port, "GET", "/raise")
        assert status == 500
        assert (await ask(protocol, port, "GET", "/hello"))[0] == 200
    assert "Boom" in caplog.text


@OVER
async def test_an_exception_within_a_response_body_leaves_the_body_incomplete(
    app: object, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app) as port:
        async with opened(protocol, port) as channel:
            with trio.fail_after(5):
                await channel.request("GET", "/break")
                status, _ = await channel.answer()
                assert status == 200
                with pytest.raises(EOFError):
                    await rest(channel)
        assert (await ask(protocol, port, "GET", "/hello"))[0] == 200
    assert "Boom" in caplog.text
