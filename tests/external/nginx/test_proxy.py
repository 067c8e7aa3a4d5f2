"""nginx as the upstream of a proxy route, and in front of one: kept connections, codings, ranges, WebSocket."""

from __future__ import annotations

import gzip
from pathlib import Path

import trio
from wsproto.events import BytesMessage

from tests.external.nginx.server import nginx
from tests.external.proxied_process import proxying
from tests.support.server.serving import connected, fetch, serving
from tests.support.server.ws_client import ws_client
from umbel import Umbel

SECONDS_MAX = 40
# As nginx's documentation of WebSocket proxying has it.
UPGRADE = """
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
"""
FRONT = """
    location / {
      proxy_pass http://127.0.0.1:@PORT@;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_buffering off;
      proxy_request_buffering off;
    }
"""


def echo_app() -> Umbel:
    app = Umbel(__name__, static_folder=None)

    @app.websocket("/ws")
    async def echo() -> None:
        from quart import websocket

        while True:
            await websocket.send(await websocket.receive())

    return app


async def test_files_of_nginx_arrive_in_their_coding_over_kept_connections(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    content = b"some text to compress\n" * 5000
    (files / "a.txt").write_bytes(content)
    server = f"root {files}; default_type text/plain; add_header x-connection $connection;"
    # Without gzip_proxied nginx compresses nothing for requests with a field Via.
    http = "gzip on; gzip_types text/plain; gzip_proxied any; keepalive_requests 1000;"
    with trio.fail_after(SECONDS_MAX):
        async with (
            nginx(tmp_path / "nginx", http=http, server=server) as upstream,
            proxying(upstream, tmp_path / "gateway") as gateway,
            connected(gateway.port) as client,
        ):
            seen = set()
            for _ in range(5):
                whole = await client.request("GET", "/a.txt")
                # nginx compresses while it sends, so this body is chunked.
                coded = await client.request("GET", "/a.txt", [("accept-encoding", "gzip")])
                part = await client.request("GET", "/a.txt", [("range", "bytes=5-8")])
                known = await client.request("GET", "/a.txt", [("if-none-match", whole["etag"])])
                head = await client.request("HEAD", "/a.txt")
                assert (whole.status, whole.body) == (200, content)
                assert (coded["content-encoding"], gzip.decompress(coded.body)) == ("gzip", content)
                assert (part.status, part.body, part["content-range"]) == (206, b"text", f"bytes 5-8/{len(content)}")
                assert (known.status, known.body) == (304, b"")
                assert (head["content-length"], head.body) == (str(len(content)), b"")
                seen |= {each["x-connection"] for each in (whole, coded, part, known, head)}
            missing = await client.request("GET", "/missing")
            refused = await client.request("POST", "/a.txt", body=b"x" * 100_000)
    assert len(seen) == 1
    assert (missing.status, b"nginx" in missing.body) == (404, True)
    assert refused.status == 405


async def test_websocket_and_upload_pass_an_nginx_in_front(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with (
            serving(echo_app()) as upstream,
            proxying(upstream, tmp_path / "gateway") as gateway,
            nginx(tmp_path / "nginx", http=UPGRADE, server=FRONT.replace("@PORT@", str(gateway.port))) as port,
        ):
            async with ws_client(port) as client:
                await client.open()
                for text in ("hello", "x" * 100_000):
                    await client.text(text)
                    assert await client.message() == text
                await client.send(BytesMessage(b"\0\xff"))
                assert await client.message() == b"\0\xff"
            missing = await fetch(port, "PUT", "/nowhere", body=b"x" * 300_000)
    assert missing.status == 404
    records = [record for record in gateway.records() if record["url.path"] == "/ws"]
    assert [record["http.response.status_code"] for record in records] == [101]
