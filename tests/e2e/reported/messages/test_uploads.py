"""Slow uploads do not count towards a route's deadline or the limit on requests in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import RawClient, connected, serving
from tests.support.upstream.raw_server import answering, raw_server, response, silent
from umbel.gateway.app import Umbel

JSON = response(b'{"n": 1}', b"Content-Type: application/json")
POSTS = route("/p", call='json = "body"', keys='deadline = "300ms"\nmax_body = "64MB"')
HEAD = b"POST %s HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
BODY = b'"%s"' % (b"x" * 9998)
SHORT = 'head_timeout = "400ms"\n'


@asynccontextmanager
async def gateway(directory: Path, stock: bool, keys: str = "", routes: str = POSTS) -> AsyncIterator[Program]:
    async with (
        raw_server(answering(JSON, JSON, JSON, JSON)) as upstream,
        running(directory, f"[server]\n{keys}\n{up(upstream)}{routes}{route()}", stock=stock) as program,
    ):
        yield program


async def begin(client: RawClient, path: bytes = b"/p", sent: bytes = b"", size: int = len(BODY)) -> None:
    await client.stream.send_all(HEAD % (path, size) + sent)


async def send_slowly(send: Callable[[bytes], Any], seconds: float = 0.6) -> None:
    """Send ``BODY`` in ten parts."""
    for at in range(0, len(BODY), 1000):
        await trio.sleep(seconds / 10)
        await send(BODY[at : at + 1000])


async def uploading(program: Program, count: int, waiting: int = 0) -> None:
    with trio.fail_after(5):
        while (told := program.app.statistics()).uploads != count or told.uploads_waiting != waiting:
            await wait_all_tasks_blocked(0.005)


def statuses(program: Program, path: str) -> list[int]:
    return [line["http.response.status_code"] for line in program.lines("access") if line["url.path"] == path]


@SERVERS
async def test_an_upload_that_takes_longer_than_the_deadline_is_answered(stock: bool, tmp_path: Path) -> None:
    async with gateway(tmp_path, stock) as program, connected(program.port) as client:
        await begin(client)
        await send_slowly(client.stream.send_all)
        assert (await client.reply("POST")).status == 200
        assert program.app.statistics().uploads == 0


@SERVERS
async def test_a_deadline_of_the_client_counts_from_its_complete_request(stock: bool, tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        routes = route("/p", call='json = "body"', keys='deadline = "20s"')
        async with running(tmp_path, up(upstream) + routes, stock=stock) as program, connected(program.port) as client:
            head = HEAD % (b"/p", len(BODY))
            await client.stream.send_all(head[:-2] + b"x-envoy-upstream-rq-timeout-ms: 300\r\n\r\n")
            await send_slowly(client.stream.send_all)
            complete_at = trio.current_time()
            assert (await client.reply("POST")).status == 504
            assert 0.25 < trio.current_time() - complete_at < 3
            await client.stream.aclose()


@SERVERS
async def test_an_upload_over_http2_that_takes_longer_than_the_deadline_is_answered(
    stock: bool, tmp_path: Path
) -> None:
    async with gateway(tmp_path, stock) as program, h2_client(program.port) as client:
        stream = await client.request("POST", "/p", [("content-type", "application/json")], end=False)
        await send_slowly(lambda part: client.data(stream, part))
        await client.data(stream, b"", end=True)
        assert (await client.answer(stream)).status == 200
        await client.stream.aclose()


@SERVERS
@pytest.mark.parametrize("reads", ["at once", "in parts"])
async def test_the_deadline_of_a_handler_counts_from_the_complete_request(reads: str, stock: bool) -> None:
    app = Umbel(__name__)

    @app.compose("/p", methods=["POST"], deadline=0.3)
    async def handler(compose: Any) -> Any:
        from quart import request

        if reads == "at once":
            return len(await request.get_json())
        return sum([len(part) async for part in request.body])

    @app.route("/quart", methods=["POST"])
    async def view() -> Any:
        from quart import request

        return {"size": len(await request.get_data())}

    async with serving(app, stock=stock, keep_alive_timeout=0.5) as port:
        for path in (b"/p", b"/quart"):
            async with connected(port) as client:
                await begin(client, path)
                await send_slowly(client.stream.send_all)
                assert (await client.reply("POST")).status == 200


@SERVERS
async def test_300_slow_uploads_delay_no_other_client_and_get_503_above_the_limit(stock: bool, tmp_path: Path) -> None:
    async with gateway(tmp_path, stock, 'head_timeout = "2s"') as program, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(program.port)) for _ in range(300)]
        for client in clients:
            await begin(client, sent=b" ")
        await uploading(program, 64, 236)
        with trio.fail_after(1):
            assert (await program.ask("/r"))[0].status == 200
        reply = await clients[-1].reply("POST")
        assert (reply.status, reply["retry-after"], reply["content-type"]) == (503, "1", "application/problem+json")
        await uploading(program, 64)
        for client in clients:
            await client.stream.aclose()
    assert sorted(statuses(program, "/p")) == [499] * 64 + [503] * 236
    assert {line["kind"] for line in program.lines("access") if line["http.response.status_code"] == 503} == {
        "overloaded"
    }


@SERVERS
async def test_an_upload_is_not_read_before_it_has_a_slot(stock: bool, tmp_path: Path) -> None:
    large = b'"%s"' % (b"x" * 30_000_000)
    routes = route("/p", call='json = "length(body)"', keys='deadline = "10s"\nmax_body = "64MB"')
    keys = 'max_uploads = 1\nmax_body = "64MB"'
    async with gateway(tmp_path, stock, keys, routes) as program, connected(program.port) as first:
        await begin(first, sent=b" ")
        await uploading(program, 1)
        async with connected(program.port) as second, trio.open_nursery() as nursery:
            await begin(second, size=len(large))
            sent = trio.Event()

            async def send() -> None:
                await second.stream.send_all(large)
                sent.set()

            nursery.start_soon(send)
            await uploading(program, 1, 1)
            with trio.move_on_after(0.3):
                await sent.wait()
            assert not sent.is_set()
            await first.stream.aclose()
            with trio.fail_after(10):
                assert (await second.reply("POST")).status == 200


@SERVERS
async def test_a_request_without_a_slow_body_does_not_wait_for_a_slot(stock: bool, tmp_path: Path) -> None:
    unread = route("/unread", keys='methods = ["POST"]')
    keys = SHORT + "max_uploads = 1"
    async with gateway(tmp_path, stock, keys, POSTS + unread) as program, connected(program.port) as first:
        await begin(first, sent=b" ")
        await uploading(program, 1)
        async with connected(program.port) as whole, connected(program.port) as later, connected(program.port) as other:
            await begin(whole, sent=BODY)
            with trio.fail_after(0.3):
                assert (await whole.reply("POST")).status == 200
            await begin(other, b"/unread", sent=b" ")
            with trio.fail_after(0.3):
                assert (await other.reply("POST")).status == 200
            # A small body that arrives completely while its request waits.
            await begin(later)
            await uploading(program, 1, 1)
            await later.stream.send_all(BODY)
            assert (await later.reply("POST")).status == 200
        await uploading(program, 1)
        await first.stream.aclose()


@SERVERS
async def test_uploads_over_http2_wait_for_slots_stream_by_stream(stock: bool, tmp_path: Path) -> None:
    fields = [("content-type", "application/json")]
    keys = SHORT + "max_uploads = 1"
    async with gateway(tmp_path, stock, keys) as program, h2_client(program.port) as client:
        first = await client.request("POST", "/p", fields, end=False)
        await uploading(program, 1)
        second = await client.request("POST", "/p", fields, end=False)
        third = await client.request("POST", "/p", fields, end=False)
        await uploading(program, 1, 2)
        await client.data(third, BODY, end=True)
        assert (await client.answer(third)).status == 200
        refused = await client.answer(second)
        assert (refused.status, refused["retry-after"]) == (503, "1")
        await client.data(first, BODY, end=True)
        assert (await client.answer(first)).status == 200
        await client.stream.aclose()
    assert sorted(statuses(program, "/p")) == [200, 200, 503]


@SERVERS
async def test_a_complete_upload_needs_a_slot_among_the_requests_in_flight(stock: bool, tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        hangs = route(keys='deadline = "20s"')
        config = f"[server]\nmax_in_flight = 1\n{up(upstream)}{POSTS}{hangs}"
        async with running(tmp_path, config, stock=stock) as program, connected(program.port) as client:
            await begin(client)
            await uploading(program, 1)
            async with connected(program.port) as hanging:
                await hanging.send("GET", "/r")
                while len(upstream.connections) != 1:
                    await wait_all_tasks_blocked(0.005)
                await client.stream.send_all(BODY)
                reply = await client.reply("POST")
                assert (reply.status, reply["retry-after"]) == (503, "1")
                await hanging.stream.aclose()
            await client.stream.aclose()
    assert statuses(program, "/p") == [503]
