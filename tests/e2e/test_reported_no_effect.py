"""What is written down and accepted has its effect, or is told: decorators, logs on stdout, settings, conditions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import pytest
from quart import Response, current_app, make_response, request

from tests.support.records import Records
from tests.support.serving import connected, serving
from umbel.gateway.app import Umbel

HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[Any]])


def rate_limit(function: HandlerT) -> HandlerT:
    """A mark on the function, as rate limiters leave one; ``limited`` looks for it on the view."""
    function._limits = [1]  # type: ignore[attr-defined]
    return function


def cross_origin(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A wrapper that answers OPTIONS itself, and says so to Quart by attributes, as CORS extensions do."""

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
async def test_a_mark_on_a_composing_handler_is_seen_on_its_view(order: str) -> None:
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


async def test_a_wrapper_that_answers_options_itself_does_so_for_a_composing_handler() -> None:
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
