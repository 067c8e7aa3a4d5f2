"""Clocks of HTTP/1.1: a client cannot extend a wait by a few bytes now and then. On the autojump clock."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, repeat
from typing import Any

import pytest
import trio
import trustme

from tests.support.server.h2_client import H2Client
from tests.support.server.http1 import DRIVERS, GET, POST, App, answer, hello, served
from tests.support.server.serving import RawClient
from umbel.net.stream import PlainStream
from umbel.server.limits.server_limits import Limits
from umbel.server.response.error_response import REFUSED_MAX
from umbel.server.serve_socket import serve_socket

MockClock = trio.testing.MockClock


async def send_until_closed(client: RawClient, pieces: Iterable[bytes], every: float) -> None:
    try:
        for piece in pieces:
            await client.stream.send_all(piece)
            await trio.sleep(every)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
    await answer(send)


# Writes.


@DRIVERS
async def test_small_parts_of_a_response_share_one_write_timeout(driver: str, autojump_clock: MockClock) -> None:
    """The client reads a part of the socket's buffer now and then, so each part of the response is sent at once."""
    ended: list[float] = []

    async def chatters(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(50), "more_body": True})
        finally:
            ended.append(trio.current_time())

    async with served(App(chatters), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        # Many small writes fill the socket's buffer with few bytes: reading 16 KB every 20 seconds makes room.
        with trio.move_on_after(1000):
            while not ended:
                await trio.sleep(20)
                for _ in range(4):
                    await client.stream.receive_some(4000)
        assert ended == [pytest.approx(30, abs=11)]


@DRIVERS
async def test_parts_that_the_socket_takes_at_once_count_as_progress(driver: str, autojump_clock: MockClock) -> None:
    """A slow reader that accepts more than 64 KiB per write timeout, mostly without a wait, is not ended."""

    async def chatters(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for _ in range(3000):
            await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with served(App(chatters), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        received = 0
        while data := await client.stream.receive_some(100_000):
            received += len(data)
            await trio.sleep(6)
        assert received > 3_000_000
        assert trio.current_time() > 120


@DRIVERS
async def test_responses_to_pipelined_requests_share_one_write_timeout(driver: str, autojump_clock: MockClock) -> None:
    async def medium(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(20_000))

    async with served(App(medium), driver) as server, server.connected() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_until_closed, client, repeat(GET * 100, 20), 0)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(500):
                while server.state.connections.value:
                    with trio.move_on_after(5):
                        await server.state.connections.wait_value(0)
                    await client.stream.receive_some(1000)
            nursery.cancel_scope.cancel(reason="closed")
        assert trio.current_time() < 100


async def test_an_idle_connection_is_kept_for_75_seconds_by_default(autojump_clock: MockClock) -> None:
    async with served(App(hello), keep_alive_timeout=None) as server, server.connected() as client:
        await client.request("GET", "/")
        with trio.fail_after(100):
            assert await client.closed_by_server()
        assert trio.current_time() == pytest.approx(75)


# Heads and error responses.


@DRIVERS
@pytest.mark.parametrize("data", [GET, b"\r\n" * 100, POST + b"x: " + b"y" * 100], ids=["request", "lines", "half"])
async def test_a_head_sent_byte_by_byte_gets_408_after_the_head_timeout(
    data: bytes, driver: str, autojump_clock: MockClock
) -> None:
    async with served(App(hello), driver, keep_alive_timeout=15) as server, server.connected() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_until_closed, client, (data[at : at + 1] for at in range(len(data))), 0.8)
            with trio.fail_after(100):
                while await client.stream.receive_some():
                    pass
            nursery.cancel_scope.cancel(reason="closed")
        assert trio.current_time() <= 15


@DRIVERS
@pytest.mark.parametrize("every", [0, 3])
@pytest.mark.parametrize("shed", [False, True], ids=["refused", "shed"])
async def test_the_hundredth_refused_request_ends_the_connection(
    every: float, shed: bool, driver: str, autojump_clock: MockClock
) -> None:
    app = App(hello)
    request = GET if shed else b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n"
    limits = Limits(max_in_flight=0 if shed else 10)
    async with (
        served(app, driver, limits, keep_alive_max_requests=10**6) as server,
        server.connected() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_until_closed, client, (request for _ in count()), every)
        with trio.fail_after(1000):
            try:
                while await client.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        nursery.cancel_scope.cancel(reason="closed")
    assert len(app.recorder.requests) == REFUSED_MAX


# Bodies.


@DRIVERS
@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"content-length: 100000\r\n\r\n", b"x"),
        (b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"transfer-encoding: chunked\r\n\r\n5;", b"e"),
        (b"transfer-encoding: chunked\r\n\r\n", b"0"),
        (b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"t"),
    ],
    ids=["length", "chunks", "extension", "size", "trailer"],
)
@pytest.mark.parametrize("every", [0.5, 4])
async def test_a_slow_body_gets_408_when_the_time_for_its_length_is_over(
    framing: bytes, piece: bytes, every: float, driver: str, autojump_clock: MockClock
) -> None:
    limits = Limits(body_timeout=5, min_body_rate=10_000, max_body=100_000)
    async with (
        served(App(reads_all), driver, limits) as server,
        server.connected() as client,
        trio.open_nursery() as nursery,
    ):
        await client.stream.send_all(POST + framing)
        nursery.start_soon(send_until_closed, client, repeat(piece), every)
        with trio.fail_after(100):
            reply = await client.reply("POST")
        assert reply.status in (400, 408)  # 400: a chunk size of many digits is malformed.
        assert reply.status == 400 or trio.current_time() == pytest.approx(15)
        nursery.cancel_scope.cancel(reason="refused")


@DRIVERS
@pytest.mark.parametrize("piece", [b"1\r\nx\r\n", b"0\r\nx: ", b"5;"], ids=["chunks", "trailer", "extension"])
async def test_a_fast_start_of_a_body_does_not_extend_its_time(
    piece: bytes, driver: str, autojump_clock: MockClock
) -> None:
    limits = Limits(body_timeout=10, min_body_rate=100_000, max_body=2_000_000)
    async with (
        served(App(reads_all), driver, limits) as server,
        server.connected() as client,
        trio.open_nursery() as nursery,
    ):
        await client.stream.send_all(POST + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(16):
            await client.stream.send_all(b"10000\r\n" + bytes(2**16) + b"\r\n")
        drip = repeat(piece) if piece.startswith(b"1") else (piece, *[b"e"] * 1000)
        nursery.start_soon(send_until_closed, client, drip, 5)
        with trio.fail_after(1000):
            reply = await client.reply("POST")
        assert (reply.status, trio.current_time()) == (408, pytest.approx(30))
        nursery.cancel_scope.cancel(reason="refused")


# TLS.


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of a server and of its client."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("gateway.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def ended_at(server: Any, pieces: Iterable[bytes], context: ssl.SSLContext, every: float) -> float:
    """Send pieces to a TLS connection until it ends. Return the time of its end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    client = RawClient(stream)
    async with stream, trio.open_nursery() as nursery:
        server.nursery.start_soon(serve_socket, server.state, theirs, context)
        nursery.start_soon(send_until_closed, client, pieces, every)
        with trio.fail_after(1000):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        nursery.cancel_scope.cancel(reason="closed")
    return trio.current_time()


def client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="gateway.test").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("pieces", ["nothing", "half", "drip"])
async def test_a_tls_handshake_must_end_within_the_head_timeout(
    pieces: str, tls: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    hello_bytes = client_hello(tls[1])
    given: dict[str, list[bytes]] = {
        "nothing": [],
        "half": [hello_bytes[:50]],
        "drip": [hello_bytes[at : at + 1] for at in range(len(hello_bytes))],
    }
    async with served(App(hello), limits=Limits(head_timeout=5)) as server:
        assert await ended_at(server, given[pieces], tls[0], 0.8) == pytest.approx(5)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_the_handshake_and_the_first_head_share_the_head_timeout(
    protocol: str, tls: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    tls[1].set_alpn_protocols([protocol])
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    async with served(App(hello), limits=Limits(head_timeout=5)) as server:
        raw = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        server.nursery.start_soon(serve_socket, server.state, theirs, tls[0])
        await trio.sleep(3)
        stream = trio.SSLStream(raw, tls[1], server_hostname="gateway.test", https_compatible=True)
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == protocol
        with trio.fail_after(100):
            await server.state.connections.wait_value(0)
        assert trio.current_time() == pytest.approx(5)
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("served_before", [False, True], ids=["at once", "behind a request"])
async def test_a_tls_record_sent_byte_by_byte_extends_no_deadline(
    served_before: bool, protocol: str, tls: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    tls[1].set_alpn_protocols([protocol])
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    async with served(App(hello), limits=Limits(head_timeout=5), keep_alive_timeout=15) as server:
        raw = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        server.nursery.start_soon(serve_socket, server.state, theirs, tls[0])
        stream = trio.SSLStream(raw, tls[1], server_hostname="gateway.test", https_compatible=True)
        await stream.do_handshake()
        if served_before:
            if protocol == "h2":
                client = H2Client(stream)
                await client.begin()
                assert (await client.fetch()).status == 200
            else:
                await stream.send_all(GET)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        record = b"\x17\x03\x03\x40\x00" + bytes(16_384)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_until_closed, RawClient(raw), (record[at : at + 1] for at in count()), 0.8)
            with trio.fail_after(100):
                await server.state.connections.wait_value(1)
                await server.state.connections.wait_value(0)
            nursery.cancel_scope.cancel(reason="closed")
        # Sending close_notify may take a second.
        assert trio.current_time() == pytest.approx(15.5 if served_before else 5.5, abs=0.6)
        await trio.aclose_forcefully(stream)


# A busy loop.


@DRIVERS
async def test_the_lag_of_a_busy_loop_does_not_count_as_waiting(
    driver: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn of the event loop takes half a second, and each response waits for a turn."""

    async def small(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(100))

    async def busy() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            autojump_clock.jump(0.5)

    def keep(self: PlainStream, data: bytes) -> bool:
        """Make each write wait, as for a socket that takes no byte at first."""
        self.unsent = memoryview(data)
        self._reader.call_again(self._socket)
        return False

    async with served(App(small), driver, keep_alive_timeout=10**6) as server, server.connected() as client:
        monkeypatch.setattr(PlainStream, "send_now", keep)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy)
            for _ in range(200):
                assert (await client.request("GET", "/")).status == 200
            nursery.cancel_scope.cancel(reason="enough")
    assert trio.current_time() > 100
