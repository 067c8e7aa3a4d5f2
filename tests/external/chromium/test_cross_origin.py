"""A page in Chromium against a gateway at another origin: CORS as a browser enforces it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Response, abort, request

from tests.external.site import Upstream
from tests.support.gateway.program import route, running, up
from tests.support.server.serving import serving
from umbel import Umbel

from .browsing import SECONDS_MAX, Reports, browser, settings_of

SCRIPT = Path(__file__).with_name("cross_origin.js")
ANSWER = 'shape = "{a: `1`}"'
NO_CALL = "when = '`false`'"
DONE = {"end": True, "completed": True, "answer": {"part": 42}}


def configuration(origin: str, upstream: int) -> str:
    return (
        f'[logs.access]\nfile = "access.jsonl"\n[server]\nmax_body = "600KB"\n{up(upstream)}{up(1, name="dead")}'
        f'[cors]\norigins = ["{origin}"]\ncredentials = true\n'
        'headers = ["content-type", "x-tenant", "if-none-match"]\n'
        'expose = ["etag", "umbel-completed", "content-disposition", "x-own"]\n'
        + route("/r", call=NO_CALL, answer=f'headers = {{ x-own = "o" }}\n{ANSWER}')
        + route("/folder/", call=NO_CALL)
        + route(
            "/put", keys='methods = ["PUT"]', call=NO_CALL, answer='shape = "{got: body, tenant: headers.x_tenant}"'
        )
        + route("/echo", keys='methods = ["POST"]\nmax_body = "1KB"', call=NO_CALL, answer='shape = "{got: body}"')
        + route("/dead", upstream="dead")
        + route("/slow", "/hangs", keys='deadline = "100ms"')
        + route("/closed", keys='cors = { origins = ["https://other.example"] }', call=NO_CALL)
        + route("/stream", "/quick", keys="stream = true")
        + '[[routes]]\npath = "/old"\nredirect.to = "/r"\n'
    )


def prepare(app: Umbel) -> None:
    @app.get("/login")
    async def login() -> Response:
        return Response("{}", headers={"set-cookie": "s=1; Path=/; HttpOnly"})

    @app.get("/me")
    async def me() -> str:
        return request.headers.get("cookie", "nobody")

    @app.get("/private")
    async def private() -> str:
        abort(401)

    @app.get("/crash")
    async def crash() -> str:
        raise RuntimeError("a crash of the test")

    @app.get("/download")
    async def download() -> Response:
        return Response(bytes(300_000), headers={"content-disposition": "attachment; filename=f"})

    @app.post("/upload")
    async def upload() -> dict[str, int]:
        return {"length": len((await request.get_json())["a"])}


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_page_reads_what_cors_allows_and_nothing_else(tmp_path: Path, protocol: str) -> None:
    reports, settings = Reports(SCRIPT), settings_of(protocol, tmp_path)
    pages = Umbel("pages", static_folder=None)
    reports.prepare(pages)
    scheme = "https" if settings else "http"
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, Upstream().serve, [listener])
        upstream = listener.socket.getsockname()[1]
        async with serving(pages, **settings) as port:
            text = configuration(f"{scheme}://127.0.0.1:{port}", upstream)
            async with running(tmp_path, text, prepare=prepare, **settings) as gateway:
                with trio.fail_after(SECONDS_MAX):
                    page = f"{scheme}://127.0.0.1:{port}/page?{gateway.port}"
                    async with browser(tmp_path / "profile", page):
                        await reports.done.wait()
        nursery.cancel_scope.cancel(reason="the test has ended")
    _check(reports.seen)
    asked = Counter((line["method"], line["path"], line["status"]) for line in _access(gateway))
    # The second PUT used the remembered preflight. Those with another header or method were not sent.
    assert asked["OPTIONS", "/put", 204] == 3
    assert asked["PUT", "/put", 200] == 2
    assert asked["DELETE", "/put", 405] == 0
    # CORS protects the response and not the route.
    assert asked["GET", "/closed", 200] == 2


def _access(gateway: Any) -> list[dict[str, Any]]:
    return [
        {"method": each["http.request.method"], "path": each["url.path"], "status": each["http.response.status_code"]}
        for each in gateway.lines("access")
    ]


def _check(seen: dict[str, Any]) -> None:
    assert seen.pop("simple") == {
        "status": 200,
        "body": {"a": 1},
        "type": "cors",
        "fields": ["true", "o", None, "application/json"],
    }
    assert seen.pop("credentials") == ["nobody", "s=1", "nobody"]
    assert seen.pop("preflights") == {
        "bodies": [{"got": {"a": 1}, "tenant": "one"}, {"got": {"a": 1}, "tenant": "two"}],
        "header": "TypeError",
        "method": "TypeError",
    }
    assert seen.pop("errors") == {
        "detail": "No route matches this path.",
        "missing": 404,
        "method": 405,
        "login": 401,
        "limit": 413,
        "server": 413,
        "crash": 500,
        "upstream": 502,
        "late": 504,
    }
    assert seen == {
        "redirects": {"status": 200, "redirected": True, "path": "/r", "slash": 200},
        "closed": {"read": "TypeError", "noCors": "opaque"},
        "sandboxed": "TypeError",
        "download": {"name": "attachment; filename=f", "bytes": 300_000},
        "upload": {"length": 500_000},
        "conditional": {"again": 304, "head": True},
        "lines": DONE,
        "events": DONE,
        "done": None,
    }
