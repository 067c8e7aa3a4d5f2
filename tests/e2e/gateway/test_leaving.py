"""A client that leaves during its composition, on every server, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypercorn.trio.tcp_server import TCPServer

from tests.support.gateway.program import WAYS
from tests.support.logs.records import Records
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, fetch, serving
from tests.support.upstream.raw_server import Peer, RawServer, answering, raw_server, response
from umbel.composition.gather import Compose
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel
from umbel.server import hypercorn as umbel_in_hypercorn

pytestmark = [pytest.mark.usefixtures("way"), WAYS]

SERVERS = pytest.mark.parametrize("server", ["ours", "hypercorn", "stock hypercorn"])
JSON = ("content-type", "application/json")


def gateway(upstream: int) -> tuple[Umbel, Records]:
    records = Records()
    call = {"upstream": "up", "path": "/x"}
    routes = [
        {"path": "/r", "methods": ["GET", "POST"], "calls": {"part": call}, "deadline": "1h"},
        {"path": "/body", "calls": {"part": {**call, "json": "body"}}, "deadline": "1h"},
    ]
    config = Config.model_validate({"upstreams": {"up": {"urls": [f"http://127.0.0.1:{upstream}"]}}, "routes": routes})
    app = Umbel(__name__, config, recorder=records)

    @app.compose("/code", deadline=3600)
    async def code(compose: Compose) -> Any:
        async with compose.gather() as calls:
            part = calls.get("up", "/x", name="part")
        return part.value

    return app, records


@asynccontextmanager
async def served(app: Umbel, server: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    if server == "stock hypercorn":
        monkeypatch.setattr(TCPServer, "run", umbel_in_hypercorn._stock_run)
    async with serving(app, stock=server != "ours") as port:
        yield port


class Hanging:
    """An upstream that reads a request and never responds."""

    def __init__(self) -> None:
        self._asked = trio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.read_request()
        self._asked.set()
        await peer.closed()

    async def asked(self) -> None:
        """Wait until the upstream has a request."""
        with trio.fail_after(10):
            await self._asked.wait()


async def over(app: Umbel, upstream: RawServer, records: Records) -> None:
    """Wait until the call's connection is closed, and check that the request is recorded with kind client-gone."""
    await upstream.all_closed()
    with trio.fail_after(10):
        while app.statistics().requests_in_flight or not records.requests:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]
    assert [call.outcome.failure.kind for call in records.calls if call.outcome.failure] == [Kind.CLIENT_GONE]


@SERVERS
@pytest.mark.parametrize(
    ("path", "stream"), [("/r", False), ("/r", True), ("/body", False), ("/body", True), ("/code", False)]
)
async def test_a_client_that_leaves_over_http1_ends_its_calls(
    server: str, path: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    async with raw_server(hanging) as upstream:
        app, records = gateway(upstream)
        async with served(app, server, monkeypatch) as port:
            async with connected(port) as client:
                fields = [("accept", "application/x-ndjson")] if stream else []
                if path == "/body":
                    await client.send("POST", path, [*fields, JSON], b"[1]")
                else:
                    await client.send("GET", path, fields)
                await hanging.asked()
            await over(app, upstream, records)


@SERVERS
@pytest.mark.parametrize("leaving", ["reset", "close"])
@pytest.mark.parametrize("path", ["/r", "/body", "/code"])
async def test_a_client_that_leaves_over_http2_ends_its_calls(
    server: str, leaving: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    async with raw_server(hanging) as upstream:
        app, records = gateway(upstream)
        async with served(app, server, monkeypatch) as port, h2_client(port) as client:
            if path == "/body":
                stream_id = await client.request("POST", path, [JSON], end=False)
                await client.data(stream_id, b"[1]", end=True)
            else:
                stream_id = await client.request("GET", path)
            await hanging.asked()
            if leaving == "reset":
                client.h2.reset_stream(stream_id)
                await client.flush()
            else:
                await client.stream.aclose()
            await over(app, upstream, records)


@SERVERS
async def test_an_unread_request_body_does_not_end_the_request(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answering(response(b"1"), response(b"2"))) as upstream:
        app, records = gateway(upstream)
        async with served(app, server, monkeypatch) as port, connected(port) as client:
            first = await client.request("POST", "/r", [JSON], b"[" * 70_000)
            second = await client.request("GET", "/r")
    assert [first.json, second.json] == [{"part": 1}, {"part": 2}]
    assert [record.status for record in records.requests] == [200, 200]


async def test_responses_over_http2_equal_those_over_http1() -> None:
    async with raw_server(answering(response(b"1"), response(b"1"))) as upstream:
        app, records = gateway(upstream)
        async with serving(app) as port:
            old = await fetch(port, "GET", "/r")
            async with h2_client(port) as client:
                new = await client.fetch("GET", "/r")
    varying = ("server-timing", "x-request-id", "date")
    assert [(name, value) for name, value in old.headers if name not in varying] == [
        (name, value) for name, value in new.headers if name not in varying
    ]
    assert (old.status, old.body) == (new.status, bytes(new.body))
    assert len(records.requests) == 2
