"""Hooks of an application: which are found at startup, and the effect of ``[server] hooks``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from quart import Blueprint, Quart, Response, abort, request_finished, request_started
from quart.sessions import SecureCookieSessionInterface
from werkzeug.routing import Rule

from tests.support.logs.records import Records
from tests.support.server.asgi import LifespanFailedError, ask, living
from tests.unit.gateway.gateways import gateway, route, says
from umbel.core.errors import ConfigError, RequestError
from umbel.core.events import LogMessage
from umbel.gateway.app import Umbel


async def nothing(*args: Any) -> None:
    """Async hook without effect."""


async def same(response: Response) -> Response:
    """Async hook with a response and without effect."""
    return response


def sync_nothing(*args: Any) -> None:
    """Hook without effect, for places where Quart demands a plain function."""


async def login() -> None:
    """Hook that refuses every request."""
    abort(401)


class OwnSessions(SecureCookieSessionInterface):
    """Session interface of the application."""


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


REFUSING: list[tuple[str, Callable[[Umbel], object]]] = [
    ("the before_request function nothing", lambda app: app.before_request(nothing)),
    ("the url_value_preprocessor function sync_nothing", lambda app: app.url_value_preprocessor(sync_nothing)),
    ("a receiver of the signal request-started", connect),
    ("the application's own view function for /r", wrap_view),
    ("the application's own preprocess_request", override("preprocess_request")),
]
"""Hooks that run before the view and can answer in place of the view."""
OTHERS: list[tuple[str, Callable[[Umbel], object]]] = [
    ("the after_request function same", lambda app: app.after_request(same)),
    ("the teardown_request function nothing", lambda app: app.teardown_request(nothing)),
    ("the teardown_appcontext function nothing", lambda app: app.teardown_appcontext(nothing)),
    ("the error handler nothing for 400", lambda app: app.register_error_handler(400, nothing)),
    ("the error handler nothing for RequestError", lambda app: app.register_error_handler(RequestError, nothing)),
    ("the error handler nothing for Exception", lambda app: app.register_error_handler(Exception, nothing)),
    ("the error handler nothing for 500", lambda app: app.register_error_handler(500, nothing)),
    ("the setting TESTING", lambda app: setattr(app, "testing", True)),
    ("the setting DEBUG", set_config("DEBUG", True)),
    ("the setting PROPAGATE_EXCEPTIONS", set_config("PROPAGATE_EXCEPTIONS", True)),
    ("the setting SECRET_KEY", lambda app: setattr(app, "secret_key", "x")),
    ("the setting SERVER_NAME", set_config("SERVER_NAME", "gateway.test")),
    ("the setting TRAP_HTTP_EXCEPTIONS", set_config("TRAP_HTTP_EXCEPTIONS", True)),
    ("the application's own session_interface", lambda app: setattr(app, "session_interface", OwnSessions())),
    ("the application's own handle_user_exception", override("handle_user_exception")),
    ("the application's own make_response", override("make_response")),
    ("the application's own response_class", override("response_class")),
    ("routes by host name", lambda app: setattr(app.url_map, "host_matching", True)),
]
HOOKS = [*REFUSING, *OTHERS]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    request_started.receivers.clear()
    request_finished.receivers.clear()


def hooks_recorded(records: Records) -> list[str]:
    return [each.message for each in records.events if isinstance(each, LogMessage) and each.event == "hooks.found"]


async def test_without_hooks_routes_are_before_quart_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    app, records = gateway(route(), up=says(1))
    assert not app.statistics().routes_before_quart
    async with living(app):
        assert (app.statistics().routes_before_quart, app.statistics().hooks_found) == (True, ())
    assert not app.statistics().routes_before_quart
    assert (capsys.readouterr().err, hooks_recorded(records)) == ("", [])


@pytest.mark.parametrize(("hook", "add"), HOOKS, ids=[hook for hook, _ in HOOKS])
async def test_with_a_hook_routes_go_through_quart_and_the_hook_is_named(
    hook: str, add: Callable[[Umbel], object], capsys: pytest.CaptureFixture[str]
) -> None:
    app, records = gateway(route(), up=says(1))
    add(app)
    async with living(app):
        assert (app.statistics().routes_before_quart, app.statistics().hooks_found) == (False, (hook,))
        if hook != "routes by host name":
            assert (await ask(app, target="/r")).status == 200
    sentence = f"configured routes go through Quart, which costs speed, because of {hook}"
    assert capsys.readouterr().err.splitlines()[0] == f"warning: {sentence}"
    assert hooks_recorded(records) == [sentence]


async def test_a_hook_of_a_startup_function_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    app, _ = gateway(route(), up=says(1))

    @app.before_serving
    async def late() -> None:
        app.before_request(login)

    async with living(app):
        assert app.statistics().hooks_found == ("the before_request function login",)
        assert (await ask(app, target="/r")).status == 401


async def test_an_overridden_method_of_a_subclass_is_called() -> None:
    class Own(Umbel):
        async def dispatch_request(self, *context: Any) -> Any:
            return Response("mine")

    plain, _ = gateway(route(), up=says(1))
    app = Own(__name__, plain.gateway_config, transports=plain.given_transports)
    async with living(app):
        assert (await ask(app, target="/r")).body == b"mine"
        assert app.statistics().hooks_found == ("the application's own dispatch_request",)


async def test_a_function_that_gets_no_configured_request_is_no_hook() -> None:
    app, _ = gateway(route(), up=says(1))
    request_finished.connect(nothing, Quart("other"))
    part = Blueprint("part", __name__)
    part.before_request(login)
    part.register_error_handler(500, nothing)
    app.register_blueprint(part)

    @app.errorhandler(404)
    async def lost(error: Exception) -> tuple[str, int]:
        return "lost", 404

    @app.before_websocket
    async def before() -> None:
        """A function that gets no request."""

    asked = []

    def middleware(inner: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope["type"])
            await inner(scope, receive, send)

        return wrapped

    app.asgi_app = middleware(app.asgi_app)  # type: ignore[method-assign]  # Quart's own way to wrap an application
    async with living(app):
        assert app.statistics().routes_before_quart
        assert (await ask(app, target="/r")).status == 200
        assert (await ask(app, target="/nowhere")).body == b"lost"
    assert asked == ["lifespan", "http", "http"]


async def test_no_warning_of_hooks_without_a_configured_route(capsys: pytest.CaptureFixture[str]) -> None:
    app, records = gateway()
    app.before_request(nothing)
    async with living(app):
        assert not app.statistics().routes_before_quart
    assert (capsys.readouterr().err, hooks_recorded(records)) == ("", [])


@pytest.mark.parametrize("mode", ["auto", "all"])
async def test_a_login_guards_configured_routes(mode: str) -> None:
    upstream = says(1)
    app, records = gateway(route(auth="none"), server={"hooks": mode}, up=upstream)
    app.before_request(login)
    async with living(app):
        assert (await ask(app, target="/r")).status == 401
    assert [each.status for each in records.requests] == [401]


async def test_with_hooks_all_a_late_signal_receiver_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    app, records = gateway(route(), server={"hooks": "all"}, up=says(1))
    async with living(app):
        assert (app.statistics().routes_before_quart, app.statistics().hooks_found) == (False, ())
        request_started.connect(login_at_signal, app)
        assert (await ask(app, target="/r")).status == 401
    assert (capsys.readouterr().err, hooks_recorded(records)) == ("", [])


async def login_at_signal(*args: Any, **kwargs: Any) -> None:
    abort(401)


@pytest.mark.parametrize(("hook", "add"), REFUSING, ids=[hook for hook, _ in REFUSING])
async def test_with_hooks_python_a_possible_login_beside_a_route_without_auth_is_an_error(
    hook: str, add: Callable[[Umbel], object]
) -> None:
    app, _ = gateway(route(), route("/public", auth="none"), server={"hooks": "python"}, up=says(1))
    add(app)
    ended = []
    app.after_serving(lambda: ended.append(True))
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="has no auth")):
        async with living(app):
            raise AssertionError
    assert isinstance(app.config_error, ConfigError)
    (problem,) = app.config_error.problems
    assert problem.file == "routes.0"
    assert hook in problem.reason
    assert ended == [True]
    app.before_request(nothing)  # The application does not serve.


@pytest.mark.parametrize(("hook", "add"), HOOKS[:1] + OTHERS, ids=[hook for hook, _ in HOOKS[:1] + OTHERS])
async def test_with_hooks_python_a_skipped_hook_is_named(
    hook: str, add: Callable[[Umbel], object], capsys: pytest.CaptureFixture[str]
) -> None:
    app, records = gateway(
        route(**({"auth": "none"} if "before" in hook else {})), server={"hooks": "python"}, up=says(1)
    )
    add(app)
    async with living(app):
        assert (app.statistics().routes_before_quart, app.statistics().hooks_found) == (True, (hook,))
        assert (await ask(app, target="/r")).status == 200
    sentence = f'configured routes are answered before Quart (hooks = "python"), which skips {hook}'
    assert capsys.readouterr().err == f"warning: {sentence}\n"
    assert hooks_recorded(records) == [sentence]


async def test_with_hooks_python_a_login_guards_the_routes_in_python() -> None:
    app, _ = gateway(route(auth="none"), server={"hooks": "python"}, up=says(1))
    app.before_request(login)

    @app.get("/mine")
    async def mine() -> str:
        raise AssertionError

    async with living(app):
        assert (await ask(app, target="/r")).json == {"part": 1}
        assert (await ask(app, target="/mine")).status == 401


LATE: dict[str, Callable[[Umbel], object]] = {
    "get": lambda app: app.get("/x"),
    "add_url_rule": lambda app: app.add_url_rule("/x", "x", nothing),
    "before_request": lambda app: app.before_request(nothing),
    "after_request": lambda app: app.after_request(same),
    "errorhandler": lambda app: app.errorhandler(500)(nothing),
    "register_blueprint": lambda app: app.register_blueprint(Blueprint("late", __name__)),
    "teardown_appcontext": lambda app: app.teardown_appcontext(nothing),
    "url_map.add": lambda app: app.url_map.add(Rule("/x", endpoint="x")),
}


@pytest.mark.parametrize("what", LATE)
async def test_registration_while_serving_is_refused(what: str) -> None:
    app, _ = gateway(route(), up=says(1))
    app.after_serving(lambda: refused(LATE[what], app, what))
    async with living(app):
        refused(LATE[what], app, what)
        assert (await ask(app, target="/x")).status == 404
    LATE[what](app)


async def test_a_handler_of_compose_is_refused_while_serving() -> None:
    app, _ = gateway(route(), up=says(1))

    async def handler(compose: Any) -> None:
        raise AssertionError

    async with living(app):
        refused(lambda app: app.compose("/x")(handler), app, "add_url_rule")


def refused(late: Callable[[Umbel], object], app: Umbel, what: str) -> None:
    with pytest.raises(AssertionError, match=f"^'{what}' was called while the application is serving"):
        late(app)


async def test_late_changes_that_cannot_be_refused_have_no_effect() -> None:
    app, _ = gateway(route(), up=says(1))
    async with living(app):
        connect(app)
        app.config["SECRET_KEY"] = "x"
        wrap_view(app)
        assert (await ask(app, target="/r")).json == {"part": 1}
        assert app.statistics().routes_before_quart
