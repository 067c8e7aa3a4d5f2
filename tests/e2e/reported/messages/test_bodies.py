"""Unusual bodies over sockets: a body that browsers and curl accept is read, and a bad one fails only its call."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.support.composition.composing import facts
from tests.support.gateway.program import Program, route, running, up
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.composition.gather import Compose
from umbel.core.events import NULL
from umbel.core.model import Inputs
from umbel.upstream import Transport

BODY = b'{"a":"\xc3\xa9"}'
VALUE = {"a": "\u00e9"}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def coded(coding: bytes, body: bytes) -> bytes:
    return response(body, b"Content-Type: application/json", b"Content-Encoding: " + coding)


def typed(content_type: bytes, body: bytes = BODY) -> bytes:
    return response(body, b"Content-Type: " + content_type)


EMPTY: dict[str, bytes] = {
    "201 with Location": response(b"", b"Location: /x/1", status=b"201 Created"),
    "200": response(b"", b"Content-Type: application/json"),
    "202": response(b"", status=b"202 Accepted"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "205": response(b"", status=b"205 Reset Content"),
    "chunked": CHUNKED + b"0\r\n\r\n",
    "chunked with a trailer": CHUNKED + b"0\r\nX-Sum: 1\r\n\r\n",
    "gzip of nothing": coded(b"gzip", gzip.compress(b"")),
    "no bytes of gzip": coded(b"gzip", b""),
    "no bytes of another coding": coded(b"br", b""),
    "a line end": response(b"\r\n"),
    "spaces": response(b" \t \n"),
    "a byte order mark": response(b"\xef\xbb\xbf"),
}

READ: dict[str, tuple[bytes, Any]] = {
    "a byte order mark": (typed(b"application/json", b"\xef\xbb\xbf" + BODY), VALUE),
    "UTF-16 with a mark": (typed(b"application/json", '{"a":"\u00e9"}'.encode("utf-16")), VALUE),
    "ISO-8859-1": (typed(b"application/json; charset=ISO-8859-1", b'{"a":"\xe9"}'), VALUE),
    "UTF-8 that is said to be ISO-8859-1": (typed(b"application/json; charset=ISO-8859-1"), VALUE),
    "windows-1252, quoted": (typed(b'application/json;charset="windows-1252"', b'{"a":"\xe9"}'), VALUE),
    "UTF-16LE": (typed(b"application/json; charset=utf-16le", '{"a":"\u00e9"}'.encode("utf-16le")), VALUE),
    "an unknown charset": (typed(b"application/json; charset=utf8-general"), VALUE),
    "an upper-case charset": (typed(b"application/json; CHARSET=UTF-8"), VALUE),
    "another type of JSON": (typed(b"text/json"), VALUE),
    "problem+json": (typed(b"application/problem+json"), VALUE),
    "a type that is no JSON": (typed(b"text/html"), VALUE),
    "no type": (response(BODY), VALUE),
    "a type that is none": (typed(b';;="'), VALUE),
    "two types": (
        response(
            b'{"a":"\xe9"}', b"Content-Type: text/plain; charset=utf-8", b"Content-Type: text/json;charset=latin1"
        ),
        VALUE,
    ),
    "the coding UTF-8": (coded(b"UTF-8", BODY), VALUE),
    "the coding none": (coded(b"none", BODY), VALUE),
    "the coding binary": (coded(b"binary", BODY), VALUE),
    "the coding identity": (coded(b"Identity", BODY), VALUE),
    "an empty coding": (coded(b"", BODY), VALUE),
    "x-gzip": (coded(b"X-GZip", gzip.compress(BODY)), VALUE),
    "gzip and identity": (coded(b"gzip, identity", gzip.compress(BODY)), VALUE),
    "members of gzip": (coded(b"gzip", gzip.compress(BODY[:3]) + gzip.compress(BODY[3:])), VALUE),
    "zero bytes behind gzip": (coded(b"gzip", gzip.compress(BODY) + bytes(512)), VALUE),
    "zlib as deflate": (coded(b"deflate", zlib.compress(BODY)), VALUE),
    "raw deflate": (coded(b"deflate", raw_deflate(BODY)), VALUE),
    "a lone surrogate": (response(b'[{"t":"a\\ud800"},{"t":"b"}]'), [{"t": "a\ufffd"}, {"t": "b"}]),
    "a lone low surrogate": (response(b'["\\\\ud800\\udc00\\ud83d\\ude00"]'), ["\\ud800\ufffd\U0001f600"]),
}

REFUSED: dict[str, bytes] = {
    "a zero byte behind the JSON": response(BODY + b"\0"),
    "text behind the JSON": response(BODY + b"x"),
    "bytes that are no UTF-8": response(b'{"a":"\xe9"}'),
    "NaN": response(b"[NaN]"),
    "br": coded(b"br", b"x"),
    "two codings": coded(b"gzip, gzip", gzip.compress(gzip.compress(BODY))),
    "garbage behind gzip": coded(b"gzip", gzip.compress(BODY) + b"garbage"),
    "gzip cut short": coded(b"gzip", gzip.compress(BODY)[:-3]),
    "no gzip": coded(b"gzip", BODY),
}
ANSWERS: dict[str, bytes] = {
    **{f"empty {name}": answer for name, answer in EMPTY.items()},
    **{f"read {name}": answer for name, (answer, _) in READ.items()},
    **{f"refused {name}": answer for name, answer in REFUSED.items()},
    "good": response(BODY),
    "text marked": typed(b"text/plain", b"\xef\xbb\xbf\xc3\xa9"),
    "text empty": typed(b"text/plain", b""),
}


async def answers(peer: Peer) -> None:
    """Answer each request with the response that its path names."""
    while (head := (await peer.read_request())[0]).startswith((b"GET", b"POST", b"HEAD")):
        method, target = head.split(b" ")[:2]
        answer = ANSWERS[unquote(target.decode()).removeprefix("/")]
        await peer.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else answer)


async def ask_all(program: Program, path: str, names: list[str]) -> dict[str, Any]:
    """Return the body of each answer, or its status if that is not 200."""
    got = {}
    for name in names:
        reply, _ = await program.ask(f"{path}/{quote(name)}")
        got[name] = reply.json if reply.status == 200 else reply.status
    return got


POST = 'method = "POST"\njson = { a = "`1`" }'
OTHER = '[routes.calls.other]\nupstream = "up"\npath = "/good"\n'


async def test_an_empty_body_of_an_upstream_is_null(tmp_path: Path) -> None:
    config = route("/write/<name>", "/{name}", keys='methods = ["GET"]', call=POST) + OTHER
    config += route("/each", "/{item}", keys='methods = ["POST"]', call='each = "body"\nmethod = "GET"')
    config += route("/head/<name>", "/{name}", call='method = "HEAD"')
    names = [f"empty {name}" for name in EMPTY]
    async with raw_server(answers) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert await ask_all(program, "/write", names) == {name: {"part": None, "other": VALUE} for name in names}
        assert await ask_all(program, "/head", ["good"]) == {"good": {"part": None}}
        json_type = [("content-type", "application/json")]
        items = ["good", *names, "good"]
        reply, _ = await program.ask("/each", "POST", json_type, json.dumps(items).encode())
    assert reply.json == {"part": [VALUE, *[None] * len(names), VALUE]}
    assert {(line["level"], line["completed"]) for line in program.lines("access")} == {("info", True)}


async def test_a_body_with_an_odd_label_or_mark_is_read(tmp_path: Path) -> None:
    config = route("/<name>", "/{name}") + OTHER
    async with raw_server(answers) as upstream, running(tmp_path, up(upstream) + config) as program:
        got = await ask_all(program, "", [f"read {name}" for name in READ])
    assert got == {f"read {name}": {"part": value, "other": VALUE} for name, (_, value) in READ.items()}


async def test_a_refused_body_fails_only_its_call(tmp_path: Path) -> None:
    names = [f"refused {name}" for name in REFUSED]
    config = route("/required/<name>", "/{name}") + route("/optional/<name>", "/{name}", call="optional = true") + OTHER
    async with raw_server(answers) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert await ask_all(program, "/required", names) == dict.fromkeys(names, 502)
        assert await ask_all(program, "/optional", names) == {name: {"part": None, "other": VALUE} for name in names}
    assert {line["kind"] for line in program.lines("calls") if line["call"] == "part"} == {"bad-body", "malformed"}


def unusable(status: bytes) -> dict[str, bytes]:
    """Responses that are valid except for their content."""
    fields = (b"WWW-Authenticate: Bearer", b"Set-Cookie: sid=")
    gzip_, large = b"Content-Encoding: gzip", b"x" * 2000
    chunked = b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"Transfer-Encoding: chunked", b"", b"7d0", large))
    return {
        "no gzip": response(BODY, *fields, gzip_, status=status),
        "gzip cut short": response(gzip.compress(BODY)[:-3], *fields, gzip_, status=status),
        "br": response(BODY, *fields, b"Content-Encoding: br", status=status),
        "two codings": response(BODY, *fields, gzip_, gzip_, status=status),
        "large": response(large, *fields, status=status),
        "large in chunks": chunked + b"\r\n0\r\n\r\n",
    }


@pytest.mark.parametrize("odd", unusable(b"200 OK"))
async def test_content_that_is_not_used_has_no_effect(odd: str, tmp_path: Path) -> None:
    said = {"/gone": b"404 Not Found", "/denied": b"401 Unauthorized", "/done": b"201 Created", "/down": b"500 Oops"}

    async def says(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            target = head.split(b" ")[1].decode()
            await peer.send(unusable(said[target])[odd] if target in said else response(BODY))

    part = '[routes.calls.{name}]\nupstream = "up"\npath = "{path}"\n{keys}\n'
    config = (
        route("/missing", "/gone")
        + route("/login", "/denied", call="pass_status = [401]", answer='forward_cookies = { part = ["sid"] }')
        + route("/null", "/gone", call="null_on = [404]")
        + route("/write", "/done", call='method = "POST"\ndecode = "none"')
        + route("/failed", "/down")
        + route("/read", "/done")
        + route("/passed", "/gone", call="pass_body = true")
        + route("/optional", "/good")
        + part.format(name="b", path="/gone", keys="optional = true")
    )
    async with raw_server(says) as upstream, running(tmp_path, up(upstream, 'max_body = "1KB"') + config) as program:
        assert (await program.ask("/missing"))[0].status == 404
        reply, _ = await program.ask("/login")
        assert (reply.status, reply["www-authenticate"], reply["set-cookie"]) == (401, "Bearer", "sid=")
        for path, status in (("/null", 200), ("/write", 200), ("/optional", 200)):
            reply, _ = await program.ask(path)
            assert (reply.status, list(reply.json.values())[-1]) == (status, None)
        reply, _ = await program.ask("/failed")
        assert (reply.status, reply.json["calls"][0]["received_status"]) == (502, 500)
        # A route that uses the content fails.
        assert (await program.ask("/read"))[0].status == 502
        assert (await program.ask("/passed"))[0].status == 502


async def test_a_text_is_read_without_its_byte_order_mark_and_an_empty_body_is_empty_text(tmp_path: Path) -> None:
    config = route("/<name>", "/{name}", call='decode = "text"')
    async with raw_server(answers) as upstream, running(tmp_path, up(upstream) + config) as program:
        got = await ask_all(program, "", ["text marked", "text empty", "empty 204"])
    assert got == {"text marked": {"part": "\u00e9"}, "text empty": {"part": ""}, "empty 204": {"part": None}}


JSON = "application/json"
FROM_CLIENTS: dict[str, tuple[list[tuple[str, str]], bytes, Any]] = {
    "a byte order mark": ([("content-type", JSON)], b"\xef\xbb\xbf" + BODY, VALUE),
    "ISO-8859-1": ([("content-type", f"{JSON}; charset=ISO-8859-1")], b'{"a":"\xe9"}', VALUE),
    "a quoted upper-case charset": ([("content-type", f'{JSON};charset="UTF-8"')], BODY, VALUE),
    "text/json": ([("content-type", "text/json")], BODY, VALUE),
    "the same type twice": ([("content-type", JSON)] * 2, BODY, VALUE),
    "a lone surrogate": ([("content-type", JSON)], b'["\\ud800","b"]', ["\ufffd", "b"]),
    "the coding UTF-8": ([("content-type", JSON), ("content-encoding", "UTF-8")], BODY, VALUE),
    "an empty coding": ([("content-type", JSON), ("content-encoding", "")], BODY, VALUE),
    "no type": ([("x", "y")], BODY, 415),
    "two types": ([("content-type", JSON), ("content-type", "text/plain")], BODY, 415),
    "UTF-16": ([("content-type", f"{JSON}; charset=utf-16")], BODY.decode().encode("utf-16"), 415),
    "UTF-16 that is not named": ([("content-type", JSON)], BODY.decode().encode("utf-16"), 400),
    "gzip": ([("content-type", JSON), ("content-encoding", "gzip")], gzip.compress(BODY), VALUE),
    "two codings": ([("content-type", JSON), ("content-encoding", "gzip, gzip")], gzip.compress(BODY), 415),
    "bytes that are no UTF-8": ([("content-type", JSON)], b'{"a":"\xe9"}', 400),
    "spaces": ([("content-type", JSON)], b"  ", 400),
}


async def test_an_unusual_body_of_a_client_is_read_if_it_is_unambiguous(tmp_path: Path) -> None:
    config = route("/echo", "/good", answer='shape = "body"')
    got: dict[str, Any] = {}
    async with raw_server(answers) as upstream, running(tmp_path, up(upstream) + config) as program:
        for name, (headers, body, _) in FROM_CLIENTS.items():
            reply, _ = await program.ask("/echo", "POST", headers, body)
            got[name] = reply.json if reply.status == 200 else reply.status
    assert got == {name: expected for name, (_, _, expected) in FROM_CLIENTS.items()}


async def test_calls_in_code_read_unusual_bodies_too() -> None:
    async with raw_server(answers) as upstream, Transport([url(upstream)]) as transport:
        compose = Compose({"up": transport}, Inputs(), facts(), NULL)
        async with compose.gather() as gather:
            empty = gather.post("up", f"/{quote('empty 201 with Location')}", json={})
            marked = gather.get("up", f"/{quote('read a byte order mark')}")
    assert (empty.value, marked.value) == (None, VALUE)


@pytest.mark.parametrize("size", [1, 7])
async def test_padding_after_gzip_data_is_ignored_in_any_pieces(size: int, tmp_path: Path) -> None:
    packed = gzip.compress(BODY) + bytes(20)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def dripping(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(head)
            for start in range(0, len(packed), size):
                piece = packed[start : start + size]
                await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await peer.send(b"0\r\n\r\n")

    async with raw_server(dripping) as upstream, running(tmp_path, up(upstream) + route()) as program:
        reply, _ = await program.ask("/r")
    assert reply.json == {"part": VALUE}
