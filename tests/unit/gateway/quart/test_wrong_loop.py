"""An application under a server that does not run trio: refusal with a message that has the right command."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from hypercorn.utils import LifespanFailureError

from umbel.gateway.app import Umbel
from umbel.gateway.quart.wrong_loop import wrong_loop
from umbel.server import hypercorn_config, serve

SENTENCE = "Umbel needs trio, and this server runs another event loop; start it with: hypercorn -k trio "


def asked(scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Call the application from asyncio with ``scope``, and return the messages that it sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": f"{scope['type']}.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = Umbel(__name__)
    asyncio.run(app(scope, receive, send))
    return sent


def test_without_trio_the_startup_fails_with_a_message() -> None:
    [message] = asked({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}})
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith(SENTENCE)


def test_without_trio_a_request_is_503_and_a_websocket_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    start, body = asked({"type": "http", "method": "GET", "path": "/", "headers": []})
    assert (start["status"], body["body"]) == (503, b"The gateway is not ready.\n")
    [close] = asked({"type": "websocket", "path": "/", "headers": []})
    assert close["type"] == "websocket.close"
    assert capsys.readouterr().err.count(SENTENCE) == 2


def test_a_server_that_raises_on_a_failed_startup_prints_only_the_message(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def send(message: Any) -> None:
        raise LifespanFailureError("startup", message["message"])

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    app: Any = Umbel(__name__)
    with pytest.raises(SystemExit) as ended:
        asyncio.run(app({"type": "lifespan"}, receive, send))
    assert ended.value.code == 78
    said = capfd.readouterr().err
    assert said.startswith(SENTENCE)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/bin/hypercorn", "umbel.asgi:app"], "umbel.asgi:app"),
        (["hypercorn", "-c", "h.toml", "-k", "asyncio", "shop:app"], "-c h.toml shop:app"),
        (["/x/hypercorn/__main__.py", "--worker-class=uvloop", "a b:app"], "'a b:app'"),
        (
            ["hypercorn", "-kasyncio", "--bind", "127.0.0.1:80", "shop.main:make()"],
            "--bind 127.0.0.1:80 'shop.main:make()'",
        ),
        (["/x/bin/uvicorn", "--port", "80", "shop.main:app"], "shop.main:app"),
        (["gunicorn", "-b", "127.0.0.1:80"], "umbel.asgi:app"),
        ([], "umbel.asgi:app"),
    ],
)
def test_the_message_has_the_command_for_the_same_application(argv: list[str], command: str) -> None:
    assert wrong_loop(argv) == SENTENCE + command


def test_serve_without_trio_raises_an_error_that_names_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py"])
    with pytest.raises(RuntimeError, match=r"the server needs trio; call serve from trio\.run"):
        asyncio.run(serve(Umbel(__name__), hypercorn_config()))
