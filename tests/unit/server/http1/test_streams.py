"""Requests that become streams, over HTTP/1.1: their places, ``take``, the drain, and interim responses."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.support.server.http1 import GET, POST
from tests.support.server.native import inform_and_respond, native, respond
from umbel.core.events import RequestEnded
from umbel.core.inbound import ClientGoneError, InboundRequest
from umbel.core.model import RequestFacts, Trace
from umbel.server.limits.server_limits import Limits
from umbel.server.response.response_head import ApplicationError

MockClock = trio.testing.MockClock
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = [(b"upgrade", b"websocket"), (b"sec-websocket-accept", b"x")]


async def test_a_stream_leaves_max_in_flight_and_gives_its_place_back(autojump_clock: MockClock) -> None:
    became: list[bool] = []
    go_on = trio.Event()

    async def handle(request: InboundRequest) -> None:
        if request.target == b"/x":
            became.extend([request.became_stream(), request.became_stream()])
            await request.start(200, [(b"content-type", b"text/event-stream")])
            await request.send(b"")
            await go_on.wait()
            await request.finish(b"end")
        else:
            became.append(request.became_stream())
            await respond(request)

    async with native(handle, Limits(max_in_flight=1, max_streams=1)) as server, server.connected() as client:
        await client.stream.send_all(GET)
        assert b"text/event-stream" in await client.stream.receive_some()  # The head comes before any content.
        statistics = server.state.statistics()
        assert (statistics.requests_in_flight, statistics.streams, statistics.streams_total) == (0, 1, 1)
        async with server.connected() as other:
            assert (await other.request("GET", "/other")).status == 200
        assert became == [True, True, False]  # No place is free: the request stays in flight.
        go_on.set()
        assert b"end" in await client.stream.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert (server.state.in_flight, server.state.streams) == (0, 0)


async def test_each_part_of_a_response_is_written_before_send_returns(autojump_clock: MockClock) -> None:
    received: list[bytes] = []

    async with trio.open_nursery() as nursery:
        sent: trio.MemorySendChannel[bytes]
        sent, came = trio.open_memory_channel[bytes](0)

        async def handle(request: InboundRequest) -> None:
            await request.start(200, [])
            async for part in came:
                await request.send(part)
            await request.finish()

        async with native(handle) as server, server.connected() as client:
            await client.stream.send_all(GET)
            for part in (b"data: 1\n\n", b"data: 2\n\n", b"x"):
                await sent.send(part)
                received.append(await client.stream.receive_some())
            sent.close()
        nursery.cancel_scope.cancel()
    assert received[0].endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n")
    assert received[1:] == [b"9\r\ndata: 2\n\n\r\n", b"1\r\nx\r\n"]


async def test_a_taken_request_gets_the_bytes_behind_its_upgrade_and_is_recorded(autojump_clock: MockClock) -> None:
    ended: list[InboundRequest] = []

    async def handle(request: InboundRequest) -> None:
        await trio.sleep(2)
        stream = await request.take(101, SWITCHED)
        while data := await stream.receive_some():
            await stream.send_all(data.upper())
        await stream.send_eof()
        ended.append(request)
        facts = RequestFacts("id", Trace("t"), "GET", "/ws", "", request.started)
        request.file_record(
            server.state.app.recorder,
            RequestEnded(facts, request.status, 3.0, request.bytes_sent, switched_at=request.switched_at),
        )

    async with native(handle) as server, server.connected() as client:
        await client.stream.send_all(UPGRADE + b"behind")
        received = b""
        while not received.endswith(b"BEHIND"):
            received += await client.stream.receive_some()
        assert received.startswith(b"HTTP/1.1 101 ")
        assert (server.state.in_flight, server.state.streams) == (0, 1)
        await client.stream.send_all(b"more")
        assert await client.stream.receive_some() == b"MORE"
        await client.stream.send_eof()
        assert await client.stream.receive_some() == b""
    (request,), (record,) = ended, server.state.app.recorder.requests
    assert (request.gone, request.response_complete, request.bytes_sent) == (False, False, 10)
    assert (record.status, record.bytes_sent, record.switched_at) == (101, 10, 2.0)


@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_leaves_ends_a_taken_request(reset: bool, autojump_clock: MockClock) -> None:
    gone = trio.Event()
    ends: list[bytes] = []

    async def handle(request: InboundRequest) -> None:
        request.on_gone(gone.set)
        stream = await request.take(101, SWITCHED)
        ends.append(await stream.receive_some())
        if reset:
            await gone.wait()
            with pytest.raises(ClientGoneError):
                await stream.send_all(b"x")

    async with native(handle) as server, server.connected() as client:
        await client.stream.send_all(UPGRADE)
        await client.stream.receive_some()
        if not reset:
            await client.stream.send_eof()
            assert await client.stream.receive_some() == b""
    assert ends == [b""]
    assert gone.is_set() == reset


async def test_a_request_is_not_taken_without_a_place_for_a_stream(autojump_clock: MockClock) -> None:
    async def handle(request: InboundRequest) -> None:
        if request.target == b"/x":
            assert request.became_stream()
            await trio.sleep(10)
        else:
            with pytest.raises(ApplicationError):
                await request.take(101, SWITCHED)
        await respond(request)

    async with native(handle, Limits(max_streams=1)) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as other:
            await other.stream.send_all(UPGRADE)
            assert (await other.stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_on_drain_is_called_once_and_at_once_during_a_drain(autojump_clock: MockClock) -> None:
    calls: list[str] = []

    async def handle(request: InboundRequest) -> None:
        if request.target == b"/x":
            request.on_drain(lambda: calls.append("removed"))
            request.on_drain(None)
            drains = trio.Event()
            request.on_drain(lambda: (calls.append("begins"), drains.set()))
            await drains.wait()
            request.on_drain(lambda: calls.append("at once"))
        else:
            request.on_drain(lambda: calls.append("the request has ended"))
        await respond(request)

    async with native(handle) as server, server.connected() as client:
        await client.request("GET", "/ended")
        await client.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        server.state.begin_draining(trio.current_time() + 5)
        assert calls == ["begins"]
        await client.reply()
    assert calls == ["begins", "at once"]


async def test_a_reserved_probe_that_became_a_stream_is_not_displaced(autojump_clock: MockClock) -> None:
    async def handle(request: InboundRequest) -> None:
        if request.target == b"/livez":
            await request.start(200, [])
            await request.send(b"x")
            assert request.became_stream()
            assert not server.state.reserve.requests
        await trio.sleep(10)
        await (request.finish() if request.status else respond(request))

    async with native(handle, Limits(max_in_flight=1)) as server, server.connected() as busy:
        await busy.stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as probe:
            assert (await probe.request("GET", "/livez")).body == b"x"
            assert trio.current_time() >= 10


async def test_interim_responses_are_sent_and_a_100_only_once(autojump_clock: MockClock) -> None:
    expected: list[bool] = []
    async with native(partial(inform_and_respond, expected)) as server:
        for head, number in ((POST + b"expect: 100-continue\r\n", 1), (POST, 0)):
            async with server.connected() as client:
                await client.stream.send_all(head + b"content-length: 4\r\n\r\n")
                received = b""
                while received.count(b"\r\n\r\n") < 1 + number:
                    received += await client.stream.receive_some()
                await client.stream.send_all(b"body")
                while b"hello" not in received:
                    received += await client.stream.receive_some()
                assert received.count(b"HTTP/1.1 103 ") == 1
                assert received.count(b"HTTP/1.1 100 ") == number
                assert b" 102 " not in received
    assert expected == [True, False, False, False]
