"""The poller: what it does with bytes that nobody waits for, with ends and with errors."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.wires import polling
from umbel.upstream.polled import POLLER_WORKS, PolledWire, Poller
from umbel.upstream.wire import RECEIVE_MAX

pytestmark = pytest.mark.skipif(not POLLER_WORKS, reason="this system has no epoll")


class Turns(trio.abc.Instrument):
    """Counts how often the loop looked for I/O."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@asynccontextmanager
async def pair(poller: Poller) -> AsyncIterator[tuple[PolledWire, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    wire = PolledWire(trio.SocketStream(ours), poller)
    async with trio.SocketStream(theirs) as peer:
        try:
            yield wire, peer
        finally:
            wire.close_now()


async def receive_once(wire: PolledWire, peer: trio.SocketStream) -> None:
    """From now on the poller watches it."""
    await peer.send_all(b"first")
    assert await wire.receive_some() == b"first"


async def quiet_turns() -> int:
    """How often the loop turns while nothing happens for a fifth of a second."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    with trio.move_on_after(0.2):
        await trio.sleep_forever()
    trio.lowlevel.remove_instrument(turns)
    return turns.count


async def test_many_wires_are_read_at_once_each_by_its_own_task() -> None:
    async with polling() as poller:
        pairs = [trio.socket.socketpair() for _ in range(50)]
        wires = [PolledWire(trio.SocketStream(ours), poller) for ours, _ in pairs]
        got: dict[int, bytes] = {}

        async def receive(index: int) -> None:
            got[index] = await wires[index].receive_some()

        async with trio.open_nursery() as nursery:
            for index in range(50):
                nursery.start_soon(receive, index)
            await trio.testing.wait_all_tasks_blocked()
            for index, (_, theirs) in enumerate(pairs):
                await theirs.send(b"%d" % index)
        assert got == {index: b"%d" % index for index in range(50)}
        for wire, (_, theirs) in zip(wires, pairs, strict=True):
            wire.close_now()
            theirs.close()


async def test_bytes_that_nobody_waits_for_stay_in_the_socket_and_do_not_keep_the_loop_busy() -> None:
    async with polling() as poller, pair(poller) as (wire, peer):
        await receive_once(wire, peer)
        await peer.send_all(b"x" * 100)
        assert await quiet_turns() < 10
        assert not await wire.is_quiet()
        assert await wire.receive_some() == b"x" * 100


async def test_an_end_that_nobody_waits_for_does_not_keep_the_loop_busy_and_is_found_later() -> None:
    async with polling() as poller, pair(poller) as (wire, peer):
        await receive_once(wire, peer)
        await peer.aclose()
        assert await quiet_turns() < 10
        assert await wire.receive_some() == b""
        assert await wire.receive_some() == b"", "and it stays the end"


async def test_a_reset_that_nobody_waits_for_does_not_keep_the_loop_busy_and_breaks_the_next_receiving() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with polling() as poller:
        stream = await trio.open_tcp_stream(*listener.getsockname())
        theirs, _ = listener.accept()
        wire = PolledWire(stream, poller)
        theirs.send(b"first")
        assert await wire.receive_some() == b"first"
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert await quiet_turns() < 10
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wire.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        wire.close_now()
    listener.close()


async def test_more_than_one_read_comes_in_order() -> None:
    data = bytes(range(256)) * 4096
    async with polling() as poller, pair(poller) as (wire, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, data)
        received = b""
        while len(received) < len(data):
            piece = await wire.receive_some()
            assert len(piece) <= RECEIVE_MAX
            received += piece
        assert received == data


async def test_a_cancelled_receiving_loses_nothing() -> None:
    async with polling() as poller, pair(poller) as (wire, peer):
        with trio.move_on_after(0) as scope:
            await wire.receive_some()
        assert scope.cancelled_caught
        await peer.send_all(b"kept")
        assert await wire.receive_some() == b"kept"


async def test_only_one_task_may_receive() -> None:
    async with polling() as poller, pair(poller) as (wire, peer), trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wire.receive_some()
        await peer.send_all(b"for the first")


async def test_a_wire_can_be_closed_before_it_was_watched_and_after_its_poller() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        async with polling() as poller:
            wire = PolledWire(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), poller)
        wire.close_now()
        assert theirs.recv(1) == b""


async def test_a_wire_is_closed_though_somebody_has_closed_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async with polling() as poller, pair(poller) as (wire, peer):
        await receive_once(wire, peer)
        # As the fork of a process does that closes the sockets which it has inherited.
        poller._epoll.unregister(wire._fd)
        wire.close_now()
        assert await peer.receive_some() == b""
