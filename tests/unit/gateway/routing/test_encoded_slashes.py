"""Encoded slashes in paths: refused, or kept within one value, before Quart and through Quart."""

from __future__ import annotations

from typing import Any

import pytest
from quart import request
from trio.testing import MockClock

from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import Function, gateway, says
from umbel.gateway.app import Umbel


def to_upstream(path: str, **keys: Any) -> dict[str, Any]:
    return {"path": path, "calls": {"part": {"upstream": "up", "path": "/got/{name}"}}, **keys}


ROUTES = (
    to_upstream("/keep/<name>", encoded_slash="keep"),
    to_upstream("/keep/<name>", methods=["DELETE"]),
    to_upstream("/refuse/<name>"),
    to_upstream("/path/<path:name>"),
    to_upstream("/slash/<name>/", encoded_slash="keep"),
    to_upstream("/closed/<name>/"),
    to_upstream("/host/<name>", encoded_slash="keep", host="a.example"),
    {"path": "/old/<name>", "encoded_slash": "keep", "redirect": {"to": "/new/{name}"}},
)
REFUSED = "The path holds an encoded slash, backslash or NUL."


@pytest.fixture(params=["before Quart", "through Quart"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(way: str, *routes: dict[str, Any]) -> tuple[Umbel, Function]:
    upstream = Function(says(1))
    app, _ = gateway(*routes, up=upstream)
    if way == "through Quart":

        async def nothing() -> None:
            """A hook that changes nothing."""

        app.before_request(nothing)
    return app, upstream


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/keep/a%2Fb", b"/got/a%2Fb"),
        ("/keep/a%2fb", b"/got/a%2Fb"),
        ("/keep/%2F", b"/got/%2F"),
        ("/keep/%2F%2Fx%20y", b"/got/%2F%2Fx%20y"),
        ("/keep/a%252Fb", b"/got/a%252Fb"),
        ("/%6Beep/a%2Fb", b"/got/a%2Fb"),
        ("/keep/a", b"/got/a"),
        ("/path/a/b", b"/got/a%2Fb"),
    ],
)
async def test_a_kept_slash_reaches_the_upstream_encoded_in_one_segment(
    target: str, sent: bytes, way: str, autojump_clock: MockClock
) -> None:
    app, upstream = serve(way, *ROUTES)
    async with living(app):
        for _ in range(2):  # The second time by the cached match.
            assert (await ask(app, "GET", target)).status == 200
            assert upstream.target == sent
        assert (await ask(app, "HEAD", target)).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/refuse/a%2Fb",
        "/path/a%2Fb",
        "/closed/a%2Fb",
        "/closed/a%2Fb/",
        "/none/a%2Fb",
        "/keep%2Fa",
        "/keep/a%2Fb/c",
        "/keep/a%5Cb",
        "/keep/a%00b",
        "/keep/a%2F%00",
        "/keep/..%2F..%2Fetc",
        "/keep/a%2F..",
        "/keep/.%2Fa",
        "/keep/%2E%2E%2Fa",
        "/keep/a%2F%2e",
        "/keep/%ff%2Fa",
        "//keep/a%2Fb%00",
        "/livez%2Fx",
    ],
)
async def test_other_encoded_slashes_and_hidden_dot_segments_are_refused(
    target: str, way: str, autojump_clock: MockClock
) -> None:
    app, upstream = serve(way, *ROUTES)
    async with living(app):
        assert (await ask(app, "GET", target)).status == 400
        assert not upstream.asked


async def test_the_method_decides_whether_a_slash_is_kept(way: str, autojump_clock: MockClock) -> None:
    app, upstream = serve(way, *ROUTES)
    async with living(app):
        for method in ("DELETE", "PUT"):  # PUT has no route, and that of DELETE refuses.
            refused = await ask(app, method, "/keep/a%2Fb")
            assert (refused.status, refused.json["detail"]) == (400, REFUSED)
        assert (await ask(app, "PUT", "/keep/a")).status == 405
        assert (await ask(app, "PUT", "/old/a%2Fb")).status == 405
        assert (await ask(app, "OPTIONS", "/old/a%2Fb")).status == 204
        assert not upstream.asked


async def test_hosts_redirects_and_static_routes_work_with_kept_slashes(way: str, autojump_clock: MockClock) -> None:
    app, upstream = serve(way, *ROUTES)
    async with living(app):
        assert (await ask(app, "GET", "/host/a%2Fb", headers=[("host", "a.example")])).status == 200
        assert upstream.target == b"/got/a%2Fb"
        assert (await ask(app, "GET", "/host/a%2Fb", headers=[("host", "b.example")])).status == 400
        assert (await ask(app, "GET", "/slash/a%2Fb/")).status == 200
        moved = await ask(app, "GET", "/old/a%2Fb")
        assert (moved.status, moved["location"]) == (308, "/new/a%2Fb")
        merged = await ask(app, "GET", "//keep/a%2Fb")
        assert (merged.status, merged["location"]) == (308, "/keep/a%2Fb")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/slash/a%2Fb", "/slash/a%2Fb/"),
        ("/slash/a%2fb?x=%00&y=%2f", "/slash/a%2Fb/?x=%00&y=%2f"),
        ("/slash//a%2Fb/", "/slash/a%2Fb/"),
    ],
)
async def test_a_path_with_a_kept_slash_is_redirected_to_the_form_of_its_rule(
    target: str, location: str, way: str, autojump_clock: MockClock
) -> None:
    app, upstream = serve(way, *ROUTES)
    async with living(app):
        moved = await ask(app, "GET", target)
        assert (moved.status, moved["location"]) == (308, location)
        assert (await ask(app, "GET", location)).status == 200
        assert upstream.target == b"/got/a%2Fb"


async def test_without_a_route_that_keeps_them_all_encoded_slashes_are_refused(
    way: str, autojump_clock: MockClock
) -> None:
    app, _ = serve(way, to_upstream("/r/<name>"))
    async with living(app):
        refused = await ask(app, "GET", "/r/a%2Fb")
        assert (refused.status, refused.json["detail"]) == (400, REFUSED)


async def test_a_handler_may_keep_encoded_slashes_and_sees_the_decoded_value(
    way: str, autojump_clock: MockClock
) -> None:
    app, _ = serve(way, *ROUTES)

    @app.compose("/code/<name>", encoded_slash="keep")
    async def code(compose: Any, name: str) -> dict[str, str]:
        return {"name": name, "path": request.path, "view_args": request.view_args["name"]}

    async with living(app):
        said = (await ask(app, "GET", "/code/a%2Fb")).json
        assert said == {"name": "a/b", "path": "/code/a/b", "view_args": "a/b"}


async def test_an_application_below_a_root_path_refuses_encoded_slashes(autojump_clock: MockClock) -> None:
    app, _ = serve("before Quart", *ROUTES)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        below = {**scope, "root_path": "/m"} if scope["type"] == "http" else scope
        await app(below, receive, send)

    async with living(app):
        assert (await ask(mounted, "GET", "/m/keep/a")).status == 200
        assert (await ask(mounted, "GET", "/m/keep/a%2Fb")).status == 400
