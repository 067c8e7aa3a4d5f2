"""Streamed calls over upstreams in memory, whose bytes the test sends."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.support.upstream.calls import fields
from tests.support.upstream.memory_calls import Made, MemoryCalls, memory_calls
from tests.support.upstream.memory_dial import ServerEnd
from tests.support.upstream.raw_server import Handler, Peer
from umbel.core.call import CallContext, Mode, PreparedRequest, SingleCallOwner
from umbel.upstream import Client
from umbel.upstream.calls.stream_call import StreamCall

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(length: int | None, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Encode the head of a response with this length; None: chunked."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"\r\n".join([b"HTTP/1.1 " + status, framing, *fields]) + b"\r\n\r\n"


async def answer_each_piece(peer: Peer) -> None:
    """A handler that answers each chunk of a request when it arrives, with the chunk in capitals."""
    await peer.read_head()
    await peer.send(head(None))
    while size := int((await peer.read_until(b"\r\n"))[:-2], 16):
        piece = await peer.read_exactly(size + 2)
        await peer.send(b"%x\r\n%b" % (size, piece.upper()))
    await peer.read_until(b"\r\n")
    await peer.send(b"0\r\n\r\n")


class Streams(MemoryCalls):
    """A client and its streamed calls."""

    made: list[Made]

    async def open(self, **call: Any) -> StreamCall:
        """Start a streamed call and wait for the response head; ``call`` are the arguments of ``start``.

        Raises:
            Exception: the call's error.
        """
        made = self.start(mode="stream", **call)
        self.made.append(made)
        found = await made.end()
        assert isinstance(found, StreamCall)
        if found.error is not None:
            raise found.error
        return found

    def held(self) -> tuple[int, int, int, int]:
        """Return the numbers of bulkhead slots, replica slots and connections in use, and of recorded attempts."""
        statistics = self.client.statistics()
        return (
            statistics.bulkhead.in_flight,
            sum(replica.in_flight for replica in statistics.balance.replicas),
            statistics.pool.active,
            sum(len(each.attempts) for each in self.made),
        )


async def opened(
    client: Client,
    method: str = "GET",
    body: AsyncIterable[bytes] | None = None,
    *,
    target: bytes = b"/",
    limit: float | None = None,
    mode: Mode = "stream",
    headers: Mapping[str, str] | None = None,
    expects_continue: bool = False,
    content: bytes | None = None,
    **context: Any,
) -> StreamCall:
    """Make a streamed call in this task and wait for the response head; ``limit``: the call's own limit in seconds.

    ``context``: further members of ``CallContext``.

    Raises:
        Exception: the call's error.
    """
    owner = SingleCallOwner()
    deadline = math.inf if limit is None else trio.current_time() + limit
    made = CallContext(owner, "call", "upstream", deadline=deadline, limit=limit, **context)
    sent = PreparedRequest(method, target, fields(headers or {}), content, body=body, expects_continue=expects_continue)
    call = await owner.perform(client.new_call(sent, made, mode))
    assert isinstance(call, StreamCall)
    if call.error is not None:
        raise call.error
    return call


async def rest_of(call: StreamCall) -> bytes:
    """Read the rest of the response body."""
    content = b""
    while data := await call.receive():
        content += data
    return content


@asynccontextmanager
async def streaming(handler: Handler, *urls: str, **options: Any) -> AsyncIterator[Streams]:
    """Open a client of an upstream whose connections ``handler`` serves; ``options`` are those of ``memory_calls``."""
    peers: list[Peer] = []

    async def serve(end: ServerEnd) -> None:
        peers.append(Peer(end, None, len(peers)))  # type: ignore[arg-type]  # no handler uses the socket
        await handler(peers[-1])

    async with memory_calls(serve, *urls, **options) as calls:
        streams = Streams(calls.transport, calls.dial, calls.nursery)
        streams.made = []
        yield streams
