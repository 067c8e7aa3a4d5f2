"""docs/edge.md: each configuration is served, and each request that is shown gets the response that is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.gateway.shown_exchanges import ask, check_reply, exchanges, sections_of, split_message
from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel

DOC = (PROJECT / "docs" / "edge.md").read_text()
SECTIONS = sections_of(DOC)
UPSTREAM = "http://127.0.0.1:9001"
"""The address of the upstream in the examples."""
ANSWERS: dict[str, bytes] = {
    "/catalog": response(json.dumps(list(range(1000))).encode(), b"Content-Type: application/json"),
    "/files/old": response(b"", b"Location: /files/new", status=b"301 Moved Permanently"),
    "/files/new": response(b'{"name": "new"}'),
    "/links/a": response(b"", b"Location: https://cdn.example/a?signature=1", status=b"302 Found"),
    "/articles/7": response(b"", b'ETag: "v3"', status=b"304 Not Modified"),
    "/events/orders": response(
        b"data: 1\n\ndata: 2\n\n", b"Content-Type: text/event-stream", b"Cache-Control: no-store"
    ),
    "/orders": response(b'{"id": 7}', b"Location: /orders/7", status=b"201 Created"),
    "/users/8": response(b'{"name": "Ada"}'),
}
"""Raw responses of the upstream to targets, in place of the JSON about the request."""


async def upstream(peer: Peer) -> None:
    """Answer each request with its method, target and Host as JSON, or with its response of ``ANSWERS``."""
    while (request := await peer.read_request())[0]:
        line, fields, _ = split_message(request[0].decode("latin-1").replace("\r\n", "\n"))
        method, target, _ = line.split(" ")
        said = {"method": method, "target": target, "host": dict(fields)["host"]}
        echo = response(json.dumps(said).encode(), b"Content-Type: application/json")
        await peer.send(ANSWERS.get(target, echo))


@pytest.mark.parametrize("name", SECTIONS)
async def test_each_request_of_a_section_gets_the_response_that_is_shown(name: str, tmp_path: Path) -> None:
    section = SECTIONS[name]
    (config,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    asked = exchanges(section)
    assert asked
    async with raw_server(upstream) as server:
        for file in re.findall(r"\$\{file:([^}]*)\}", config):
            (tmp_path / file).write_text("secret\n")
        (tmp_path / "umbel.toml").write_text(config.replace(UPSTREAM, f"http://127.0.0.1:{int(server)}"))
        async with serving(Umbel.from_file(tmp_path / "umbel.toml")) as port:
            for exchange in asked:
                reply = await ask(port, exchange)
                there = f"127.0.0.1:{int(server)}"
                check_reply(exchange, reply, {UPSTREAM.removeprefix("http://"): there})
