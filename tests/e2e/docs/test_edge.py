"""docs/edge.md: each configuration is served, and each request that is shown gets the response that is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.process.processes import PROJECT
from tests.support.server.serving import Reply, connected, serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel

DOC = (PROJECT / "docs" / "edge.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in DOC.split("\n## ")[1:]}
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


class Exchange(NamedTuple):
    """A request, and the part of its response that is shown."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes
    status: int
    shown: list[tuple[str, str]]
    """The fields of the response that are shown."""
    content: str
    """The body of the response; empty: not shown."""


def _head(text: str) -> tuple[str, list[tuple[str, str]], str]:
    """Split a message into its first line, its fields with names in lower case, and its body."""
    head, _, body = text.strip("\n").partition("\n\n")
    first, *lines = head.split("\n")
    return first, [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)], body


def exchanges(section: str) -> list[Exchange]:
    """Return the exchanges in the http blocks of a section."""
    found = []
    for block in re.findall(r"```http\n(.*?)```", section, re.DOTALL):
        request, answer = re.split(r"^(?=HTTP/)", block, maxsplit=1, flags=re.MULTILINE)
        line, fields, body = _head(request)
        status, shown, content = _head(answer)
        method, target, _ = line.split(" ")
        found.append(Exchange(method, target, fields, body.encode(), int(status.split(" ")[1]), shown, content))
    return found


async def upstream(peer: Peer) -> None:
    """Answer each request with its method, target and Host as JSON, or with its response of ``ANSWERS``."""
    while (request := await peer.read_request())[0]:
        line, fields, _ = _head(request[0].decode("latin-1").replace("\r\n", "\n"))
        method, target, _ = line.split(" ")
        said = {"method": method, "target": target, "host": dict(fields)["host"]}
        echo = response(json.dumps(said).encode(), b"Content-Type: application/json")
        await peer.send(ANSWERS.get(target, echo))


async def ask(port: int, exchange: Exchange) -> Reply:
    """Make the request of an exchange on a connection of its own, with exactly the fields that are shown."""
    fields = [*exchange.fields, *([("content-length", str(len(exchange.body)))] if exchange.body else [])]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    async with connected(port) as client:
        await client.stream.send_all(
            f"{exchange.method} {exchange.target} HTTP/1.1\r\n{head}\r\n".encode() + exchange.body
        )
        return await client.reply(exchange.method)


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
                assert reply.status == exchange.status, exchange
                for field, value in exchange.shown:
                    assert reply[field] == value, exchange
                if exchange.content:
                    content = exchange.content.replace(UPSTREAM.removeprefix("http://"), f"127.0.0.1:{int(server)}")
                    assert _value(reply.body.decode()) == _value(content), exchange


def _value(text: str) -> Any:
    """Return the value of JSON, or any other text without the line end after it."""
    try:
        return json.loads(text)
    except ValueError:
        return text.rstrip("\n")
