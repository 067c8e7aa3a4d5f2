"""The channel between master and worker: order, bounds, and its end."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio
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
        await wait_all_tasks_blocked()
        for _ in range(200):
            channel.send(messages.StatsQuery())
        assert channel.dropped == 200 - 65  # The sender has taken one, and 64 wait.
        theirs.close()
    channel.send(messages.StatsQuery())
    assert channel.dropped == 200 - 65 + 1
    channel.close()


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


async def test_send_now_keeps_the_order_of_messages_and_never_waits() -> None:
    ours, theirs = socket.socketpair()
    channel, peer = Channel(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    beat = messages.Heartbeat(lag_ms=0.0, inflight=1, tasks=1, rss=1, connections=1, requests=1)
    channel.send_now(beat)
    assert decode_worker_message((await peer.receive_some()).rstrip(b"\n")) == beat
    for _ in range(100_000):
        channel.send_now(beat)
        if channel.dropped:  # The socket is full.
            break
    assert channel.dropped == 1
    received = b""
    while not received.endswith(b"\n") or len(received) < 1000:
        received += await peer.receive_some()
    assert {decode_worker_message(line) for line in received.splitlines()} == {beat}
    channel.send(messages.Ended(reason="x"))
    channel.send_now(beat)  # An earlier message is still queued.
    assert channel.dropped == 2
    channel.close()
    await peer.aclose()
