"""nginx as a reverse proxy in front of Umbel, and as an upstream of Umbel."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import trio

from tests.external.nginx.server import nginx
from tests.support.gateway.program import Program, route, running, up

PROXY = """
    location / {
      proxy_pass http://umbel;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_buffering off;
    }
"""


def before(program: Program) -> str:
    """The upstream block of an nginx that keeps connections to the gateway open."""
    return f"upstream umbel {{ server 127.0.0.1:{program.port}; keepalive 8; }}"


async def test_requests_over_reused_connections_are_recorded_with_their_client(tmp_path: Path) -> None:
    text = '[server]\ntrusted_proxies = ["127.0.0.1/32"]\n' + up(1) + route(call="when = '`false`'")
    async with running(tmp_path, text) as program:
        # The client has another address than the proxy, which is trusted.
        elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with (
            nginx(tmp_path / "nginx", http=before(program), server=PROXY) as port,
            httpx.AsyncClient(transport=elsewhere) as client,
        ):
            for turn in range(50):
                reply = await client.get(f"http://127.0.0.1:{port}/r", headers={"x-forwarded-for": f"192.0.2.{turn}"})
                assert reply.status_code == 200, reply.text
    clients = {line["client.address"] for line in program.lines("access")}
    assert clients == {"127.0.0.2"}, "an X-Forwarded-For that the client sends itself must not count"


async def test_a_large_upload_through_the_proxy_arrives_complete(tmp_path: Path) -> None:
    echo = up(1) + route(keys='methods = ["POST"]', call="when = '`false`'", answer='shape = "{got: body}"')
    sent = {"a": "x" * 900_000}
    async with running(tmp_path, echo) as program:
        limit = f"{before(program)} client_max_body_size 2m;"
        async with nginx(tmp_path / "nginx", http=limit, server=PROXY) as port, httpx.AsyncClient() as client:
            reply = await client.post(f"http://127.0.0.1:{port}/r", json=sent)
    assert reply.json() == {"got": sent}


async def test_a_client_that_leaves_the_proxy_cancels_its_request_at_the_gateway(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        asked = trio.Event()

        async def hangs(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            asked.set()
            await stream.receive_some()  # returns when the cancelled call closes its connection

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hangs, [listener])
        text = up(listener.socket.getsockname()[1]) + route(keys='deadline = "50s"')
        async with (
            running(tmp_path, text) as program,
            nginx(tmp_path / "nginx", http=before(program), server=PROXY) as port,
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"GET /r HTTP/1.1\r\nhost: a.test\r\n\r\n")
                await asked.wait()
            await program.settled()
        nursery.cancel_scope.cancel(reason="the test has ended")
    (line,) = program.lines("access")
    assert (line["kind"], line["http.response.status_code"]) == ("client-gone", 499)


async def test_no_call_fails_when_nginx_closes_connections_after_some_requests(tmp_path: Path) -> None:
    """nginx, here the upstream, closes each connection after three requests with ``Connection: close``; gzip is on."""
    served = tmp_path / "files"
    served.mkdir()
    items = [{"id": number, "name": "a name to compress"} for number in range(100)]
    (served / "x").write_text(json.dumps(items))
    server = f"root {served}; default_type application/json;"
    http = "keepalive_requests 3; gzip on; gzip_types application/json;"
    async with (
        nginx(tmp_path / "nginx", http=http, server=server) as upstream,
        running(tmp_path / "umbel", up(upstream) + route()) as program,
    ):
        for _ in range(60):
            reply, _ = await program.ask("/r")
            assert reply.status == 200, reply.body
            assert reply.json == {"part": items}
    lines = program.lines("calls")
    assert {line["state"] for line in lines} == {"value"}
