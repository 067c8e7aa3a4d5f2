"""The requests whose answers are recorded, and the configured routes."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    """One request."""

    method: str
    target: str | bytes
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes, ...] = (b"",)
    """The parts of the body."""
    ends: bool = True
    """Whether the body ends with the last of ``parts``; False: the client sends nothing more and does not leave."""
    leaves_after: float | None = None
    """Seconds after which the client leaves."""
    client: tuple[str, int] | None = ("127.0.0.1", 4000)
    outside: bool = False
    """Whether the request comes before the application's startup."""
    quart_refuses: bool = False
    """Whether Quart refuses the host; see ``recorded.observed``."""

    @property
    def title(self) -> str:
        """The method and target, as the title of the entry in the file."""
        target = self.target.decode("latin-1") if isinstance(self.target, bytes) else self.target
        return f"{self.method} {target}"


def get(target: str | bytes, *headers: tuple[str, str], **more: Any) -> Case:
    return Case("GET", target, headers, **more)


def post(target: str, *parts: bytes, media: str = "application/json", **more: Any) -> Case:
    headers = (("content-type", media), *more.pop("headers", ()))
    return Case("POST", target, headers, parts or (b"",), **more)


def calls(path: str = "/fast", **more: Any) -> dict[str, Any]:
    return {"part": {"upstream": "up", "path": path, **more}}


APP = "https://app.example"
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
    {"path": "/alone/<int:n>", "query": ["q"], "answer": {"shape": "{n: path.n, q: query.q, t: headers.x_tenant}"}},
    {"path": "/hello", "respond": {"json": {"hello": "world"}, "headers": {"x-own": "e"}},
     "query": {"n": {"type": "int"}}},
    {"path": "/gone", "respond": {"status": 410, "text": "Gone."}, "krakend_compat": True, "methods": ["GET", "POST"]},
    {"path": "/nothing", "respond": {"status": 204}},
    {"path": "/late", "respond": {"text": "late", "delay": "500ms"}, "answer": {"cache_control": "max-age=60"}},
    {"path": "/old/<n>", "redirect": {"to": "/new/{n}{?page}"}, "query": ["page"]},
    {"path": "/moved", "redirect": {"to": "https://other.test/{headers.x_tenant}", "status": 307}},
    {"path": "/mock", "calls": {"part": {"respond": {"json": {"id": 7}, "headers": {"x-part": "p"}, "delay": "10ms"}}},
     "answer": {"forward_headers": {"part": ["x-part"]}}},
    {"path": "/create", "calls": {"part": {"respond": {"status": 202, "headers": {"location": "/part/7"}}}},
     "answer": {"status_from": "part"}},
    {"path": "/cors", "calls": calls(), "methods": ["GET", "PUT"], "cors": {"origins": [APP], "credentials": True},
     "answer": {"headers": {"referrer-policy": "origin", "access-control-allow-origin": "*"}}},
    {"path": "/cors-stream", "calls": TWO, "stream": True, "deadline": "30s", "cors": {"origins": ["*"]}},
    {"path": "/hosts", "calls": calls(), "host": "*.example", "answer": {"shape": "'a host'"}},
    {"path": "/hosts", "calls": calls(), "methods": ["POST"], "answer": {"shape": "'any host'"}},
    {"path": "/match", "calls": calls(), "match": "headers.x_beta == 'on' || query.v", "answer": {"shape": "'beta'"}},
    {"path": "/match", "calls": calls(), "answer": {"shape": "'usual'"}},
    {"path": "/no-match", "calls": calls(), "match": "headers.x_beta"},
    {"path": "/kept/<n>", "calls": calls(), "encoded_slash": "keep", "answer": {"shape": "path.n"}},
    {"path": "/lists", "calls": calls(), "query": {"n": {"type": "list[int]", "split": ","}}, "answer": {
        "shape": "query.n",
    }},
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
    get("/r", ("host", "x" * 64), quart_refuses=True),
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
    get("/alone/5?q=%C3%A9", ("x-tenant", "a")),
    get("/hello"),
    Case("HEAD", "/hello"),
    get("/hello", ("if-none-match", "*")),
    get("/hello?n=x"),
    get("/gone"),
    post("/gone", b"whatever", headers=(("content-length", "8"),)),
    Case("PUT", "/gone"),
    get("/nothing"),
    get("/late"),
    get("/late", ("x-envoy-upstream-rq-timeout-ms", "400")),
    get("/late", leaves_after=0.2),
    get("/old/a%20b%3f?page=//evil.test"),
    get("/old/..;%25"),
    get("/moved", ("x-tenant", "//evil.test\\@")),
    get("/moved"),
    get("/mock"),
    get("/create"),
    get("/hello", outside=True),
    get("/cors", ("origin", APP)),
    get("/cors", ("origin", "https://evil.example")),
    Case("HEAD", "/cors", (("origin", APP),)),
    Case("DELETE", "/cors", (("origin", APP),)),
    Case("OPTIONS", "/cors", (("origin", APP),)),
    Case("OPTIONS", "/cors", (("origin", APP), ("access-control-request-method", "PUT"))),
    Case("OPTIONS", "/cors", (("origin", "null"), ("access-control-request-method", "PUT"))),
    get("/cors/", ("origin", APP)),
    get("//cors", ("origin", APP)),
    get('/cors?a="', ("origin", APP)),
    get("/cors-stream", ("origin", APP)),
    get("/r", ("origin", APP)),
    get("/hosts", ("host", "a.example:80")),
    get("/hosts", ("host", "A.EXAMPLE.")),
    get("/hosts", ("host", "example")),
    post("/hosts", headers=(("host", "a.example"),)),
    Case("PUT", "/hosts", (("host", "a.example"),)),
    Case("OPTIONS", "/hosts", (("host", "a.example"),)),
    get("/hosts", ("x-forwarded-host", "b.example")),
    get("/match"),
    get("/match", ("x-beta", "on")),
    get("/match?v=%ff"),
    get("/match?v=1"),
    get("/no-match"),
    get("/no-match", ("x-beta", "1")),
    get("/kept/a%2Fb"),
    get("/kept/..%2Fb"),
    Case("PUT", "/kept/a%2Fb"),
    get("/lists?n=1,2&n=3"),
    get("/lists?n=1,x"),
    get("/lists"),
    Case("OPTIONS", "*"),
]
