"""Node.js as the upstream of a proxy route: kept connections, chunked bodies, trailers, 103 Early Hints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import h11
import trio
from tools.external import program

from tests.external.proxied_process import proxying
from tests.support.process.processes import started
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected

UPSTREAM = Path(__file__).with_name("upstream.mjs")
SECONDS_MAX = 40


class _Message(NamedTuple):
    informational: list[int]
    body: bytes
    trailers: list[tuple[bytes, bytes]]


@asynccontextmanager
async def node_behind_umbel(directory: Path) -> AsyncIterator[int]:
    """Run the upstream and a gateway within the block; yield the gateway's port."""
    with trio.fail_after(SECONDS_MAX):
        async with started(program("node") or "node", str(UPSTREAM), cwd=directory) as node:
            upstream = int((await node.address()).rpartition(":")[2])
            async with proxying(upstream, directory / "gateway") as gateway:
                yield gateway.port


async def get(port: int, target: str) -> _Message:
    """The whole response over HTTP/1.1, with the interim responses and trailers that ``Reply`` leaves out."""
    informational, body, connection = [], b"", h11.Connection(h11.CLIENT)
    asked = h11.Request(method="GET", target=target, headers=[("host", "a.test"), ("te", "trailers")])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all((connection.send(asked) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                case h11.InformationalResponse(status_code=status):
                    informational.append(status)
                case h11.Data(data=data):
                    body += bytes(data)
                case h11.EndOfMessage(headers=trailers):
                    return _Message(informational, body, [*trailers])


async def test_requests_with_and_without_length_share_one_connection(tmp_path: Path) -> None:
    body = bytes(range(256)) * 500
    async with node_behind_umbel(tmp_path) as port, connected(port) as client:
        for _ in range(5):
            whole = await client.request("PUT", "/echo", body=body)
            assert whole.json == {"method": "PUT", "length": "128000", "size": 128_000, "sum": 255}
            head = b"POST /echo HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n"
            await client.stream.send_all(head + b"%x\r\n%b\r\n" % (len(body), body))
            await client.stream.send_all(b"1\r\n\x07\r\n0\r\n\r\n")
            chunked = await client.reply("POST")
            assert chunked.json == {"method": "POST", "coding": "chunked", "size": 128_001, "sum": 7}
        assert (await client.request("GET", "/connections")).body == b"1"


async def test_trailers_arrive_over_http1_and_http2(tmp_path: Path) -> None:
    async with node_behind_umbel(tmp_path) as port:
        assert await get(port, "/trailers") == ([], b"one two", [(b"x-sum", b"7")])
        async with h2_client(port) as client:
            answer = await client.fetch(path="/trailers", headers=[("te", "trailers")])
    assert (answer.status, answer.body, answer.trailers) == (200, b"one two", [("x-sum", "7")])


async def test_early_hints_arrive_before_the_response_over_http1_and_http2(tmp_path: Path) -> None:
    async with node_behind_umbel(tmp_path) as port:
        assert await get(port, "/hints") == ([103], b"late", [])
        async with h2_client(port) as client:
            answer = await client.fetch(path="/hints")
    assert (answer.informational, answer.status, answer.body) == ([103], 200, b"late")
