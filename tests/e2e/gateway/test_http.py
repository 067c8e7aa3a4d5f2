"""The whole program over real sockets, with a raw client and scripted upstreams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.gateway.program import WAYS
from tests.support.logs.records import Records
from tests.support.server.serving import connected, fetch, serving
from tests.support.upstream.raw_server import Peer, RawServer, answering, raw_server, response, silent
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel

JSON = [("content-type", "application/json")]


def gateway(routes: list[dict[str, Any]], server: dict[str, Any] | None = None, **ports: int) -> tuple[Umbel, Records]:
    records = Records()
    config = Config.model_validate(
        {
            "upstreams": {
                name: {"urls": [f"http://127.0.0.1:{int(port)}"], "max_concurrency": 10, "max_queue": 1000}
                for name, port in ports.items()
            },
            "routes": routes,
            "server": server or {},
        }
    )
    return Umbel(__name__, config, recorder=records), records


def route(path: str = "/r", **keys: Any) -> dict[str, Any]:
    return {"path": path, "calls": {"part": {"upstream": "up", "path": "/x"}}, **keys}


async def emptied(app: Umbel) -> None:
    """Wait until no request is in flight."""
    with trio.fail_after(5):
        while app.statistics().requests_in_flight:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_composed_answer_over_real_sockets() -> None:
    async with raw_server(answering(response(b'{"name":"Ann"}', b"Set-Cookie: s=1", b"Server: nginx/1.2"))) as port:
        app, records = gateway([route()], up=port)
        async with serving(app) as gate:
            got = await fetch(gate, "GET", "/r")
            head = await fetch(gate, "HEAD", "/r")
            options = await fetch(gate, "OPTIONS", "/r")
            again = await fetch(gate, "GET", "/r", [("if-none-match", got["etag"])])
    assert (got.status, got.json) == (200, {"part": {"name": "Ann"}})
    assert not got.all("set-cookie")
    assert not got.all("server")
    assert (head.status, head.body, head["content-length"]) == (200, b"", got["content-length"])
    assert (options.status, options["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert (again.status, again.body) == (304, b"")
    assert [record.status for record in records.requests] == [200, 200, 204, 304]
    assert len(records.calls) == 3


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nowhere", 404),
        ("PUT", "/r", 405),
        ("GET", "/%zz", 400),
        ("GET", "/%00", 400),
        ("GET", "/r#x", 400),
        ("GET", "/a/../r", 400),
        ("GET", "/a/%2e%2e/r", 400),
        ("GET", "/a%2fr", 400),
        ("GET", "/a%5cr", 400),
        ("GET", "/%ff", 400),
        ("GET", "?x", 400),
        ("GET", "x", 400),
        ("GET", "/r?n=many", 400),
        ("GET", "/r?n=%ff", 400),
    ],
)
async def test_a_refusal_is_a_problem_document_without_a_call(method: str, target: str, status: int) -> None:
    async with raw_server(silent) as port:
        app, records = gateway([route(query={"n": {"type": "int"}})], up=port)
        async with serving(app) as gate, connected(gate) as client:
            reply = await client.request(method, target)
            assert reply.status == status
            assert reply["content-type"] == "application/problem+json"
            assert reply["cache-control"] == "no-store"
            assert reply.json["request_id"] == reply["x-request-id"]
            assert str(int(port)) not in reply.body.decode()
            # The connection can be used again.
            assert (await client.request("GET", "/livez")).status == 200
        assert not port.connections
    assert [record.status for record in records.requests] == [status, 200]


@pytest.mark.usefixtures("way")
@WAYS
async def test_bad_and_too_large_bodies_are_refused_and_the_next_request_is_served() -> None:
    posting = {"path": "/p", "calls": {"part": {"upstream": "up", "path": "/", "json": "body"}}, "max_body": "1KB"}
    async with raw_server(answering(response(b"1"))) as port:
        app, records = gateway([posting], up=port)
        async with serving(app) as gate:
            async with connected(gate) as client:
                for body in (b"{", b"NaN", b"\xff", b"[" * 900):
                    assert (await client.request("POST", "/p", JSON, body)).status == 400
                assert (await client.request("POST", "/p", [("content-type", "text/plain")], b"{}")).status == 415
                assert (await client.request("POST", "/p", JSON, b'{"a":1}')).json == {"part": 1}
            async with connected(gate) as client:
                # The response comes before the body is sent.
                await client.stream.send_all(
                    b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1001\r\n\r\n"
                )
                assert (await client.reply("POST")).status == 413
            async with connected(gate) as client:
                await client.stream.send_all(
                    b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"transfer-encoding: chunked\r\n\r\n7d0\r\n" + b"[" * 2000 + b"\r\n"
                )
                assert (await client.reply("POST")).status == 413
            assert (await fetch(gate, "POST", "/p", JSON, b"2")).status == 200
    assert len(records.requests) == 9


@pytest.mark.usefixtures("way")
@WAYS
async def test_the_partial_answer_is_on_time_and_the_slow_call_is_closed() -> None:
    calls = {
        "fast": {"upstream": "fast", "path": "/"},
        "slow": {"upstream": "slow", "path": "/", "optional": True},
    }
    async with raw_server(answering(response(b"1"))) as fast, raw_server(silent) as slow:
        app, _ = gateway([route(calls=calls, deadline="300ms")], fast=fast, slow=slow)
        async with serving(app) as gate:
            began = trio.current_time()
            reply = await fetch(gate, "GET", "/r")
            assert 0.29 < trio.current_time() - began < 1
            assert reply.json == {"fast": 1, "slow": None}
            assert reply["umbel-completed"] == "false"
            assert reply["proxy-status"] == 'umbel;error=http_response_timeout;next-hop="slow"'
            await closed(slow)


async def closed(upstream: RawServer) -> None:
    """Wait until the upstream has no connection left."""
    with trio.fail_after(3):
        while upstream.open:
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.usefixtures("way")
@WAYS
async def test_a_stream_is_sent_line_by_line_in_chunks() -> None:
    go = trio.Event()

    async def slowly(peer: Peer) -> None:
        await peer.read_request()
        await go.wait()
        await peer.send(response(b'"b"'))
        await peer.closed()

    calls = {"fast": {"upstream": "fast", "path": "/"}, "slow": {"upstream": "slow", "path": "/"}}
    async with raw_server(answering(response(b'"a"'))) as fast, raw_server(slowly) as slow:
        app, _ = gateway([route(calls=calls)], fast=fast, slow=slow)
        async with serving(app) as gate, connected(gate) as client:
            await client.send("GET", "/r", [("accept", "application/x-ndjson")])
            received = b""
            while b"\n{" not in received and b'"fast"' not in received:
                received += await client.stream.receive_some()
            assert b"slow" not in received
            go.set()
            while not received.endswith(b"0\r\n\r\n"):
                received += await client.stream.receive_some()
    assert b"transfer-encoding: chunked" in received.lower()
    lines = [json.loads(line) for line in received.splitlines() if line.startswith(b"{")]
    assert [line.get("call", "end") for line in lines] == ["fast", "slow", "end"]


@pytest.mark.usefixtures("way")
@WAYS
async def test_a_client_that_stops_reading_a_stream_ends_its_calls() -> None:
    big = json.dumps("x" * 900_000).encode()
    asked: list[bytes] = []

    async def upstream(peer: Peer) -> None:
        while (request := (await peer.read_request())[0]) != b"":
            asked.append(request)
            if b"/last" in request:
                await peer.closed()
                return
            await peer.send(response(big))

    calls: dict[str, Any] = {f"part{n}": {"upstream": "up", "path": "/x"} for n in range(12)}
    calls["last"] = {"upstream": "up", "path": "/last"}
    async with raw_server(upstream) as port:
        app, records = gateway([route(calls=calls, deadline="1h")], {"write_timeout": "300ms"}, up=port)
        async with serving(app) as gate, connected(gate) as client:
            await client.send("GET", "/r", [("accept", "application/x-ndjson")])
            await client.stream.receive_some(1)
            await emptied(app)
            (record,) = records.requests
            assert (record.status, record.kind) == (200, Kind.CLIENT_GONE)
            last = next(call for call in records.calls if call.outcome.call == "last")
            assert last.outcome.state == "failed"


@pytest.mark.parametrize(
    ("which", "status", "lines"), [("notable", 200, 0), ("notable", 503, 1), ("all", 200, 1), ("off", 503, 0)]
)
async def test_which_decides_the_calls_in_the_log_files(tmp_path: Path, which: str, status: int, lines: int) -> None:
    async with raw_server(answering(response(b"1", status=b"%d Said" % status))) as port:
        (tmp_path / "umbel.toml").write_text(
            f'[logs.calls]\nwhich = "{which}"\n'
            f'[upstreams.up]\nurls = ["http://127.0.0.1:{int(port)}"]\n'
            '[[routes]]\npath = "/r/<id>"\n[routes.calls.part]\nupstream = "up"\npath = "/x/{id}"\n'
        )
        app = Umbel.from_file(tmp_path / "umbel.toml")
        async with serving(app) as gate:
            reply = await fetch(gate, "GET", "/r/7?secret=1")
    access = (tmp_path / "logs" / "access.jsonl").read_text()
    calls = (tmp_path / "logs" / "calls.jsonl").read_text()
    assert (access.count("\n"), calls.count("\n")) == (1, lines)
    assert reply["x-request-id"] in access
    assert calls.count(reply["x-request-id"]) == lines
    assert "secret" not in access + calls
    (call,) = json.loads(access)["calls"]
    assert (call["name"], call["outcome"], call["attempts"]) == ("part", "ok" if status == 200 else "status", 1)
    assert 0 < call["ms"] < 60_000
