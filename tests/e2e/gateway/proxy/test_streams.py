"""Streams through a proxy route: each piece passes at once, back-pressure holds, and both sides may leave."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
from quart import Response

from tests.support.gateway.proxies import proxied, proxy_app
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, fetch, serving
from tests.support.upstream.raw_server import Peer, field_value, raw_server, response
from umbel.core.failure_kinds import Kind

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HOOKS = pytest.mark.parametrize("hooks", ["auto", "all"])


class Script:
    """A handler whose test decides what is sent: ``send`` puts bytes on the first connection."""

    def __init__(self) -> None:
        self.peer: Peer
        self.begun = trio.Event()
        self.left = trio.Event()

    async def __call__(self, peer: Peer) -> None:
        self.peer = peer
        await peer.read_head()
        self.begun.set()
        await peer.closed()
        self.left.set()

    async def event(self, data: bytes) -> None:
        await self.peer.send(b"%x\r\n%b\r\n" % (len(data), data))


@HOOKS
async def test_the_head_and_each_event_pass_at_once(hooks: str) -> None:
    script = Script()
    async with proxied(script, hooks=hooks) as it, connected(it.port) as client:
        await client.send("GET", "/events")
        await script.begun.wait()
        await script.peer.send(SSE)
        with trio.fail_after(5):
            while b"\r\n\r\n" not in client.received:
                client.received += await client.stream.receive_some()
        assert b"content-type: text/event-stream" in client.received
        for number in range(3):
            event = b"data: %d\n\n" % number
            await script.event(event)
            with trio.fail_after(5):
                assert event in await client.stream.receive_some()


@HOOKS
async def test_a_client_that_leaves_closes_the_upstream(hooks: str) -> None:
    script = Script()
    async with proxied(script, hooks=hooks) as it:
        async with connected(it.port) as client:
            await client.send("GET", "/events")
            await script.begun.wait()
            await script.peer.send(SSE)
            await client.stream.receive_some()
        with trio.fail_after(5):
            await script.left.wait()
    (record,) = it.records.requests
    assert (record.status, record.kind) == (200, Kind.CLIENT_GONE)
    assert record.calls[0].failure is not None
    assert record.calls[0].failure.kind is Kind.CLIENT_GONE


@HOOKS
async def test_a_client_that_leaves_before_the_head_closes_the_upstream(hooks: str) -> None:
    script = Script()
    async with proxied(script, hooks=hooks) as it:
        async with connected(it.port) as client:
            await client.send("GET", "/slow")
            await script.begun.wait()
        with trio.fail_after(5):
            await script.left.wait()
    (record,) = it.records.requests
    assert (record.status, record.kind) == (499, Kind.CLIENT_GONE)


@HOOKS
@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_a_response_that_breaks_off_is_aborted(hooks: str, framing: bytes) -> None:
    async def breaking(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)

    async with proxied(breaking, hooks=hooks) as it, connected(it.port) as client:
        with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)), trio.fail_after(5):
            await client.request("GET", "/a")
        assert b"hello" in client.received
    (record,) = it.records.requests
    assert (record.status, record.kind) == (200, Kind.MALFORMED)
    assert record.broke_off


async def test_interim_responses_and_trailers_pass_over_http1_and_http2() -> None:
    async def upstream(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n")
            await peer.send(SSE + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")

    async with proxied(upstream) as it:
        async with connected(it.port) as client:
            reply = await client.request("GET", "/a", [("te", "trailers")])
        async with h2_client(it.port) as h2:
            answer = await h2.fetch("GET", "/a", [("te", "trailers")])

    assert (reply.status, reply.body) == (200, b"ok")
    assert client.received.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n")
    assert b"x-sum: 1\r\n" in client.received
    assert (answer.informational, answer.status, answer.body) == ([103], 200, b"ok")
    assert answer.trailers == [("x-sum", "1")]


@pytest.mark.parametrize("says_100", [True, False])
async def test_a_client_that_expects_100_gets_it_when_the_upstream_is_ready(says_100: bool) -> None:
    got: list[tuple[bytes, bytes]] = []

    async def upstream(peer: Peer) -> None:
        head = await peer.read_head()
        if says_100:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        got.append((head, await peer.read_exactly(5)))
        await peer.send(response(b"ok"))

    async with proxied(upstream) as it, connected(it.port) as client:
        head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        await client.stream.send_all(head)
        with trio.fail_after(5):
            assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.stream.send_all(b"hello")
        reply = await client.reply("POST")

    assert (reply.status, reply.body) == (200, b"ok")
    assert field_value(got[0][0], "expect") == "100-continue"
    assert got[0][1] == b"hello"


async def test_a_refusal_before_the_body_spares_the_body() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"no", status=b"401 Unauthorized"))
        await peer.closed()

    async with proxied(refusing) as it, connected(it.port) as client:
        head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\nexpect: 100-continue\r\ncontent-length: 500000\r\n\r\n"
        await client.stream.send_all(head)
        reply = await client.reply("POST")

    assert (reply.status, reply.body) == (401, b"no")
    assert b"100 Continue" not in client.received


@HOOKS
async def test_an_upload_begins_before_it_is_complete(hooks: str) -> None:
    script = Script()
    async with proxied(script, hooks=hooks) as it, connected(it.port) as client:
        head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 10000\r\n\r\n"
        await client.stream.send_all(head + b"x" * 1000)
        with trio.fail_after(5):
            await script.begun.wait()


@HOOKS
async def test_a_body_beyond_max_body_is_refused(hooks: str) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.closed()

    async with proxied(upstream, hooks=hooks, max_body="1KB") as it:
        declared = await fetch(it.port, "POST", "/a", body=b"x" * 1025)
        async with connected(it.port) as client:
            head = b"POST /a HTTP/1.1\r\nhost: gateway.test\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.stream.send_all(head + b"800\r\n" + b"x" * 0x800 + b"\r\n")
            chunked = await client.reply("POST")

    assert (declared.status, chunked.status) == (413, 413)


@HOOKS
async def test_first_byte_gives_504_and_idle_timeout_aborts_the_response(hooks: str) -> None:
    script = Script()
    async with proxied(script, hooks=hooks, first_byte="50ms", idle_timeout="50ms") as it:
        late = await fetch(it.port, "GET", "/a")
        script.begun = trio.Event()
        async with connected(it.port) as client:
            await client.send("GET", "/events")
            await script.begun.wait()
            await script.peer.send(SSE)
            with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)), trio.fail_after(5):
                await client.reply()

    assert late.status == 504
    assert [record.kind for record in it.records.requests] == [Kind.TIMEOUT, Kind.TIMEOUT]


async def test_a_fallback_answers_if_the_upstream_refuses() -> None:
    async with proxied(Script()) as second:
        pass  # Its port refuses connections from now on.

    async def upstream(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            await peer.send(response(request[1] or b"none"))

    more = {"urls": [f"http://127.0.0.1:{int(second.upstream)}"]}
    async with proxied(upstream, others={"dead": more}, upstream="dead", fallback=["up"]) as it:
        bodiless = await fetch(it.port, "GET", "/a")
        small = await fetch(it.port, "POST", "/a", body=b"small")
        large = await fetch(it.port, "POST", "/a", body=b"x" * 200_000)

    assert [bodiless.body, small.body, large.body] == [b"none", b"small", b"x" * 200_000]
    assert [call.outcome.call for call in it.records.calls if call.outcome.failure] == ["dead"] * 3


async def test_a_stream_that_is_refused_is_not_asked_of_the_fallback() -> None:
    asked: list[bytes] = []

    async def upstream(peer: Peer) -> None:
        asked.append((await peer.read_request())[1])
        await peer.send(SSE)
        await peer.closed()

    async with proxied(upstream) as second:
        others = {"second": {"urls": [f"http://127.0.0.1:{int(second.upstream)}"]}}
        async with (
            proxied(upstream, more={"max_streams": 1}, others=others, fallback=["second"]) as it,
            connected(it.port) as client,
        ):
            await client.send("GET", "/events")
            assert await client.stream.receive_some()
            refused = await fetch(it.port, "POST", "/events", body=b"once")

    assert (refused.status, asked) == (503, [b"", b"once"])


@pytest.mark.parametrize("limit", ["server", "upstream"])
async def test_a_stream_without_a_place_is_refused(limit: str) -> None:
    script = Script()
    options = {"server": {"max_streams": 1}} if limit == "server" else {"more": {"max_streams": 1}}

    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(SSE)
        await peer.closed()

    async with proxied(upstream, **options) as it, connected(it.port) as client:
        await client.send("GET", "/events")
        assert await client.stream.receive_some()
        refused = await fetch(it.port, "GET", "/events")

    assert refused.status == 503
    assert not script.begun.is_set()


@pytest.mark.parametrize("hook", ["replaces the response", "raises", "waits for a client that leaves"])
async def test_a_hook_that_never_sends_the_response_leaves_no_call_open(hook: str) -> None:
    left = trio.Event()

    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegun")
        await peer.closed()
        left.set()

    async with raw_server(upstream) as port:
        app, _ = proxy_app(int(port), hooks="all")
        waits = trio.Event()

        @app.after_request
        async def after(given: Any) -> Any:
            if hook == "raises":
                raise RuntimeError("a crash of the test")
            if hook.startswith("waits"):
                waits.set()
                await trio.sleep_forever()
            return Response("own page", 403)

        async with serving(app) as gate, connected(gate) as client:
            await client.send("GET", "/a")
            with trio.fail_after(5):
                if hook.startswith("waits"):
                    await waits.wait()
                    await client.stream.aclose()
                else:
                    assert (await client.reply()).status == (500 if hook == "raises" else 403)
                await left.wait()
