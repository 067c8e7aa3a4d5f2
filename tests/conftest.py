"""The fixture ``way`` of all tests: the ways in which an application answers requests for configured routes."""

from __future__ import annotations

import gc

import pytest

from tests.support.process import fork_server
from tests.support.server import asgi
from umbel.config.schema.process.server import Server
from umbel.server import install_in_hypercorn

install_in_hypercorn()
fork_server.install()


@pytest.fixture(params=["quart", "direct", "direct and cancelled by the server"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way in which the test's applications answer requests for configured routes. The answers must be the same.

    - quart: through Quart's dispatch, since ``hooks`` is "all" unless the configuration sets it.
    - direct: before Quart's dispatch.
    - direct and cancelled by the server: before Quart's dispatch; in memory (``tests.support.server.asgi``) a client
      that leaves cancels an application that does not receive.
    """
    if request.param == "quart":
        every = property(lambda server: server.__dict__["hooks"] if "hooks" in server.model_fields_set else "all")
        monkeypatch.setattr(Server, "hooks", every, raising=False)
    monkeypatch.setattr(asgi, "cancelling", request.param.endswith("server"))
    return request.param


def pytest_collection_finish() -> None:
    """Leave the collected tests out of the garbage collections of tests, which would examine them all each time."""
    gc.collect()
    gc.freeze()
