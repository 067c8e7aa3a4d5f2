"""Faults of an upstream through the whole program: the client's response, the records, and what is left open."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing

from tests.support.gateway.failing_call import MAX_BODY, Fault, assert_fails, assert_recorded, steadily, two_routes
from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.upstream.bad_upstreams import (
    BAD_ANSWERS,
    CHUNKED,
    CODED,
    ENDLESS,
    HEAD,
    drip_body,
    drip_head,
    endless_interim,
)
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import Handler, Peer, answering, open_sockets, raw_server, response, silent
from umbel.core.failure_kinds import Kind

TERMINATED = "connection_terminated"
TIMED_OUT = "http_response_timeout"
BODY_SIZE = "http_response_body_size"


class Case(NamedTuple):
    """A faulty upstream, and the resulting fault of the call."""

    script: Handler
    fault: Fault
    kept: bool = False
    """Whether the response was complete, so that the connection is kept."""
    timeout: str = "5s"
    deadline: str = "5s"


def sending(answer: bytes, *, close: bool = False) -> Handler:
    """An upstream that sends these bytes once per connection, then closes it or waits until the peer closes it."""

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)
        if not close:
            await peer.closed()

    return handler


async def reset_before(peer: Peer) -> None:
    await peer.read_head()
    peer.reset()


async def reset_in_the_middle(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(HEAD + b'Content-Length: 100\r\n\r\n{"half')
    # The gateway has read the first half by then. A reset may discard bytes that are not read.
    await trio.sleep(0.02)
    peer.reset()


def body(content: bytes, *fields: bytes) -> Case:
    return Case(answering(response(content, *fields)), Fault(Kind.BAD_BODY, "http_protocol_error"), kept=True)


def status(line: bytes, *, passed: bool = False) -> Case:
    answer = response(b"hidden text", b"Location: http://hidden-host/", status=line)
    return Case(answering(answer), Fault(Kind.STATUS, None, int(line[:3]), passed), kept=True)


BOMB = response(gzip.compress(bytes(100 * MAX_BODY)), b"Content-Encoding: gzip")

TIMEOUT = Fault(Kind.TIMEOUT, TIMED_OUT)
TOO_BIG = Fault(Kind.TOO_BIG, BODY_SIZE)

CASES: dict[str, Case] = {
    "resets before the answer": Case(reset_before, Fault(Kind.RESET, TERMINATED)),
    "resets in the middle of the body": Case(reset_in_the_middle, Fault(Kind.RESET, TERMINATED)),
    "never answers": Case(silent, TIMEOUT, timeout="150ms"),
    "never answers until the deadline of the route": Case(silent, TIMEOUT, deadline="300ms"),
    # A byte every 10 ms, so that no timeout of a single read would ever be reached.
    "drips its status line and its head": Case(drip_head, TIMEOUT, timeout="150ms"),
    "drips its body": Case(drip_body, TIMEOUT, timeout="150ms"),
    "sends 102 again and again": Case(endless_interim, TIMEOUT, timeout="150ms"),
    "sends less than its Content-Length": Case(
        sending(HEAD + b"Content-Length: 9\r\n\r\n{}"), TIMEOUT, timeout="150ms"
    ),
    **{f"an endless body, {how}": Case(script, TOO_BIG) for how, script in ENDLESS.items()},
    "one byte too much body, and its length says so": Case(sending(response(b"1" * (MAX_BODY + 1))), TOO_BIG),
    # The end of the message is never sent: the first surplus byte must end the reading.
    "one byte too much body, in a chunk": Case(
        sending(CHUNKED + b"%x\r\n%b\r\n" % (MAX_BODY + 1, b"1" * (MAX_BODY + 1))), TOO_BIG
    ),
    "a gzip bomb": Case(sending(BOMB[:-1]), TOO_BIG),
    "invalid JSON": body(b'{"hidden": 1'),
    "JSON 10,000 deep": body(b"[" * 10_000 + b"]" * 10_000),
    "JSON with NaN": body(b"[NaN]"),
    "JSON with a number of 5,000 digits": body(b"1" * 5_000),
    "JSON with truncated UTF-8": body(b'"hidden \xc3"'),
    "text/html": body(b"<html>hidden</html>", b"Content-Type: text/html"),
    "301 to elsewhere": status(b"301 Moved Permanently"),
    "401": status(b"401 Unauthorized"),
    "404": status(b"404 Not Found", passed=True),
    "503": status(b"503 Service Unavailable"),
    **{
        name: Case(sending(answer, close=close), Fault(kind, error))
        for name, (answer, close, kind, error) in BAD_ANSWERS.items()
    },
    **{
        f"coding: {name}": Case(
            answering(response(content, b"Content-Encoding: " + coding)), Fault(Kind.MALFORMED, error), kept=True
        )
        for name, (coding, content, error) in CODED.items()
    },
}


@SERVERS
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_fault_of_an_upstream_fails_only_its_call_and_leaves_nothing(
    case: Case, stock: bool, tmp_path: Path
) -> None:
    sockets = open_sockets()
    async with raw_server(steadily) as steady, raw_server(case.script) as faulty:
        config = two_routes(steady, url(faulty), f'timeout = "{case.timeout}"', deadline=case.deadline)
        async with running(tmp_path, config, stock=stock) as program:
            began = trio.current_time()
            replies = await assert_fails(program, case.fault)
            assert trio.current_time() - began < 4, "the limit of a call ends it, and not the deadline of its route"
            await program.settled()
            if case.kept:
                assert program.client("hidden-name").statistics().pool.idle == len(faulty.connections) == 1
            else:
                await faulty.all_closed()
                assert program.client("hidden-name").statistics().pool.idle == 0
                assert len(faulty.connections) == 2
        await faulty.all_closed()
    assert_recorded(program, case.fault, replies, str(int(faulty)), str(int(steady)))
    assert open_sockets() == sockets


@pytest.mark.parametrize("case", [CASES[name] for name in ("drips its body", "503", "JSON 10,000 deep", "NUL")])
async def test_in_a_stream_a_fault_is_a_line_with_its_kind(case: Case, tmp_path: Path) -> None:
    async with raw_server(steadily) as steady, raw_server(case.script) as faulty:
        config = two_routes(steady, url(faulty), f'timeout = "{case.timeout}"')
        async with running(tmp_path, config) as program:
            reply, raw = await program.ask("/optional", headers=[("accept", "application/x-ndjson")])
    *parts, end = [json.loads(line) for line in reply.body.splitlines()]
    received = {} if case.fault.received is None else {"received_status": case.fault.received}
    assert sorted(parts, key=lambda part: part["call"]) == [
        {"call": "part", "failure": {"kind": case.fault.kind, "status": case.fault.status, **received}},
        {"call": "steady", "value": "steady"},
    ]
    assert end == {"end": True, "completed": False, "answer": {"steady": "steady", "part": None}}
    assert b"hidden" not in raw
    assert str(int(faulty)).encode() not in raw.replace(reply["x-request-id"].encode(), b"")
    assert [line["kind"] for line in program.lines("calls") if line["call"] == "part"] == [case.fault.kind]


class Right(NamedTuple):
    """An unusual response that is valid."""

    script: Handler
    value: object
    connections: int = 1
    """The number of connections for three calls, one after the other."""


def trailing(body: bytes) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\nSet-Cookie: session=stolen\r\nX-Part: stolen\r\n\r\n" % (len(body), body)


BOUNDED = f'max_body = "{MAX_BODY}B"'
MINE = response(b'"mine"')
THEIRS = response(b'"theirs"', b"Set-Cookie: session=theirs")

RIGHT: dict[str, Right] = {
    "204": Right(answering(b"HTTP/1.1 204 No Content\r\n\r\n"), None),
    "100 and 103 before the answer": Right(
        answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Part: early\r\n\r\n" + MINE), "mine"
    ),
    "HTTP/1.0 without a length": Right(answering(b'HTTP/1.0 200 OK\r\n\r\n"mine"', close=True), "mine", 3),
    "trailers with Set-Cookie": Right(answering(trailing(b'"mine"')), "mine"),
    "a second response behind the first": Right(answering(MINE + THEIRS), "mine", 3),
    "bytes behind the last chunk": Right(answering(trailing(b'"mine"') + THEIRS), "mine", 3),
    "more than its Content-Length": Right(answering(MINE + b"garbage"), "mine", 3),
    "exactly as much body as is allowed": Right(answering(response(b"%*d" % (MAX_BODY, 7))), 7),
    "gzip of exactly as much": Right(
        answering(response(gzip.compress(b"%*d" % (MAX_BODY, 7)), b"Content-Encoding: gzip")), 7
    ),
    "JSON that says to be text/html": Right(answering(response(b'"mine"', b"Content-Type: text/html")), "mine"),
}


@SERVERS
@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
async def test_an_unusual_and_valid_response_gives_its_value(case: Right, stock: bool, tmp_path: Path) -> None:
    async with raw_server(case.script) as upstream:
        forwarded = 'forward_headers = { part = ["x-part"] }\nforward_cookies = { part = ["session"] }'
        config = up(upstream, BOUNDED) + route(answer=forwarded)
        async with running(tmp_path, config, stock=stock) as program:
            for _ in range(3):
                reply, raw = await program.ask("/r")
                assert (reply.status, reply.json, reply["umbel-completed"]) == (200, {"part": case.value}, "true")
                assert not reply.all("set-cookie")
                assert not reply.all("x-part")
                assert b"stolen" not in raw
                assert b"theirs" not in raw
        assert len(upstream.connections) == case.connections
    assert [line["state"] for line in program.lines("calls")] == ["value"] * 3
    assert [line["completed"] for line in program.lines("access")] == [True] * 3


@SERVERS
@pytest.mark.parametrize("how", ["a FIN", "a reset"])
async def test_a_crossed_connection_is_replaced_except_for_post(how: str, stock: bool, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def one_answer_each(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(MINE)
        # The upstream closes the connection only when the next request is on its way.
        heads.append(await peer.read_head())
        if how == "a reset":
            peer.reset()

    async with raw_server(one_answer_each) as upstream:
        config = up(upstream) + route() + route("/post", call='method = "POST"')
        async with running(tmp_path, config, stock=stock) as program:
            replies = [(await program.ask(target))[0] for target in ("/r", "/post", "/r", "/r", "/r")]
            lost = replies.pop(1)
            assert [(reply.status, reply.json) for reply in replies] == [(200, {"part": "mine"})] * 4
            assert (lost.status, lost.json["calls"][0]["kind"]) == (502, Kind.RESET)
            assert lost["proxy-status"] == f'umbel;error={TERMINATED};next-hop="part"'
            await program.settled()
            assert program.client("up").statistics().pool.replaced == 2
        await upstream.all_closed()
        assert len(upstream.connections) == 4
    assert [head.split(b" ")[0] for head in heads].count(b"POST") == 1
    assert [line.get("kind") for line in program.lines("calls")] == [None, Kind.RESET, None, None, None]


@pytest.mark.parametrize("code", [b"301", b"303", b"308"])
async def test_a_redirect_is_neither_followed_nor_passed_on(code: bytes, tmp_path: Path) -> None:
    async with raw_server(answering(MINE)) as elsewhere:
        answer = response(b"", b"Location: " + url(elsewhere).encode(), status=code + b" Elsewhere")
        async with raw_server(answering(answer)) as upstream, running(tmp_path, up(upstream) + route()) as program:
            reply, raw = await program.ask("/r")
            assert reply.status == 502
            assert reply["proxy-status"] == f'umbel;received-status={code.decode()};next-hop="part"'
            assert b"location" not in raw.lower()
        assert elsewhere.connections == []


async def test_a_request_above_max_queue_gets_503_with_retry_after(tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        config = up(upstream, "max_concurrency = 1\nmax_queue = 0") + route(keys='deadline = "1s"')
        async with running(tmp_path, config) as program, trio.open_nursery() as nursery:
            nursery.start_soon(program.ask, "/r")
            while not program.client("up").statistics().bulkhead.in_flight:
                await trio.testing.wait_all_tasks_blocked(0.001)
            reply, _ = await program.ask("/r")
            assert (reply.status, reply["retry-after"]) == (503, "1")
            assert [call["kind"] for call in reply.json["calls"]] == [Kind.OVERFLOW]
        await upstream.all_closed()
    assert sorted(line["kind"] for line in program.lines("calls")) == [Kind.OVERFLOW, Kind.TIMEOUT]


@SERVERS
async def test_the_cookie_of_one_client_is_never_sent_for_another(stock: bool, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def personal(peer: Peer) -> None:
        while head := await peer.read_head():
            heads.append(head)
            number = len(heads)
            cookies = (b"Set-Cookie: session=%d; Path=/" % number, b"Set-Cookie: other=%d" % number)
            await peer.send(response(b"%d" % number, *cookies))

    async with raw_server(personal) as upstream:
        named = route(call='forward_cookies = ["user"]', answer='forward_cookies = { part = ["session"] }')
        config = up(upstream) + named + route("/bare")
        async with running(tmp_path, config, stock=stock) as program:
            first, _ = await program.ask("/r", headers=[("cookie", "user=ann; admin=1")])
            second, _ = await program.ask("/r")
            third, _ = await program.ask("/bare", headers=[("cookie", "user=bob")])
    assert len(upstream.connections) == 1
    assert first.all("set-cookie") == ["session=1; Path=/"]
    # No shared cache may store it for another client.
    assert first["cache-control"] == second["cache-control"] == "private"
    assert second.all("set-cookie") == ["session=2; Path=/"]
    assert third.all("set-cookie") == []
    sent = [[line for line in head.lower().split(b"\r\n") if line.startswith(b"cookie:")] for head in heads]
    assert sent == [[b"cookie: user=ann"], [], []]


@SERVERS
async def test_hop_by_hop_and_server_fields_of_an_upstream_reach_no_client(stock: bool, tmp_path: Path) -> None:
    fields = (
        b"Server: hidden/1.0",
        b"X-Powered-By: hidden",
        b"Via: 1.1 hidden",
        b"Connection: x-hop, keep-alive",
        b"X-Hop: hidden",
        b"Keep-Alive: timeout=5, hidden",
        b"Proxy-Authenticate: Basic realm=hidden",
        b"Upgrade: hidden",
        b"X-Good: good",
    )
    async with raw_server(answering(response(b"1", *fields))) as upstream:
        # Hop-by-hop fields are removed although ``forward_headers`` names one of them.
        names = '["x-hop", "x-good"]'
        config = up(upstream) + route(answer=f"forward_headers = {{ part = {names} }}")
        async with running(tmp_path, config, stock=stock) as program:
            reply, raw = await program.ask("/r")
    assert (reply.status, reply["x-good"]) == (200, "good")
    assert b"hidden" not in raw


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\0", b"\r\n "], ids=repr)
async def test_a_line_end_within_an_upstreams_field_begins_no_field(end: bytes, tmp_path: Path) -> None:
    answer = response(b"1", b"X-Part: a" + end + b"Set-Cookie: admin=1")
    async with raw_server(answering(answer)) as upstream:
        config = up(upstream) + route(answer='forward_headers = { part = ["x-part"] }')
        async with running(tmp_path, config) as program:
            reply, raw = await program.ask("/r")
    assert (reply.status, reply.json["calls"][0]["kind"]) == (502, Kind.MALFORMED)
    assert b"admin" not in raw
