"""Cancels of stream calls at each checkpoint in turn: no slot, replica slot, connection or body is left."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from itertools import count

import httpx
import pytest
import trio
import trio.testing

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.raw_server import Peer, response
from tests.support.upstream.stream_calls import head, opened, rest_of, streaming
from umbel.upstream import Hedge, Retry, Transport
from umbel.upstream.calls.stream_call import RequestBody


async def serve(peer: Peer) -> None:
    """Respond in parts, as the target of the request says."""
    for number in count():
        if b"/continue" in (request := await peer.read_head()):
            await trio.sleep(0.1)
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"Transfer-Encoding" in request:
            await peer.read_until(b"0\r\n\r\n")
        if not request:
            return
        if b"/switch" in request:
            await peer.send(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n12")
            while data := await peer.stream.receive_some():
                await peer.send(bytes(data))
            return
        if b"/busy" in request and not (peer.number + number) % 2:
            await peer.send(response(b"busy", status=b"503 Busy"))
            continue
        if b"/slow" in request and not peer.number % 2:
            await trio.sleep(10)
        for piece in (head(None), b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"):
            await trio.lowlevel.checkpoint()
            await peer.send(piece)


class Sender:
    """Make calls, and close each response."""

    def __init__(self, transport: Transport, limit: float | None) -> None:
        self.transport = transport
        self._limit = limit

    async def receive(
        self, target: bytes = b"/", body: AsyncIterable[bytes] | None = None, *, whole: bool = True
    ) -> None:
        client, method = self.transport.client, "GET" if body is None else "POST"
        call = await opened(client, method, body, target=target, limit=self._limit)
        try:
            if whole:
                assert await rest_of(call) == b"onetwo"
            else:
                assert (await call.receive()).startswith(b"one")
        finally:
            await call.aclose()


async def receive(sender: Sender) -> None:
    await sender.receive()


async def several(sender: Sender) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(sender.receive)


async def close_in_the_middle(sender: Sender) -> None:
    await sender.receive(whole=False)


async def retried(sender: Sender) -> None:
    await sender.receive(b"/busy")


async def hedged(sender: Sender) -> None:
    await sender.receive(b"/slow")


async def becomes_a_stream(sender: Sender) -> None:
    call = await opened(sender.transport.client)
    try:
        assert call.become_stream()
        assert await rest_of(call) == b"onetwo"
    finally:
        await call.aclose()


async def upgraded(sender: Sender) -> None:
    call = await opened(sender.transport.client, target=b"/switch", mode="upgrade", headers={"upgrade": "x"})
    try:
        stream = call.take()
        await stream.send_all(b"abc")
        assert await stream.receive_some()
        stream.send_eof()
        while await stream.receive_some():
            pass
        stream.close_now()
    finally:
        await call.aclose()


async def expects_continue(sender: Sender) -> None:
    call = await opened(sender.transport.client, "POST", _Pieces(), target=b"/continue", expects_continue=True)
    try:
        assert await rest_of(call) == b"onetwo"
    finally:
        await call.aclose()


async def send(sender: Sender) -> None:
    body = RequestBody()

    async def pieces() -> None:
        for piece in (b"a", b"b"):
            await body.send(piece)
        body.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pieces)
        await sender.receive(body=body)


async def with_httpx(sender: Sender) -> None:
    request = httpx.Request("POST", "http://any/", content=_Pieces(), headers={"content-length": "2"})
    answer = await sender.transport.handle_async_request(request)
    try:
        assert await answer.aread() == b"onetwo"
    finally:
        await answer.aclose()


class _Pieces:
    """A body whose iterator is no generator."""

    def __init__(self) -> None:
        self._left = [b"a", b"b"]

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@pytest.mark.parametrize(
    "operation",
    [
        *(receive, several, close_in_the_middle, retried, hedged, send, with_httpx),
        *(becomes_a_stream, upgraded, expects_continue),
    ],
    ids=lambda it: it.__name__,
)
@pytest.mark.parametrize(
    ("limit", "pushing"), [(None, False), (60.0, False), (60.0, True)], ids=["without limit", "with limits", "pushed"]
)
async def test_a_cancel_at_any_checkpoint_leaves_nothing(
    operation: Callable[[Sender], Awaitable[None]], limit: float | None, pushing: bool, autojump_clock
) -> None:
    options = {"max_concurrency": 2, "retry": Retry(backoff=0.01), "hedge": Hedge(after=1.0), "timeout": limit}
    async with streaming(serve, delay=0.1, pushing=pushing, **options) as streams:
        sender = Sender(streams.transport, limit)

        async def check() -> None:
            # The connections of cancelled calls are closed when their tasks have ended.
            await trio.testing.wait_all_tasks_blocked()
            streams.assert_nothing_left()
            # The client still works. Idle connections are closed, so that each round begins like the first.
            await sender.receive()
            await streams.transport.aclose()

        # What is pushed is there when it is asked for, so there are fewer checkpoints.
        assert await for_every_checkpoint(lambda: operation(sender), check) >= (5 if pushing else 9)
