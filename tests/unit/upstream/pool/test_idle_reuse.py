"""Which idle connections of a pool carry a request that must not be sent twice."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio

from tests.support.upstream.memory_dial import MemoryDial, ServerEnd, echo_server
from umbel.upstream import Pool, Transport
from umbel.upstream.errors import ConnectionReset

Made = Callable[..., Pool | Transport]


@pytest.fixture(params=["a pool alone", "an upstream"])
def made(request: pytest.FixtureRequest) -> Made:
    """What makes the connections' owner, for a ``dial``: their requests are the pool's own, or those of calls."""
    return Pool if request.param == "a pool alone" else lambda **options: Transport(["http://x"], **options)


def opened(pool: Pool | Transport) -> int:
    return (pool if isinstance(pool, Pool) else pool.client.pool).statistics().opened


async def send(pool: Pool | Transport, method: str = "POST", **headers: str) -> None:
    request = httpx.Request(method, "http://x/", headers={name.replace("_", "-"): it for name, it in headers.items()})
    await (await pool.handle_async_request(request)).aread()


def hinting(hint: str):
    """Answer every request with a Keep-Alive timeout."""

    async def handler(end: ServerEnd) -> None:
        buffer = b""
        while data := await end.receive_some():
            buffer += data
            while b"\r\n\r\n" in buffer:
                _, _, buffer = buffer.partition(b"\r\n\r\n")
                await end.send_all(f"HTTP/1.1 200 OK\r\nKeep-Alive: {hint}\r\nContent-Length: 0\r\n\r\n".encode())

    return handler


async def reused_after(pool: Pool | Transport, seconds: float, method: str = "POST", **headers: str) -> bool:
    """Whether such a request takes the connection of another one that ended so long ago."""
    await send(pool, "GET")
    before = opened(pool)
    await trio.sleep(seconds)
    await send(pool, method, **headers)
    return opened(pool) == before


async def test_without_knowledge_half_a_second_of_idle_time_is_the_limit(
    made: Made, nursery: trio.Nursery, autojump_clock
) -> None:
    async with made(dial=MemoryDial(nursery, echo_server())) as pool:
        assert await reused_after(pool, 0.5)
        assert not await reused_after(pool, 0.51)
        assert await reused_after(pool, 3.9, "GET")
        assert await reused_after(pool, 3.9, "POST", idempotency_key="a")


@pytest.mark.parametrize(
    ("hint", "limit"),
    [
        ("timeout=3", 2.0),
        ("max=100, timeout=2", 1.0),
        ("TIMEOUT = 3", 2.0),
        ("timeout=60", 4.0),
        ("timeout=", 0.5),
        ("timeout=9999999", 0.5),
        ("timeout=-3", 0.5),
        ("max=5", 0.5),
    ],
)
async def test_the_keep_alive_timeout_less_a_second_is_the_limit(
    hint: str, limit: float, made: Made, nursery: trio.Nursery, autojump_clock
) -> None:
    async with made(dial=MemoryDial(nursery, hinting(hint)), keepalive_expiry=60) as pool:
        assert await reused_after(pool, limit)
        assert not await reused_after(pool, limit + 0.01)


async def test_a_keep_alive_timeout_of_zero_prevents_reuse(made: Made, nursery: trio.Nursery, autojump_clock) -> None:
    async with made(dial=MemoryDial(nursery, hinting("timeout=0"))) as pool:
        assert not await reused_after(pool, 0)


def closing_after(seconds: float, *, hint: bytes = b""):
    """Answer, and close the connection after this idle time."""

    async def handler(end: ServerEnd) -> None:
        with trio.move_on_after(seconds) as idle:
            while await end.receive_some():
                await end.send_all(b"HTTP/1.1 200 OK\r\n" + hint + b"Content-Length: 0\r\n\r\n")
                idle.deadline = trio.current_time() + seconds

    return handler


async def test_the_shortest_idle_time_at_which_the_peer_closed_is_learned(
    made: Made, nursery: trio.Nursery, autojump_clock
) -> None:
    dial = MemoryDial(nursery, closing_after(2.0, hint=b"Keep-Alive: timeout=60\r\n"))
    async with made(dial=dial, keepalive_expiry=60) as pool:
        await send(pool, "GET")
        await trio.sleep(2.1)
        # A memory stream does not report its end: the request fails, and a POST is not repeated.
        with pytest.raises(ConnectionReset):
            await send(pool)
        assert await reused_after(pool, 1.6)
        assert not await reused_after(pool, 1.7)
        assert await reused_after(pool, 1.9, "GET")


def restarting(nursery: trio.Nursery, restart: trio.Event):
    """Answer, and close the connection at ``restart``; later ones are kept."""

    async def handler(end: ServerEnd) -> None:
        with trio.CancelScope() as scope:
            if not restart.is_set():
                nursery.start_soon(end_at_restart, scope)
            while await end.receive_some():
                await end.send_all(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 0\r\n\r\n")

    async def end_at_restart(scope: trio.CancelScope) -> None:
        await restart.wait()
        scope.cancel(reason="the server restarts")

    return handler


@pytest.mark.parametrize(("pause", "remembered"), [(30, True), (61, False)])
async def test_an_early_close_counts_for_a_minute_and_until_a_longer_idle_time(
    pause: float, remembered: bool, made: Made, nursery: trio.Nursery, autojump_clock
) -> None:
    restart = trio.Event()
    async with made(dial=MemoryDial(nursery, restarting(nursery, restart))) as pool:
        await send(pool, "GET")
        restart.set()
        await trio.sleep(0.01)
        with pytest.raises(ConnectionReset):
            await send(pool)
        assert not await reused_after(pool, 0.1)
        await trio.sleep(pause)
        assert not await reused_after(pool, 1.0), "no connection was kept for longer since"
        await trio.sleep(5)  # Both connections expire without being closed by the server.
        assert await reused_after(pool, 1.0) is not remembered


async def test_an_early_close_that_happens_again_is_not_forgotten(
    made: Made, nursery: trio.Nursery, autojump_clock
) -> None:
    async def handler(end: ServerEnd) -> None:
        """Every other connection is closed after a second."""
        seconds = 1.0 if len(dial.streams) % 2 else 60.0
        await closing_after(seconds, hint=b"Keep-Alive: timeout=60\r\n")(end)

    dial = MemoryDial(nursery, handler)
    async with made(dial=dial) as pool:
        for _ in range(30):
            await send(pool, "GET")
            await trio.sleep(3)  # The GET finds the connection ended, and is sent again.
        # Memory streams have no time of their end, so three seconds were observed.
        assert not await reused_after(pool, 2.5)


async def test_an_early_close_does_not_count_for_other_origins(nursery: trio.Nursery, autojump_clock) -> None:
    async with Pool(dial=MemoryDial(nursery, hinting("timeout=3"))) as pool:
        await send(pool, "GET")
        await trio.sleep(1)
        other = httpx.Request("POST", "http://other/")
        await (await pool.handle_async_request(other)).aread()
        assert (pool.statistics().opened, pool.statistics().idle) == (2, 2)
