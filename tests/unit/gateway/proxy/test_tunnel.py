"""``gateway/proxy/tunnel.py``: bytes in both directions, close frames at boundaries, and the end of a tunnel."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from umbel.gateway.proxy.tunnel import CLOSE_SECONDS, FRAMES_PER_TURN, Tunnel
from umbel.net.timers import TimerQueue

RESTART = b"\x03\xf4"
"""The code 1012."""


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True, key: bytes = b"") -> bytes:
    """A frame; with ``key`` a masked one."""
    first = (0x80 if fin else 0) | opcode
    mask = 0x80 if key else 0
    size = len(payload)
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 65536:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    body = bytes(byte ^ key[place % 4] for place, byte in enumerate(payload)) if key else payload
    return head + key + body


def unmasked(data: bytes) -> bytes:
    """The payload of a short masked frame."""
    key, body = data[2:6], data[6:]
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(body))


class Peer:
    """One side: what the tunnel receives from it, and what the tunnel has sent to it."""

    def __init__(self) -> None:
        self.put, self._get = trio.open_memory_channel[bytes](math.inf)
        self.got = b""
        self.ended = False
        self.may_send = trio.Event()
        self.may_send.set()
        self.closed = self.broken = False

    async def receive_some(self) -> bytes:
        try:
            return await self._get.receive()
        except trio.EndOfChannel:
            return b""

    async def send_all(self, data: bytes) -> None:
        await self.may_send.wait()
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise trio.BrokenResourceError
        self.got += data

    def close_now(self) -> None:
        self.closed = True


class Client(Peer):
    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.ended = True


class Upstream(Peer):
    def send_eof(self) -> None:
        self.ended = True


class Running:
    def __init__(self, tunnel: Tunnel) -> None:
        self.client, self.upstream = Client(), Upstream()
        self.tunnel = tunnel
        self.over = trio.Event()


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    timers = TimerQueue()
    client, upstream = Client(), Upstream()
    found = Running(Tunnel(client, upstream, timers))
    found.client, found.upstream = client, upstream

    async def run() -> None:
        await found.tunnel.run()
        found.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield found
        nursery.cancel_scope.cancel()


async def test_bytes_pass_unchanged_in_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    sent = frame(b"hello", key=b"abcd") + frame(b"x" * 70_000, key=b"\0\1\2\3")[:100]
    async with running() as it:
        it.client.put.send_nowait(sent)
        it.upstream.put.send_nowait(b"\x81\x02hi")
        await trio.testing.wait_all_tasks_blocked()

        assert it.upstream.got == sent
        assert it.client.got == b"\x81\x02hi"
        assert not it.over.is_set()


@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_a_drain_sends_1012_at_the_next_boundary_of_each_direction(
    pieces: int, autojump_clock: trio.testing.MockClock
) -> None:
    whole = frame(b"y" * 300, key=b"abcd")
    async with running() as it:
        it.client.put.send_nowait(whole[:4])
        await trio.testing.wait_all_tasks_blocked()
        it.tunnel.drain(0)
        await trio.testing.wait_all_tasks_blocked()

        assert it.client.got == frame(RESTART, opcode=8)  # Nothing was under way in this direction.
        assert it.upstream.got == whole[:4]
        rest = whole[4:] + frame(b"dropped", key=b"abcd")
        for at in range(0, len(rest), pieces):
            it.client.put.send_nowait(rest[at : at + pieces])
        await trio.testing.wait_all_tasks_blocked()

        close = it.upstream.got.removeprefix(whole)
        assert close[:2] == bytes((0x88, 0x82))
        assert unmasked(close) == RESTART
        await it.over.wait()


async def test_a_direction_without_a_boundary_is_cut_after_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as it:
        it.client.put.send_nowait(frame(b"y" * 300, key=b"abcd")[:-1])
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        it.tunnel.drain(0.5)
        await it.over.wait()

        assert trio.current_time() - began == 0.5 + CLOSE_SECONDS
        assert b"\x88" not in it.upstream.got[2:3]
        assert it.client.got == frame(RESTART, opcode=8)


async def test_the_answer_to_a_close_frame_still_passes(autojump_clock: trio.testing.MockClock) -> None:
    close = frame(b"\x03\xe8", opcode=8, key=b"abcd")
    async with running() as it:
        it.client.put.send_nowait(close)
        it.client.put.close()
        await trio.testing.wait_all_tasks_blocked()
        it.upstream.put.send_nowait(frame(b"\x03\xe8", opcode=8))
        it.upstream.put.close()
        await it.over.wait()

        assert it.upstream.got == close
        assert it.client.got == frame(b"\x03\xe8", opcode=8)
        assert it.client.ended and it.upstream.ended


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_side_that_leaves_without_a_close_frame_ends_the_tunnel_at_once(
    side: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running() as it:
        began = trio.current_time()
        getattr(it, side).put.close()
        await it.over.wait()

        assert trio.current_time() == began
        assert it.tunnel.end == "a side has left without a close frame"


async def test_a_client_that_still_sends_gets_the_close_frame_of_the_upstream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as it:
        it.upstream.put.send_nowait(frame(b"\x03\xe8", opcode=8))
        await trio.testing.wait_all_tasks_blocked()
        it.upstream.broken = True
        it.client.put.send_nowait(frame(b"late", key=b"abcd"))
        await trio.testing.wait_all_tasks_blocked()
        assert not it.over.is_set()
        it.client.put.send_nowait(frame(b"later", key=b"abcd"))
        await trio.testing.wait_all_tasks_blocked()

        assert it.client.put.statistics().current_buffer_used == 0  # Read on, so that the close sends no RST.
        assert it.client.got == frame(b"\x03\xe8", opcode=8)


async def test_a_read_of_many_empty_frames_lets_other_tasks_run(autojump_clock: trio.testing.MockClock) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with running() as it, trio.open_nursery() as nursery:
        it.client.put.send_nowait(b"\x82\x80abcd" * 10_000)
        nursery.start_soon(count)
        while not it.upstream.got:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    assert turns >= 10_000 // FRAMES_PER_TURN


async def test_a_close_frame_of_the_source_that_was_half_passed_is_the_only_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    close = frame(b"\x03\xe8", opcode=8)
    async with running() as it:
        it.upstream.put.send_nowait(close[:3])
        await trio.testing.wait_all_tasks_blocked()
        it.tunnel.drain(0)
        await trio.testing.wait_all_tasks_blocked()
        it.upstream.put.send_nowait(close[3:])
        await it.over.wait()

        assert it.client.got == close


async def test_a_slow_receiver_holds_back_the_sender(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as it:
        it.upstream.may_send = trio.Event()
        for _ in range(3):
            it.client.put.send_nowait(frame(b"z" * 50, key=b"abcd"))
        await trio.testing.wait_all_tasks_blocked()

        assert it.client.put.statistics().current_buffer_used == 2  # One read is in memory.


async def test_a_client_that_has_gone_ends_the_tunnel(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as it:
        it.tunnel.client_gone()
        await it.over.wait()

        assert it.tunnel.end == "the client has left"
