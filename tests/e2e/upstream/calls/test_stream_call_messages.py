"""Streamed calls over sockets, plain and with TLS: every kind of message, ends at every byte, and cancels."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.upstream.calls.test_stream_call import upstream
from tests.support.coverage_marks import not_under_coverage
from tests.support.upstream.memory_calls import Made
from tests.support.upstream.raw_server import Peer, response
from tests.support.upstream.stream_calls import head, opened, rest_of
from umbel.core.call import CallContext, Mode, PreparedRequest, SingleCallOwner, StreamLimits
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.core.http.header_field import Field
from umbel.upstream import Transport

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
MODES: tuple[Mode, ...] = ("whole", "stream")
COUNTED = 100
UPGRADE: dict[str, Any] = {"mode": "upgrade", "headers": {"upgrade": "websocket"}}


async def pieces(*them: bytes) -> AsyncIterator[bytes]:
    for piece in them:
        yield piece


@pytest.mark.parametrize("kept", [False, True])
async def test_hints_chunks_and_trailers_arrive_as_they_were_sent(tls, kept: bool) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            if peer.buffer == b"":
                await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                await hinted.wait()
                await peer.send(head(None) + b"3\r\none\r\n")
                await peer.send(b"3\r\ntwo\r\n0\r\nX-Sum: 6\r\n\r\n")

    got: list[tuple[int, list[Field]]] = []

    def note(status: int, fields: Any) -> None:
        got.append((status, [*fields]))
        hinted.set()

    hinted = trio.Event()
    async with upstream(handler, tls) as (transport, server):
        for number in range(1 + kept):
            hinted = trio.Event()
            call = await opened(transport.client, on_interim=note)
            assert await rest_of(call) == b"onetwo"
            assert list(call.trailers) == [(b"X-Sum", b"x-sum", b"6")]
            assert got[number] == (103, [(b"Link", b"link", b"</a>")])
        assert len(server.connections) == 1


@pytest.mark.parametrize("continues", [True, False], ids=["with a 100", "without a 100"])
async def test_a_body_that_expects_a_100_is_sent_after_it_or_after_the_wait(
    tls, continues: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.upstream.pool.connection.CONTINUE_WAIT", 30.0 if continues else 0.05)

    async def handler(peer: Peer) -> None:
        assert b"Expect: 100-continue" in await peer.read_head()
        if continues:
            await peer.send(CONTINUE)
        assert await peer.read_until(b"0\r\n\r\n") == b"3\r\none\r\n0\r\n\r\n"
        await peer.send(response(b"ok"))
        await peer.closed()

    async with upstream(handler, tls) as (transport, _):
        call = await opened(transport.client, "POST", pieces(b"one"), expects_continue=True)
        assert await rest_of(call) == b"ok"
        assert transport.statistics().pool.idle == 1


async def test_a_refusal_in_place_of_the_100_arrives_whole_and_no_body_is_sent(tls) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"no", status=b"401 No"))
        assert await peer.closed(), "nothing follows the head"

    async with upstream(handler, tls) as (transport, _):
        call = await opened(transport.client, "PUT", pieces(b"one"), expects_continue=True)
        assert (call.status, await rest_of(call)) == (401, b"no")
        await call.aclose()


@pytest.mark.parametrize("kept", [False, True])
async def test_bytes_right_behind_a_101_and_all_that_follow_go_both_ways(tls, kept: bool) -> None:
    size = 1 << 20

    async def handler(peer: Peer) -> None:
        if kept:
            await peer.read_head()
            await peer.send(response(b"ok"))
        await peer.read_head()
        await peer.send(SWITCH + b"hello")
        assert await peer.read_exactly(size) == b"c" * size
        await peer.send(b"s" * size)
        await peer.closed()

    async with upstream(handler, tls) as (transport, server):
        if kept:
            await rest_of(await opened(transport.client))
        call = await opened(transport.client, **UPGRADE)
        stream = call.take()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"c" * size)
            got = b""
            while len(got) < size + 5:
                got += await stream.receive_some()
        assert got == b"hello" + b"s" * size
        assert (transport.statistics().pool.active, len(server.connections)) == (1, 1)
        stream.close_now()


async def test_each_side_may_end_its_direction_of_an_upgraded_connection(tls) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(SWITCH)
        assert await peer.closed()
        if tls is None:
            await peer.send(b"the end")

    async with upstream(handler, tls) as (transport, _):
        stream = (await opened(transport.client, **UPGRADE)).take()
        stream.send_eof()
        got = b""
        with pytest.raises(trio.BrokenResourceError) if tls else nullcontext():
            while data := await stream.receive_some():
                got += data
        assert got == (b"" if tls else b"the end")
        stream.close_now()


MESSAGES = {
    "a length": head(3) + b"one",
    "chunks and a trailer": head(None) + b"3\r\none\r\n0\r\nX-Sum: 1\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head(3) + b"one",
    "a 101": SWITCH + b"one",
}


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("kept", [False, True])
async def test_a_peer_that_closes_at_any_byte_ends_the_call_and_leaves_nothing(raw: bytes, kept: bool) -> None:
    """Only the complete message is received without an error; a 101 is complete with its head."""
    size = 0

    async def handler(peer: Peer) -> None:
        if kept:
            await peer.read_head()
            await peer.send(response(b"ok"))
        await peer.read_head()
        await peer.send(raw[:size])

    async def receive(transport: Transport) -> bytes:
        if kept:
            await rest_of(await opened(transport.client))
        call = await opened(transport.client, **UPGRADE)
        if call.status == 101:
            stream, got = call.take(), b""
            while data := await stream.receive_some():
                got += data
            stream.close_now()
            return got
        got = await rest_of(call)
        await call.aclose()
        return got

    async with upstream(handler) as (transport, _):
        for size in range(len(raw) + 1):
            complete = size == len(raw) or (raw.startswith(SWITCH) and size >= len(SWITCH))
            expected = b"one" if size == len(raw) else raw[len(SWITCH) : size]
            if kept and not size:
                complete, expected = True, b"ok"  # It is sent again, on a new connection.
            try:
                assert await receive(transport) == expected
            except UpstreamError:
                assert not complete
            else:
                assert complete
            statistics = transport.statistics()
            assert (statistics.pool.active, statistics.bulkhead.in_flight) == (0, 0)
            await transport.aclose()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bound is a count of Python 3.11")
@not_under_coverage
async def test_a_bodiless_stream_call_enters_few_functions_more_than_a_whole_call() -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(response(b"ok"))

    async def one(transport: Transport, mode: Mode) -> None:
        owner = SingleCallOwner()
        limits = StreamLimits(10.0, 300.0) if mode == "stream" else None
        context = CallContext(owner, "call", "u", stream_limits=limits)
        call = await owner.perform(transport.client.new_call(PreparedRequest("GET", b"/", ()), context, mode))
        # ``isinstance`` of a protocol would enter fifty functions.
        assert (call.take_rest() if mode == "stream" else call.content) == b"ok"  # type: ignore[attr-defined]

    entries = {}
    async with upstream(handler) as (transport, _):
        for mode in MODES:
            await one(transport, mode)
            with cProfile.Profile() as profile:
                for _ in range(COUNTED):
                    await one(transport, mode)
            entries[mode] = pstats.Stats(profile).total_calls / COUNTED  # type: ignore[attr-defined]
    print(f"function entries with those of the upstream: {entries}")
    assert entries["stream"] - entries["whole"] < 25


def sockets() -> set[int]:
    """The inodes of the open sockets of this process."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # The descriptor of the listing itself.
            if (target := str(entry.readlink())).startswith("socket:"):
                found.add(int(target[8:-1]))
    return found


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("when", ["before the head", "sending", "expecting", "in the body", "upgraded"])
async def test_a_cancel_closes_the_upstreams_socket_in_the_same_turn(tls, when: str, kept: bool) -> None:
    async def handler(peer: Peer) -> None:
        if kept:
            await peer.read_head()
            await peer.send(response(b"ok"))
        await peer.read_head()
        if when == "in the body":
            await peer.send(head(6) + b"one")
        elif when == "upgraded":
            await peer.send(SWITCH)
        elif when == "sending":
            await peer.read_exactly(1 << 20)
        reached.set()
        await peer.closed()

    reached = trio.Event()
    async with upstream(handler, tls) as (transport, _), trio.open_nursery() as nursery:
        if kept:
            await rest_of(await opened(transport.client))
        made = Made(nursery)
        made.context = CallContext(made, "call", "u")
        body = endless() if when in ("sending", "expecting") else None
        fields: list[Field] = [(b"Upgrade", b"upgrade", b"websocket")]
        prepared = PreparedRequest("GET", b"/", fields, body=body, expects_continue=when == "expecting")
        made.call = transport.client.new_call(prepared, made.context, "upgrade")
        made.call.start(trio.current_time())
        made.call.send()
        await reached.wait()
        if when in ("in the body", "upgraded"):
            await made.end()
        before = sockets()
        made.cancel("client-gone")
        assert len(before - sockets()) == 1
        assert [each.kind for each in made.attempts] == [Kind.CLIENT_GONE]
        statistics = transport.statistics()
        assert (statistics.bulkhead.in_flight, [each.in_flight for each in statistics.balance.replicas]) == (0, [0])
