"""Inputs that a route does not read are ignored, whatever their bytes; integers have 64 bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateway.program import SERVERS, WAYS, route, running, up
from tests.support.upstream.raw_server import Peer, raw_server, response

FORM = [("content-type", "application/x-www-form-urlencoded")]


async def echo(peer: Peer) -> None:
    """Answer with the target, the body and the fields of the request."""
    while (asked := await peer.read_request())[0]:
        head, body = asked
        said = {"target": head.split(b" ")[1].decode(), "body": body.decode(), "head": head.decode("latin-1").lower()}
        await peer.send(response(json.dumps(said).encode()))


ODD = {
    "a latin-1 value": "utm_source=caf%E9",
    "bytes that are no UTF-8": "utm=%ff%fe&%ff=1",
    "an encoded surrogate": "utm=%ED%A0%80",
    "escapes that are none": "utm=%zz&%=%&a=%e",
    "over a thousand parameters": "&".join(["a=1"] * 1500),
    "over a thousand of bad bytes": "&".join(["a=%E9"] * 1300),
    "nothing but separators": "&&=&==&&",
    "a NUL": "utm=%00",
    "a name of bad bytes like a declared one": "q%ff=1&%E9q=2",
}


@SERVERS
@WAYS
async def test_parameters_that_a_route_does_not_declare_are_ignored(stock: bool, way: str, tmp_path: Path) -> None:
    config = (
        route("/none", "/x")
        + route("/declared", "/x", keys='query = ["q"]', call='params = { q = "query.q" }')
        + route("/typed", "/x{?n}", keys='query = { n = { type = "int", default = 3 } }')
        + route("/sent", "/x", call='forward_query = ["q"]')
        + route("/stream", "/x", keys="stream = true")
    )
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config, stock=stock) as program:
        for odd in ODD.values():
            for target, asked in (
                (f"/none?{odd}", "/x"),
                (f"/declared?{odd}&q=a%20b", "/x?q=a%20b"),
                (f"/typed?n=7&{odd}", "/x?n=7"),
                (f"/typed?{odd}", "/x?n=3"),
                (f"/sent?q=a&{odd}", "/x?q=a"),
            ):
                reply, _ = await program.ask(target)
                assert (reply.status, reply.json["part"]["target"]) == (200, asked), target[:80]
            assert (await program.ask(f"/stream?{odd}"))[0].status == 200
            assert (await program.ask(f"/absent?{odd}"))[0].status == 404
            assert (await program.ask(f"/livez?{odd}"))[0].status == 200
            assert (await program.ask(f"/none?{odd}", "DELETE"))[0].status == 405


@SERVERS
@WAYS
async def test_invalid_bytes_in_a_declared_parameter_are_a_400_that_names_it(
    stock: bool, way: str, tmp_path: Path
) -> None:
    config = route(keys='query = { q = {}, n = { type = "int" } }')
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config, stock=stock) as program:
        for name, query in (("q", "a=1&q=caf%E9"), ("q", "%71=%ff"), ("n", "n=%ff"), ("q", "q=%ED%A0%80")):
            reply, _ = await program.ask(f"/r?{query}")
            assert reply.status == 400
            assert reply.json["detail"] == f'The query parameter "{name}" is not percent-encoded UTF-8.'
    assert {line["level"] for line in program.lines("access")} == {"info"}


async def test_form_fields_that_no_plan_reads_are_ignored(tmp_path: Path) -> None:
    config = (
        route("/named", "/x{?a}", keys='body = "form"', call='with = { a = "body.a" }\nmethod = "POST"')
        + route("/template", "/x/{body.a}", keys='body = "form"', call='method = "POST"')
        + route("/whole", "/x", keys='body = "form"', call='form = "body"')
        + route("/sent", "/x", keys='body = "form"', call="forward_body = true")
    )
    odd = b"a=1&b=caf%E9&%ff=%fe&c=%zz"
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert (await program.ask("/named", "POST", FORM, odd))[0].json["part"]["target"] == "/x?a=1"
        assert (await program.ask("/template", "POST", FORM, odd))[0].json["part"]["target"] == "/x/1"
        assert (await program.ask("/sent", "POST", FORM, odd))[0].json["part"]["body"] == odd.decode()
        reply, _ = await program.ask("/named", "POST", FORM, b"b=1&a=%ff")
        assert (reply.status, '"a" of the form' in reply.json["detail"]) == (400, True)
        reply, _ = await program.ask("/whole", "POST", FORM, b"a=1&b=caf%E9")
        assert (reply.status, '"b" of the form' in reply.json["detail"]) == (400, True)


async def test_utf_8_without_percent_encoding_in_a_query_is_read(tmp_path: Path) -> None:
    config = (
        route("/form", "/x{?a}", keys='body = "form"', call='with = { a = "body.a" }\nmethod = "POST"')
        + route("/query", "/x{?q}", keys='query = ["q"]')
        + route("/sent", "/x", call='forward_query = ["q"]')
        + route("/none", "/x")
    )
    e = "\xe9".encode().decode("latin-1")
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config) as program:
        for body in ("a=Jos\xe9+x", "b=1&a=Jos\xe9%20x"):
            reply, _ = await program.ask("/form", "POST", FORM, body.encode())
            assert (reply.status, reply.json["part"]["target"]) == (200, "/x?a=Jos%C3%A9%20x")
        for route_, target in (("/query", "/x?q=Jos%C3%A9"), ("/sent", "/x?q=Jos%C3%A9"), ("/none", "/x")):
            reply, _ = await program.ask(f"{route_}?utm=\xe9&q=Jos{e}")
            assert (reply.status, reply.json["part"]["target"]) == (200, target)
        reply, _ = await program.ask("/query?q=Jos\xe9")
        assert (reply.status, '"q" is not' in reply.json["detail"]) == (400, True)
        reply, _ = await program.ask("/form", "POST", FORM, b"a=\xe9")
        assert (reply.status, '"a" of the form' in reply.json["detail"]) == (400, True)
        assert (await program.ask(f"/{e}"))[0].status == 400


async def test_cookies_and_fields_that_no_plan_reads_are_ignored(tmp_path: Path) -> None:
    config = route(
        call='forward_cookies = ["sid"]\nforward_headers = ["x-a"]', answer='shape = "[part.head, headers.x_b]"'
    )
    headers = [
        ("cookie", 'utm=\xe9; =; ;;sid=1; bad="\\073; \xff\xfe'),
        *(("x-odd", "caf\xe9"), ("x-a", "1"), ("x-b", "2"), ("referer", "http://h/\xff"), ("user-agent", "\xe9")),
    ]
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config) as program:
        reply, _ = await program.ask("/r", headers=headers)
    head, b = reply.json
    assert (reply.status, b) == (200, "2")
    assert "cookie: sid=1\r\n" in head
    assert "x-a: 1\r\n" in head
    assert "utm" not in head


NUMBERS = {
    "1099511627776000000": 1099511627776000000,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "%2B9223372036854775807": 2**63 - 1,
    "0009223372036854775807": 2**63 - 1,
    "-000000000000000000000000000007": -7,
    "9007199254740993": 2**53 + 1,
    "0": 0,
}


async def test_an_int_accepts_all_64_bit_integers_and_is_sent_exactly(tmp_path: Path) -> None:
    keys = 'query = { id = { type = "int" } }'
    call = 'params = { p = "query.id" }\nheaders = { x-id = "{id}" }\njson = { id = "query.id" }'
    config = route("/query", "/x/{id}", keys=keys, call=call, answer='shape = "{id: query.id, part: part}"')
    config += route("/path/<int(signed=True):n>", "/x/{n}", answer='shape = "{id: path.n, part: part}"')
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config) as program:
        for text, number in NUMBERS.items():
            reply, raw = await program.ask(f"/query?id={text}")
            part = reply.json["part"]
            assert (reply.status, reply.json["id"], f'"id":{number},'.encode() in raw) == (200, number, True)
            assert (part["target"], part["body"]) == (f"/x/{number}?p={number}", f'{{"id":{number}}}')
            assert f"x-id: {number}\r\n" in part["head"]
            if "%" not in text:
                reply, _ = await program.ask(f"/path/{text}")
                assert (reply.status, reply.json["id"], reply.json["part"]["target"]) == (200, number, f"/x/{number}")


@pytest.mark.parametrize(
    "text",
    ["9223372036854775808", "-9223372036854775809", "18446744073709551615", "9" * 5000, "1.0", "1e3", "0x1", "%2B"],
)
async def test_an_int_beyond_64_bits_is_a_400_that_names_the_range(text: str, tmp_path: Path) -> None:
    config = route(keys='query = { id = { type = "int" } }', answer='shape = "query.id"')
    async with raw_server(echo) as upstream, running(tmp_path, up(upstream) + config) as program:
        reply, _ = await program.ask(f"/r?id={text}")
    assert (reply.status, reply.json["detail"]) == (
        400,
        'The query parameter "id" must be a whole number from -9223372036854775808 to 9223372036854775807.',
    )
