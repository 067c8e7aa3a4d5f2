"""A client that leaves in the middle of a proxied request closes the connection to the upstream within one turn.

``make soak`` tries each case a thousand times.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter

import pytest
import trio
from wsproto.utilities import generate_accept_token

from tests.support.gateway.proxies import proxied
from tests.support.gateway.streaming_upstream import SWITCHED
from tests.support.scheduler_turns import Turns, counting_turns
from tests.support.server.h2_client import H2Client, h2_client
from tests.support.server.ws_client import upgrade
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import Peer, field_value
from umbel.core.failure_kinds import Kind

TRIES = 1000 if SOAK else 10
TURNS_MAX = 3
"""Turns of the scheduler until the upstream sees the end: the gateway's socket reader and the upstream take one each,
and so does a task that receives from the client, or the client's own sending."""
HOST = b" HTTP/1.1\r\nHost: gateway.test\r\n"
SENT = {
    "the head wait": b"GET /head" + HOST + b"\r\n",
    "the body": b"GET /body" + HOST + b"\r\n",
    "the upload": b"POST /upload" + HOST + b"Content-Length: 100000\r\n\r\n" + bytes(20_000),
    "the chunked upload": b"POST /chunks" + HOST + b"Transfer-Encoding: chunked\r\n\r\n4e20\r\n" + bytes(20_000),
    "the tunnel": upgrade(b"/ws"),
}
ANSWERS = {
    b"/body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(1000),
    b"/ws": SWITCHED,
}
PROOF = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The proof in ``SWITCHED``, which fits one key."""


class Watching:
    """A handler that waits until its connection ends, and counts the turns from the time at which the client left."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.left_at = 0
        self.reached = trio.Event()
        self.ended = trio.Event()
        self.took: Counter[int] = Counter()

    def reset(self) -> None:
        self.reached, self.ended = trio.Event(), trio.Event()

    async def __call__(self, peer: Peer) -> None:
        head = await peer.read_head()
        target = head.split(b" ")[1]
        if target in ANSWERS:
            key = field_value(head, "sec-websocket-key")
            proof = b"" if key is None else generate_accept_token(key.encode())
            await peer.send(ANSWERS[target].replace(PROOF, proof))
        if head.startswith(b"POST"):
            await peer.read_exactly(20_000)
        self.reached.set()
        await peer.closed()
        self.took[self._turns.count - self.left_at] += 1
        self.ended.set()


@pytest.mark.timeout(300 if SOAK else 60)
@pytest.mark.parametrize("how", ["a close", "a reset"])
@pytest.mark.parametrize("where", SENT)
async def test_a_client_that_leaves_closes_the_upstream_within_one_turn(where: str, how: str) -> None:
    with counting_turns() as turns:
        upstream = Watching(turns)
        async with proxied(upstream, websocket=True) as it:
            for _ in range(TRIES):
                upstream.reset()
                async with await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
                    await stream.send_all(SENT[where])
                    await upstream.reached.wait()
                    if where in ("the body", "the tunnel"):
                        assert (await stream.receive_some()).startswith(b"HTTP/1.1 ")
                    await trio.testing.wait_all_tasks_blocked()
                    if how == "a reset":
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    upstream.left_at = turns.count
                    stream.socket.close()
                    with trio.fail_after(5):
                        await upstream.ended.wait()
    print(f"{where}, {how}: turns until the upstream sees the end: {dict(sorted(upstream.took.items()))}")
    assert max(upstream.took) <= TURNS_MAX
    assert upstream.took.total() == TRIES
    assert [record.kind for record in it.records.requests] == [
        None if where == "the tunnel" else Kind.CLIENT_GONE
    ] * TRIES
    assert it.app.statistics().requests_in_flight == 0


async def begin_over_http2(client: H2Client, where: str) -> int:
    """Send a request of SENT over HTTP/2, and return its stream."""
    if where == "the tunnel":
        fields = [("sec-websocket-version", "13")]
        return await client.request("CONNECT", "/ws", fields, end=False, **{":protocol": "websocket"})
    method, target = SENT[where].split(b" ")[:2]
    uploads = method == b"POST"
    length = [("content-length", "100000")] if where == "the upload" else []
    stream = await client.request(method.decode(), target, length, end=not uploads)
    if uploads:
        for _ in range(2):
            await client.data(stream, bytes(10_000))
    return stream


@pytest.mark.timeout(300 if SOAK else 60)
@pytest.mark.parametrize("where", SENT)
async def test_a_reset_stream_closes_the_upstream_within_one_turn(where: str) -> None:
    with counting_turns() as turns:
        upstream = Watching(turns)
        async with proxied(upstream, websocket=True) as it:
            for _ in range(TRIES):
                upstream.reset()
                async with h2_client(it.port) as client:
                    while not client.settled:
                        await client.receive()
                    stream = await begin_over_http2(client, where)
                    await upstream.reached.wait()
                    while where in ("the body", "the tunnel") and not client.answers[stream].status:
                        await client.receive()
                    await trio.testing.wait_all_tasks_blocked()
                    upstream.left_at = turns.count
                    client.h2.reset_stream(stream, 8)
                    await client.flush()
                    with trio.fail_after(5):
                        await upstream.ended.wait()
    print(f"{where}, RST_STREAM: turns until the upstream sees the end: {dict(sorted(upstream.took.items()))}")
    assert max(upstream.took) <= TURNS_MAX
    assert upstream.took.total() == TRIES
    assert it.app.statistics().requests_in_flight == 0
