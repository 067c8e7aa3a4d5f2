"""Route table: plain requests for configured routes are found; all others are left to Quart."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.server.asgi import ask, http_scope, living
from umbel import Umbel
from umbel.gateway.application import GatewayApplication
from umbel.gateway.quart.quart_request import QuartRequest

from .gateways import gateway, route, says

FOUND = {
    b"/r": {},
    b"/r?a=b": {},
    b"/r?": {},
    b"/caf%C3%A9/3": {"name": "café", "n": 3},
    b"/a.b/3?x=%20": {"name": "a.b", "n": 3},
}
LEFT = (
    b"",
    b"*",
    b"/",
    b"//r",
    b"/nowhere",
    b"/plain",
    b"/dir",
    b"/a/x",
    b"/a%2Fb/3",
    b"/a/../r",
    b"/r?a b",
    b"/r?a#b",
    b"/r#b",
    b"/\xe9/3",
    b"/%E9/3",
    b"/livez",
    b"/%6civez",
    b"/readyz?verbose",
    b"http://gateway.test/r",
    b"gateway.test:80",
    b"r",
)


def app_with_routes(*, rule: str = "/<name>/<int:n>") -> Umbel:
    app, _ = gateway(route(), route(rule), route("/dir/"), up=says(1))

    @app.get("/plain")
    async def plain() -> str:
        raise AssertionError

    return app


def test_a_closed_table_finds_nothing() -> None:
    app = app_with_routes()
    table = app.route_table
    assert table.find("GET", b"/r") is None
    app.open_routes()
    assert table.find("GET", b"/r") is not None
    table.close()
    assert table.find("GET", b"/r") is None


def test_a_plain_match_of_a_configured_route_is_found_each_time() -> None:
    app = app_with_routes()
    app.open_routes()
    table = app.route_table
    for _ in range(2):
        for target, values in FOUND.items():
            match = table.find("GET", target)
            assert match is not None
            assert match.path == values
            assert match.route.rule == ("/<name>/<int:n>" if values else "/r")
        match = table.find("HEAD", b"/caf%C3%A9/3")
        assert match is not None
        assert match.decoded == "/café/3"


def test_everything_else_is_left_to_quart() -> None:
    app = app_with_routes()
    app.open_routes()
    table = app.route_table
    for _ in range(2):
        assert [target for target in LEFT if table.find("GET", target)] == []
        assert [method for method in ("OPTIONS", "DELETE", "get", "", "M-SEARCH") if table.find(method, b"/r")] == []


def test_the_cache_of_matches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.gateway.route_table._KNOWN_MAX", 3)
    app = app_with_routes()
    app.open_routes()
    table = app.route_table
    for number in [*range(10), 9, 8, 7, 6, 5]:
        match = table.find("GET", b"/x/%d" % number)
        assert match is not None
        assert match.path == {"name": "x", "n": number}
        assert len(table._known) <= 3
    assert table.find("GET", b"/" + b"x" * 300 + b"/1") is not None
    assert sum(len(path) for _, path, _ in table._known) <= 3 * 256


@pytest.fixture
def through_quart(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the paths of requests that go through Quart."""
    paths: list[str] = []
    make = QuartRequest.__init__

    def noting(self: QuartRequest, app: GatewayApplication, scope: Any) -> None:
        paths.append(scope["path"])
        make(self, app, scope)

    monkeypatch.setattr(QuartRequest, "__init__", noting)
    return paths


async def test_a_scope_whose_path_host_or_root_is_not_plain_goes_through_quart(through_quart: list[str]) -> None:
    async def sent(message: object) -> None:
        """Discard the message."""

    app, _ = gateway(route(), route("/s"), up=says(1))
    async with living(app):
        assert (await ask(app, target="/r")).status == 200
        assert through_quart == []
        await ask(app, target="/r", headers=[("host", "a..b")])
        await app({**http_scope(target="/r"), "root_path": "/root"}, trio.sleep_forever, sent)
        # Middleware that removes a prefix may leave the raw path unchanged.
        await app({**http_scope(target="/r"), "path": "/s"}, trio.sleep_forever, sent)
    assert through_quart == ["/r", "/r", "/s"]


def test_a_server_without_a_root_path_does_not_hide_that_of_another() -> None:
    class Serving:
        def __init__(self, root_path: str) -> None:
            self.root_path = root_path

    app = Umbel(__name__, static_folder=None)
    app.add_server(Serving("/root"))  # type: ignore[arg-type]
    app.add_server(Serving(""))  # type: ignore[arg-type]
    assert app._has_root_path
