"""Compressed responses and coded request bodies over sockets: the same bytes from each server, before and in Quart."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from tests.support.gateway.program import SERVERS
from tests.support.server.serving import Reply, connected, fetch, serving
from umbel import Umbel
from umbel.config.schema.sections import Config

NUMBERS = list(range(30_000))
"""More than what is compressed on the event loop."""


def application(hooks: str) -> Umbel:
    routes: list[dict[str, Any]] = [
        {"path": "/long", "auth": "none", "respond": {"json": NUMBERS}},
        {"path": "/short", "auth": "none", "respond": {"json": NUMBERS[:500]}},
        {"path": "/open", "auth": "none", "compress": False, "respond": {"json": NUMBERS[:500]}},
        {
            "path": "/sum",
            "methods": ["POST"],
            "auth": "none",
            "calls": {"none": {"upstream": "up", "path": "/", "when": "`false`"}},
            "answer": {"shape": "{sum: sum(body)}"},
        },
    ]
    upstreams = {"up": {"urls": ["http://127.0.0.1:1"]}}
    config = {"upstreams": upstreams, "routes": routes, "server": {"hooks": hooks}, "compress": {}}
    return Umbel(__name__, Config.model_validate(config), static_folder=None)


SHOWN = ("content-encoding", "content-length", "content-type", "etag", "vary")


def shown(reply: Reply) -> tuple[int, dict[str, list[str]], bytes]:
    """The status, some fields and the body; without the body of a problem, which has the id of its request."""
    return reply.status, {name: reply.all(name) for name in SHOWN}, reply.body if reply.status == 200 else b""


@SERVERS
async def test_responses_are_the_same_before_quart_and_through_it(stock: bool) -> None:
    got = []
    for hooks in ("python", "all"):
        async with serving(application(hooks), stock=stock) as port, connected(port) as client:
            wish = [("accept-encoding", "gzip")]
            replies = [await client.request(method, path, wish) for method in ("GET", "HEAD") for path in PATHS]
            replies.append(await client.request("GET", "/long", [*wish, ("if-none-match", replies[0]["etag"])]))
        got.append([shown(reply) for reply in replies])
    assert got[0] == got[1]
    long, short, opened, unknown, *heads = got[0]
    assert json.loads(zlib.decompress(long[2], 31)) == NUMBERS
    assert json.loads(zlib.decompress(short[2], 31)) == json.loads(opened[2]) == NUMBERS[:500]
    assert (opened[1]["content-encoding"], opened[1]["vary"]) == ([], [])
    assert (unknown[0], unknown[1]["vary"]) == (404, ["Accept-Encoding"])
    *heads, unchanged = heads
    assert heads == [(status, fields, b"") for status, fields, _ in (long, short, opened, unknown)]
    assert (unchanged[0], unchanged[1]["etag"]) == (304, long[1]["etag"])


PATHS = ("/long", "/short", "/open", "/unknown")


@SERVERS
async def test_a_coded_request_body_is_decoded(stock: bool) -> None:
    for hooks in ("python", "all"):
        async with serving(application(hooks), stock=stock) as port:
            fields = [("content-type", "application/json"), ("content-encoding", "gzip")]
            reply = await fetch(port, "POST", "/sum", fields, gzip.compress(json.dumps(NUMBERS).encode()))
            bomb = await fetch(port, "POST", "/sum", fields, gzip.compress(b" " * 900_000))
        assert reply.json == {"sum": sum(NUMBERS)}
        assert bomb.status == 413
