"""Request body for Quart: parts, the whole, the limit, and Quart's own methods."""

from __future__ import annotations

import pytest
import trio
from quart import request
from werkzeug.exceptions import RequestEntityTooLarge

from tests.support.server.asgi import ask, conversation, living
from tests.unit.gateway.gateways import gateway
from umbel.gateway.quart.quart_body import QuartBody

MockClock = trio.testing.MockClock


async def test_parts_of_a_body_are_read_as_they_arrive(autojump_clock: MockClock) -> None:
    upload = QuartBody(None, 100)
    read: list[bytes] = []

    async def reader() -> None:
        read.extend([part async for part in upload])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        for part in (b"one", b"two", b""):
            upload.append(part)
            await trio.testing.wait_all_tasks_blocked()
        assert b"".join(read) == b""
        upload.set_complete()
    assert read == [b"one", b"two"]


async def test_a_whole_body_can_be_read_again_until_it_is_cleared() -> None:
    upload = QuartBody(6, 6)
    upload.append(b"abc")
    upload.set_result(b"def")
    assert await upload == await upload == b"abcdef"
    upload.clear()
    assert await upload == b""


async def test_a_known_length_over_the_limit_is_refused_at_once() -> None:
    upload = QuartBody(101, 100)
    with pytest.raises(RequestEntityTooLarge):
        await upload
    with pytest.raises(RequestEntityTooLarge):
        await anext(upload)


async def test_the_limit_applies_to_the_whole_body_and_frees_its_bytes() -> None:
    upload = QuartBody(None, 100)
    for _ in range(10):
        upload.append(b"x" * 10)
        assert await anext(upload) == b"x" * 10
    for _ in range(1000):
        upload.append(b"y" * 1000)
    with pytest.raises(RequestEntityTooLarge):
        await anext(upload)
    assert not upload._held


async def test_a_body_without_limit_may_be_large() -> None:
    upload = QuartBody(10**9, None)
    upload.set_result(b"x" * 10**6)
    assert len(await upload) == 10**6


async def test_a_waiting_reader_gets_the_error_of_a_body_over_the_limit(autojump_clock: MockClock) -> None:
    upload = QuartBody(None, 3)
    with pytest.RaisesGroup(RequestEntityTooLarge):
        async with trio.open_nursery() as nursery:

            async def whole() -> None:
                await upload

            nursery.start_soon(whole)
            await trio.testing.wait_all_tasks_blocked()
            upload.append(b"1234")


async def test_quarts_request_methods_read_the_body(autojump_clock: MockClock) -> None:
    app, _ = gateway(server={"max_body": "1KB"})

    @app.post("/json")
    async def json() -> dict[str, int]:
        return {"sum": sum(await request.get_json())}

    @app.post("/form")
    async def form() -> dict[str, str]:
        return dict(await request.form)

    @app.post("/parts")
    async def parts() -> str:
        return str(sum([len(part) async for part in request.body]))

    multipart = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    async with living(app):
        answer = await ask(app, "POST", "/json", body=b"[1, 2]", headers=[("content-type", "application/json")])
        assert answer.json == {"sum": 3}
        urlencoded = [("content-type", "application/x-www-form-urlencoded")]
        assert (await ask(app, "POST", "/form", body=b"a=1&b=2", headers=urlencoded)).json == {"a": "1", "b": "2"}
        boundary = [("content-type", "multipart/form-data; boundary=x"), ("content-length", str(len(multipart)))]
        assert (await ask(app, "POST", "/form", body=multipart, headers=boundary)).json == {"a": "1"}
        async with conversation(app, "POST", "/parts") as talk:
            for _ in range(20):
                await talk.body(b"x" * 10, more=True)
            await talk.body(b"")
        assert talk.answer.body == b"200"
        assert (await ask(app, "POST", "/parts", body=b"x" * 1001)).status == 413
