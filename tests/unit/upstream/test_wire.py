"""The wires over a bare socket, read by the task itself or by a poller's: what trio's own stream would do, and more."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.wires import polling
from umbel.upstream.polled import POLLER_WORKS, PolledWire
from umbel.upstream.wire import PlainWire

KINDS = ["plain", "polled"] if POLLER_WORKS else ["plain"]


pytestmark = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def wire_and_peer(kind: str) -> AsyncIterator[tuple[PlainWire, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    async with polling() as poller, trio.SocketStream(theirs) as peer:
        stream = trio.SocketStream(ours)
        wire = PolledWire(stream, poller) if kind == "polled" else PlainWire(stream)
        try:
            yield wire, peer
        finally:
            wire.close_now()


async def test_what_is_sent_arrives_and_the_end_is_empty_bytes(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, peer):
        await wire.send_all(b"ping")
        assert await peer.receive_some() == b"ping"
        await peer.send_all(b"pong")
        assert await wire.receive_some() == b"pong"
        await peer.aclose()
        assert await wire.receive_some() == b""


async def test_what_the_socket_does_not_take_at_once_is_sent_as_it_is_read(kind: str, nursery: trio.Nursery) -> None:
    data = b"0123456789" * 500_000
    async with wire_and_peer(kind) as (wire, peer):
        nursery.start_soon(wire.send_all, data)
        received = bytearray()
        while len(received) < len(data):
            received += await peer.receive_some()
        assert received == data


async def test_nothing_is_sent_in_a_cancelled_scope(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, peer):
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await wire.send_all(b"never")
        assert scope.cancelled_caught
        wire.close_now()
        assert await peer.receive_some() == b""


async def test_receiving_is_a_checkpoint_though_there_is_something_to_read(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, peer):
        await peer.send_all(b"here")
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await wire.receive_some()
        assert scope.cancelled_caught
        assert await wire.receive_some() == b"here"


async def test_it_is_quiet_until_the_peer_says_something_or_leaves(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, peer):
        assert await wire.is_quiet()
        await peer.send_all(b"x")
        assert not await wire.is_quiet()
        await wire.receive_some()
        assert await wire.is_quiet()
        await peer.aclose()
        assert not await wire.is_quiet()


async def test_closing_wakes_who_receives_and_who_sends(kind: str, nursery: trio.Nursery) -> None:
    async with wire_and_peer(kind) as (wire, _):
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


async def test_a_closed_wire_never_touches_the_socket_that_got_its_number(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, _):
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


async def test_a_peer_that_is_gone_breaks_sending(kind: str) -> None:
    async with wire_and_peer(kind) as (wire, peer):
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wire.send_all(b"x")
        assert isinstance(caught.value.__cause__, OSError)
