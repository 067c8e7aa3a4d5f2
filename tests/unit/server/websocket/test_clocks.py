"""Clocks of WebSockets: a client cannot extend a wait by a few bytes now and then. On the autojump clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, count, repeat
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.server.ws_client import upgrade
from tests.unit.server.websocket.test_websocket import Connected, echo, websocket
from umbel.net.stream import PlainStream
from umbel.server.limits.server_limits import Limits
from umbel.server.websocket.frame_tracker import FrameTracker

MockClock = trio.testing.MockClock

MASK = bytes(4)
PING = b"\x89\x84" + MASK + b"ping"
PONG = b"\x8a\x80" + MASK


def frame(payload: bytes, first: int = 0x82, *, long: int = 0) -> bytes:
    """A masked frame. ``long``: the bytes of an extended length; 0 if the length is in the second byte."""
    if long:
        return bytes((first, 0xFE if long == 2 else 0xFF)) + len(payload).to_bytes(long, "big") + MASK + payload
    return bytes((first, 0x80 | len(payload))) + MASK + payload


async def send_until_closed(here: Connected, pieces: Iterable[bytes], every: float) -> None:
    try:
        for piece in pieces:
            await here.client.stream.send_all(piece)
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def ended_at(here: Connected, pieces: Iterable[bytes], every: float) -> float:
    """Send the pieces, and read, until the server has ended. Return the time of its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_until_closed, here, pieces, every)
        with trio.fail_after(1000):
            try:
                while await here.client.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            await here.over.wait()
        nursery.cancel_scope.cancel(reason="over")
    return trio.current_time()


def split(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: split(frame(bytes(60_000), long=2)),
        lambda: chain([frame(b"x", 0x02)], repeat(frame(b"x", 0x00))),
        lambda: chain([frame(b"", 0x02)], repeat(frame(b"", 0x00))),
        lambda: chain([frame(b"x", 0x02)], repeat(PING)),
        lambda: chain([frame(b"x", 0x02)], split(PING * 1000)),
        lambda: split(b"\x89\xfd" + MASK + bytes(125)),
        lambda: chain([b"\x82\xff"], split(bytes(6))),
        lambda: [b"\x82"],
    ],
    ids=["payload", "fragments", "empty fragments", "pings between", "pings in bytes", "control", "length", "one byte"],
)
@pytest.mark.parametrize("every", [1, 20])
async def test_a_slow_message_closes_with_1008_after_the_body_timeout(
    pieces: Callable[[], Iterable[bytes]], every: float, autojump_clock: MockClock
) -> None:
    async with websocket(echo, Limits(body_timeout=30)) as here:
        await here.client.open()
        await trio.sleep(1000)
        assert await ended_at(here, pieces(), every) == pytest.approx(1030, abs=2)


async def test_silence_and_pongs_between_messages_are_allowed(autojump_clock: MockClock) -> None:
    async with websocket(echo, Limits(body_timeout=30)) as here:
        await here.client.open()
        for _ in range(100):
            await here.client.stream.send_all(PONG[:3])
            await trio.sleep(5)
            await here.client.stream.send_all(PONG[3:] + frame(b"hello", 0x81)[:4])
            await trio.sleep(5)
            await here.client.stream.send_all(frame(b"hello", 0x81)[4:])
            assert await here.client.message() == "hello"


async def test_a_large_message_at_min_body_rate_is_received(autojump_clock: MockClock) -> None:
    async with websocket(echo, Limits(body_timeout=30, min_body_rate=240)) as here:
        await here.client.open()
        message = frame(b"x" * 60_000, 0x81, long=2)
        for at in range(0, len(message), 300):
            await here.client.stream.send_all(message[at : at + 300])
            await trio.sleep(1)
        assert await here.client.message() == "x" * 60_000


# Closing.


@pytest.mark.parametrize("listens", [False, True], ids=["returns", "receives on"])
@pytest.mark.parametrize(
    "pieces",
    [lambda: (), lambda: repeat(PING), lambda: repeat(frame(b"x", 0x81)), lambda: split(PING * 1000)],
    ids=["nothing", "pings", "messages", "single bytes"],
)
async def test_a_missing_close_frame_is_awaited_for_the_cancel_timeout(
    pieces: Callable[[], Iterable[bytes]], listens: bool, autojump_clock: MockClock
) -> None:
    heard: list[Any] = []

    async def closes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        while listens:
            heard.append(await receive())
            if heard[-1]["type"] == "websocket.disconnect":
                return

    async with websocket(closes, Limits(cancel_timeout=5)) as here:
        here.client.ws = None  # type: ignore[assignment]  # The rest of the test sends raw bytes.
        await here.client.stream.send_all(upgrade())
        # In the last second the server lingers, so that the client can read its close frame.
        assert await ended_at(here, pieces(), 0.5) <= 6.1
    if listens:
        assert heard[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_a_refused_handshake_gives_a_disconnect_in_receive(autojump_clock: MockClock) -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with websocket(refuses, Limits(cancel_timeout=5)) as here:
        await here.client.stream.send_all(upgrade())
        assert await ended_at(here, (), 1) <= 6.1


# Writing and pings.


@pytest.mark.parametrize("taken_every", [1.0, 29.0])
async def test_small_messages_share_one_write_timeout(
    taken_every: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(stream: PlainStream, data: bytes) -> bool:
        stream.unsent = memoryview(data)
        return False

    async def slowly(stream: PlainStream) -> None:
        await trio.sleep(taken_every)
        stream.unsent = b""

    async def chatters(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        monkeypatch.setattr(PlainStream, "send_now", keep)
        monkeypatch.setattr(PlainStream, "drained", slowly)
        monkeypatch.setattr(PlainStream, "send_more", lambda stream: None)
        while True:
            await send({"type": "websocket.send", "text": "x"})

    async with websocket(chatters, Limits(write_timeout=30)) as here:
        await here.client.open()
        with trio.fail_after(100):
            await here.over.wait()
        assert trio.current_time() == pytest.approx(31, abs=1)


async def test_a_client_without_pongs_is_closed_with_1008(autojump_clock: MockClock) -> None:
    async with websocket(echo, Limits(body_timeout=30), websocket_ping_interval=10) as here:
        await here.client.open()
        assert await ended_at(here, (), 1) == pytest.approx(41, abs=1)


async def test_a_client_that_answers_pings_stays_connected(autojump_clock: MockClock) -> None:
    async with websocket(echo, Limits(body_timeout=30), websocket_ping_interval=10) as here:
        await here.client.open()
        with trio.move_on_after(1000):
            await send_until_closed(here, (PONG for _ in count()), 10)
        await here.client.text("still here")
        await here.client.stream.receive_some()
        assert not here.over.is_set()


# Where frames end.


@st.composite
def _messages(draw: st.DrawFn) -> list[bytes]:
    """Frames of complete messages, with control frames between and within the messages."""
    frames: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        parts = draw(st.lists(st.integers(0, 300), min_size=1, max_size=4))
        for number, size in enumerate(parts):
            first = (0x00 if number else 0x02) | (0x80 if number == len(parts) - 1 else 0)
            long = 0 if size < 126 and draw(st.booleans()) else draw(st.sampled_from((2, 8)))
            frames.append(frame(bytes(size), first, long=long or (2 if size > 125 else 0)))
            if draw(st.booleans()):
                frames.append(PING)
    return frames


@given(frames=_messages(), data=st.data())
def test_a_frame_tracker_knows_after_each_piece_whether_a_frame_is_incomplete(frames: list[bytes], data: Any) -> None:
    stream, ends, at, is_open = b"".join(frames), {0}, 0, False
    for each in frames:
        at += len(each)
        if not each[0] & 0x08:
            is_open = not each[0] & 0x80
        if not is_open:
            ends.add(at)
    watch, at = FrameTracker(), 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        watch.feed(stream[at : at + step])
        at += step
        assert watch.awaited == (at not in ends)
    assert watch.completed == len(ends) - 1
