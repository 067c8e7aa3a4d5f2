"""Requests that expect 100 (Continue): when their body is asked for, and when it never is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.support.upstream.raw_server import Handler, Peer, response
from tests.support.upstream.stream_calls import rest_of, streaming
from umbel.core.call import CONTINUE_WAIT

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """A body that notes when it was asked for its first piece."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.asked_at = trio.current_time()
        yield b"one"
        yield b"two"


def answering(*pieces: tuple[float, bytes], then: bytes = b"") -> Handler:
    """Send pieces after the head, each after so many seconds, then read the body and send ``then``."""

    async def handler(peer: Peer) -> None:
        request = await peer.read_head()
        assert b"\r\nExpect: 100-continue\r\n" in request
        for seconds, piece in pieces:
            await trio.sleep(seconds)
            await peer.send(piece)
        if then:
            assert await peer.read_until(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            await peer.send(then)
        await peer.closed()

    return handler


@pytest.mark.parametrize(
    ("pieces", "asked_at"),
    [
        ([(0.5, CONTINUE)], 0.5),
        ([(0.5, b"HTTP/1.1 103 Early Hints\r\n\r\n")], CONTINUE_WAIT),
        ([(0.2, b"HTTP/1.1 103 Early Hints\r\n\r\n" + CONTINUE), (0.1, CONTINUE)], 0.2),
        ([], CONTINUE_WAIT),
    ],
    ids=["100", "103 alone", "103 and twice 100", "nothing"],
)
async def test_the_body_is_asked_for_at_the_100_or_after_the_wait(
    pieces: list[tuple[float, bytes]], asked_at: float, autojump_clock
) -> None:
    body, got = Body(), []
    async with streaming(answering(*pieces, then=response(b"ok"))) as streams:
        began = trio.current_time()
        call = await streams.open(
            method="POST", body=body, expects_continue=True, on_interim=lambda status, _: got.append(status)
        )
        assert (call.status, await rest_of(call)) == (200, b"ok")
        assert body.asked_at == began + asked_at
        assert len(got) == sum(piece.count(b"HTTP/1.1") for _, piece in pieces)
        assert streams.client.statistics().pool.idle == 1


@pytest.mark.parametrize("status", [b"401 No", b"417 No", b"302 Found", b"503 Busy"])
async def test_a_final_status_from_300_on_ends_the_request_without_its_body(status: bytes, autojump_clock) -> None:
    body = Body()
    async with streaming(answering((0.5, response(b"no", status=status)))) as streams:
        call = await streams.open(method="PUT", body=body, expects_continue=True)
        assert await rest_of(call) == b"no"
        await call.aclose()
        await trio.sleep(5)
        assert body.asked_at is None
        assert streams.dial.open == 0, "the peer would read a later request as the body"
        assert [(each.status, each.kind) for each in streams.made[0].attempts] == [(int(status[:3]), None)]


async def test_a_success_before_the_100_lets_the_body_be_sent(autojump_clock) -> None:
    early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    body = Body()
    async with streaming(answering((0.5, early), then=b"ok")) as streams:
        call = await streams.open(method="POST", body=body, expects_continue=True)
        assert await rest_of(call) == b"ok"
        assert body.asked_at is not None


async def test_a_cancel_while_waiting_for_the_100_asks_for_no_body(autojump_clock) -> None:
    body = Body()
    async with streaming(answering()) as streams:
        made = streams.start(mode="stream", method="POST", body=body, expects_continue=True)
        await trio.sleep(0.5)
        made.cancel("client-gone")
        assert streams.dial.open == 0
        await trio.sleep(5)
        assert body.asked_at is None


async def test_a_body_in_memory_is_sent_without_expecting_anything(autojump_clock) -> None:
    requests: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            requests.append(request[0])
            await peer.send(response(b"ok"))

    async with streaming(handler) as streams:
        await rest_of(await streams.open(method="POST", content=b"x", expects_continue=True))
    assert b"expect" not in requests[0].lower()
