"""Requests of hostile clients through a proxy route: the upstream gets each accepted one once, and as it was framed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import h11
import pytest
import trio

from tests.support.gateway.proxies import proxied
from tests.support.server.h2_client import Answer, H2Client, h2_client
from tests.support.server.raw_client import converse
from tests.support.server.raw_requests import CASES, MAX_BODY, TABLES, Case
from tests.support.server.raw_requests.case import CLOSE, get, post, served
from tests.support.upstream.strict_upstream import Arrived, StrictUpstream

HOOKS = pytest.mark.parametrize("hooks", ["auto", "all"])
OPTIONS = {"max_body": f"{MAX_BODY}B", "server": {"hosts": ["gateway.test"]}}
INNER = b"GET /inner HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
"""A request as the body of another one."""
_COUNTED = b"Content-Length: %d" % len(INNER)
_CHUNKED = b"Transfer-Encoding: chunked"
_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)

ALSO: dict[str, Case] = {
    "a request in a body of known length": served(post(_COUNTED, body=INNER)),
    "a request in a chunk": served(post(_CHUNKED, body=_CHUNKS)),
    "a request in the body of a GET": served(get(_COUNTED) + INNER),
    "a request in a chunk of a GET": served(get(_CHUNKED) + _CHUNKS),
    "Content-Length named by Connection": served(post(b"Connection: content-length", _COUNTED, body=INNER)),
    "Transfer-Encoding named by Connection": served(post(b"Connection: Transfer-Encoding", _CHUNKED, body=_CHUNKS)),
    "Host named by Connection": served(get(b"Connection: host")),
    "a body behind an upgrade to h2c": served(
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", _COUNTED, body=INNER)
    ),
    "a length of zero before another request": Case(post(b"Content-Length: 0") + get(CLOSE), (200, 200)),
    "a trailer that names the framing": served(
        post(_CHUNKED, body=b"2\r\n{}\r\n0\r\nContent-Length: 50\r\nHost: evil.test\r\n\r\n")
    ),
    "bodies and requests in turn": Case(
        post(_COUNTED, body=INNER) + get() + post(_CHUNKED, body=_CHUNKS) + get(CLOSE), (200, 200, 200, 200)
    ),
}
"""Cases that matter to a gateway alone."""
OF_ROUTE = frozenset({204, 404, 405})
"""Statuses of the tables that a route gives; a proxy route for all paths and methods passes these requests on."""


class Told(NamedTuple):
    """A request as h11 reads it from the client's bytes."""

    method: bytes
    target: bytes
    body: bytes


def expected_statuses(name: str, case: Case) -> list[int]:
    if name == "length: a length of zero":
        return [200, 200]
    if name.startswith("chunk: ") and case.answers == (413,):
        return [413, 200]  # The limit is the route's: the rest of a body that is not too large is read and dropped.
    return [200 if status in OF_ROUTE else status for status in case.answers]


def told(sent: bytes, statuses: list[int]) -> list[Told]:
    """What h11 reads from the client's bytes: the requests that get 200 from the upstream."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    connection.receive_data(sent.lstrip().replace(b"\xff", b"%FF"))
    requests = []
    for status in statuses:
        if status != 200:
            break
        head = connection.next_event()
        assert isinstance(head, h11.Request)
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        target = head.target.removeprefix(b"http://gateway.test")
        if target != b"/livez":
            requests.append(Told(head.method, target, body))
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
    return requests


def arrived(requests: Iterable[Arrived]) -> list[Told]:
    return [Told(*each[:3]) for each in requests]


@pytest.mark.parametrize(
    ("table", "hooks"),
    [
        *((table, "auto") for table in (*TABLES, "gateway")),
        *((table, "all") for table in ("length", "coding", "chunk", "path", "pipeline", "gateway")),
    ],
)
async def test_each_accepted_request_arrives_once_and_as_it_was_framed(table: str, hooks: str) -> None:
    cases = ALSO if table == "gateway" else {k: v for k, v in CASES.items() if k.startswith(f"{table}: ")}
    upstream = StrictUpstream()
    expected: list[Told] = []
    async with proxied(upstream, hooks=hooks, **OPTIONS) as it:
        for name, case in cases.items():
            statuses = expected_statuses(name, case)
            heard = await converse(it.port, case.sent, half_close=name == "length: a length over the limit")
            assert (heard.statuses, heard.rest) == (statuses, b""), name
            expected += told(case.sent, statuses)
            if hooks == "all":  # ASGI does not tell an empty query from none.
                expected = [each._replace(target=each.target.removesuffix(b"?")) for each in expected]
            assert arrived(upstream.requests) == expected, name
            assert not upstream.faults, name
    assert arrived(upstream.requests) == expected
    assert not upstream.faults
    for each in upstream.requests:
        names = {name for name, _ in each.fields}
        assert not names & {b"connection", b"keep-alive", b"upgrade", b"http2-settings", b"te", b"trailer"}
        assert each.all(b"host") == [b"127.0.0.1:%d" % int(it.upstream)]


Fields = list[tuple[str | bytes, str | bytes]]


class Frames(NamedTuple):
    """A request over HTTP/2, and whether the server accepts it."""

    fields: Fields
    body: bytes | None = None
    accepted: bool = False
    pseudo: Mapping[str, str | bytes | None] = MappingProxyType({})


_LENGTH = str(len(INNER))
FORBIDDEN: dict[str, Fields] = {
    "connection": [("connection", "close")],
    "keep-alive": [("keep-alive", "timeout=5")],
    "proxy-connection": [("proxy-connection", "keep-alive")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "upgrade": [("upgrade", "h2c")],
    "te other than trailers": [("te", "gzip")],
    "a name in capitals": [("X-Own", "1")],
    "a length in capitals": [("Content-Length", _LENGTH)],
    "CR LF in a value": [("x-own", b"1\r\ntransfer-encoding: chunked")],
    "LF in a value": [("x-own", b"1\ncontent-length: 0")],
    "CR in a value": [("x-own", b"1\rx: 2")],
    "NUL in a value": [("x-own", b"1\0")],
    "a request in a value": [("x-own", b"1\r\n\r\nGET /inner HTTP/1.1\r\nHost: gateway.test\r\n\r\n")],
    "a space before a value": [("x-own", b" 1")],
    "CR LF in a name": [(b"x-own: 1\r\ntransfer-encoding", "chunked")],
    "a colon in a name": [(b"transfer-encoding:chunked", "1")],
    "a space in a name": [(b"transfer-encoding ", "chunked")],
    "an empty name": [(b"", "1")],
    "an underscore in a name": [("content_length", "0")],
    "a name that is not ASCII": [(b"x-\xff", "1")],
    "two lengths that differ": [("content-length", _LENGTH), ("content-length", "0")],
    "a length as a list": [("content-length", f"{_LENGTH}, {_LENGTH}")],
    "a signed length": [("content-length", f"+{_LENGTH}")],
    "a length in hex": [("content-length", hex(len(INNER)))],
    "a length below the body's": [("content-length", "5")],
    "a length of zero before a body": [("content-length", "0")],
    "a length above the body's": [("content-length", "500")],
    "a length over the limit": [("content-length", str(MAX_BODY + 1))],
    "another Host": [("host", "evil.test")],
    "a pseudo-field behind": [(":path", "/inner")],
    "an unknown pseudo-field": [(":own", "1")],
    "one field over 16 KiB": [("x-own", "x" * 17_000)],
    "fields over 16 KiB": [(f"x-{n}", "x" * 800) for n in range(21)],
    "101 fields": [(f"x-{n}", "1") for n in range(101)],
}
PSEUDO: dict[str, dict[str, str | bytes | None]] = {
    "CR LF in the path": {":path": b"/ HTTP/1.1\r\nx: 1\r\n\r\nGET /inner"},
    "a space in the path": {":path": b"/a b"},
    "a path without a slash": {":path": "inner"},
    "an absolute path": {":path": "http://evil.test/inner"},
    "an asterisk with POST": {":path": "*"},
    "an empty path": {":path": ""},
    "no path": {":path": None},
    "CR LF in the method": {":method": b"GET / HTTP/1.1\r\nx: 1\r\n\r\nGET"},
    "a space in the method": {":method": b"GET /inner"},
    "CONNECT": {":method": "CONNECT"},
    "CR LF in the authority": {":authority": b"gateway.test\r\ntransfer-encoding: chunked"},
    "user information in the authority": {":authority": "user@gateway.test"},
    "another authority": {":authority": "evil.test"},
    "no authority": {":authority": None},
}
FINE: dict[str, Frames] = {
    "no body": Frames([], None, accepted=True),
    "a body without a length": Frames([], INNER, accepted=True),
    "a body with its length": Frames([("content-length", _LENGTH)], INNER, accepted=True),
    "a body like the end of chunks": Frames([], b"0\r\n\r\n" + INNER, accepted=True),
    "a length of zero and no body": Frames([("content-length", "0")], None, accepted=True),
    "an empty body without a length": Frames([], b"", accepted=True),
    "te: trailers": Frames([("te", "trailers")], INNER, accepted=True),
    "another scheme": Frames([], INNER, accepted=False, pseudo={":scheme": "ftp"}),
    "cookies in pieces": Frames([("cookie", "a=1"), ("cookie", "b=2")], None, accepted=True),
    "bytes over 0x7f in a value": Frames([("x-own", b"caf\xe9")], None, accepted=True),
}
OVER_HTTP2: dict[str, Frames] = {
    **{name: Frames(fields, INNER) for name, fields in FORBIDDEN.items()},
    **{name: Frames([], INNER, pseudo=pseudo) for name, pseudo in PSEUDO.items()},
    **FINE,
}


async def ask_over_http2(client: H2Client, case: Frames) -> Answer:
    """Send one request whole, and wait for its response, or for the end of its stream or of the connection."""
    pseudo = {":method": "POST", ":path": "/x", **case.pseudo}
    stream = await client.request("", "", case.fields, end=case.body is None, **pseudo)
    if case.body is not None:
        await client.data(stream, case.body, end=True)
    return await client.answer(stream)


@HOOKS
async def test_each_accepted_request_over_http2_arrives_once_and_as_it_was_framed(hooks: str) -> None:
    upstream = StrictUpstream()
    expected: list[Told] = []
    async with proxied(upstream, hooks=hooks, **OPTIONS) as it:
        for name, case in OVER_HTTP2.items():
            async with h2_client(it.port) as client:
                with trio.fail_after(5):
                    answer = await ask_over_http2(client, case)
            if case.accepted:
                assert answer.status == 200, name
                expected.append(Told(b"POST", b"/x", case.body or b""))
            else:
                assert answer.status >= 400 or answer.reset is not None or client.closed, name
            assert arrived(upstream.requests) == expected, name
            assert not upstream.faults, name
    assert arrived(upstream.requests) == expected
    assert not upstream.faults
    assert [each.all(b"cookie") for each in upstream.requests if each.all(b"cookie")] == [[b"a=1; b=2"]]
    assert {each.all(b"host")[0] for each in upstream.requests} == {b"127.0.0.1:%d" % int(it.upstream)}


@HOOKS
async def test_a_request_behind_an_early_answer_never_meets_the_rest_of_a_body(hooks: str) -> None:
    """The upstream answers before the body is complete. The client goes on with the body and another request."""

    upstream, size = StrictUpstream(early=True), 200_000
    body = (INNER * size)[:size]
    async with proxied(upstream, hooks=hooks) as it:
        heard = await converse(it.port, post(b"Content-Length: %d" % size, body=b""), body, get(CLOSE))

    assert heard.statuses in ([200], [200, 200])
    assert not upstream.faults
    got, whole = arrived(upstream.requests), [Told(b"POST", b"/echo", body), Told(b"GET", b"/r", b"")]
    assert got == [each for each in whole if each in got]
