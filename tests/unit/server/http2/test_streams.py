"""Requests that become streams, and bodies that are passed on, over HTTP/2."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from tests.support.server.h2_client import H2Client
from tests.support.server.h2_connections import Connected, h2_connected
from tests.support.server.native import Native, inform_and_respond, respond
from umbel.core.inbound import AnsweredByServerError, ClientGoneError
from umbel.server.http2.stream import Stream
from umbel.server.limits.server_limits import Limits
from umbel.server.response.response_head import ApplicationError

MockClock = trio.testing.MockClock
CONNECT = {":method": "CONNECT", ":protocol": "websocket"}
PIECE = 64 * 1024


def native(handle: Any, limits: Limits | None = None, *, any_size: bool = False) -> Any:
    return h2_connected(None, limits, app=Native(handle, any_size=any_size))


async def pass_on(request: Stream) -> None:
    """Receive the whole body as one that is passed on, and respond with its size."""
    request.take_any_size()
    size = 0
    while data := await request.receive():
        assert len(data) <= PIECE
        size += len(data)
    await respond(request, b"%d" % size)


async def upload(client: H2Client, stream: int, size: int) -> None:
    """Send ``size`` bytes as the windows allow."""
    while size:
        if room := min(client.h2.local_flow_control_window(stream), client.h2.max_outbound_frame_size, size):
            await client.data(stream, bytes(room))
            size -= room
        else:
            assert await client.receive()


async def test_a_taken_stream_counts_as_a_stream_and_not_as_in_flight(autojump_clock: MockClock) -> None:
    taken: list[Stream] = []

    async def handle(request: Stream) -> None:
        await trio.sleep(2)
        stream = await request.take(200, [])
        taken.append(request)
        while data := await stream.receive_some():
            await stream.send_all(data)

    async with native(handle, Limits(max_in_flight=1)) as here:
        stream = await here.client.request(end=False, **CONNECT)
        await here.client.data(stream, b"early")
        while here.client.answers[stream].body != b"early":
            assert await here.client.receive()
        assert (here.state.in_flight, here.state.streams) == (0, 1)
        await here.client.data(stream, b"", end=True)
        await here.client.answer(stream)
        assert (here.state.in_flight, here.state.streams) == (0, 0)
    assert (taken[0].status, taken[0].switched_at, taken[0].bytes_sent) == (200, 2.0, 5)


async def test_a_reset_of_a_taken_stream_is_reported_and_gives_its_place_back(autojump_clock: MockClock) -> None:
    gone = trio.Event()

    async def handle(request: Stream) -> None:
        request.on_gone(gone.set)
        stream = await request.take(200, [])
        assert await stream.receive_some() == b""
        with pytest.raises(ClientGoneError):
            await stream.send_all(b"x")

    async with native(handle) as here:
        stream = await here.client.request(end=False, **CONNECT)
        while not here.client.answers[stream].status:
            assert await here.client.receive()
        here.client.h2.reset_stream(stream)
        await here.client.flush()
        await gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert here.state.streams == 0


async def test_a_response_that_became_a_stream_gives_its_place_back_with_its_end(autojump_clock: MockClock) -> None:
    became: list[bool] = []
    go_on = trio.Event()

    async def handle(request: Stream) -> None:
        became.extend([request.became_stream(), request.became_stream()])
        await request.start(200, [])
        await request.send(b"")
        await go_on.wait()
        await request.finish(b"end")
        became.append(request.became_stream())

    async with native(handle, Limits(max_in_flight=1, max_streams=1)) as here:
        first = await here.client.request()
        while not here.client.answers[first].status:
            assert await here.client.receive()
        assert (here.state.in_flight, here.state.streams, became) == (0, 1, [True, True])
        go_on.set()
        await here.client.answer(first)
        assert (here.state.in_flight, here.state.streams) == (0, 0)
    assert became == [True, True, False]  # The request is over.


async def test_a_stream_is_not_taken_without_a_place(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        if request.websocket:
            assert not request.became_stream()
            with pytest.raises(ApplicationError):
                await request.take(200, [])
        else:
            assert request.became_stream()
            await trio.sleep(5)
        await respond(request, b"")

    async with native(handle, Limits(max_streams=1)) as here:
        await here.client.request()
        await trio.testing.wait_all_tasks_blocked()
        stream = await here.client.request(end=False, **CONNECT)
        answer = await here.client.answer(stream)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_max_body_is_passed_on_whole(declared: bool, autojump_clock: MockClock) -> None:
    async with native(pass_on, Limits(max_body=1000), any_size=True) as here:
        fields = [("content-length", "1000000")] if declared else []
        stream = await here.client.request("POST", headers=fields, end=False)
        await upload(here.client, stream, 1_000_000)
        await here.client.data(stream, b"", end=True)
        assert (await here.client.answer(stream)).body == b"1000000"


async def test_a_declared_body_above_max_body_needs_the_declaration_of_the_application(
    autojump_clock: MockClock,
) -> None:
    called: list[Stream] = []

    async def handle(request: Stream) -> None:
        called.append(request)
        with pytest.raises(AnsweredByServerError):
            await request.receive()

    for any_size in (False, True):
        async with native(handle, Limits(max_body=1000), any_size=any_size) as here:
            stream = await here.client.request("POST", headers=[("content-length", "1001")], end=False)
            assert (await here.client.answer(stream)).status == 413
    assert len(called) == 1


async def test_an_application_that_does_not_receive_is_sent_at_most_one_window(autojump_clock: MockClock) -> None:
    go_on = trio.Event()

    async def handle(request: Stream) -> None:
        request.take_any_size()
        await go_on.wait()
        await pass_on(request)

    async with native(handle) as here, trio.open_nursery() as nursery:
        stream = await here.client.request("POST", end=False)

        async def send() -> None:
            await upload(here.client, stream, 300_000)
            await here.client.data(stream, b"", end=True)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert here.client.h2.local_flow_control_window(stream) == 0
        go_on.set()
        while not here.client.answers[stream].ended:
            await trio.sleep(0.1)
            if not nursery.child_tasks:
                await here.client.receive()
        assert here.client.answers[stream].body == b"300000"


@pytest.mark.parametrize(("wait", "status"), [(13.0, 200), (15.0, 408)])
async def test_a_passed_body_may_last_as_long_as_each_64_kib_come_in_time(
    wait: float, status: int, autojump_clock: MockClock
) -> None:
    async with native(pass_on) as here:
        stream = await here.client.request("POST", end=False)
        for _ in range(10):
            await trio.sleep(wait)
            if status == 408:
                break
            await upload(here.client, stream, PIECE)
        else:
            await here.client.data(stream, b"", end=True)
        assert (await here.client.answer(stream)).status == status


async def test_interim_responses_are_sent_and_a_100_only_once(autojump_clock: MockClock) -> None:
    expected: list[bool] = []
    async with native(partial(inform_and_respond, expected)) as here:
        for fields, informed in (([("expect", "100-continue")], [103, 100]), ([], [103])):
            stream = await here.client.request("POST", headers=fields, end=False)
            while len(here.client.answers[stream].informational) < len(informed):
                assert await here.client.receive()
            await here.client.data(stream, b"body", end=True)
            assert (await here.client.answer(stream)).informational == informed
    assert expected == [True, False, False, False]


async def test_on_drain_is_called_once_and_not_after_the_request(autojump_clock: MockClock) -> None:
    calls: list[str] = []

    async def handle(request: Stream) -> None:
        path, drains = request.target.decode(), trio.Event()
        request.on_drain(lambda: (calls.append(path), drains.set()))
        if path == "/open":
            await drains.wait()
        await respond(request)

    async with native(handle) as here:
        await _drained_between(here)
    assert calls == ["/open"]


async def _drained_between(here: Connected) -> None:
    assert (await here.client.fetch(path="/ended")).status == 200
    stream = await here.client.request(path="/open")
    await trio.testing.wait_all_tasks_blocked()
    here.state.begin_draining(trio.current_time() + 5)
    assert (await here.client.answer(stream)).status == 200
