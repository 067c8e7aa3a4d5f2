"""Calls through a foreign transport: its request, and the call's response, error, timeout and cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.checkpoints import for_every_checkpoint
from tests.support.composition.composing import Scripted
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner, StreamingCall, StreamLimits
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import (
    CLOSE_SECONDS,
    CallTimedOut,
    TransportCall,
    TransportCaller,
    caller_of,
)
from umbel.upstream import Transport

GET = PreparedRequest("GET", b"/a?b=c", [(b"X-A", b"x-a", b"1")])


class Body(httpx.AsyncByteStream):
    """A body of two parts that then ends, raises or hangs, as asked for; closing it takes time."""

    def __init__(self, then: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint, closing: float = 0.0) -> None:
        self._then = then
        self._closing = closing
        self.open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"pie"
        await self._then()
        yield b"ces"

    async def aclose(self) -> None:
        self.open = False  # Also if the close is cancelled, as in trio's streams.
        await trio.sleep(self._closing)


async def broken() -> None:
    raise httpx.ReadError("broken")


def answers(response: Callable[[], httpx.Response]) -> Scripted:
    async def handler(request: httpx.Request) -> httpx.Response:
        return response()

    return Scripted(handler)


async def perform(
    transport: httpx.AsyncBaseTransport, url: str = "http://up", limit: float | None = None
) -> TransportCall:
    owner = SingleCallOwner()
    deadline = trio.current_time() + (60 if limit is None else limit)
    call = TransportCaller(transport, url).new_call(GET, CallContext(owner, "a", "u", deadline=deadline, limit=limit))
    ended = await owner.perform(call)
    assert ended is call
    return call


@asynccontextmanager
async def under_way(
    handler: Callable[[httpx.Request], Awaitable[httpx.Response]],
) -> AsyncIterator[tuple[TransportCall, trio.Nursery]]:
    """A call that waits for ``handler``, and its nursery. The owner fails the test if it is notified of the end."""
    owner = SingleCallOwner()
    call = TransportCaller(Scripted(handler)).new_call(GET, CallContext(owner, "a", "u"))
    call.start(trio.current_time())
    call.send()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.finish)
        await wait_all_tasks_blocked()
        yield call, nursery
    assert owner.ended is None


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://up", "http://up/a?b=c"),
        ("https://up:8443/", "https://up:8443/a?b=c"),
        ("http://up/base/", "http://up/base/a?b=c"),
    ],
)
async def test_the_transport_gets_the_upstreams_url_with_the_calls_target(base: str, url: str) -> None:
    transport = answers(lambda: httpx.Response(200))
    await perform(transport, base)
    (request,) = transport.requests
    assert (str(request.url), request.method, request.headers["x-a"]) == (url, "GET", "1")
    assert request.headers["host"] == request.url.netloc.decode()
    assert request.extensions["target"] == b"/a?b=c"


async def test_the_response_is_closed_and_its_fields_fit_the_decoded_body() -> None:
    body = Body()
    call = await perform(answers(lambda: httpx.Response(201, headers={"X-B": "2"}, stream=body)))
    assert (call.status, call.content, call.error) == (201, b"pieces", None)
    assert (b"X-B", b"x-b", b"2") in call.fields
    assert not body.open


async def test_a_broken_body_is_the_error_of_the_call_and_is_closed() -> None:
    body = Body(broken)
    call = await perform(answers(lambda: httpx.Response(200, stream=body)))
    assert isinstance(call.error, httpx.ReadError)
    assert call.status is None
    assert not body.open


async def test_the_limit_of_a_call_ends_the_call_with_a_timeout_and_closes_the_body(
    autojump_clock: trio.abc.Clock,
) -> None:
    body = Body(trio.sleep_forever)
    call = await perform(answers(lambda: httpx.Response(200, stream=body)), limit=2.0)
    assert isinstance(call.error, CallTimedOut)
    assert call.error.kind is Kind.TIMEOUT
    assert (call.ended_at, trio.current_time()) == (2.0, 2.0)
    assert not body.open


async def test_closing_a_body_after_a_cancel_is_given_up_after_a_second(autojump_clock: trio.abc.Clock) -> None:
    await perform(answers(lambda: httpx.Response(200, stream=Body(trio.sleep_forever, closing=60))), limit=2.0)
    assert trio.current_time() == 2.0 + CLOSE_SECONDS


async def test_a_call_that_is_cancelled_before_its_task_runs_sends_nothing() -> None:
    class Owner:
        ends = 0

        def call_ended(self, call: object) -> None:
            raise AssertionError

        def call_waits(self, call: object) -> None:
            self.ends += 1

    owner, transport = Owner(), answers(lambda: httpx.Response(200))
    call = TransportCaller(transport).new_call(GET, CallContext(owner, "a", "u"))
    call.start(trio.current_time())
    call.send()
    call.cancel("decided")
    await call.finish()
    assert owner.ends == 1
    assert not transport.requests


async def test_a_cancelled_call_calls_no_owner_and_gives_its_transport_the_reason() -> None:
    reasons: list[str | None] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(error.reason)
            raise
        raise AssertionError

    async with under_way(handler) as (call, _):
        call.cancel("decided")
    assert reasons == ["decided"]


async def fails_to_clean_up(request: httpx.Request) -> httpx.Response:
    """Hang in a nursery; after a cancel, raise a group of a cancel and an exception."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the clean-up failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(trio.sleep_forever)
    raise AssertionError


async def test_a_failing_cleanup_after_the_calls_limit_leaves_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    call = await perform(Scripted(fails_to_clean_up), limit=2.0)
    assert isinstance(call.error, CallTimedOut)


@pytest.mark.parametrize("call_first", [True, False])
async def test_a_failing_cleanup_of_a_cancelled_call_raises_nothing(call_first: bool) -> None:
    async with under_way(fails_to_clean_up) as (call, nursery):
        if call_first:
            call.cancel("decided")
        nursery.cancel_scope.cancel()


async def test_a_call_cancelled_at_any_checkpoint_leaves_no_body_open(autojump_clock: trio.abc.Clock) -> None:
    bodies: list[Body] = []

    def response() -> httpx.Response:
        bodies.append(Body())
        return httpx.Response(200, stream=bodies[-1])

    transport = answers(response)

    async def operation() -> None:
        bodies.clear()
        await perform(transport)

    def check() -> None:
        assert not transport.in_flight
        assert not any(body.open for body in bodies)

    assert await for_every_checkpoint(operation, check) > 5


async def streamed(
    transport: httpx.AsyncBaseTransport, prepared: PreparedRequest = GET, limits: StreamLimits | None = None
) -> StreamingCall:
    """Perform a stream call up to its head."""
    owner = SingleCallOwner()
    context = CallContext(owner, "a", "u", stream_limits=limits)
    call = await owner.perform(TransportCaller(transport).new_call(prepared, context, "stream"))
    assert isinstance(call, StreamingCall)
    return call


async def test_a_stream_call_through_a_foreign_transport_passes_its_bodies_on(autojump_clock) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def handler(request: httpx.Request) -> httpx.Response:
        sent = await request.aread()
        assert request.headers["transfer-encoding"] == "chunked"
        return httpx.Response(
            200, headers={"content-encoding": "x", "connection": "close", "x-sent": sent}, stream=body
        )

    body = Body()
    call = await streamed(Scripted(handler), PreparedRequest("POST", b"/", [], body=pieces()))
    assert (call.status, call.response_ended, call.become_stream()) == (200, False, True)
    assert [(name, value) for _, name, value in call.fields] == [(b"content-encoding", b"x"), (b"x-sent", b"onetwo")]
    assert [await call.receive(), await call.receive(), await call.receive()] == [b"pie", b"ces", b""]
    assert call.response_ended
    await call.aclose()
    assert not body.open
    with pytest.raises(RuntimeError):
        call.take()


@pytest.mark.parametrize("ends", ["first_byte", "idle", "lifetime", "cancel", "broken"])
async def test_a_stream_call_through_a_foreign_transport_ends_at_its_limits(ends: str, autojump_clock) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(2.0)
        return httpx.Response(200, stream=body)

    body = Body(broken if ends == "broken" else trio.sleep_forever)
    limits = None if ends in ("cancel", "broken") else StreamLimits(**{ends: 1.0 if ends == "first_byte" else 5.0})
    began = trio.current_time()
    call = await streamed(Scripted(handler), limits=limits)
    if ends == "first_byte":
        assert isinstance(call.error, CallTimedOut)
    else:
        assert await call.receive() == b"pie"
        if ends == "cancel":
            call.cancel("client-gone")
        with pytest.raises(CallTimedOut if limits else httpx.ReadError):
            await call.receive()
    assert trio.current_time() - began == {"first_byte": 1.0, "idle": 7.0, "lifetime": 5.0}.get(ends, 2.0)
    await call.aclose()
    assert ends == "first_byte" or not body.open


async def test_a_stream_call_cancelled_at_any_checkpoint_leaves_no_body_open(autojump_clock) -> None:
    bodies: list[Body] = []

    def response() -> httpx.Response:
        bodies.append(Body())
        return httpx.Response(200, stream=bodies[-1])

    async def operation() -> None:
        bodies.clear()
        call = await streamed(transport)
        try:
            while await call.receive():
                pass
        finally:
            await call.aclose()

    def check() -> None:
        assert not transport.in_flight
        assert not any(body.open for body in bodies)

    transport = answers(response)
    assert await for_every_checkpoint(operation, check) > 5


def test_an_upgrade_through_a_foreign_transport_is_refused() -> None:
    with pytest.raises(ValueError, match="upgrade"):
        TransportCaller(httpx.MockTransport(str)).new_call(GET, CallContext(SingleCallOwner(), "a", "u"), "upgrade")


def test_a_transport_that_is_a_caller_is_not_wrapped() -> None:
    transport = Transport(["http://up"])
    assert caller_of(transport) is transport


async def test_hop_by_hop_fields_are_no_fields_of_the_response() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        fields = [("connection", "x-once"), ("x-once", "1"), ("keep-alive", "timeout=5"), ("x-else", "2")]
        return httpx.Response(200, headers=fields)

    owner = SingleCallOwner()
    call = await owner.perform(TransportCaller(Scripted(handler)).new_call(GET, CallContext(owner, "a", "u")))
    assert [(name, value) for _, name, value in call.fields] == [(b"x-else", b"2")]
