"""The wire over a bare socket: what trio's own stream would do, and the two things that it would not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from umbel.upstream.wire import PlainWire


@asynccontextmanager
async def wire_and_peer() -> AsyncIterator[tuple[PlainWire, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    wire = PlainWire(trio.SocketStream(ours))
    async with trio.SocketStream(theirs) as peer:
        try:
            yield wire, peer
        finally:
            wire.close_now()


async def test_what_is_sent_arrives_and_the_end_is_empty_bytes() -> None:
    async with wire_and_peer() as (wire, peer):
        await wire.send_all(b"ping")
        assert await peer.receive_some() == b"ping"
        await peer.send_all(b"pong")
        assert await wire.receive_some() == b"pong"
        await peer.aclose()
        assert await wire.receive_some() == b""


async def test_what_the_socket_does_not_take_at_once_is_sent_as_it_is_read(nursery: trio.Nursery) -> None:
    data = b"0123456789" * 500_000
    async with wire_and_peer() as (wire, peer):
        nursery.start_soon(wire.send_all, data)
        received = bytearray()
        while len(received) < len(data):
            received += await peer.receive_some()
        assert received == data


async def test_nothing_is_sent_in_a_cancelled_scope() -> None:
    async with wire_and_peer() as (wire, peer):
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await wire.send_all(b"never")
        assert scope.cancelled_caught
        wire.close_now()
        assert await peer.receive_some() == b""


async def test_receiving_is_a_checkpoint_though_there_is_something_to_read() -> None:
    async with wire_and_peer() as (wire, peer):
        await peer.send_all(b"here")
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await wire.receive_some()
        assert scope.cancelled_caught
        assert await wire.receive_some() == b"here"


async def test_it_is_quiet_until_the_peer_says_something_or_leaves() -> None:
    async with wire_and_peer() as (wire, peer):
        assert await wire.is_quiet()
        await peer.send_all(b"x")
        assert not await wire.is_quiet()
        await wire.receive_some()
        assert await wire.is_quiet()
        await peer.aclose()
        assert not await wire.is_quiet()


async def test_closing_wakes_who_receives_and_who_sends(nursery: trio.Nursery) -> None:
    async with wire_and_peer() as (wire, _):
        ends: list[str] = []

        async def expect(name: str, *, sending: bool) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await (wire.send_all(b"x" * 10_000_000) if sending else wire.receive_some())
            ends.append(name)

        nursery.start_soon(lambda: expect("receiver", sending=False))
        nursery.start_soon(lambda: expect("sender", sending=True))
        await trio.testing.wait_all_tasks_blocked()
        wire.close_now()
        wire.close_now()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ends) == ["receiver", "sender"]


async def test_a_closed_wire_never_touches_the_socket_that_got_its_number() -> None:
    async with wire_and_peer() as (wire, _):
        wire.close_now()
        left, right = socket.socketpair()
        with left, right:
            right.send(b"for somebody else")
            with pytest.raises(trio.ClosedResourceError):
                await wire.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await wire.send_all(b"x")
            assert not await wire.is_quiet()
            assert left.recv(100) == b"for somebody else"


async def test_a_peer_that_is_gone_breaks_sending() -> None:
    async with wire_and_peer() as (wire, peer):
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wire.send_all(b"x")
        assert isinstance(caught.value.__cause__, OSError)
