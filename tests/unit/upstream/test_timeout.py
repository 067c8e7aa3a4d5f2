from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.memory_dial import MemoryDial, ServerEnd
from umbel.kinds import Kind
from umbel.upstream import Body, Breaker, Pool, Retry
from umbel.upstream.errors import BreakerOpen
from umbel.upstream.timeout import CallTimedOut, Timeout


class Pieces(httpx.AsyncByteStream):
    """Three pieces, one each second."""

    def __init__(self) -> None:
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.sleep(1)
            yield b"piece"

    async def aclose(self) -> None:
        self.closed += 1


class Bottom(httpx.AsyncBaseTransport):
    """A head after a second, then the body of ``pieces``."""

    def __init__(self) -> None:
        self.pieces = Pieces()
        self.cancelled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return httpx.Response(200, stream=self.pieces)


def get() -> httpx.Request:
    return httpx.Request("GET", "http://x/")


async def test_a_call_within_its_limit_passes(autojump_clock) -> None:
    response = await Timeout(Bottom(), seconds=4.5).handle_async_request(get())
    assert await response.aread() == b"piece" * 3


async def test_the_limit_cuts_the_wait_for_the_head(autojump_clock) -> None:
    bottom = Bottom()
    start = trio.current_time()
    with pytest.raises(CallTimedOut) as caught:
        await Timeout(bottom, seconds=0.5).handle_async_request(get())
    assert (trio.current_time() - start, bottom.cancelled) == (0.5, 1)
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.TIMEOUT, "http_response_timeout")
    assert isinstance(caught.value, httpx.TimeoutException)


async def test_the_limit_cuts_a_body_whose_pieces_come_in_time_each(autojump_clock) -> None:
    bottom = Bottom()
    start = trio.current_time()
    response = await Timeout(bottom, seconds=2.5).handle_async_request(get())
    got = []
    with pytest.raises(CallTimedOut, match=r"within its limit of 2\.5 s"):
        async for piece in response.aiter_raw():
            got.append(piece)  # noqa: PERF401 - the pieces before the cut are what is looked at
    assert (got, trio.current_time() - start, bottom.pieces.closed) == ([b"piece"], 2.5, 1)


async def test_the_time_of_a_slow_reader_passes_too(autojump_clock) -> None:
    bottom = Bottom()
    response = await Timeout(bottom, seconds=2.5).handle_async_request(get())
    await trio.sleep(5)
    with pytest.raises(CallTimedOut):
        await response.aread()
    assert bottom.pieces.closed == 1


async def test_pieces_that_are_there_already_do_not_outlast_the_limit(autojump_clock) -> None:
    class Ready(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"piece"

    bottom = Bottom()
    bottom.pieces = Ready()
    response = await Timeout(bottom, seconds=2).handle_async_request(get())
    got = 0
    with pytest.raises(CallTimedOut):
        async for _ in response.aiter_raw():
            got += 1
            await trio.sleep(0.25)
    assert (got, bottom.pieces.closed) == (4, 1)


async def test_a_complete_response_has_no_limit_any_more(autojump_clock) -> None:
    response = await Timeout(Body(Bottom()), seconds=4.5).handle_async_request(get())
    await trio.sleep(10)
    assert await response.aread() == b"piece" * 3


async def test_a_response_left_in_the_middle_is_closed(autojump_clock) -> None:
    bottom = Bottom()
    response = await Timeout(bottom, seconds=10).handle_async_request(get())
    async with aclosing(response.aiter_raw()) as pieces:
        assert await anext(pieces) == b"piece"
    await response.aclose()
    assert bottom.pieces.closed == 1


async def test_a_cancel_from_outside_is_no_timeout(autojump_clock) -> None:
    with trio.move_on_after(0.5) as scope:
        await Timeout(Bottom(), seconds=10).handle_async_request(get())
    assert scope.cancelled_caught
    response = await Timeout(Bottom(), seconds=10).handle_async_request(get())
    with trio.move_on_after(0.5) as scope:
        await response.aread()
    assert scope.cancelled_caught


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_is_more_than_nothing(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Timeout(Bottom(), seconds=seconds)


async def test_cancelled_at_any_point_it_leaves_no_connection(nursery: trio.Nursery, autojump_clock) -> None:
    async def slowly(end: ServerEnd) -> None:
        while await end.receive_some():
            for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"):
                await trio.lowlevel.checkpoint()
                await end.send_all(piece)

    dial = MemoryDial(nursery, slowly, delay=0.1)
    async with Pool(dial=dial) as pool, Timeout(pool, seconds=1) as transport:

        async def call() -> None:
            response = await transport.handle_async_request(get())
            try:
                assert await response.aread() == b"abcd"
            finally:
                await response.aclose()

        async def check() -> None:
            assert pool.statistics().active == 0
            await pool.aclose()

        assert await for_every_checkpoint(call, check) > 5


class Hanging(httpx.AsyncBaseTransport):
    """Never answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return await trio.sleep_forever()


async def test_what_hangs_until_the_limit_opens_the_breaker_below_it(autojump_clock) -> None:
    hanging = Hanging()
    layer = Timeout(Breaker(Retry(hanging), min_requests=20, open_for=100.0), seconds=2)

    async def late() -> None:
        with pytest.raises(CallTimedOut):
            await layer.handle_async_request(get())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(late)
    before = trio.current_time()
    with pytest.raises(BreakerOpen):
        await layer.handle_async_request(get())
    assert (trio.current_time(), hanging.asked) == (before, 20)


async def test_a_cancel_before_the_limit_counts_against_nobody(autojump_clock) -> None:
    breaker = Breaker(Hanging(), min_requests=1)
    layer = Timeout(breaker, seconds=2)
    for _ in range(30):
        with trio.move_on_after(1.0):
            await layer.handle_async_request(get())
    (statistics,) = breaker.statistics().origins.values()
    assert (statistics.requests, statistics.failures) == (0, 0)
