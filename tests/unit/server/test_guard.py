"""The guard's switch: whoever makes an Umbel puts it on, and the environment takes it off."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypercorn.app_wrappers import WSGIWrapper
from hypercorn.trio.tcp_server import TCPServer

from umbel.gateway.app import Umbel
from umbel.server import guard


def test_making_an_umbel_installs_the_guard() -> None:
    Umbel(__name__)
    assert guard.installed()


@pytest.mark.parametrize(("value", "installed"), [("off", "False"), ("on", "True")])
def test_the_environment_switches_it_off(value: str, installed: str) -> None:
    code = "from umbel.server import guard; guard.install(); print(guard.installed())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"UMBEL_GUARD": value}
    )
    assert done.stdout.strip() == installed


async def test_a_wsgi_application_stays_hypercorns(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    async def unguarded(server: TCPServer) -> None:
        served.append(server)

    monkeypatch.setattr(guard, "_unguarded", unguarded)
    guard.install()
    wsgi = WSGIWrapper(lambda environ, start_response: [], 1000)
    server = TCPServer(wsgi, *[None] * 4)  # type: ignore[arg-type]  # nothing of them is used
    await server.run()
    assert served == [server]
