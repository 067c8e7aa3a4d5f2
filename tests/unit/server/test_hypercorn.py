"""The replacement of ``TCPServer.run`` under the ``hypercorn`` command, and how to do without it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from hypercorn.app_wrappers import WSGIWrapper
from hypercorn.trio import run
from hypercorn.trio.tcp_server import TCPServer

from umbel.server import hypercorn as umbel_in_hypercorn


def printed(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_making_an_umbel_does_not_change_hypercorn() -> None:
    code = "import umbel; umbel.Umbel('x'); from umbel.server import hypercorn; print(hypercorn.installed())"
    assert printed(code) == "False"


@pytest.mark.parametrize(("value", "installed"), [("off", "False"), ("on", "True")])
def test_install_replaces_the_connections_unless_umbel_guard_is_off(value: str, installed: str) -> None:
    code = "from umbel.server import hypercorn, install_in_hypercorn as i; i(); i(); print(hypercorn.installed())"
    assert printed(code, UMBEL_GUARD=value) == installed


async def test_a_wsgi_application_is_served_by_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    async def stock(server: TCPServer) -> None:
        served.append(server)

    monkeypatch.setattr(umbel_in_hypercorn, "_stock_run", stock)
    umbel_in_hypercorn.install()
    wsgi = WSGIWrapper(lambda environ, start_response: [], 1000)
    server = TCPServer(wsgi, *[None] * 4)  # type: ignore[arg-type]  # They are not used.
    await server.run()
    assert served == [server]


def test_hypercorn_still_calls_run_for_each_connection() -> None:
    assert "TCPServer" in inspect.getsource(run.worker_serve)
    assert {"app", "config", "context", "stream"} <= set(inspect.signature(TCPServer.__init__).parameters)
