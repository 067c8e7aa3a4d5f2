"""Clocks of HTTP/2: a client cannot extend a wait by a few bytes or frames now and then. On the autojump clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import h2.errors
import h2.settings
import pytest
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.server.h2_connections import Connected, answer, h2_connected, hello, read_all
from umbel.server.http2.frames import PREFACE
from umbel.server.limits.server_limits import Limits
from umbel.server.response.error_response import REFUSED_MAX

MockClock = trio.testing.MockClock
Codes = h2.errors.ErrorCodes
PING = PingFrame(opaque_data=b"8 bytes.").serialize()


async def large(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, bytes(1_000_000))


async def ticks(scope: Any, receive: Any, send: Any) -> None:
    """Send 100 bytes each second, without end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(100), "more_body": True})
        await trio.sleep(1)


async def send_until_closed(here: Connected, pieces: Iterator[bytes], every: float) -> None:
    """Send a piece every ``every`` seconds until the server closes the connection."""
    try:
        for piece in pieces:
            await here.client.stream.send_all(piece)
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def ended_with(here: Connected, pieces: Iterator[bytes], every: float) -> float:
    """Send the pieces, and read, until the connection ends. Return the time of its end."""
    here.client.mute = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_until_closed, here, pieces, every)
        with trio.fail_after(1000):
            await here.client.ended()
        nursery.cancel_scope.cancel(reason="the server has closed")
    return trio.current_time()


# Windows.


async def shut(here: Connected, size: int = 0) -> None:
    """Set the initial window of the client's streams without its own library."""
    await here.client.frames(SettingsFrame(0, settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size}))


async def open_by(here: Connected, stream: int, size: int, every: float) -> None:
    """Open a window by ``size`` bytes again and again."""
    while not stream or here.client.answers[stream].reset is None:
        await trio.sleep(every)
        here.client.h2.increment_flow_control_window(size, stream or None)
        await here.client.flush()


async def request_with_a_large_window(here: Connected) -> int:
    stream = await here.client.request()
    here.client.h2.increment_flow_control_window(2**20, stream)
    await here.client.flush()
    return stream


@pytest.mark.parametrize("serve", [large, ticks])
@pytest.mark.parametrize("every", [0.05, 1, 29])
async def test_a_stream_window_opened_by_single_bytes_ends_at_the_write_timeout(
    serve: Any, every: float, autojump_clock: MockClock
) -> None:
    async with h2_connected(serve, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        await shut(here)
        stream = await here.client.request()
        nursery.start_soon(open_by, here, stream, 1, every)
        with trio.fail_after(100):
            reply = await here.client.answer(stream)
        assert reply.reset == Codes.CANCEL
        assert 29.9 < trio.current_time() < 45  # Time in which nothing is to be sent does not count.
        nursery.cancel_scope.cancel()


async def test_ninety_responses_with_windows_of_single_bytes_end_at_the_write_timeout(
    autojump_clock: MockClock,
) -> None:
    async with h2_connected(large, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        await shut(here)
        streams = [await here.client.request() for _ in range(90)]

        async def feed() -> None:
            for turn in count():
                await here.client.frames(WindowUpdateFrame(streams[turn % 90], window_increment=1))
                await trio.sleep(0.1)

        nursery.start_soon(feed)
        for stream in streams:
            assert (await here.client.answer(stream)).reset == Codes.CANCEL
        assert trio.current_time() < 35
        nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert here.state.in_flight == 0


async def test_a_connection_window_opened_by_single_bytes_ends_each_response(autojump_clock: MockClock) -> None:
    async with h2_connected(large, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        here.client.acknowledges = False
        streams = [await request_with_a_large_window(here) for _ in range(5)]
        nursery.start_soon(open_by, here, 0, 1, 1)
        for stream in streams:
            with trio.fail_after(100):
                assert (await here.client.answer(stream)).reset == Codes.CANCEL
        assert trio.current_time() == pytest.approx(30, abs=1)
        nursery.cancel_scope.cancel()


async def test_one_flowing_response_does_not_keep_stalled_ones_alive(
    autojump_clock: MockClock,
) -> None:
    """The connection's window opens by 64 KiB within each write timeout, for twenty responses together."""
    async with h2_connected(large, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        here.client.acknowledges = False
        streams = [await request_with_a_large_window(here) for _ in range(20)]
        nursery.start_soon(open_by, here, 0, 4000, 1)
        with trio.move_on_after(200):
            while await here.client.receive():
                pass
        # The remaining streams got 64 KiB in each 120 seconds. The window allows that for seven of them.
        assert len([stream for stream in streams if here.client.answers[stream].reset is None]) <= 8
        nursery.cancel_scope.cancel()


async def test_settings_that_shrink_and_grow_the_windows_do_not_extend_the_time(autojump_clock: MockClock) -> None:
    async with h2_connected(large, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        stream = await here.client.request()
        here.client.acknowledges = False

        async def resize() -> None:
            for turn in count():
                await trio.sleep(2)
                await shut(here, 65_535 + turn if turn % 2 else 100)

        nursery.start_soon(resize)
        with trio.fail_after(200):
            assert (await here.client.answer(stream)).reset == Codes.CANCEL
        assert 29.9 < trio.current_time() < 60
        nursery.cancel_scope.cancel()


async def test_time_in_which_the_application_sends_nothing_does_not_count(autojump_clock: MockClock) -> None:
    """The client opens its window in time for each part. The application takes much longer between the parts."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
            await trio.sleep(100)
        await send({"type": "http.response.body", "body": b""})

    async with h2_connected(serve, Limits(write_timeout=30)) as here:
        stream = await here.client.request()
        assert (await here.client.answer(stream)).body == bytes(500)


@pytest.mark.parametrize("taken_every", [1.0, 29.0])
async def test_a_socket_that_takes_little_at_a_time_ends_the_connection(
    taken_every: float, autojump_clock: MockClock
) -> None:
    """Each write is accepted in time, but all together are far less than 64 KiB per write timeout."""

    async def chatters(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def slowly() -> None:
        await trio.sleep(taken_every)

    async with h2_connected(chatters, Limits(write_timeout=30)) as here:
        here.stream.send_stream.send_all_hook = slowly
        await here.client.request()
        with trio.fail_after(100):
            await here.over.wait()
        assert trio.current_time() == pytest.approx(30, abs=1)


@pytest.mark.parametrize("part", [1, 1000])
async def test_a_websocket_whose_window_opens_by_little_is_ended(part: int, autojump_clock: MockClock) -> None:
    async def chatters(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x" * part})
            await trio.sleep(0.01)

    async with h2_connected(chatters, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        await shut(here)
        fields = {":method": "CONNECT", ":protocol": "websocket"}
        stream = await here.client.request(headers=[("sec-websocket-version", "13")], end=False, **fields)
        nursery.start_soon(open_by, here, stream, 1, 1)
        with trio.fail_after(100):
            assert (await here.client.answer(stream)).reset == Codes.CANCEL
        assert 29.9 < trio.current_time() < 40
        nursery.cancel_scope.cancel()


# Heads.


def block_in_pieces() -> Iterator[bytes]:
    yield HeadersFrame(1, data=b"\x82").serialize()
    while True:
        yield ContinuationFrame(1, data=b"\x86").serialize()


def block_of_nothing() -> Iterator[bytes]:
    yield HeadersFrame(1, data=b"\x82").serialize()
    while True:
        yield ContinuationFrame(1, data=b"").serialize()


def frame_in_pieces() -> Iterator[bytes]:
    frame = HeadersFrame(1, data=b"\x82\x86\x84" + b"\x0f" * 9000, flags=["END_HEADERS"]).serialize()
    for at in range(len(frame)):
        yield frame[at : at + 1]


@pytest.mark.parametrize("pieces", [block_in_pieces, block_of_nothing, frame_in_pieces])
@pytest.mark.parametrize("working", [False, True], ids=["alone", "beside a request"])
async def test_a_slow_header_block_ends_the_connection_at_the_head_timeout(
    pieces: Any, working: bool, autojump_clock: MockClock
) -> None:
    async def works(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(math.inf)

    async with h2_connected(works, Limits(head_timeout=5), keep_alive_timeout=60) as here:
        shift = 0
        if working:
            await here.client.request()
            shift = 2
        parts = (_on_stream(part, 1 + shift) for part in pieces()) if pieces is not frame_in_pieces else pieces()
        assert await ended_with(here, parts, 0.8) == pytest.approx(5, abs=0.1)


def _on_stream(frame: bytes, stream: int) -> bytes:
    return frame[:5] + stream.to_bytes(4, "big") + frame[9:]


def pings_and_beginnings(size: int) -> Iterator[bytes]:
    yield PING[:size]
    while True:
        yield PING[size:] + PING[:size]


@pytest.mark.parametrize("size", [1, 3, 4, 12])
async def test_complete_and_incomplete_pings_do_not_keep_a_connection(size: int, autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(head_timeout=5), keep_alive_timeout=15) as here:
        assert await ended_with(here, pings_and_beginnings(size), 0.8) <= 15.1


UNKNOWN = b"\0\0\1\xee\0\0\0\0\0x"


@pytest.mark.parametrize(
    "frame",
    [
        PING,
        SettingsFrame(0, settings={3: 100}).serialize(),
        WindowUpdateFrame(0, window_increment=1).serialize(),
        PriorityFrame(1, depends_on=3).serialize(),
        UNKNOWN,
    ],
    ids=["ping", "settings", "window", "priority", "unknown"],
)
async def test_frames_without_a_request_do_not_extend_the_keep_alive_timeout(
    frame: bytes, autojump_clock: MockClock
) -> None:
    async with h2_connected(hello, keep_alive_timeout=15) as here:
        await here.client.fetch()
        assert await ended_with(here, (frame for _ in count()), 0.8) == pytest.approx(15)


async def test_a_slow_preface_ends_the_connection_at_the_head_timeout(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(head_timeout=5), silent=True, keep_alive_timeout=60) as here:
        pieces = (PREFACE[at : at + 1] for at in range(len(PREFACE)))
        assert await ended_with(here, pieces, 0.8) == pytest.approx(5)


async def test_a_head_begun_at_the_end_of_the_idle_time_has_its_own_timeout(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(head_timeout=5), keep_alive_timeout=15) as here:
        await trio.sleep(14)
        stream = here.client.h2.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "gateway.test")]
        here.client.h2.send_headers(stream, pseudo, end_stream=True)
        frame = here.client.h2.data_to_send()
        await here.client.stream.send_all(frame[:20])
        await trio.sleep(4)
        await here.client.stream.send_all(frame[20:])
        here.client.answers[stream] = type(await here.client.fetch())()
        assert here.state.statistics().requests_total == 2


# Error responses.


@pytest.mark.parametrize("every", [0.01, 3])
async def test_the_hundredth_refused_request_ends_the_connection(every: float, autojump_clock: MockClock) -> None:
    async with h2_connected(hello, keep_alive_timeout=15) as here:
        with suppress(trio.BrokenResourceError):
            while not here.client.closed:
                await here.client.answer(await here.client.request(headers=[("x_under", "score")]))
                assert len(here.client.answers) <= 2 * REFUSED_MAX
                await trio.sleep(every)
    assert len(here.records.requests) == REFUSED_MAX
    assert here.client.goaway


async def test_the_hundredth_refused_handshake_ends_the_connection() -> None:
    async with h2_connected(hello) as here:
        with suppress(trio.BrokenResourceError):
            while not here.client.closed:
                old = [("sec-websocket-version", "12")]
                stream = await here.client.request("CONNECT", "/ws", old, end=False, **{":protocol": "websocket"})
                await here.client.answer(stream)
                assert len(here.client.answers) <= 2 * REFUSED_MAX
    assert [record.status for record in here.records.requests] == [400] * REFUSED_MAX
    assert here.client.goaway


async def test_requests_after_the_servers_goaway_count_as_resets(autojump_clock: MockClock) -> None:
    async def works(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(math.inf)

    async with h2_connected(works) as here:
        await here.client.request()
        await trio.testing.wait_all_tasks_blocked()
        next(iter(here.state.open)).drain(trio.current_time())
        with suppress(trio.BrokenResourceError):
            while not here.client.closed:
                await here.client.answer(await here.client.request())
                assert len(here.client.answers) < 1000
        assert Codes.ENHANCE_YOUR_CALM in here.client.goaway


# Bodies.


async def reads(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, str(len(await read_all(receive))).encode())


def single_bytes() -> Iterator[bytes]:
    while True:
        yield DataFrame(1, data=b"x").serialize()


def nothing() -> Iterator[bytes]:
    while True:
        yield DataFrame(1, data=b"").serialize()


def one_frame() -> Iterator[bytes]:
    frame = DataFrame(1, data=bytes(16_384)).serialize()
    for at in range(len(frame)):
        yield frame[at : at + 1]


def padding() -> Iterator[bytes]:
    while True:
        yield DataFrame(1, data=b"", pad_length=200, flags=["PADDED"]).serialize()


@pytest.mark.parametrize("pieces", [single_bytes, nothing, one_frame, padding])
async def test_a_slow_body_gets_408_when_the_time_for_its_length_is_over(
    pieces: Any, autojump_clock: MockClock
) -> None:
    limits = Limits(body_timeout=3, min_body_rate=10_000, max_body=20_000)
    async with h2_connected(reads, limits) as here, trio.open_nursery() as nursery:
        stream = await here.client.request("POST", end=False)
        here.client.mute = True
        nursery.start_soon(send_until_closed, here, pieces(), 0.8)
        with trio.fail_after(100):
            reply = await here.client.answer(stream)
        assert (reply.status, trio.current_time()) == (408, pytest.approx(5, abs=0.1))
        nursery.cancel_scope.cancel()


async def test_pings_do_not_extend_the_time_of_a_body(autojump_clock: MockClock) -> None:
    limits = Limits(body_timeout=8, min_body_rate=10_000, max_body=20_000)
    async with h2_connected(reads, limits) as here, trio.open_nursery() as nursery:
        stream = await here.client.request("POST", end=False)
        await here.client.data(stream, bytes(16_000))
        here.client.mute = True
        nursery.start_soon(send_until_closed, here, (PING for _ in count()), 1)
        reply = await here.client.answer(stream)
        assert (reply.status, trio.current_time()) == (408, pytest.approx(10))
        nursery.cancel_scope.cancel()


async def test_a_fast_start_of_a_body_does_not_extend_its_time(autojump_clock: MockClock) -> None:
    limits = Limits(body_timeout=10, min_body_rate=5000, max_body=100_000)
    async with h2_connected(reads, limits) as here, trio.open_nursery() as nursery:
        stream = await here.client.request("POST", end=False)
        await here.client.data(stream, bytes(16_000))
        await trio.testing.wait_all_tasks_blocked()
        await here.client.data(stream, bytes(16_000))
        here.client.mute = True
        nursery.start_soon(send_until_closed, here, single_bytes(), 1)
        with trio.fail_after(1000):
            reply = await here.client.answer(stream)
        assert (reply.status, trio.current_time()) == (408, pytest.approx(30, abs=1))
        nursery.cancel_scope.cancel()
