"""Every refusal in the source has the fields for browsers: those of the gateway, of the server, and each failure kind.

The refusals are read from the source (``tests/support/source/refusals.py``). A test fails for a refusal that its table
does not provoke, so that a new one gets a row.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trio
from quart import websocket

from tests.support.server.asgi import Answer, ask, living
from tests.support.server.h2_connections import h2_connected
from tests.support.server.http1 import Server, served
from tests.support.server.raw_requests import CASES
from tests.support.source.refusals import refusals_in
from tests.unit.gateway.gateways import gateway, route, says
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import CUT, KINDS, Kind
from umbel.gateway.app import Umbel
from umbel.server.shutdown import drain, leave

MockClock = trio.testing.MockClock
APP = "https://app.example"
ORIGIN = ("origin", APP)
CORS = {"cors": {"origins": [APP], "credentials": True}}
SAID = {
    "access-control-allow-origin": APP,
    "access-control-allow-credentials": "true",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""The fields of each response to a page of ``APP``."""
JSON, FORM = ("content-type", "application/json"), ("content-type", "application/x-www-form-urlencoded")
BAD_TARGETS = (
    *("x", "/a\\b", "/a\x7fb", "/%zz", "/a%2fb", "/../x", "/%ff", "/r?a\x7f"),
    "http://other.test/r",
)
ROUTES = [
    route("/r"),
    route("/typed", query={"n": {"type": "int", "required": True}, "l": {"type": "list[int]", "default": []}}),
    route("/json", methods=["POST"], max_body="1KB", answer={"shape": "{got: body}"}),
    route("/form", methods=["POST"], body="form", answer={"shape": "{got: body}"}),
    {"path": "/late", "respond": {"text": "late", "delay": "1s"}},
    {"path": "/old/<n>", "redirect": {"to": "/new/{headers.x_to}"}},
    {
        "path": "/passed/<path:rest>",
        "proxy": {"upstream": "up", "max_body": "1KB", "websocket": {"origins": ["https://other.example"]}},
    },
    {"path": "/passed/own/<path:rest>", "respond": {"text": "own"}},
    {
        "path": "/split",
        "max_steps": 1,
        "proxy": {"upstream": "up", "split": {"new": "50%"}, "split_key": "headers.x_a || headers.x_b"},
    },
]


def check_fields(headers: Iterable[tuple[str, str]]) -> None:
    """Check the fields of a response to a page of ``APP``: each is there once, and Vary names Origin."""
    pairs = list(headers)
    for name, value in SAID.items():
        assert [each for key, each in pairs if key == name] == [value], name
    vary = ", ".join(value for key, value in pairs if key == "vary").lower().split(", ")
    assert vary.count("origin") == 1


def missing(refusals: dict[str, str], details: Iterable[str], never: Iterable[str] = ()) -> dict[str, str]:
    """Return the refusals that none of ``details`` is an example of, except those in ``never``."""
    seen = list(details)
    return {
        pattern: place
        for pattern, place in refusals.items()
        if pattern not in never and not any(re.fullmatch(pattern, each, re.DOTALL) for each in seen)
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CUT])
async def test_the_problem_of_each_failure_kind_has_the_fields(kind: Kind, autojump_clock: MockClock) -> None:
    fault = type("Fault", (UpstreamError,), {"kind": kind})

    def fails(request: httpx.Request) -> httpx.Response:
        raise fault("a failure of the test")

    app, records = gateway(route(), route("/stream", stream=True), sections=CORS, up=fails)
    async with living(app):
        for target in ("/r", "/stream"):
            answer = await ask(app, target=target, headers=[ORIGIN])
            assert answer.status == KINDS[kind].status
            check_fields(answer.headers)
    assert {record.kind for record in records.requests} == {kind}


def _asked() -> list[tuple[str, str, bytes, tuple[tuple[str, str], ...]]]:
    """Return requests that the gateway refuses: method, target, body and fields."""
    long, bomb = ("content-type", "a/" + "b" * 2000), gzip.compress(bytes(500_000))
    coded = ("content-encoding", "gzip")
    return [
        *(("GET", target, b"", ()) for target in BAD_TARGETS),
        ("GET", "/r", b"", (("host", "a..b"),)),
        *(("GET", f"/typed{query}", b"", ()) for query in ("", "?n=x", "?n=1&l=x", "?n=%ff")),
        ("POST", "/json", b"{}", (JSON, ("content-encoding", "compress"))),
        ("POST", "/json", b"x" * 2000, (JSON,)),
        ("POST", "/passed/a", b"x" * 2000, (("content-length", "2000"),)),
        ("GET", "/split", b"", ()),
        ("GET", "/passed/own//x", b"", ()),
        ("GET", "/r", b"", (("if-match", '"x"'),)),
        ("POST", "/json", b"{}", (JSON, ("if-match", '"x"'))),
        ("POST", "/form", bomb, (FORM, coded)),
        ("POST", "/json", b"{}", (long,)),
        ("POST", "/json", b"{}", (("content-type", "text/plain"),)),
        ("POST", "/json", gzip.compress(b"{}")[:-9], (JSON, coded)),
        ("POST", "/json", b"{} is not gzip at all", (JSON, coded)),
        ("POST", "/json", b"{", (JSON,)),
        ("POST", "/json", b"", (JSON,)),
        ("POST", "/form", b"%" * 2000, (FORM,)),
        ("POST", "/form", b"a&" * 2000, (FORM,)),
        ("POST", "/form", b"a=%ff", (FORM,)),
        ("GET", "/old/1", b"", ()),
        ("GET", "/late", b"", (("x-envoy-upstream-rq-timeout-ms", "100"),)),
    ]


OF_OTHERS = {
    # Refusals that test_each_refusal_of_the_server_has_the_fields provokes, or that have no text of their own.
    "<NOT_ADMITTED.detail>": "one of the server, which another server leaves to the gateway",
    "<_sentence(error)>": "the values of a redirect, of which /old/1 has one",
    r"The\ path\ begins\ with\ more\ than\ one\ slash\.": "a handshake",
    r"The\ request\ failed\ inside\ the\ gateway\.": "a handshake",
    r"The\ opening\ handshake\ of\ a\ WebSocket\ has\ no\ body\.": "a handshake",
    r"A\ page\ of\ this\ origin\ may\ not\ open\ this\ WebSocket\.": "a handshake",
    r"This\ path\ passes\ no\ WebSocket\ connections\ on\.": "a handshake",
    r"The\ gateway\ has\ as\ many\ streams\ as\ it\ can\.": "a handshake",
    "<refusal.detail>": "a handshake that the server would refuse with the same words",
    r"A\ query\ parameter\ or\ a\ cookie\ that\ decides\ about\ access\ is\ given\ more\ than\ once\.": (
        "a route with auth; tests/unit/gateway/access has refusals with the fields"
    ),
}


async def test_each_refusal_of_the_gateway_has_the_fields(autojump_clock: MockClock) -> None:
    app, _ = gateway(*ROUTES, sections=CORS, up=says(1), new=says(1))
    answers: list[Answer] = [await ask(app, target="/r", headers=[ORIGIN])]  # Before the startup.
    async with living(app):
        for method, target, body, fields in _asked():
            answers.append(await ask(app, method, target, body=body, headers=[ORIGIN, *fields]))
    for answer in answers:
        assert answer.status is not None and answer.status >= 400, answer.body
        check_fields(answer.headers)
    assert answers[-2].status == 400  # /old/1
    details = [json.loads(answer.body)["detail"] for answer in answers]
    assert missing(refusals_in("gateway", "RequestError"), details, OF_OTHERS) == {}


# The server.

WITHOUT_HEAD = (
    *("The head did not", "More than", "A header field continues", "The name of a header field is malformed"),
    "The value of a header field has a control character, or a line",
    *("The request line", "The HTTP version", "The request is not HTTP"),
)
"""The beginnings of the details of HTTP/1.1 that refuse a head which could not be read."""
NEVER_SENT = {
    "<error.detail>": "a copy of an error response that was sent",
    r"the\ response\ was\ cut\ off\ before\ its\ end": "for a record only",
    r"The\ head\ is\ malformed\.": "no head is known that only llhttp refuses",
    r"The\ connection\ breaks\ a\ rule\ of\ HTTP/2:\ .*": "for a record only",
}
HEAD = b"Host: gateway.test\r\nOrigin: " + APP.encode()
POST = b"POST /json HTTP/1.1\r\n" + HEAD + b"\r\nContent-Type: application/json\r\n"
UPLOAD = POST + b"Content-Length: 200\r\n\r\n{"
HANG = b"GET /hang HTTP/1.1\r\n" + HEAD + b"\r\n\r\n"
HANDSHAKE = {
    b"Upgrade": b"websocket",
    b"Connection": b"upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
}


def handshake(path: bytes = b"/ws", **changed: bytes) -> bytes:
    """Return an opening handshake; ``changed`` are fields of it, or further ones, with ``_`` for ``-``."""
    fields = HANDSHAKE | {b"Sec-WebSocket-" + name.encode(): value for name, value in changed.items()}
    lines = b"".join(b"%b: %b\r\n" % field for field in fields.items())
    return b"GET " + path + b" HTTP/1.1\r\n" + HEAD + b"\r\n" + lines + b"\r\n"


def application(**server: Any) -> Umbel:
    app, _ = gateway(*ROUTES, server=server, sections=CORS, up=says(1), new=says(1))

    @app.compose("/hang", deadline=None)
    async def hang(compose: Any) -> None:
        await trio.sleep_forever()

    @app.websocket("/ws")
    async def ws() -> None:
        raise RuntimeError("a crash of the test")

    @app.websocket("/closed")
    async def closed() -> None:
        await websocket.close(1000)

    @app.websocket("/open")
    async def opened() -> None:
        await websocket.receive()

    return app


async def exchange(server: Server, *sent: bytes) -> bytes:
    """Send parts on a connection, with pauses, and return all that comes until the server ends it."""
    received = b""
    async with server.connected() as client:
        with suppress(trio.BrokenResourceError):
            for part in sent:
                await client.stream.send_all(part)
                await trio.sleep(0.01)
            with trio.move_on_after(200):
                while data := await client.stream.receive_some():
                    received += data
    return received


class Refusals:
    """The refusals that were received, by their details."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def take(self, received: bytes, *, head_was_read: bool | None = None) -> None:
        """Check the first final response of HTTP/1.1, if it is a refusal; ``head_was_read``: as in ``check``."""
        for response in re.split(rb"(?=HTTP/1\.1 [2-5])", received)[1:2]:
            head, _, body = response.partition(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")
            fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            if int(status.split()[1]) >= 400:
                self.check(fields, body, head_was_read=head_was_read)

    def check(self, fields: list[tuple[str, str]], body: bytes, *, head_was_read: bool | None = True) -> None:
        """Check the fields of one refusal. ``head_was_read``: None: its detail decides."""
        detail = json.loads(body)["detail"] if body.startswith(b"{") else ""
        self.details.append(detail)
        if head_was_read is None:
            head_was_read = not detail.startswith(WITHOUT_HEAD)
        if head_was_read:
            check_fields(fields)
        else:
            said = dict(fields)
            assert [name for name in said if name.startswith("access-control-")] == [], detail
            assert (said["vary"], said["x-content-type-options"]) == ("Origin", "nosniff"), detail


async def _refused_heads_and_bodies(seen: Refusals) -> None:
    app = application(hosts=["gateway.test", "127.0.0.1", "localhost"])
    async with living(app), served(app, limits=app.limits) as server:
        for case in CASES.values():
            # With Origin before the first field. This may change the case, but hardly the refusal.
            line, end, rest = case.sent.replace(b"/echo", b"/json", 1).partition(b"\r\n")
            sent = line + end + b"Origin: " + APP.encode() + b"\r\n" + rest if end else line
            # A target over 16 KiB is refused before its fields are read.
            seen.take(await exchange(server, sent), head_was_read=None if len(line) < 16 * 1024 else False)
        seen.take(await exchange(server, b"\r\n", b"\r\n" * 20))
        seen.take(await exchange(server, b"GET / HTTP/1.1\r\n"))
        seen.take(await exchange(server, HANG.replace(b"/hang", b"/\1")))
        seen.take(await exchange(server, UPLOAD))
        seen.take(await exchange(server, HANG.replace(b"gateway.test", b"other.test")))
        for sent in (
            *(handshake(), handshake(b"//ws"), handshake(b"/closed"), handshake(Version=b"12"), handshake(Key=b"x")),
            *(handshake(Protocol=b"a, a"), handshake(Extensions=b";"), handshake(Protocol=b"\xff")),
            *(handshake(b"/passed/a"), handshake(b"/passed/a", Version=b"12"), handshake(b"/split")),
            handshake(b"/passed/a").replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
        ):
            seen.take(await exchange(server, sent))


async def _refused_for_want_of_room(seen: Refusals) -> None:
    for limit, first, second in (
        ("max_in_flight", HANG, HANG),
        ("max_uploads", UPLOAD, UPLOAD),
        ("max_connections", HANG, HANG),
        ("max_streams", handshake(b"/open"), handshake(b"/open")),
    ):
        app = application(**{limit: 1}, body_timeout="100s")
        async with living(app), served(app, limits=app.limits) as server, server.connected() as client:
            await client.stream.send_all(first)
            await trio.sleep(0.1)
            seen.take(await exchange(server, second))
    for keys in ({"memory_limit": "1KiB"}, {"deny_networks": ["unix"]}):
        app = application(**keys)
        async with living(app), served(app, limits=app.limits) as server:
            seen.take(await exchange(server, HANG))


async def _failed_or_stopped(seen: Refusals) -> None:
    app = application()

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a crash of the test")

    async with living(app), served(app) as server:
        app.asgi_app = broken  # type: ignore[method-assign]
        seen.take(await exchange(server, HANG))
        seen.take(await exchange(server, handshake()))
    app = application()
    async with living(app), served(app, graceful_timeout=4) as server, server.connected() as client:
        await client.stream.send_all(HANG)
        await trio.sleep(0.1)
        await leave(server.state)
        await drain(server.state, lambda: server.nursery.cancel_scope.cancel(reason="late"))
        with trio.CancelScope(shield=True):
            seen.take(await client.stream.receive_some())


H2_HEADS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [(f"x-{number}", "") for number in range(101)]),
    ({":path": "/" + "x" * 9000}, []),
    ({}, [("x-long", "v" * 16384)]),
    ({":method": "G(T"}, []),
    ({":method": "CONNECT", ":path": None, ":scheme": None}, []),
    ({":path": "x"}, []),
    ({":authority": None}, [("host", "gateway.test"), ("host", "gateway.test")]),
    ({}, [("host", "other.test")]),
    ({}, [("host", "gateway.test"), ("host", "gateway.test")]),
    ({}, [("Upper", "x")]),
    ({}, [("x_under", "score")]),
    ({}, [("expect", "magic")]),
    ({":method": "CONNECT", ":protocol": "websocket"}, []),
]


async def _refused_over_http_2(seen: Refusals) -> None:
    app = application(hosts=["gateway.test"])
    async with living(app):
        for pseudo, fields in H2_HEADS:
            async with h2_connected(None, app.limits, app=app) as here:
                stream = await here.client.request(headers=[ORIGIN, *fields], **pseudo)
                answer = await here.client.answer(stream)
                seen.check(answer.headers, answer.body)


async def test_each_refusal_of_the_server_has_the_fields(autojump_clock: MockClock) -> None:
    seen = Refusals()
    await _refused_heads_and_bodies(seen)
    await _refused_for_want_of_room(seen)
    await _failed_or_stopped(seen)
    await _refused_over_http_2(seen)
    assert missing(refusals_in("server", "ErrorResponse"), seen.details, NEVER_SENT) == {}
