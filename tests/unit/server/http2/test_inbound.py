"""An HTTP/2 stream as an ``InboundRequest``, with an ``InboundApplication``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.errors
import pytest
import trio

from tests.support.server.h2_connections import Connected, h2_connected
from umbel.core.inbound import AnsweredByServerError, ClientGoneError, InboundApplication
from umbel.server.http2.stream import Stream
from umbel.server.limits.server_limits import Limits
from umbel.server.response.response_head import ApplicationError

MockClock = trio.testing.MockClock
Codes = h2.errors.ErrorCodes
Handle = Callable[[Stream], Awaitable[None]]


class Native(InboundApplication):
    """An ``InboundApplication`` made of one function."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def handle(self, request: Any) -> None:
        await self._handle(request)

    def error_response_fields(self, head: Any, fields: Any) -> Any:
        return fields


@asynccontextmanager
async def native(handle: Handle, limits: Limits | None = None, **settings: Any) -> AsyncIterator[Connected]:
    async with h2_connected(None, limits, app=Native(handle), **settings) as here:
        yield here


async def respond(request: Stream, body: bytes, fields: Any = ()) -> None:
    if not request.respond(200, fields, body):
        await request.drained()


async def test_a_request_has_the_values_of_its_head(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    async def handle(request: Stream) -> None:
        seen.append(request)
        assert (request.response_complete, request.can_respond, request.status, request.bytes_sent) == (
            False,
            True,
            0,
            0,
        )
        await respond(request, b"hello")
        assert (request.response_complete, request.can_respond, request.status, request.bytes_sent) == (
            True,
            False,
            200,
            5,
        )

    async with native(handle) as here:
        fields = [("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")]
        assert (await here.client.fetch("GET", "/caf%C3%A9?q=1", fields)).body == b"hello"
    (request,) = seen
    assert (request.method, request.target, request.version, request.scheme) == ("GET", b"/caf%C3%A9?q=1", "2", "http")
    assert request.fields == ((b"host", b"gateway.test"), (b"te", b"trailers"), (b"cookie", b"a=1; b=2"))
    assert (request.peer, request.local) == (("192.0.2.1", 5000), ("192.0.2.2", 80))
    assert (request.content_length, request.websocket, request.takes_trailers) == (0, False, True)
    assert (request.client_certificate, request.started, request.gone) == (None, 0, False)


async def test_a_response_larger_than_the_window_waits_in_drained(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        assert not request.respond(200, [(b"content-length", b"100000")], bytes(100_000))
        assert not request.response_complete
        await request.drained()
        assert (request.response_complete, request.bytes_sent) == (True, 100_000)

    async with native(handle) as here:
        answer = await here.client.fetch()
        assert (len(answer.body), answer.ended, answer["content-length"]) == (100_000, True, "100000")


async def test_a_response_does_not_continue_after_a_cancelled_send(autojump_clock: MockClock) -> None:
    """The bytes that the cancelled send had not queued were left out, and the response ended as if it were whole."""

    async def handle(request: Stream) -> None:
        await request.start(200, [])
        with trio.move_on_after(1) as scope:
            await request.send(bytes(100_000))  # The client's window is 65,535 bytes.
        assert scope.cancelled_caught
        with pytest.raises(ApplicationError, match="after a send that was cancelled"):
            await request.send(b"more")
        await request.finish(b"end")

    async with native(handle) as here:
        stream = await here.client.request("GET")
        await trio.sleep(2)
        answer = await here.client.answer(stream)
        assert (len(answer.body), answer.ended, answer.reset) == (65_535, False, Codes.INTERNAL_ERROR)


async def test_trailers_do_not_end_a_response_with_a_cancelled_send(autojump_clock: MockClock) -> None:
    """The trailers ended the response as if it were whole."""

    async def handle(request: Stream) -> None:
        await request.start(200, [], trailers=True)
        with trio.move_on_after(1):
            await request.send(bytes(100_000))  # The client's window is 65,535 bytes.
        await request.finish(b"", [(b"x-sum", b"7")])

    async with native(handle) as here:
        stream = await here.client.request("GET", headers=[("te", "trailers")])
        await trio.sleep(2)
        answer = await here.client.answer(stream)
        assert (len(answer.body), answer.trailers, answer.reset) == (65_535, [], Codes.INTERNAL_ERROR)


async def test_parts_trailers_and_interim_responses_are_sent_in_order(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        await request.inform(103, [(b"link", b"</style>")])
        await request.start(200, [], trailers=True)
        await request.send(b"one ")
        with pytest.raises(ApplicationError):
            await request.inform(103, [])
        await request.finish(b"two", [(b"x-sum", b"7")])

    async with native(handle) as here:
        answer = await here.client.fetch(headers=[("te", "trailers")])
        assert (answer.informational, answer.body, answer.trailers) == ([103], b"one two", [("x-sum", "7")])
        plain = await here.client.fetch()
        assert (plain.body, plain.trailers, plain.ended) == (b"one two", [], True)


async def test_a_body_is_received_in_parts_to_its_end(autojump_clock: MockClock) -> None:
    parts: list[Any] = []

    async def handle(request: Stream) -> None:
        while data := await request.receive():
            parts.append((data, request.body_complete))
        parts.append(await request.receive())
        await respond(request, b"")

    async with native(handle) as here:
        stream = await here.client.request("POST", headers=[("content-length", "6")], end=False)
        await here.client.data(stream, b"one")
        await trio.testing.wait_all_tasks_blocked()
        await here.client.data(stream, b"two", end=True)
        assert (await here.client.answer(stream)).status == 200
    assert parts == [(b"one", False), (b"two", True), b""]


async def test_a_refused_body_raises_the_servers_error_response(autojump_clock: MockClock) -> None:
    raised: list[AnsweredByServerError] = []

    async def handle(request: Stream) -> None:
        request.on_gone(lambda: raised.append(None))  # type: ignore[arg-type]  # Must not be called.
        try:
            await request.receive()
        except AnsweredByServerError as error:
            raised.append(error)
        with pytest.raises(ClientGoneError):
            request.respond(200, [], b"late")

    async with native(handle, Limits(body_timeout=5)) as here:
        answer = await here.client.answer(await here.client.request("POST", end=False))
    (error,) = raised
    assert (answer.status, error.status, error.request_id) == (408, 408, answer["x-request-id"])
    assert [record.status for record in here.records.requests] == [408]


async def test_a_reset_calls_on_gone_once_and_later_sends_raise(autojump_clock: MockClock) -> None:
    heard: list[float] = []

    async def handle(request: Stream) -> None:
        gone = trio.Event()

        def callback() -> None:
            heard.append(trio.current_time())
            gone.set()

        request.on_gone(callback)
        await gone.wait()
        assert request.gone
        with pytest.raises(ClientGoneError):
            request.respond(200, [], b"")
        with pytest.raises(ClientGoneError):
            await request.receive()
        request.on_gone(lambda: heard.append(-1))  # The client has left already.

    async with native(handle) as here:
        stream = await here.client.request("POST", end=False)
        await trio.sleep(1)
        here.client.h2.reset_stream(stream, Codes.CANCEL)
        await here.client.flush()
        await trio.testing.wait_all_tasks_blocked()
    assert heard == [1, -1]
    assert here.records.logged == []


async def test_a_client_that_leaves_while_its_body_waits_for_a_slot_is_gone(autojump_clock: MockClock) -> None:
    """The 100 was queued for a stream that had been reset, and its refusal counted as a crash of the application."""
    raised: list[BaseException] = []

    async def handle(request: Stream) -> None:
        try:
            await request.receive()
        except Exception as error:
            raised.append(error)
            raise

    async with native(handle, Limits(max_uploads=1)) as here:
        await here.client.request("POST", end=False)  # Takes the only slot.
        await trio.testing.wait_all_tasks_blocked()
        stream = await here.client.request("POST", headers=[("expect", "100-continue")], end=False)
        await trio.testing.wait_all_tasks_blocked()
        here.client.h2.reset_stream(stream, Codes.CANCEL)
        await here.client.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in raised] == [ClientGoneError]


async def test_a_cut_response_ends_with_a_reset_and_one_record(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        await request.start(200, [])
        await request.send(b"part")
        request.cut("the upstream has failed")

    async with native(handle) as here:
        answer = await here.client.fetch()
        assert (answer.body, answer.reset) == (b"part", Codes.INTERNAL_ERROR)


async def test_a_handler_that_gives_no_response_or_raises_gives_500(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        if request.target == b"/raises":
            raise ValueError("secret")

    async with native(handle) as here:
        assert (await here.client.fetch(path="/silent")).status == 500
        assert (await here.client.fetch(path="/raises")).status == 500


async def test_foreign_code_runs_after_begins_to_wait(autojump_clock: MockClock) -> None:
    steps: list[str] = []

    async def handle(request: Stream) -> None:
        async def function() -> None:
            steps.append("runs")
            await respond(request, b"")

        await request.run_apart(function(), lambda: steps.append("begins to wait"))

    async with native(handle) as here:
        assert (await here.client.fetch()).status == 200
    assert steps == ["begins to wait", "runs"]


async def test_a_taken_stream_carries_bytes_both_ways_until_either_side_ends(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        assert request.websocket
        stream = await request.take(200, [])
        while data := await stream.receive_some():
            await stream.send_all(data.upper())
        await stream.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"late")

    async with native(handle) as here:
        stream = await here.client.request(end=False, **{":method": "CONNECT", ":protocol": "websocket"})
        await here.client.data(stream, b"hello")
        while here.client.answers[stream].body != b"HELLO":
            assert await here.client.receive()
        await here.client.data(stream, b" you", end=True)
        answer = await here.client.answer(stream)
        assert (answer.status, answer.body, answer.ended, answer.reset) == (200, b"HELLO YOU", True, None)


async def test_only_the_stream_of_an_extended_connect_can_be_taken(autojump_clock: MockClock) -> None:
    async def handle(request: Stream) -> None:
        with pytest.raises(ApplicationError):
            await request.take(200, [])
        await respond(request, b"")

    async with native(handle) as here:
        assert (await here.client.fetch()).status == 200


async def test_a_client_that_takes_nothing_counts_as_gone_at_the_write_timeout(autojump_clock: MockClock) -> None:
    heard: list[Any] = []

    async def handle(request: Stream) -> None:
        request.on_gone(lambda: heard.append(trio.current_time()))
        request.respond(200, [], bytes(100_000))
        with pytest.raises(ClientGoneError):
            await request.drained()
        heard.append((request.response_complete, request.gone))

    async with native(handle, Limits(write_timeout=30)) as here:
        here.client.acknowledges = False
        answer = await here.client.fetch()
        assert (len(answer.body), answer.reset) == (65_535, Codes.CANCEL)
    assert heard == [pytest.approx(30), (False, True)]


async def test_the_end_of_the_connection_calls_on_gone_and_ends_receive(autojump_clock: MockClock) -> None:
    heard: list[str] = []

    async def handle(request: Stream) -> None:
        request.on_gone(lambda: heard.append("called"))
        try:
            await request.receive()
        except AnsweredByServerError:
            heard.append("refused")
        except ClientGoneError:
            heard.append("raised")

    async with native(handle) as here:
        await here.client.request("POST", end=False)
        await trio.testing.wait_all_tasks_blocked()
        await here.client.stream.aclose()
        await here.over.wait()
    assert heard == ["called", "raised"]
    assert here.records.logged == []


async def test_responses_of_one_turn_are_written_together(autojump_clock: MockClock) -> None:
    go = trio.Event()

    async def handle(request: Stream) -> None:
        await go.wait()
        await respond(request, request.target)

    async with native(handle) as here:
        writes: list[int] = []
        deliver = here.stream.send_stream.send_all_hook

        async def count() -> None:
            writes.append(1)
            await deliver()

        streams = [await here.client.request(path=f"/{number}") for number in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        here.stream.send_stream.send_all_hook = count
        go.set()
        for number, stream in enumerate(streams):
            assert (await here.client.answer(stream)).body == b"/%d" % number
        assert len(writes) == 1
