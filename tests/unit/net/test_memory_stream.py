"""Byte streams over connections in memory: what they do as streams over sockets do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.support.socket_streams import RecordingListener
from umbel.net.epoll import BROKEN
from umbel.net.memory_stream import BUFFER_BYTES, MemoryReader, MemoryStream, memory_stream_pair

Pair = tuple[MemoryStream, MemoryStream]


@pytest.fixture
async def reader() -> AsyncIterator[MemoryReader]:
    async with trio.open_nursery() as nursery:
        reader = MemoryReader()
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
async def pair(reader: MemoryReader) -> AsyncIterator[Pair]:
    """Both ends of a connection. After the test no socket may be registered."""
    ours, theirs = memory_stream_pair(reader)
    yield ours, theirs
    ours.close_now()
    theirs.close_now()
    assert len(reader) == 0


async def test_sent_bytes_arrive_and_the_end_is_empty_bytes(pair: Pair) -> None:
    ours, theirs = pair
    await ours.send_all(b"ping")
    assert await theirs.receive_some() == b"ping"
    await theirs.send_all(b"pong")
    theirs.close()
    assert await ours.receive_some() == b"pong"
    assert await ours.receive_some() == b""
    assert ours.ended_at is not None


async def test_nothing_takes_time_on_the_virtual_clock(
    pair: Pair, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = pair

    async def answer() -> None:
        assert await theirs.receive_some() == b"question"
        await trio.sleep(3)
        await theirs.send_all(b"answer")

    nursery.start_soon(answer)
    await ours.send_all(b"question")
    assert await ours.receive_some() == b"answer"
    assert trio.current_time() == 3


async def test_a_full_buffer_holds_the_sender_back_until_the_peer_reads(pair: Pair, nursery: trio.Nursery) -> None:
    ours, theirs = pair
    data = b"0123456789" * 50_000
    nursery.start_soon(ours.send_all, data)
    await trio.testing.wait_all_tasks_blocked()
    assert theirs.unread() == BUFFER_BYTES
    assert len(ours.unsent) == len(data) - BUFFER_BYTES
    received = bytearray()
    while len(received) < len(data):
        received += await theirs.receive_some()
    assert received == data


async def test_a_listener_gets_earlier_bytes_then_later_bytes_then_the_end(pair: Pair) -> None:
    ours, theirs = pair
    listener = RecordingListener()
    await theirs.send_all(b"early ")
    await trio.testing.wait_all_tasks_blocked()
    ours.listen(listener)
    assert not listener.data, "a handler ran within a call"
    await theirs.send_all(b"late")
    await listener.until_has(10)
    theirs.close()
    assert await listener.until_ended() == "eof"
    assert listener.data == b"early late"


async def test_a_half_close_ends_one_direction(pair: Pair) -> None:
    ours, theirs = pair
    ours.send_eof()
    assert await theirs.receive_some() == b""
    assert theirs.peer_end() and not theirs.peer_end() & BROKEN
    await theirs.send_all(b"still")
    assert await ours.receive_some() == b"still"


@pytest.mark.parametrize("how", ["reset", "unread"])
async def test_a_reset_breaks_the_peer_after_the_bytes_that_had_arrived(pair: Pair, how: str) -> None:
    ours, theirs = pair
    await theirs.send_all(b"last words")
    if how == "reset":
        theirs.reset_on_close()
    else:
        await ours.send_all(b"never read")
    theirs.close()
    assert await ours.receive_some() == b"last words"
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")


async def test_the_end_of_the_peer_is_reported_while_nobody_reads(pair: Pair) -> None:
    ours, theirs = pair
    reported: list[bool] = []
    ours.on_end = reported.append
    theirs.reset_on_close()
    theirs.close()
    await trio.testing.wait_all_tasks_blocked()
    assert reported == [True]


async def test_closing_wakes_the_receiving_and_the_sending_task(pair: Pair) -> None:
    ours, _ = pair

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(bytes(BUFFER_BYTES + 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        ours.close()


async def test_a_stream_is_quiet_until_the_peer_sends_or_ends(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.is_quiet()
    await theirs.send_all(b"x")
    assert not ours.is_quiet()
    assert await ours.receive_some() == b"x"
    assert ours.is_quiet()
    theirs.close()
    assert not ours.is_quiet()


async def test_a_memory_stream_has_no_time_of_the_kernel(pair: Pair) -> None:
    assert pair[0].received_ago() is None
    pair[0].close()
    assert pair[0].unread() == 0
