"""Values that try to leave their place in a path, a header field or a cookie, through the whole program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.upstream.raw_server import Peer, answering, raw_server, response
from umbel.core.failure_kinds import Kind

# Hostile values, each with the one segment that it becomes; None: it cannot be a segment.
VALUES: list[tuple[object, str | None]] = [
    ("../../admin?x#y", "..%2F..%2Fadmin%3Fx%23y"),
    ("a/b\\c", "a%2Fb%5Cc"),
    ("%2e%2e", "%252e%252e"),
    ("a b+&=;@:é", "a%20b%2B%26%3D%3B%40%3A%C3%A9"),
    ("a\r\nX-Admin: 1\0", "a%0D%0AX-Admin%3A%201%00"),
    ("...", "..."),
    (0, "0"),
    (False, "false"),
    ("..", None),
    (".", None),
    ("", None),
    (None, None),
    ([1], None),
    ({"a": 1}, None),
]


@pytest.mark.parametrize(("value", "segment"), VALUES, ids=[json.dumps(value) for value, _ in VALUES])
@pytest.mark.parametrize("whose", ["the upstream's", "the client's"])
async def test_a_value_in_a_path_is_one_segment_or_a_bad_request(
    whose: str, value: object, segment: str | None, tmp_path: Path
) -> None:
    targets: list[bytes] = []

    async def items(peer: Peer) -> None:
        while request := await peer.read_head():
            targets.append(request.split(b" ")[1])
            await peer.send(response(b'"item"'))

    upstreams_own = whose == "the upstream's"
    said = json.dumps({"id": value}).encode()
    async with raw_server(answering(response(said))) as source, raw_server(items) as upstream:
        name = "source.id" if upstreams_own else "body.id"
        config = (
            up(source, name="source")
            + up(upstream)
            + "".join(
                route(path, f"/items/{{{name}}}?x=1", call=call)
                + '[routes.calls.source]\nupstream = "source"\npath = "/"\njson = "body"\n'
                for path, call in (("/required", ""), ("/optional", "optional = true"))
            )
        )
        async with running(tmp_path, config) as program:
            headers = [("content-type", "application/json")]
            required, _ = await program.ask("/required", "POST", headers, said)
            optional, _ = await program.ask("/optional", "POST", headers, said)
    kinds = [line.get("kind") for line in program.lines("calls") if line["call"] == "part"]
    if segment is not None:
        assert targets == [f"/items/{segment}?x=1".encode()] * 2
        assert (required.status, required.json["part"], optional.json["part"]) == (200, "item", "item")
        assert kinds == [None, None]
        return
    assert targets == []
    assert required.status == (502 if upstreams_own else 400)
    assert [(call["name"], call["kind"]) for call in required.json["calls"]] == [("part", Kind.BAD_REQUEST)]
    assert (optional.status, optional.json["part"], optional["umbel-completed"]) == (200, None, "false")
    assert optional["proxy-status"] == 'umbel;error=http_request_error;next-hop="part"'
    assert kinds == [Kind.BAD_REQUEST] * 2


async def test_only_the_bad_items_of_an_each_fail(tmp_path: Path) -> None:
    async def echo(peer: Peer) -> None:
        while request := await peer.read_head():
            await peer.send(response(json.dumps(request.split(b" ")[1].decode()).encode()))

    values = [value for value, _ in VALUES]
    async with raw_server(answering(response(json.dumps(values).encode()))) as source, raw_server(echo) as upstream:
        config = (
            up(source, name="source")
            + up(upstream)
            + route(target="/items/{item}", call='each = "source"\noptional = true\nitem_default = "bad"')
            + '[routes.calls.source]\nupstream = "source"\npath = "/"\n'
        )
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
    # A null makes no call, so it cannot fail.
    expected = [
        None if value is None else "bad" if segment is None else f"/items/{segment}" for value, segment in VALUES
    ]
    assert (reply.status, reply.json["part"], reply["umbel-completed"]) == (200, expected, "false")
    (line,) = [line for line in program.lines("calls") if line["call"] == "part"]
    assert {item["kind"] for item in line["failed_items"]} == {Kind.BAD_REQUEST}
    assert len(line["failed_items"]) == sum(segment is None for _, segment in VALUES) - 1


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\rX-Admin: 1", "a\0"], ids=repr)
async def test_a_line_end_in_a_value_begins_no_field(value: str, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def listening(peer: Peer) -> None:
        while request := await peer.read_head():
            heads.append(request)
            await peer.send(response(b"1"))

    quoted = "".join(f"%{byte:02x}" for byte in value.encode())
    source_call = '[routes.calls.source]\nupstream = "source"\npath = "/"\n'
    async with (
        raw_server(answering(response(json.dumps(value).encode()))) as source,
        raw_server(listening) as upstream,
    ):
        config = (
            up(source, name="source")
            + up(upstream)
            + route("/upstreams", call='headers = { x-name = "{source}" }')
            + source_call
            + route("/clients", keys='query = ["name"]', call='headers = { x-name = "{name}" }')
            + route("/answers", answer='headers = { x-name = "{source}" }')
            + source_call
            + route("/query", call='forward_query = ["name"]')
        )
        async with running(tmp_path, config) as program:
            for target in ("/upstreams", f"/clients?name={quoted}", "/answers"):
                reply, raw = await program.ask(target)
                assert reply.status == 200
                assert b"x-admin" not in raw.partition(b"\r\n\r\n")[0].lower()
                assert b"x-name" not in raw.lower()
            assert (await program.ask(f"/query?name={quoted}"))[0].status == 200
    # A request that was sent does not have the character, or has it encoded.
    assert not any(b"x-name" in head.lower() for head in heads)
    assert not any(line.lower().startswith(b"x-admin") for head in heads for line in head.splitlines())
    assert heads[-1].split(b" ")[1] == f"/x?name={quoted}".encode()


@SERVERS
@pytest.mark.parametrize("value", ["a\rX-Admin: 1", "a\0b", "a\r\n\x0bX-Admin: 1"], ids=repr)
async def test_a_control_character_in_a_client_field_is_never_forwarded(
    value: str, stock: bool, tmp_path: Path
) -> None:
    async with raw_server(answering(response(b"1"))) as upstream:
        config = up(upstream) + route(call='forward_headers = ["x-tenant"]')
        async with running(tmp_path, config, stock=stock) as program:
            assert (await program.ask("/r", headers=[("x-tenant", value)]))[0].status == 400
    assert upstream.connections == []


@SERVERS
async def test_a_forwarded_cookie_cannot_add_another_cookie(stock: bool, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def listening(peer: Peer) -> None:
        while request := await peer.read_head():
            heads.append(request)
            await peer.send(response(b"1"))

    hiding = [r'user="ann\073 admin=1"', r'user="ann\015\012X-Admin: 1"', "user=ann, admin=1"]
    async with raw_server(listening) as upstream:
        config = up(upstream) + route(call='forward_cookies = ["user"]')
        async with running(tmp_path, config, stock=stock) as program:
            for cookie in hiding:
                assert (await program.ask("/r", headers=[("cookie", f"admin=0; {cookie}")]))[0].status == 200
    sent = [[line for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")] for head in heads]
    assert sent == [[b"cookie: " + cookie.encode()] for cookie in hiding]
