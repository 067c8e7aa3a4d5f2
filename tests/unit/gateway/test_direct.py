"""Answering without Quart's dispatch: when it is done, that it stops when it must, and that nobody can tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from quart import Quart, Response, request_finished, request_started
from quart.sessions import SecureCookieSessionInterface
from werkzeug.routing import Rule

from tests.support.asgi import ask, http_scope, living
from umbel.errors import RequestError
from umbel.gateway.app import Umbel
from umbel.gateway.connection import Connection

from .gateways import gateway, route, says


async def nothing(*args: Any) -> None:
    """A hook that changes nothing."""


async def same(response: Response) -> Response:
    """A hook that changes nothing either."""
    return response


def sync_nothing(*args: Any) -> None:
    """As ``nothing``, for where Quart wants a plain function."""


class Deaf(SecureCookieSessionInterface):
    """Sessions of the application's own."""


def connect(app: Umbel) -> None:
    request_started.connect(nothing, app)


def wrap_view(app: Umbel) -> None:
    view = app.view_functions["umbel-route-0"]

    async def wrapped(**path: Any) -> Any:
        return await view(**path)

    app.view_functions["umbel-route-0"] = wrapped


def set_config(name: str, value: object) -> Callable[[Umbel], None]:
    return lambda app: app.config.__setitem__(name, value)


def override(name: str) -> Callable[[Umbel], None]:
    return lambda app: setattr(app, name, getattr(app, name))


OBSTACLES: list[tuple[str, Callable[[Umbel], object]]] = [
    ("a before_request function", lambda app: app.before_request(nothing)),
    ("an after_request function", lambda app: app.after_request(same)),
    ("a teardown_request function", lambda app: app.teardown_request(nothing)),
    ("a teardown_appcontext function", lambda app: app.teardown_appcontext(nothing)),
    ("a url_value_preprocessor", lambda app: app.url_value_preprocessor(sync_nothing)),
    ("an error handler", lambda app: app.register_error_handler(400, nothing)),
    ("an error handler", lambda app: app.register_error_handler(RequestError, nothing)),
    ("an error handler", lambda app: app.register_error_handler(Exception, nothing)),
    ("an error handler", lambda app: app.register_error_handler(500, nothing)),
    ("the signal request-started", connect),
    ("the setting TESTING", lambda app: setattr(app, "testing", True)),
    ("the setting DEBUG", set_config("DEBUG", True)),
    ("the setting PROPAGATE_EXCEPTIONS", set_config("PROPAGATE_EXCEPTIONS", True)),
    ("the setting SECRET_KEY", lambda app: setattr(app, "secret_key", "x")),
    ("the setting SERVER_NAME", set_config("SERVER_NAME", "gateway.test")),
    ("the setting TRAP_HTTP_EXCEPTIONS", set_config("TRAP_HTTP_EXCEPTIONS", True)),
    ("session_interface", lambda app: setattr(app, "session_interface", Deaf())),
    ("handle_request", override("handle_request")),
    ("make_response", override("make_response")),
    ("response_class", override("response_class")),
]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    request_started.receivers.clear()
    request_finished.receivers.clear()


@pytest.fixture
def through_quart(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that go through Quart."""
    paths: list[str] = []
    make = Connection.__init__

    def noting(self: Connection, app: Umbel, scope: Any) -> None:
        paths.append(scope["path"])
        make(self, app, scope)

    monkeypatch.setattr(Connection, "__init__", noting)
    return paths


async def test_a_plain_application_answers_its_routes_directly_and_says_so(through_quart: list[str]) -> None:
    app, _ = gateway(route(), route("/<name>/<int:n>"), up=says(1))

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    assert not app.statistics().direct
    assert app.statistics().indirect_reason == "the application does not serve"
    async with living(app):
        assert (app.statistics().direct, app.statistics().indirect_reason) == (True, "")
        for target in ("/r", "/r", "/r?a=b", "/caf%C3%A9/3", "/a.b/3"):
            assert (await ask(app, target=target)).status == 200
        assert (await ask(app, "HEAD", "/r")).status == 200
        assert through_quart == []
        for method, target in [
            ("OPTIONS", "/r"),
            ("DELETE", "/r"),
            ("GET", "/plain"),
            ("GET", "/nowhere"),
            ("GET", "//r"),
            ("GET", "/a/x"),
            ("GET", "/r?a b"),
            ("GET", "/a/../r"),
            ("GET", "/livez"),
            ("GET", "http://gateway.test/r"),
        ]:
            await ask(app, method, target)
        await ask(app, target="/r", headers=[("host", "a..b")])
        await app({**http_scope(target="/r"), "root_path": "/root"}, trio.sleep_forever, nothing)
    assert len(through_quart) == 12
    assert not app.statistics().direct


@pytest.mark.parametrize(("reason", "add"), OBSTACLES, ids=[f"{n} {reason}" for n, (reason, _) in enumerate(OBSTACLES)])
@pytest.mark.parametrize("late", [False, True], ids=["at startup", "while serving"])
async def test_what_quart_has_to_do_turns_it_off_and_is_told(
    reason: str, add: Callable[[Umbel], object], late: bool, through_quart: list[str]
) -> None:
    app, _ = gateway(route(), up=says(1))
    if not late:
        add(app)
    async with living(app):
        if late:
            assert (await ask(app, target="/r")).status == 200
            assert through_quart == []
            add(app)
        assert (await ask(app, target="/r")).status == 200
        assert not app.statistics().direct
        assert reason in app.statistics().indirect_reason
    assert through_quart == ["/r"]


def test_what_a_subclass_replaces_turns_it_off(through_quart: list[str]) -> None:
    class Own(Umbel):
        async def dispatch_request(self, *context: Any) -> Any:
            return Response("mine")

    async def main() -> None:
        plain, _ = gateway(route(), up=says(1))
        app = Own(__name__, plain.gateway_config, transports=plain.given_transports)
        async with living(app):
            assert (await ask(app, target="/r")).body == b"mine"
            assert app.statistics().indirect_reason == "dispatch_request is not Umbel's own"

    trio.run(main)


async def test_what_does_not_concern_such_a_request_leaves_it_on(through_quart: list[str]) -> None:
    app, _ = gateway(route(), up=says(1))
    other = Quart("other")
    request_finished.connect(nothing, other)

    @app.errorhandler(404)
    async def lost(error: Exception) -> tuple[str, int]:
        return "lost", 404

    @app.before_websocket
    async def before() -> None:
        """Not for requests."""

    asked = []

    def middleware(inner: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope["type"])
            await inner(scope, receive, send)

        return wrapped

    app.asgi_app = middleware(app.asgi_app)  # type: ignore[method-assign]  # Quart's own way to wrap an application
    async with living(app):
        assert (await ask(app, target="/r")).status == 200
        assert through_quart == []
        assert (await ask(app, target="/nowhere")).body == b"lost"
    assert asked == ["lifespan", "http", "http"]


async def test_routes_that_come_later_are_heeded(through_quart: list[str]) -> None:
    app, _ = gateway(route("/<name>"), up=says(1))
    async with living(app):
        for target in ("/x", "/y"):
            assert (await ask(app, target=target)).json == {"part": 1}

        @app.get("/x")
        async def x() -> str:
            return "x"

        app.url_map.add(Rule("/y", endpoint="y", methods=["GET"]))
        app.view_functions["y"] = x
        for target in ("/x", "/y"):
            assert (await ask(app, target=target)).body == b"x"
        assert (await ask(app, target="/z")).json == {"part": 1}
        assert app.statistics().direct
    assert through_quart == ["/x", "/y"]


async def test_a_view_that_is_wrapped_is_called(through_quart: list[str]) -> None:
    app, _ = gateway(route(), route("/other"), up=says(1))
    async with living(app):
        await ask(app, target="/r")
        wrap_view(app)
        assert (await ask(app, target="/r")).json == {"part": 1}
        await ask(app, target="/other")
    assert through_quart == ["/r"]


async def test_more_paths_than_are_remembered_are_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.gateway.directroutes._KNOWN_MAX", 3)
    app, records = gateway(route("/<name>", answer={"shape": "{name: path.name}"}), up=says(1))
    async with living(app):
        for number in [*range(10), 9, 8, 7, 6, 5]:
            assert (await ask(app, target=f"/{number}")).json == {"name": str(number)}
    assert len(records.requests) == 15
