"""Bodies that are passed on (``take_any_size``), over HTTP/1.1: their size, their time, and half-closed clients."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.server.http1 import POST
from tests.support.server.native import native, respond
from umbel.core.inbound import AnsweredByServerError, ClientGoneError, InboundRequest
from umbel.core.pieces import PIECE, PIECE_MAX
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
LENGTH = POST + b"content-length: %d\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


async def pass_on(request: InboundRequest) -> None:
    """Receive the whole body as one that is passed on, and respond with its size."""
    request.take_any_size()
    size = 0
    while data := await request.receive():
        size += len(data)
    await respond(request, b"%d" % size)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_above_max_body_is_passed_on_whole(framing: str, autojump_clock: MockClock) -> None:
    body = bytes(100_000)
    async with native(pass_on, Limits(max_body=1000), any_size=True) as server, server.connected() as client:
        sent = LENGTH % len(body) + body if framing == "length" else CHUNKED + chunked(body)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, sent)
            assert (await client.reply()).body == b"100000"
    assert server.state.app.asked == (framing == "length")


async def test_a_length_above_max_body_is_refused_unless_the_application_takes_it(autojump_clock: MockClock) -> None:
    called: list[object] = []

    async def handle(request: InboundRequest) -> None:
        called.append(request)
        with pytest.raises(AnsweredByServerError):
            await request.receive()

    for any_size in (False, True):
        async with native(handle, Limits(max_body=1000), any_size=any_size) as server, server.connected() as client:
            await client.stream.send_all(LENGTH % 1001 + b"x")
            assert (await client.reply()).status == 413
    assert len(called) == 1  # With any_size=True. The application has not called take_any_size.


async def test_a_body_of_1000_bytes_does_not_ask_the_application_for_its_size(autojump_clock: MockClock) -> None:
    async with native(pass_on, Limits(max_body=1000)) as server, server.connected() as client:
        await client.stream.send_all(LENGTH % 1000 + bytes(1000))
        assert (await client.reply()).body == b"1000"
    assert server.state.app.asked == 0


@pytest.mark.parametrize(("wait", "status"), [(13.0, 200), (15.0, 408)])
async def test_a_passed_body_may_last_as_long_as_each_64_kib_come_in_time(
    wait: float, status: int, autojump_clock: MockClock
) -> None:
    """``body_timeout`` is 10 s, and 64 KiB at ``min_body_rate`` take 4 s more."""
    async with native(pass_on, any_size=True) as server, server.connected() as client:
        await client.stream.send_all(LENGTH % (20 * PIECE))

        async def send() -> None:
            for _ in range(20):
                await trio.sleep(wait)
                await client.stream.send_all(bytes(PIECE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert (await client.reply()).status == status
            assert trio.current_time() >= (260 if status == 200 else 14)
            nursery.cancel_scope.cancel()


async def test_single_bytes_do_not_extend_the_time_of_a_passed_body(autojump_clock: MockClock) -> None:
    async with native(pass_on, any_size=True) as server, server.connected() as client:
        await client.stream.send_all(LENGTH % (20 * PIECE))
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await trio.sleep(1)
                    await client.stream.send_all(b"x")

            nursery.start_soon(drip)
            assert (await client.reply()).status == 408
            assert trio.current_time() == pytest.approx(14, abs=1)
            nursery.cancel_scope.cancel()


async def test_the_body_of_a_stream_may_be_silent(autojump_clock: MockClock) -> None:
    async def handle(request: InboundRequest) -> None:
        assert request.became_stream()
        await pass_on(request)

    async with native(handle) as server, server.connected() as client:
        await client.stream.send_all(CHUNKED)
        await trio.sleep(1000)
        assert server.state.statistics().uploads == 0
        await client.stream.send_all(chunked(b"late"))
        assert (await client.reply()).body == b"4"


async def test_an_upload_that_waits_for_a_slot_waits_no_longer_as_a_stream(autojump_clock: MockClock) -> None:
    requests: list[InboundRequest] = []

    async def handle(request: InboundRequest) -> None:
        requests.append(request)
        await pass_on(request)

    async with native(handle, Limits(max_uploads=1), any_size=True) as server, server.connected() as one:
        await one.stream.send_all(LENGTH % 100_000)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as two:
            await two.stream.send_all(LENGTH % 50_000)
            await trio.testing.wait_all_tasks_blocked()
            assert (server.state.uploads.taken, server.state.uploads.waiting) == (1, 1)
            assert requests[1].became_stream()
            await two.stream.send_all(bytes(50_000))
            assert (await two.reply()).body == b"50000"
        assert requests[0].became_stream()
        assert (server.state.uploads.taken, server.state.streams, server.state.in_flight) == (0, 1, 0)
        await one.stream.send_all(bytes(100_000))
        assert (await one.reply()).body == b"100000"
    assert trio.current_time() == 0


async def test_a_complete_passed_body_is_not_refused_for_want_of_capacity(autojump_clock: MockClock) -> None:
    async def handle(request: InboundRequest) -> None:
        if request.method == "POST":
            await pass_on(request)
        else:
            await trio.sleep(10)
            await respond(request)

    async with native(handle, Limits(max_in_flight=1)) as server, server.connected() as upload:
        await upload.stream.send_all(LENGTH % 50_000)
        await trio.testing.wait_all_tasks_blocked()
        async with server.connected() as busy:
            await busy.stream.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert server.state.in_flight == 1
            await upload.stream.send_all(bytes(50_000))
            assert (await upload.reply()).body == b"50000"


@pytest.mark.parametrize("complete", [True, False])
async def test_the_end_of_a_client_behind_its_whole_body_is_a_half_close(
    complete: bool, autojump_clock: MockClock
) -> None:
    """The application passes a part of the body on, and so does not receive, when the end comes."""
    outcome: list[Any] = []

    async def handle(request: InboundRequest) -> None:
        request.take_any_size()
        gone = trio.Event()
        request.on_gone(gone.set)
        size = len(await request.receive())
        with trio.move_on_after(5):
            await gone.wait()
        outcome.append(request.gone)
        if not request.gone:
            while data := await request.receive():
                size += len(data)
            await respond(request, b"%d" % size)
        else:
            with pytest.raises(ClientGoneError):
                await request.receive()

    async with native(handle, any_size=True) as server, server.connected() as client:
        await client.stream.send_all(LENGTH % 100_000 + b"first")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_all(bytes(99_995 if complete else 99_994))
        await client.stream.send_eof()
        if complete:
            assert (await client.reply()).body == b"100000"
        assert await client.closed_by_server()
    assert outcome == [not complete]


@pytest.mark.parametrize("most", [PIECE, PIECE_MAX])
async def test_at_most_one_read_of_a_body_is_held_for_an_application_that_does_not_receive(
    most: int, autojump_clock: MockClock
) -> None:
    sizes: list[int] = []

    async def handle(request: InboundRequest) -> None:
        request.take_any_size()
        request.receive_max = most
        await trio.sleep(5)
        while data := await request.receive():
            sizes.append(len(data))
        await respond(request)

    async with native(handle, any_size=True) as server, server.connected() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, LENGTH % 2_000_000 + bytes(2_000_000))
        assert (await client.reply()).status == 200
    assert sum(sizes) == 2_000_000
    assert most // 4 < max(sizes) <= most
