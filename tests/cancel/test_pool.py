"""Cancels of a connection pool at each checkpoint in turn: no connection and no slot is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.memory_dial import MemoryDial, ServerEnd
from umbel.upstream import Pool

BODY = b"x" * 100


async def answer_slowly(end: ServerEnd) -> None:
    """Respond in four parts, with a checkpoint before each."""
    buffer = b""
    while data := await end.receive_some():
        buffer += data
        while b"\r\n\r\n" in buffer:
            _, _, buffer = buffer.partition(b"\r\n\r\n")
            for piece in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 100\r\n\r\n", BODY[:50], BODY[50:]):
                await trio.lowlevel.checkpoint()
                await end.send_all(piece)


async def fetch(transport: httpx.AsyncBaseTransport) -> None:
    got = await transport.handle_async_request(httpx.Request("GET", "http://x/"))
    try:
        assert await got.aread() == BODY
    finally:
        await got.aclose()


class _Pieces(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            yield b"piece"


async def post(transport: httpx.AsyncBaseTransport) -> None:
    request = httpx.Request("POST", "http://x/", stream=_Pieces())
    await (await transport.handle_async_request(request)).aread()


async def answer_upload(end: ServerEnd) -> None:
    buffer = b""
    while data := await end.receive_some():
        buffer += data
        if buffer.endswith(b"0\r\n\r\n"):
            buffer = b""
            await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(("operation", "handler"), [(fetch, answer_slowly), (post, answer_upload)])
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
async def test_a_cancelled_request_leaves_no_connection_and_no_slot(
    operation: Callable[[httpx.AsyncBaseTransport], Awaitable[None]],
    handler: Callable[[ServerEnd], Awaitable[object]],
    warm: bool,
    nursery: trio.Nursery,
    autojump_clock,
) -> None:
    dial = MemoryDial(nursery, handler, delay=0.1)
    async with Pool(dial=dial, max_connections=1) as pool:

        async def check() -> None:
            statistics = pool.statistics()
            assert (statistics.active, statistics.connecting) == (0, 0)
            assert statistics.slots is not None
            assert (statistics.slots.in_use, statistics.slots.waiting) == (0, 0)
            assert dial.open == statistics.idle <= 1
            # The pool still works, and no response of a cancelled request is given to another one.
            await operation(pool)
            if not warm:
                await pool.aclose()

        await check()
        assert await for_every_checkpoint(lambda: operation(pool), check) > 3
    assert dial.open == 0


async def test_a_cancelled_wait_in_the_pools_queue_leaves_no_slot(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, answer_slowly, delay=0.1)
    async with Pool(dial=dial, max_connections=1) as pool:

        async def two() -> None:
            async with trio.open_nursery() as both:
                both.start_soon(fetch, pool)
                both.start_soon(fetch, pool)

        def check() -> None:
            slots = pool.statistics().slots
            assert slots is not None
            assert (slots.in_use, slots.waiting, pool.statistics().active) == (0, 0, 0)
            assert dial.open == pool.statistics().idle

        assert await for_every_checkpoint(two, check) > 10


async def test_a_cancelled_pool_leaves_nothing(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, answer_slowly, delay=0.1)

    async def enter_to_exit() -> None:
        async with Pool(dial=dial) as pool:
            await fetch(pool)
            await trio.sleep(100)

    def check() -> None:
        assert dial.open == 0

    assert await for_every_checkpoint(enter_to_exit, check) > 5
