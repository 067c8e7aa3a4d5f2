"""The requests and responses that a document shows in ``http`` blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.server.serving import Reply, connected


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


def sections_of(document: str) -> dict[str, str]:
    """The sections of a page in Markdown, by title."""
    return {text.partition("\n")[0]: text for text in document.split("\n## ")[1:]}


def split_message(text: str) -> tuple[str, list[tuple[str, str]], str]:
    """Split a message into its first line, its fields with names in lower case, and its body."""
    head, _, body = text.strip("\n").partition("\n\n")
    first, *lines = head.split("\n")
    return first, [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)], body


def exchanges(section: str) -> list[Exchange]:
    """The exchanges in the http blocks of a section."""
    found = []
    for block in re.findall(r"```http\n(.*?)```", section, re.DOTALL):
        request, answer = re.split(r"^(?=HTTP/)", block, maxsplit=1, flags=re.MULTILINE)
        line, fields, body = split_message(request)
        status, shown, content = split_message(answer)
        method, target, _ = line.split(" ")
        found.append(Exchange(method, target, fields, body.encode(), int(status.split(" ")[1]), shown, content))
    return found


async def ask(port: int, exchange: Exchange) -> Reply:
    """Make the request of an exchange on a connection of its own, with exactly the fields that are shown."""
    fields = [*exchange.fields, *([("content-length", str(len(exchange.body)))] if exchange.body else [])]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    async with connected(port) as client:
        await client.stream.send_all(
            f"{exchange.method} {exchange.target} HTTP/1.1\r\n{head}\r\n".encode() + exchange.body
        )
        if exchange.status != 101:
            return await client.reply(exchange.method)
        head = b""  # h11 reads a 101 only if it has made the request itself.
        while b"\r\n\r\n" not in head and (data := await client.stream.receive_some()):
            head += data
        line, received, _ = split_message(head.decode("latin-1").replace("\r\n", "\n"))
        return Reply(int(line.split(" ")[1]), received)


def check_reply(exchange: Exchange, reply: Reply, values: Mapping[str, str] | None = None) -> None:
    """Assert that a reply is the one that is shown.

    Args:
        exchange: the exchange.
        reply: the reply.
        values: texts by what stands for them in the shown content.
    """
    assert reply.status == exchange.status, (exchange, reply.body)
    for field, value in exchange.shown:
        assert reply.all(field) == [value], (exchange, reply.headers)
    if exchange.content:
        content = exchange.content
        for shown, value in (values or {}).items():
            content = content.replace(shown, value)
        assert _value(reply.body.decode()) == _value(content), (exchange, reply.body)


def _value(text: str) -> Any:
    """The value of JSON, or any other text without the line end after it."""
    try:
        return json.loads(text)
    except ValueError:
        return text.rstrip("\n")
