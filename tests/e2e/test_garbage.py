"""Requests and calls leave no cyclic garbage, whose collection would delay the requests in flight."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.composition.composing import facts
from tests.support.composition.over_sockets import BUSY, ONE, Case, Lab, Step, laboratory
from tests.support.gateway.proxies import proxied
from tests.support.logs.records import Records
from tests.support.server.serving import serving
from tests.support.upstream.calls import url
from tests.support.upstream.failure_cases import after, fin, hang, hang_in_the_body, reset, reset_in_the_body
from tests.support.upstream.raw_server import Handler, Peer, answering, raw_server, response
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.upstream import Hedge, Retry, Transport

ROUNDS = 100
REQUEST = b"GET /page/42?limit=3 HTTP/1.1\r\nhost: localhost\r\n\r\n"
OURS = ("umbel.",)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Turn the garbage collector off during the test."""
    gc.collect()
    gc.freeze()  # So that a collection examines only the objects of the test. It is not undone: see tests/conftest.py.
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def assert_leaves_nothing(do: Callable[[], Awaitable[object]], rounds: int) -> None:
    """Call ``do`` repeatedly, and assert that it leaves less than one object of Umbel's per ten calls to collect."""
    for number in range(2 * rounds):
        if number == rounds:  # Objects that are made only once exist by now.
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
        await do()
    gc.collect()
    left = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    ours = {name: count for name, count in left.items() if name.startswith(OURS)}
    assert max(ours.values(), default=0) < rounds / 10, ours


@pytest.mark.usefixtures("uncollected")
async def test_a_request_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    async with raw_server(answering(response(b'{"name":"Ann"}'))) as port:
        call = {"upstream": "up", "path": "/users/{id}"}
        page = {
            "path": "/page/<id>",
            "query": {"limit": {"type": "int"}},
            "calls": {"one": call, "two": call, "late": {"upstream": "up", "path": "/of/{one.name}"}},
        }
        config = {
            "logs": {"dir": str(tmp_path)},
            "upstreams": {"up": {"urls": [f"http://127.0.0.1:{int(port)}"]}},
            "routes": [page],
        }
        app = Umbel(__name__, Config.model_validate(config), static_folder=None)
        async with serving(app) as gate, await trio.open_tcp_stream("127.0.0.1", gate) as client:

            async def ask() -> None:
                await client.send_all(REQUEST)
                answer = b""
                while not answer.endswith(b"}}"):
                    answer += await client.receive_some()
                assert answer.startswith(b"HTTP/1.1 200")

            await assert_leaves_nothing(ask, ROUNDS)
            assert app.statistics().routes_before_quart


@pytest.mark.parametrize(("target", "status"), [("/livez", 200), ("/nobody", 404), ("/own", 200), ("/own/", 404)])
@pytest.mark.usefixtures("uncollected")
async def test_a_request_through_quart_leaves_nothing_for_the_garbage_collector(
    target: str, status: int, tmp_path: Path
) -> None:
    """A client can send thousands of such requests per second, and each collection delays all others."""
    app = Umbel(__name__, Config.model_validate({"logs": {"dir": str(tmp_path)}}), static_folder=None)

    @app.get("/own")
    async def own() -> str:
        return "{}"

    async with serving(app) as gate, await trio.open_tcp_stream("127.0.0.1", gate) as client:

        async def ask() -> None:
            await client.send_all(f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            answer = b""
            while not answer.endswith((b"}", b"}\n")):
                answer += await client.receive_some()
            assert int(answer.split()[1]) == status

        await assert_leaves_nothing(ask, ROUNDS)


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
PROXIED: dict[str, tuple[Handler, bytes]] = {
    "a response that came whole": (answering(response(b"{}")), b""),
    "a response in pieces": (answering(CHUNKS + b"0\r\n\r\n"), b""),
    "a body that came whole": (answering(response(b"{}")), b"x" * 1000),
    "a body in pieces": (answering(response(b"{}")), b"x" * 200_000),
    "a response that breaks off": (answering(CHUNKS, close=True), b""),
    "no response": (answering(b"", close=True), b""),
}


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(("upstream", "body"), PROXIED.values(), ids=PROXIED)
async def test_a_proxied_request_leaves_nothing_for_the_garbage_collector(upstream: Handler, body: bytes) -> None:
    async with proxied(upstream, fallback=["up2"], others={"up2": {"urls": ["http://127.0.0.1:1"]}}) as it:
        head = b"%b /a HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"

        async def ask() -> None:
            async with await trio.open_tcp_stream("127.0.0.1", it.port) as client:
                await client.send_all(head % (b"POST" if body else b"GET", len(body)) + body)
                await client.send_eof()
                with suppress(trio.BrokenResourceError):
                    while await client.receive_some():
                        pass
            it.records.events.clear()

        await assert_leaves_nothing(ask, 20)


EACH = {"a": {"each": "[`1`, `2`, `3`]", "path": "/a/{item}", "limit": 2, "optional": True}}
LATE: dict[str, Any] = {"a": {"timeout": "2ms"}, "b": {"optional": True}}
QUICK = {"attempts": 2, "backoff": "1ms"}

COMPOSITIONS: dict[str, Case] = {
    "values": Case(calls={"a": {}, "b": {"path": "/b/{a.one}"}}),
    "chunks and a large body": Case([response(b'"%b"' % (b"x" * 100_000))]),
    "items": Case(calls=EACH),
    "items that fail": Case({"/a/2": [BUSY], "/": [ONE]}, EACH),
    "an item that cannot be sent": Case(calls={"a": {"each": "[`1`, `2`, `{}`]", "path": "/a/{item}"}}),
    "a call that cannot be sent": Case(calls={"a": {}, "b": {"path": "/b/{a}"}, "c": {"path": "/c/{a.one}"}}),
    "a status": Case([BUSY]),
    "a retry": Case([BUSY], upstream={"retry": QUICK, "breaker": {}, "retry_budget": "100%"}),
    "a bad body": Case([response(b"{")]),
    "a bad head": Case([b"hello\r\n\r\n"], calls={"a": {"optional": True}}),
    "a body over its bound": Case([response(b"1" * 100)], upstream={"max_body": "10B"}),
    "a connection that is closed": Case([fin]),
    "a connection that is reset": Case([reset], upstream={"retry": QUICK}),
    "a reset in the body": Case([reset_in_the_body]),
    "a limit": Case({"/a": [hang_in_the_body], "/b": [ONE]}, LATE),
    "a deadline": Case([hang], deadline=0.002),
    "a queue": Case(calls={name: {} for name in "abcd"}, upstream={"max_concurrency": 1}),
    "a full queue": Case(calls={name: {} for name in "abcd"}, upstream={"max_concurrency": 1, "max_queue": 1}),
    "an open breaker": Case([BUSY], upstream={"breaker": {"min_requests": 1}}),
    "a hedge": Case([after(0.002)], upstream={"hedge": {"after": "1ms"}, "retry_budget": "100%"}),
    "a shared call": Case(calls={"a": {}, "b": {"path": "/a"}}, upstream={"coalesce": True}),
    "a shared call that fails": Case([fin], calls={"a": {}, "b": {"path": "/a"}}, upstream={"coalesce": True}),
    "a call that is no longer needed": Case(
        {"/a": [hang], "/b": [ONE]}, {"a": {}, "b": {}}, route={"combine": "first"}
    ),
}


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("case", COMPOSITIONS.values(), ids=COMPOSITIONS)
@pytest.mark.parametrize("kept", [True, False], ids=["kept connections", "new connections"])
async def test_a_composition_leaves_nothing_for_the_garbage_collector(case: Case, kept: bool) -> None:
    async with small(case) as lab:

        async def do() -> None:
            if not kept:
                await lab.client.pool.aclose()
            await lab.run()
            lab.forget()

        await assert_leaves_nothing(do, 20)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("policies", [{}, {"coalesce": True}, {"hedge": {"after": "1ms"}}], ids=str)
@pytest.mark.parametrize("step", [hang, hang_in_the_body])
async def test_a_cancelled_composition_leaves_nothing_for_the_garbage_collector(
    step: Step, policies: dict[str, Any]
) -> None:
    case = Case([step], calls={"a": {}, "b": {"path": "/a"}}, upstream={"max_concurrency": 1, **policies})
    async with small(case) as lab:

        async def do() -> None:
            with trio.move_on_after(0.003):
                await lab.run()
            lab.forget()

        await assert_leaves_nothing(do, 20)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("step", [ONE, BUSY, fin, hang], ids=["a value", "a status", "a reset", "cancelled"])
async def test_a_gather_block_leaves_nothing_for_the_garbage_collector(step: Step) -> None:
    async with small(Case([step])) as lab:

        async def do() -> None:
            compose = Compose({"u": lab.client}, lab.case.inputs, facts(1.0), Records())
            with trio.move_on_after(0.003 if step is hang else 1.0):
                try:
                    async with compose.gather() as block:
                        block.get("u", "/a")
                        block.get("u", "/b", optional=True)
                except CompositionFailedError:
                    pass

        await assert_leaves_nothing(do, 20)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("step", [ONE, BUSY, fin, hang], ids=["a value", "a status", "a reset", "cancelled"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_request_through_httpx_leaves_nothing_for_the_garbage_collector(step: Step, stream: bool) -> None:
    async with small(Case([step])) as lab:
        policies: dict[str, Any] = {"retry": Retry(backoff=0.001), "hedge": Hedge(0.001)}
        async with Transport([url(lab.servers[0])], **policies) as transport:
            extensions = {"stream": True} if stream else {}

            async def do() -> None:
                with trio.move_on_after(0.003 if step is hang else 1.0):
                    try:
                        request = httpx.Request("GET", "http://u/a", extensions=extensions)
                        await (await transport.handle_async_request(request)).aread()
                    except httpx.TransportError:
                        pass

            await assert_leaves_nothing(do, 20)


async def reads_no_body(peer: Peer) -> None:
    """Read a request's head and wait."""
    await peer.read_head()
    await trio.sleep_forever()


async def resets_inside_the_body(peer: Peer) -> None:
    await peer.read_head()
    peer.reset()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("handler", [reads_no_body, resets_inside_the_body])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_large_request_that_fails_leaves_nothing_for_the_garbage_collector(
    handler: Handler, stream: bool
) -> None:
    body = b"x" * 4_000_000
    async with raw_server(handler) as server, Transport([url(server)], timeout=0.02) as transport:
        extensions = {"stream": True} if stream else {}

        async def do() -> None:
            request = httpx.Request("POST", "http://u/", content=body, extensions=extensions)
            with pytest.raises(httpx.TransportError):
                await transport.handle_async_request(request)
            server.connections.clear()

        await assert_leaves_nothing(do, 10)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("limited", [False, True], ids=["cancelled", "at its limit"])
async def test_a_stream_cut_in_its_body_leaves_nothing_for_the_garbage_collector(limited: bool) -> None:
    handler = hanging_in_the_body
    async with raw_server(handler) as server, Transport([url(server)], timeout=0.02 if limited else None) as transport:

        async def do() -> None:
            request = httpx.Request("GET", "http://u/", extensions={"stream": True})
            with trio.move_on_after(math.inf if limited else 0.01), suppress(httpx.TransportError):
                await (await transport.handle_async_request(request)).aread()
            server.connections.clear()

        await assert_leaves_nothing(do, 10)


async def hanging_in_the_body(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await trio.sleep_forever()


class SmallLab:
    """A lab whose records and connections can be dropped, so that they are not counted as garbage."""

    def __init__(self, lab: Lab) -> None:
        self.case, self.client, self.servers, self.run = lab.case, lab.client, lab.servers, lab.run
        self._lab = lab

    def forget(self) -> None:
        self._lab.records.events.clear()
        for server in self.servers:
            server.connections.clear()


@asynccontextmanager
async def small(case: Case) -> AsyncIterator[SmallLab]:
    async with laboratory(case) as (lab, _):
        yield SmallLab(lab)
