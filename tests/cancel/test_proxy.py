"""Cancels of a proxied request at each checkpoint in turn, and clients that leave: one record, nothing left."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.records import check_cancelled
from tests.support.server.asgi import ask, conversation, living
from tests.unit.gateway.gateways import Function, gateway
from umbel.core.failure_kinds import Kind

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock
ROUTE = {"path": "/<path:rest>", "auth": "none", "proxy": {"upstream": "up"}}


class Pieces(httpx.AsyncByteStream):
    """The body of a response in three pieces, with pauses. ``ended`` gets the time of its close."""

    def __init__(self, pause: float, ended: list[float]) -> None:
        self._pause = pause
        self._ended = ended
        self._pieces = iter((b"one", b"two", b"three"))

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.sleep(self._pause)
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._ended.append(trio.current_time())


def streaming(pause: float = 0.0) -> tuple[Function, list[float]]:
    """An upstream that reads the request's body and answers in pieces; the times at which its bodies were closed."""
    ended: list[float] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return httpx.Response(200, stream=Pieces(pause, ended))

    return Function(answer), ended


@pytest.mark.parametrize("body", [b"", b"x" * 100_000], ids=["no body", "a body"])
async def test_a_proxied_request_cancelled_at_any_checkpoint_has_one_record(
    body: bytes, autojump_clock: MockClock
) -> None:
    upstream, ended = streaming()
    app, records = gateway(ROUTE, up=upstream)

    async def operation() -> None:
        records.events.clear()
        await ask(app, "POST" if body else "GET", target="/r", body=body)

    async with living(app):
        cut = await for_every_checkpoint(operation, partial(check_cancelled, app, records), reason="the grace is over")
    assert cut > 10
    assert ended


async def test_a_client_that_leaves_ends_the_call_within_a_turn(autojump_clock: MockClock) -> None:
    upstream, ended = streaming(pause=1.0)
    app, records = gateway(ROUTE, up=upstream)

    async with living(app):
        for seconds in (0.0, 0.5, 1.5, 2.5):
            records.events.clear()
            ended.clear()
            async with conversation(app, "GET", "/r") as talk:
                await talk.body(b"")
                await trio.sleep(seconds)
                left_at = trio.current_time()
                await talk.disconnect()
            assert ended == [left_at] * len(ended)
            (record,) = records.requests
            assert record.kind is Kind.CLIENT_GONE
            assert app.statistics().requests_in_flight == 0
