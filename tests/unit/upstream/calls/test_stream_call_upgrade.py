"""Calls of mode "upgrade": the request, the 101, the connection that is taken over, and its end."""

from __future__ import annotations

import pytest
import trio

from tests.support.upstream.raw_server import Handler, Peer, response
from tests.support.upstream.stream_calls import Streams, rest_of, streaming
from umbel.core.call import StreamingCall, StreamLimits, UpgradedStream
from umbel.core.failure_kinds import Kind
from umbel.upstream import Malformed, ReadTimedOut, WriteTimedOut

SWITCH = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"
HEADERS = {"upgrade": "WebSocket", "connection": "upgrade", "te": "trailers, gzip", "sec-websocket-key": "k"}

pushing = pytest.mark.parametrize("pushing", [False, True], ids=["pulled", "pushed"])


def switching(behind: bytes = b"") -> Handler:
    """Switch protocols, with bytes right behind the head, and send back what comes until the end."""

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(SWITCH + behind)
        while data := await peer.stream.receive_some():
            await peer.send(bytes(data))
        await peer.send(b"end")

    return handler


async def upgraded(streams: Streams, **options: object) -> tuple[StreamingCall, UpgradedStream]:
    made = streams.start(mode="upgrade", headers=HEADERS, **options)  # type: ignore[arg-type]
    streams.made.append(made)
    call = await made.end()
    assert isinstance(call, StreamingCall)
    if call.error is not None:
        raise call.error
    return call, call.take()


async def received(stream: UpgradedStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some()
    return data


@pushing
async def test_bytes_go_both_ways_after_the_101_until_both_ends(pushing: bool, autojump_clock) -> None:
    async with streaming(switching(b"hello"), pushing=pushing) as streams:
        call, stream = await upgraded(streams)
        assert (call.status, call.response_ended, call.become_stream()) == (101, False, True)
        assert call.head is not None
        assert call.head.reason == b"Switching"
        assert [field[1:] for field in call.fields] == [(b"sec-websocket-accept", b"a")]
        assert await stream.receive_some() == b"hello"
        await stream.send_all(b"one")
        assert await received(stream, 3) == b"one"
        assert streams.held() == (0, 1, 1, 0)
        stream.send_eof()
        assert await received(stream, 3) == b"end"
        assert await stream.receive_some() == b""
        assert streams.held() == (0, 1, 1, 0), "it is held until it is closed"
        for _ in range(2):
            stream.close_now()
            assert streams.held() == (0, 0, 0, 1)
        (attempt,) = streams.made[0].attempts
        assert (attempt.status, attempt.kind) == (101, None)
        assert streams.client.statistics().pool.idle == 0
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


@pushing
async def test_the_request_names_the_protocol_and_only_options_that_are_kept(pushing: bool, autojump_clock) -> None:
    heads: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while request := await peer.read_head():
            heads.append(request)
            await peer.send(response(b"no"))

    async with streaming(handler, pushing=pushing) as streams:
        for mode in ("upgrade", "stream", "whole"):
            made = streams.start(mode=mode, headers=HEADERS)  # type: ignore[arg-type]
            await made.end()
    lines = [[line for line in each.split(b"\r\n") if line.startswith((b"Conn", b"TE", b"Upg"))] for each in heads]
    assert lines == [
        [b"TE: trailers", b"Upgrade: WebSocket", b"Connection: TE, Upgrade"],
        [b"TE: trailers", b"Connection: TE"],
        [],
    ]


@pushing
async def test_another_response_to_an_upgrade_is_received_as_usual(pushing: bool, autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(response(b"no", status=b"403 No"))

    async with streaming(handler, pushing=pushing) as streams:
        made = streams.start(mode="upgrade", headers=HEADERS)
        call = await made.end()
        assert isinstance(call, StreamingCall)
        assert (call.status, await rest_of(call)) == (403, b"no")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError):
            call.take()
        assert streams.client.statistics().pool.idle == 1


@pushing
@pytest.mark.parametrize("mode", ["stream", "whole"])
async def test_a_101_that_was_not_asked_for_is_malformed(mode: str, pushing: bool, autojump_clock) -> None:
    async with streaming(switching(), pushing=pushing) as streams:
        made = streams.start(mode=mode, headers=HEADERS)  # type: ignore[arg-type]
        assert isinstance((await made.end()).error, Malformed)


@pytest.mark.parametrize("receiving", [True, False])
async def test_a_cancel_closes_the_connection_that_was_taken_over(receiving: bool, autojump_clock) -> None:
    async with streaming(switching()) as streams, trio.open_nursery() as nursery:
        call, stream = await upgraded(streams)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        if receiving:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        call.cancel("client-gone")
        assert (streams.dial.open, streams.held()) == (0, (0, 0, 0, 1))
        assert [each.kind for each in streams.made[0].attempts] == [Kind.CLIENT_GONE]
        stream.close_now()
        if not receiving:
            await receive()


async def test_aclose_before_the_connection_is_taken_over_closes_it(autojump_clock) -> None:
    async with streaming(switching(b"x")) as streams:
        made = streams.start(mode="upgrade", headers=HEADERS)
        call = await made.end()
        assert isinstance(call, StreamingCall)
        await call.aclose()
        assert streams.dial.open == 0
        with pytest.raises(RuntimeError):
            call.take()


async def test_the_idle_limit_counts_both_directions(autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(SWITCH)
        assert await peer.read_exactly(3) == b"xyz"
        await trio.sleep_forever()

    async with streaming(handler, lockstep=True, cut=True) as streams, trio.open_nursery() as nursery:
        _, stream = await upgraded(streams, stream_limits=StreamLimits(idle=3.0))
        began = trio.current_time()

        async def send() -> None:
            for piece in (b"x", b"y", b"z"):
                await trio.sleep(2)
                await stream.send_all(piece)
            with pytest.raises(WriteTimedOut):
                await stream.send_all(b"more")

        nursery.start_soon(send)
        with pytest.raises(ReadTimedOut):
            await stream.receive_some()
        assert trio.current_time() - began == 9.0
        stream.close_now()
        streams.nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_lifetime_ends_a_connection_that_was_taken_over(autojump_clock) -> None:
    async with streaming(switching()) as streams:
        _, stream = await upgraded(streams, stream_limits=StreamLimits(lifetime=5.0))
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        assert streams.held() == (0, 0, 0, 1)
