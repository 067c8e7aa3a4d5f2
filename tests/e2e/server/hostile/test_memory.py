"""Memory of the server for unread uploads, unread responses and idle connections.

The server runs in a process of its own, so that its memory can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.process.launched_workers import Launched, scripted
from tests.support.server.http_channels import PROTOCOLS, Http1, Http2, ask, opened, rest
from tests.support.soak import SOAK

OVER = pytest.mark.parametrize("protocol", PROTOCOLS)
UPLOAD = 2**30 if SOAK else 2**30 // 10
GROWTH_MAX = 2**20
IDLE = 400
IDLE_MAX = 12 * 1024
"""Most bytes of memory for one idle connection."""

SCRIPT = """
import trio
from umbel.server import hypercorn_config, serve
from umbel.server.limits.server_limits import Limits

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    async def answer(body):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    if scope["path"] == "/never":
        await trio.sleep_forever()
    elif scope["path"] == "/count":
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        await answer(b"%d" % length)
    elif scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    else:
        await answer(b"hello")

async def main():
    config = hypercorn_config(bind=["127.0.0.1:0"])
    config.keep_alive_timeout = 600
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(lambda task_status: serve(
            app, config, limits=Limits(max_body=2**31, max_connections=2000), task_status=task_status))
        print("Running on", address, flush=True)
trio.run(main)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with scripted(SCRIPT, tmp_path_factory.mktemp("memory")) as server:
        yield server


async def send_for(channel: Http1 | Http2, seconds: float, size: int) -> int:
    """Send a body until all of it is sent, or no byte was accepted for a while. Return the bytes that were sent."""
    sent = 0
    piece = bytes(16_384)
    with trio.CancelScope() as scope:
        while sent < size:
            scope.deadline = trio.current_time() + seconds
            await channel.body(piece)
            sent += len(piece)
    return sent


@OVER
async def test_an_unread_upload_is_held_back_at_its_client(server: Launched, protocol: str) -> None:
    await ask(protocol, server.port, "POST", "/count", body=bytes(4_000_000))
    before = server.resident_from_now()
    async with opened(protocol, server.port) as channel:
        await channel.request("POST", "/never", [("content-length", str(2**30))], end=False)
        sent = await send_for(channel, 0.5, 2**30)
        grown = server.peak() - before
        await channel.abandon()
    assert 0 < sent < 16_000_000
    assert grown <= GROWTH_MAX


@OVER
async def test_a_large_upload_leaves_no_memory_behind(server: Launched, protocol: str) -> None:
    await ask(protocol, server.port, "POST", "/count", body=bytes(4_000_000))
    before = server.resident_from_now()
    size = UPLOAD if protocol == "HTTP/1.1" else UPLOAD // 4
    async with opened(protocol, server.port) as channel:
        await channel.request("POST", "/count", end=False)
        sent = await send_for(channel, 5, size)
        await channel.body(b"", end=True)
        with trio.fail_after(5):
            assert (await channel.answer())[0] == 200
            assert int(await rest(channel)) == sent >= size
    assert server.peak() - before <= GROWTH_MAX


@OVER
async def test_an_unread_endless_response_blocks_its_application(server: Launched, protocol: str) -> None:
    await ask(protocol, server.port, "GET", "/")
    before = server.resident_from_now()
    async with AsyncExitStack() as stack:
        for _ in range(10):
            channel = await stack.enter_async_context(opened(protocol, server.port))
            await channel.request("GET", "/endless")
        await wait_all_tasks_blocked(0.5)
        grown = server.peak() - before
    assert grown <= GROWTH_MAX * 2


async def test_an_idle_connection_takes_at_most_twelve_kibibytes(server: Launched) -> None:
    async with AsyncExitStack() as stack:

        async def open_more(count: int) -> None:
            for _ in range(count):
                channel = await stack.enter_async_context(opened("HTTP/1.1", server.port))
                await channel.request("GET", "/")
                assert (await channel.answer())[0] == 200
                assert await rest(channel) == b"hello"

        await open_more(100)
        before = server.resident()
        await open_more(IDLE)
        cost = (server.resident() - before) / IDLE
    assert cost <= IDLE_MAX
