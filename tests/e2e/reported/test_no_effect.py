"""Decorators of composing handlers have their effect, and ``umbel check`` warns of keys without effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner
from quart import Response, current_app, make_response, request

from tests.support.gateway.configs import write
from tests.support.logs.records import Records
from tests.support.server.serving import connected, serving
from umbel.cli import main
from umbel.gateway.app import Umbel

HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[Any]])


def rate_limit(function: HandlerT) -> HandlerT:
    """Set an attribute on the function, as rate limiters do; the hook ``limited`` reads it from the view."""
    function._limits = [1]  # type: ignore[attr-defined]
    return function


def cross_origin(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap a view to answer OPTIONS itself, and tell Quart so with attributes, as CORS extensions do."""

    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        response = await (
            current_app.make_default_options_response()
            if request.method == "OPTIONS"
            else make_response(await function(*args, **kwargs))
        )
        response.headers["access-control-allow-origin"] = "https://shop.example"
        return response

    wrapper.required_methods = {"OPTIONS"}  # type: ignore[attr-defined]
    wrapper.provide_automatic_options = False  # type: ignore[attr-defined]
    return wrapper


def limiting_app() -> Umbel:
    app = Umbel(__name__, recorder=Records())
    asked: dict[str, int] = {}

    @app.before_request
    async def limited() -> Response | None:
        endpoint = str(request.endpoint)
        asked[endpoint] = asked.get(endpoint, 0) + 1
        limits = getattr(app.view_functions.get(endpoint), "_limits", ())
        return Response("", 429) if any(asked[endpoint] > limit for limit in limits) else None

    return app


@pytest.mark.parametrize("order", ["mark below", "mark above", "mark after startup"])
async def test_an_attribute_of_a_composing_handler_is_an_attribute_of_its_view(order: str) -> None:
    app = limiting_app()

    async def report(compose: Any) -> Any:
        """The text of the handler."""
        return {"ok": True}

    register = app.compose("/report")
    if order == "mark below":
        register(rate_limit(report))
    elif order == "mark above":
        rate_limit(register(report))
    else:
        register(report)
    async with serving(app) as port, connected(port) as client:
        if order == "mark after startup":
            rate_limit(report)
        statuses = [(await client.request("GET", "/report")).status for _ in range(2)]
    assert statuses == [200, 429]
    view = app.view_functions["report"]
    assert (view.__name__, view.__doc__, view.__module__) == ("report", "The text of the handler.", __name__)


async def test_a_wrapper_of_a_composing_handler_can_answer_options_itself() -> None:
    app = Umbel(__name__, recorder=Records())

    @app.compose("/report", methods=["POST"])
    @cross_origin
    async def report(compose: Any) -> Any:
        return {"ok": True}

    async with serving(app) as port, connected(port) as client:
        preflight = await client.request("OPTIONS", "/report")
        answer = await client.request("POST", "/report")
    assert preflight.status == 204
    assert preflight["access-control-allow-origin"] == "https://shop.example"
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert answer["access-control-allow-origin"] == "https://shop.example"


# Keys that have no effect beside another key.

EARLY = "the head of a stream is sent before the calls have ended, so this"
PLACED = [
    ("stream = true", "", 'forward_headers = { a = ["x-a"] }', "answer.forward_headers.a", EARLY),
    ("stream = true", "", 'forward_cookies = { a = ["sid"] }', "answer.forward_cookies.a", EARLY),
    ("stream = true", "", 'headers = { x-a = "{a.b}" }', "answer.headers.x-a", f"{EARLY} field, which reads a call,"),
    ("stream = true", "", 'cache_control = "public"', "answer.cache_control", "a stream is always sent with no-store"),
    (
        'krakend_compat = true\nexpose = "none"',
        "",
        "",
        "krakend_compat",
        'expose = "none" leaves X-KrakenD-Completed out',
    ),
    ("", "ok = [200, 401]\npass_status = [401, 404]", "", "calls.a.pass_status", "401 stands in ok too, so it is no"),
    ("", "null_on = [404]\npass_status = [404]", "", "calls.a.pass_status", "404 stands in null_on too, so it is no"),
    ("", "", "status = 206", "answer.status", "a 206 needs Content-Range"),
    ("", "pass_status = [407]", "", "calls.a.pass_status", "a 407 needs Proxy-Authenticate, which belongs to one"),
    ("", "pass_status = [426]", "", "calls.a.pass_status", "a 426 needs Upgrade, which belongs to one connection"),
    ("", "pass_body = true\npass_status = []", "", "calls.a.pass_body", "no status is passed on"),
    (
        "",
        'forward_headers = ["cookie"]\nforward_cookies = ["sid"]',
        "",
        "calls.a.forward_headers",
        '"cookie" has no effect beside forward_cookies, which chooses the cookies: sid',
    ),
]
FINE = [
    ("stream = true", 'forward_headers = ["x-a"]', 'headers = { x-a = "{headers.x_a}" }\ncache_control = "no-store"'),
    ("krakend_compat = true", "pass_status = [401]\nok = [200, 404]\nnull_on = [410]\npass_body = true", ""),
]


def warned(directory: Path, keys: str, call: str, answer: str) -> list[str]:
    """Return the warnings of ``umbel check`` for a route with these keys."""
    text = f'[upstreams.u]\nurls = ["http://h"]\n[[routes]]\npath = "/r"\n{keys}\n'
    text += f'[routes.calls.a]\nupstream = "u"\npath = "/a"\n{call}\n[routes.answer]\n{answer}\n'
    result = CliRunner().invoke(main, ["check", "-c", str(write(directory, text))])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


@pytest.mark.parametrize(("keys", "call", "answer", "place", "words"), PLACED)
def test_check_warns_of_a_key_without_effect_beside_another_key(
    tmp_path: Path, keys: str, call: str, answer: str, place: str, words: str
) -> None:
    (line,) = warned(tmp_path, keys, call, answer)
    assert f" routes[0].{place}: {words}" in line


@pytest.mark.parametrize(("keys", "call", "answer"), FINE)
def test_check_does_not_warn_of_keys_with_effect(tmp_path: Path, keys: str, call: str, answer: str) -> None:
    assert warned(tmp_path, keys, call, answer) == []
