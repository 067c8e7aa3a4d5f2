"""Each way to answer a request gives the same: status, fields and their order, body, records and what is bound then."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import pytest
import trio

from tests.support import asgi
from tests.support.asgi import Answer, Conversation, http_scope, living
from umbel.config.schema import Config
from umbel.events import Event, Noted
from umbel.gateway import ids
from umbel.gateway.app import Umbel
from umbel.logs import context

from .gateways import Function

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Case(NamedTuple):
    """One request."""

    method: str
    target: str | bytes
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes, ...] = (b"",)
    """Of the body; None at the end: it never ends."""
    ends: bool = True
    leaves_after: float | None = None
    """Seconds after which the client leaves."""
    client: tuple[str, int] | None = ("127.0.0.1", 4000)
    outside: bool = False
    """Whether the application does not serve."""


def get(target: str | bytes, *headers: tuple[str, str], **more: Any) -> Case:
    return Case("GET", target, headers, **more)


def post(target: str, *parts: bytes, media: str = "application/json", **more: Any) -> Case:
    headers = (("content-type", media), *more.pop("headers", ()))
    return Case("POST", target, headers, parts or (b"",), **more)


def calls(path: str = "/fast", **more: Any) -> dict[str, Any]:
    return {"part": {"upstream": "up", "path": path, **more}}


TWO = {**calls(), "late": {"upstream": "up", "path": "/slow", "optional": True}}
ROUTES: list[dict[str, Any]] = [
    {"path": "/r", "calls": calls()},
    {"path": "/slash/", "calls": calls()},
    {"path": "/int/<int:n>", "calls": calls(), "answer": {"shape": "path.n"}},
    {"path": "/float/<float:n>", "calls": calls(), "answer": {"shape": "path"}},
    {"path": "/uuid/<uuid:n>", "calls": calls(), "answer": {"shape": "path"}},
    {"path": "/any/<any(one,two):n>", "calls": calls(), "answer": {"shape": "path"}},
    {"path": "/text/<n>", "calls": calls(), "answer": {"shape": "path"}},
    {"path": "/path/<path:n>", "calls": calls(), "answer": {"shape": "path"}},
    {"path": "/two", "calls": TWO, "deadline": "1s"},
    {"path": "/slow", "calls": calls("/slow"), "deadline": "1s"},
    {"path": "/wrong", "calls": calls("/wrong")},
    {"path": "/busy", "calls": calls("/busy", pass_body=True, ok=[200])},
    {"path": "/crash", "calls": calls("/crash")},
    {"path": "/optional", "calls": {**calls(), "w": {"upstream": "up", "path": "/wrong", "optional": True}}},
    {"path": "/query", "calls": calls(), "query": {"n": {"type": "int", "required": True}}},
    {"path": "/json", "calls": calls(json="{got: body}"), "max_body": "1KB", "deadline": "2s"},
    {"path": "/form", "calls": calls(json="{got: body}"), "body": "form"},
    {"path": "/bytes", "calls": calls(forward_body=True, method="PUT"), "body": "bytes"},
    {"path": "/unread", "calls": calls(), "methods": ["POST", "GET"]},
    {"path": "/unread-slow", "calls": calls("/slow"), "methods": ["POST"]},
    {"path": "/forward", "calls": calls(forward_cookies=["s"], forward_headers=["x-tenant"]), "answer": {
        "forward_headers": {"part": ["x-part"]},
        "forward_cookies": {"part": ["c"]},
        "headers": {"x-own": "{n}"},
    }, "query": {"n": {"type": "str", "default": "d"}}},
    {"path": "/empty", "calls": calls(), "answer": {"status": 204, "headers": {"x-own": "e"}}},
    {"path": "/reset", "calls": calls(), "answer": {"status": 205}},
    {"path": "/created", "calls": calls(), "answer": {"status": 201, "cache_control": "max-age=5"}},
    {"path": "/parts", "calls": calls("/cached"), "answer": {"cache_control": "parts"}},
    {"path": "/none", "calls": calls(), "expose": "none"},
    {"path": "/krakend", "calls": calls(), "krakend_compat": True, "expose": "completed"},
    {"path": "/stream", "calls": TWO, "stream": True, "deadline": "30s"},
    {"path": "/stream-crash", "calls": calls("/crash"), "stream": True},
    {"path": "/badshape", "calls": calls(), "answer": {"shape": "sum(`[1e308, 1e308]`)"}},
]  # fmt: skip

JSON_LENGTH = (("content-length", "9"),)
CASES: list[Case] = [
    get("/r"),
    Case("HEAD", "/r"),
    Case("OPTIONS", "/r"),
    Case("DELETE", "/r"),
    Case("BREW", "/r"),
    get("/r?a=1&b"),
    get("/r?a=%ff"),
    get(b"/r?a=\xff"),
    get("/r?a b"),
    get("//r"),
    get("/r/"),
    get("/slash"),
    get("/slash/"),
    get("/slash//"),
    get("//slash//"),
    get("/nowhere"),
    get("/int/7"),
    get("/int/07"),
    get("/int/-7"),
    get("/int/x"),
    get("/float/1.5"),
    get("/float/1"),
    get("/uuid/12345678-1234-5678-1234-567812345678"),
    get("/uuid/x"),
    get("/any/one"),
    get("/any/three"),
    get("/text/caf%C3%A9%20%25"),
    get(b"/text/\xc3\xa9"),
    get("/text/a%2Fb"),
    get("/text/a%00b"),
    get("/text/."),
    get("/text/%2e%2e"),
    get("/text/a;b=c,d:e@f"),
    get("/path/a/b/c"),
    get("/path/a//b"),
    get("/path/"),
    get("http://gateway.test/r"),
    get("/livez"),
    get("/readyz"),
    get("/two"),
    get("/slow"),
    get("/slow", ("prefer", "wait=0"), ("x-envoy-upstream-rq-timeout-ms", "500")),
    get("/stream", ("prefer", "wait=2")),
    get("/wrong"),
    get("/busy"),
    get("/crash"),
    get("/optional"),
    get("/query?n=5&n=6"),
    get("/query?n=five"),
    get("/query"),
    post("/json", b'{"a": 1}'),
    post("/json", b'{"a', b'": 1}'),
    post("/json", b'{"a": 1}', media="application/merge-patch+json; charset=UTF-8"),
    post("/json", b'{"a": 1}', media="text/plain"),
    post("/json", b'{"a": 1}', headers=(("content-encoding", "gzip"),)),
    post("/json", b""),
    post("/json", b"{"),
    post("/json", b" " * 600, b" " * 600),
    post("/json", b" " * 3_000_000),
    post("/json", headers=(("content-length", "5000"),), ends=False),
    post("/json", b"{", ends=False),
    post("/json", b"{", ends=False, leaves_after=0.5),
    post("/json", ends=False, leaves_after=0.0),
    post("/form", b"a=1&a=2&c=%C3%A9", media="application/x-www-form-urlencoded"),
    post("/form", b"a=%ff", media="application/x-www-form-urlencoded"),
    post("/bytes", b"\0\xff", media="image/odd"),
    post("/unread", b"whatever", headers=(("content-length", "8"),)),
    post("/unread", b"what", ends=False, headers=(("content-length", "8"),)),
    post("/unread"),
    get("/forward", ("cookie", "s=1; t=2"), ("cookie", "u=3"), ("x-tenant", "a"), ("x-tenant", "b")),
    get("/forward?n=x", ("if-none-match", '"part"')),
    get("/empty"),
    get("/reset"),
    get("/created"),
    get("/parts"),
    get("/none"),
    get("/krakend"),
    get("/r", ("if-none-match", "*")),
    Case("HEAD", "/r", (("if-none-match", "*"),)),
    get("/r", ("if-none-match", '"other"'), ("if-none-match", 'W/"more"')),
    get("/stream"),
    Case("HEAD", "/stream"),
    get("/r", ("accept", "text/event-stream")),
    get("/r", ("accept", "application/json;q=1"), ("accept", "application/x-ndjson;q=0.5")),
    get("/two", ("accept", "text/event-stream")),
    get("/wrong", ("accept", "text/event-stream")),
    get("/stream-crash"),
    get("/badshape"),
    get("/r", ("host", "a..b")),
    get("/r", ("host", "x" * 64)),
    get("/r", ("host", "[::1]:8000")),
    get("/r", ("host", "")),
    get("/r", ("host", "\xff")),
    get("/r", client=None),
    get("/r", ("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "h")),
    get("/r", ("x-forwarded-for", "1.2.3.4"), client=("192.0.2.1", 1)),
    get("/r", ("via", "1.0 fred"), ("tracestate", "a=1")),
    get("/slow", leaves_after=0.0),
    get("/slow", leaves_after=0.5),
    get("/stream", leaves_after=0.5),
    post("/unread-slow", b"", leaves_after=0.5),
    post("/unread-slow", b"what", headers=(("content-length", "8"),), ends=False, leaves_after=0.5),
    get("/r", outside=True),
]


async def upstream(request: httpx.Request) -> httpx.Response:
    path = request.extensions["target"].decode()
    if path == "/slow":
        await trio.sleep(3)
    if path == "/crash":
        raise LookupError("a crash of a layer")
    headers = [
        ("content-type", "application/json"),
        ("x-part", "1"),
        ("x-part", "2"),
        ("etag", '"part"'),
        ("vary", "x"),
    ]
    headers += [("set-cookie", "c=1"), ("set-cookie", "d=2")]
    if path == "/cached":
        headers.append(("cache-control", "max-age=60"))
    if path == "/busy":
        return httpx.Response(429, content=b"busy", headers=[("content-type", "text/x"), ("retry-after", "7")])
    sent = {"fields": sorted((n, v) for n, v in request.headers.items() if n not in ("traceparent", "host"))}
    sent["body"] = request.content.decode("latin-1")
    sent["bound"] = dict(context.current().fields)
    return httpx.Response(500 if path == "/wrong" else 200, json=sent, headers=headers)


class Told(NamedTuple):
    """What a recorder took, comparable: who recorded it, what was bound then."""

    event: Any
    task: str
    bound: dict[str, object]


class Recorder:
    def __init__(self) -> None:
        self.told: list[Told] = []

    def record(self, event: Event) -> None:
        shown = (event.event, event.message, event.request) if isinstance(event, Noted) else event
        self.told.append(Told(shown, context.task_path(), dict(context.current().fields)))


async def _outcome(case: Case, hooks: str) -> tuple[Answer, list[Told]]:
    # The others play no part, and plans cost time.
    segment = http_scope(target=case.target)["path"].strip("/").partition("/")[0]
    routes = [route for route in ROUTES if route["path"].split("/")[1] == segment] or ROUTES[:3]
    config = Config.model_validate(
        {
            "upstreams": {"up": {"urls": ["http://127.0.0.1:1"]}},
            "routes": routes,
            "server": {"trusted_proxies": ["127.0.0.1"], "max_body": "1MB", "hooks": hooks},
        }
    )
    recorder = Recorder()
    app = Umbel(__name__, config, transports={"up": Function(upstream)}, recorder=recorder)
    headers = [*case.headers, ("x-request-id", "the-request"), ("traceparent", TRACE)]
    talk = Conversation(app, http_scope(case.method, case.target, headers=headers, client=case.client))

    async def converse() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run, name="request")
            for number, part in enumerate(case.parts):
                await talk.body(part, more=not case.ends or number + 1 < len(case.parts))
            if case.leaves_after is not None:
                await trio.sleep(case.leaves_after)
                await talk.disconnect()

    if case.outside:
        await converse()
    else:
        async with living(app):
            assert app.statistics().routes_before_quart is (hooks == "auto")
            await converse()
            assert app.statistics().requests_in_flight == 0
    # Calls that end at the same moment may be recorded in any order; the request comes last.
    return talk.answer, [*sorted(recorder.told[:-1], key=repr), *recorder.told[-1:]]


def outcome(case: Case, hooks: str = "auto") -> tuple[Answer, list[Told]]:
    """The answer and the records, at the same moments each time."""
    return trio.run(_outcome, case, hooks, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("case", CASES, ids=[f"{c.method} {c.target!r} {n}" for n, c in enumerate(CASES)])
def test_every_way_gives_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_drawn", lambda: "5" * 32)

    through_quart, expected = outcome(case, "all")
    ways = [outcome(case)]
    if case.ends or case.leaves_after is not None:  # Else it is our own server that ends the wait for the body.
        monkeypatch.setattr(asgi, "cancelling", True)
        ways.append(outcome(case))
    for answer, told in ways:
        assert (answer.status, answer.headers) == (through_quart.status, through_quart.headers)
        assert (answer.body, answer.complete) == (through_quart.body, through_quart.complete)
        assert told == expected
