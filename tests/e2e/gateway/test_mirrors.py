"""Mirrors over sockets: what the second upstream receives, and that its own calls do not feel the copies."""

from __future__ import annotations

import json
import re

import trio

from tests.support.logs.records import Records
from tests.support.server.serving import connected, serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel
from umbel.config.schema.sections import Config
from umbel.gateway.operation.figures import application_figures

ROUTES = [
    {
        "path": "/r",
        "methods": ["POST"],
        "calls": {
            "part": {
                "upstream": "v1",
                "path": "/copied",
                "json": "body",
                "mirror": {"upstream": "v2", "share": "100%", "methods": ["POST"]},
            }
        },
    },
    {"path": "/own", "calls": {"part": {"upstream": "v2", "path": "/own"}}},
]


class Upstreams:
    """Two upstreams. Both answer each request with 1, but the second one never answers a copy."""

    def __init__(self) -> None:
        self.heads: list[list[bytes]] = [[], []]
        self.bodies: list[list[bytes]] = [[], []]
        self.copied, self.closed = trio.Event(), trio.Event()

    async def v1(self, peer: Peer) -> None:
        await self._answer(peer, 0)

    async def v2(self, peer: Peer) -> None:
        await self._answer(peer, 1)

    async def _answer(self, peer: Peer, number: int) -> None:
        while (request := await peer.read_request())[0]:
            self.heads[number].append(request[0])
            self.bodies[number].append(request[1])
            if number == 1 and b"/copied" in request[0]:
                self.copied.set()
                await peer.read_head()
                self.closed.set()
                return
            await peer.send(response(b"1", b"Content-Type: application/json"))


def fields(head: bytes, *names: bytes) -> list[bytes]:
    return [re.findall(rb"(?im)^" + name + rb": (.*?)\r$", head)[0] for name in names]


async def test_a_hanging_mirror_takes_no_place_of_the_calls_to_its_upstream() -> None:
    upstreams, records = Upstreams(), Records()
    with trio.fail_after(5):
        async with raw_server(upstreams.v1) as v1, raw_server(upstreams.v2) as v2:
            limits = {"max_concurrency": 1, "max_queue": 0, "retry": {"attempts": 3}}
            urls = {
                "v1": {"urls": [f"http://127.0.0.1:{int(v1)}"]},
                "v2": {"urls": [f"http://127.0.0.1:{int(v2)}"], "headers": {"x-version": "2"}, **limits},
            }
            app = Umbel(__name__, Config.model_validate({"upstreams": urls, "routes": ROUTES}), recorder=records)
            async with serving(app) as port, connected(port) as client:
                body = json.dumps({"a": 1}).encode()
                reply = await client.request("POST", "/r", [("content-type", "application/json")], body)
                assert reply.json == {"part": 1}
                await upstreams.copied.wait()
                for _ in range(3):
                    assert (await client.request("GET", "/own")).json == {"part": 1}
                runtime = app.gateway_context.require_runtime()
            assert upstreams.closed.is_set() or not await upstreams.closed.wait()
    first, copy = upstreams.heads[0][0], upstreams.heads[1][0]
    same = (b"x-request-id", b"x-forwarded-for", b"content-length")
    assert fields(first, *same) == fields(copy, *same)
    (one,), (other,) = fields(first, b"traceparent"), fields(copy, b"traceparent")
    assert one[:36] == other[:36]
    assert one != other
    assert upstreams.bodies[1][0] == upstreams.bodies[0][0] == b'{"a":1}'
    assert fields(copy, b"x-version") == [b"2"]
    assert b"x-version" not in first
    values = application_figures(runtime)[0]
    attempts = [(labels, count) for labels, count in values["umbel_attempts_total"] if count]
    assert sorted(attempts) == [(("v1", "first"), 1), (("v2", "first"), 3), (("v2", "mirror"), 1)]
    assert dict(values["umbel_mirrored_total"])["v2", "cancelled"] == 1
