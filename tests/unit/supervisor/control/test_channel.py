"""The channel between master and worker: order, bounds, and its end."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from umbel.supervisor.control import messages
from umbel.supervisor.control.channel import Channel
from umbel.supervisor.control.messages import LINE_BYTES_MAX, decode_master_message, decode_worker_message, encode


async def test_messages_arrive_whole_and_in_order_for_any_segmentation() -> None:
    ours, theirs = socket.socketpair()
    sent = [messages.Drain(grace=2.5), messages.State(ready=3, degraded=True), messages.TreeQuery()]
    got: list[messages.MasterMessage] = []
    channel, peer = Channel(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))

    async def listen() -> None:
        got.extend([decode_master_message(line) async for line in channel.lines()])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for byte in b"".join(map(encode, sent)):
            await peer.send_all(bytes([byte]))
        await peer.aclose()
    assert got == sent
    channel.close()


async def test_messages_to_a_peer_that_reads_nothing_are_dropped_without_waiting() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        while not channel.dropped:  # Until the socket is full, and 64 messages wait.
            channel.send(messages.StatsQuery())
        dropped = channel.dropped
        channel.send(messages.StatsQuery())
        assert channel.dropped == dropped + 1
        await wait_all_tasks_blocked()
        channel.send(messages.StatsQuery())
        assert channel.dropped == dropped + 2
        theirs.close()
    channel.send(messages.StatsQuery())
    assert channel.dropped == dropped + 3
    channel.close()


async def test_a_channel_has_room_for_bulk_until_some_messages_wait_and_then_for_others() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        while channel.has_room:
            assert channel.send(messages.StatsQuery())
        assert [channel.send(messages.StatsQuery()) for _ in range(40)] == [True] * 40
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            while theirs.recv(2**20):
                await wait_all_tasks_blocked()
        assert channel.has_room
        channel.finish()
    assert not channel.has_room
    channel.close()
    theirs.close()


async def test_finish_sends_queued_messages_first() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send(messages.Ended(reason="asked to"))
    channel.finish()
    await channel.run()
    channel.close()
    with theirs:
        assert decode_worker_message(theirs.recv(4096)) == messages.Ended(reason="asked to")


async def test_a_line_beyond_the_bound_ends_the_channel() -> None:
    ours, theirs = socket.socketpair()
    channel, peer = Channel(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    got: list[bytes] = []

    async def listen() -> None:
        got.extend([line async for line in channel.lines()])
        channel.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with suppress(trio.BrokenResourceError):
            await peer.send_all(b"x" * (LINE_BYTES_MAX + 100_000))
        await peer.aclose()
    assert got == []


async def test_messages_are_sent_before_the_sender_is_scheduled() -> None:
    """A heartbeat waited for the next turn of a busy event loop, and the master took the worker for hung."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send(messages.Ended(reason="one"))
    channel.send(messages.Ended(reason="two"))
    with theirs:
        lines = theirs.recv(4096).splitlines()
    assert [decode_worker_message(line) for line in lines] == [
        messages.Ended(reason="one"),
        messages.Ended(reason="two"),
    ]
    channel.close()


async def test_messages_keep_order_and_are_whole_when_the_socket_is_full() -> None:
    ours, theirs = socket.socketpair()
    channel, peer = Channel(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    sent = [messages.Ended(reason=f"{number}:{'x' * 100_000}") for number in range(20)]
    got: list[messages.WorkerMessage] = []
    for message in sent[:10]:
        channel.send(message)

    async def listen() -> None:
        receiver = Channel(theirs)
        got.extend([decode_worker_message(line) async for line in receiver.lines()])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        nursery.start_soon(listen)
        for message in sent[10:]:
            channel.send(message)
            await trio.lowlevel.checkpoint()
        channel.finish()
        await wait_all_tasks_blocked()
        channel.close()
    assert got == sent
    assert channel.dropped == 0
    await peer.aclose()


async def test_a_message_beyond_the_bound_is_dropped_and_counted() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.send_line(b"x" * (LINE_BYTES_MAX + 1))
    assert channel.dropped == 1
    channel.close()
    theirs.close()


async def test_a_line_of_another_thread_never_breaks_into_a_line_that_is_half_sent() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
    channel, received = Channel(ours), bytearray()
    blocked, failed = messages.LoopBlocked(seconds=1.0, at="x" * 100), messages.Failed(reason="y" * 30_000)
    taken: list[bool] = []

    def send_from_thread() -> None:
        taken.extend(channel.send_from_thread(blocked) for _ in range(200))

    async with trio.open_nursery() as nursery:
        peer = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        nursery.start_soon(receive_all, peer, received)
        async with trio.open_nursery() as running:
            running.start_soon(channel.run)
            async with trio.open_nursery() as sending:
                sending.start_soon(trio.to_thread.run_sync, send_from_thread)
                for _ in range(50):
                    channel.send(failed)
                    await trio.lowlevel.checkpoint()
            channel.finish()
        channel.close()
    lines = [decode_worker_message(bytes(line)) for line in received.splitlines()]
    assert lines.count(failed) == 50
    assert lines.count(blocked) == sum(taken)


async def receive_all(peer: trio.SocketStream, into: bytearray) -> None:
    async with peer:
        async for piece in peer:
            into += piece


def test_a_thread_is_refused_if_nobody_reads_or_the_channel_has_ended() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        channel, blocked = Channel(ours), messages.LoopBlocked(seconds=1.0, at="")
        while channel.send_from_thread(blocked):
            pass
        assert not channel.send_from_thread(blocked)
        theirs.close()
        channel.finish()
        assert not channel.send_from_thread(blocked)
        channel.close()

    trio.run(main)
