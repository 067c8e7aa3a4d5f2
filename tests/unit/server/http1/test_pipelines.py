"""Pipelined requests: other tasks run in between, responses stay in order, and a drain ends the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from socket import SHUT_WR

import pytest
import trio

from tests.support.logs.records import Records
from tests.support.server.http1 import DRIVERS, GET, served
from umbel.core.inbound import AnyHead, Field, InboundApplication, InboundRequest
from umbel.server.http1.connection import REQUESTS_PER_TURN
from umbel.server.response.error_response import REFUSED_MAX

MockClock = trio.testing.MockClock
pytestmark = DRIVERS


class Turns(InboundApplication):
    """Respond at once, and note for each request how many turns another task has had before it."""

    def __init__(self) -> None:
        self.recorder = Records()
        self.turns = 0
        self.seen: list[int] = []

    async def handle(self, request: InboundRequest) -> None:
        self.seen.append(self.turns)
        request.respond(404, [(b"content-length", b"1")], b"-")

    def error_response_fields(self, head: AnyHead, fields: Sequence[Field]) -> Sequence[Field]:
        self.seen.append(self.turns)
        return fields

    async def count(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1


@pytest.mark.parametrize("request_bytes", [GET, b"GET /x HTTP/1.1\r\n\r\n"], ids=["answered", "refused"])
async def test_other_tasks_run_after_every_sixteen_requests_of_a_pipeline(
    request_bytes: bytes, driver: str, autojump_clock: MockClock
) -> None:
    app = Turns()
    number = REFUSED_MAX - 1 if request_bytes is not GET else 500
    async with served(app, driver) as server, server.connected() as client, trio.open_nursery() as nursery:
        nursery.start_soon(app.count)
        await client.stream.send_all(request_bytes * number)
        received = b""
        while received.count(b"HTTP/1.1 4") < number and (data := await client.stream.receive_some()):
            received += data
        nursery.cancel_scope.cancel(reason="all are answered")
    if request_bytes is GET:
        assert len(app.seen) == number
    assert (
        max(len(list(group)) for _, group in groupby(app.seen)) <= 2 * REQUESTS_PER_TURN
    )  # Tasks of one turn run in any order.


async def test_a_drain_ends_a_pipeline_with_its_next_response(driver: str, autojump_clock: MockClock) -> None:
    class Draining(Turns):
        async def handle(self, request: InboundRequest) -> None:
            await super().handle(request)
            if len(self.seen) == 20:
                state.begin_draining(trio.current_time() + 100)

    app = Draining()
    async with served(app, driver) as server, server.connected() as client:
        state = server.state
        await client.stream.send_all(GET * 400)
        received = b""
        while data := await client.stream.receive_some():
            received += data
        assert len(app.seen) == 21
        assert received.count(b"HTTP/1.1 404") == 21
        assert received.count(b"connection: close") == 1
        assert trio.current_time() < 5


async def test_a_half_closed_pipeline_larger_than_one_read_is_answered(driver: str, autojump_clock: MockClock) -> None:
    app = Turns()
    request = GET[:-2] + b"y: " + bytes(64 - len(GET) - 5).replace(b"\0", b"z") + b"\r\n\r\n"
    assert len(request) == 64, "so that a read ends with a request"
    async with served(app, driver) as server, server.connected() as client:
        await client.stream.send_all(request * 600)
        client.stream.socket.shutdown(SHUT_WR)
        received = b""
        while data := await client.stream.receive_some():
            received += data
    assert received.count(b"HTTP/1.1 404") == 600
    assert received.count(b"connection: close") == 1


async def test_a_pipelined_request_starts_when_the_one_before_ends(driver: str, autojump_clock: MockClock) -> None:
    class Slow(Turns):
        async def handle(self, request: InboundRequest) -> None:
            began.append(request.started)
            await trio.sleep(3)
            await super().handle(request)

    began: list[float] = []
    async with served(Slow(), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.sleep(1)
        await client.stream.send_all(GET)
        assert [(await client.reply()).status for _ in range(2)] == [404, 404]
    assert began == [0, 3]


async def test_a_response_is_sent_after_an_unsent_interim_response(driver: str, autojump_clock: MockClock) -> None:
    class Informing(Turns):
        async def handle(self, request: InboundRequest) -> None:
            with trio.move_on_after(1):
                while True:
                    await request.inform(103, [(b"link", bytes(30_000).replace(b"\0", b"x"))])
            if not request.respond(200, [], b"the end"):
                await request.drained()

    async with served(Informing(), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.sleep(2)
        received = b""
        with trio.fail_after(10):
            while not received.endswith(b"\r\nthe end"):
                received += await client.stream.receive_some()


@pytest.mark.parametrize("fields", [[], [(b"content-length", b"300003")]], ids=["chunks", "length"])
async def test_a_response_has_one_end_after_a_cancelled_finish(
    fields: list[Field], driver: str, autojump_clock: MockClock
) -> None:
    refused: list[str] = []

    class Impatient(Turns):
        async def handle(self, request: InboundRequest) -> None:
            with trio.move_on_after(1):  # Fills the socket.
                while True:
                    await request.inform(103, [(b"link", bytes(30_000).replace(b"\0", b"x"))])
            self.seen.append(0)
            await request.start(200, fields)
            with trio.move_on_after(1):
                await request.send(bytes(300_000))
            with trio.move_on_after(1) as scope:
                await request.finish(b"end")
            assert scope.cancelled_caught
            for further in (request.finish, partial(request.send, b"more")):
                try:
                    await further()
                except RuntimeError as error:
                    refused.append(str(error))

    app = Impatient()
    async with served(app, driver) as server, server.connected() as client:
        await client.stream.send_all(GET * 2)
        await trio.sleep(3.5)
        received = b""
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            while data := await client.stream.receive_some():
                received += data
    assert refused == ["the application sent content before the head or after the end of its response"] * 2
    assert app.seen == [0]  # The second request of the pipeline is not served behind an uncertain end.
    assert received.count(b"0\r\n\r\n") <= 1


async def test_a_response_continues_after_a_cancelled_send(driver: str, autojump_clock: MockClock) -> None:
    class Impatient(Turns):
        async def handle(self, request: InboundRequest) -> None:
            with trio.move_on_after(1):  # Fills the socket.
                while True:
                    await request.inform(103, [(b"link", bytes(30_000).replace(b"\0", b"x"))])
            await request.start(200, [(b"content-length", b"300003")])
            with trio.move_on_after(1) as scope:
                await request.send(bytes(300_000))
            assert scope.cancelled_caught
            await request.finish(b"end")

    async with served(Impatient(), driver) as server, server.connected() as client:
        await client.stream.send_all(GET)
        await trio.sleep(3)
        received = b""
        with trio.fail_after(10):
            while not received.endswith(b"end"):
                received += await client.stream.receive_some()
    assert received.endswith(b"\r\n" + bytes(300_000) + b"end")
