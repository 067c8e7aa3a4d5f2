"""What tests of several directories share: the ways in which a request can be answered."""

from __future__ import annotations

import pytest

from tests.support.server import asgi
from umbel.config.schema.server import Server
from umbel.server import install_in_hypercorn

install_in_hypercorn()


@pytest.fixture(params=["quart", "direct", "direct and cancelled by the server"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How applications of the test answer requests for configured routes. The answers must be the same.

    Through Quart, because ``hooks`` is "all" unless a configuration says something else; before Quart, watching for the
    client's leaving; and before Quart, under a server that cancels who does not watch. (The third differs only for
    conversations in memory.)
    """
    if request.param == "quart":
        every = property(lambda server: server.__dict__["hooks"] if "hooks" in server.model_fields_set else "all")
        monkeypatch.setattr(Server, "hooks", every, raising=False)
    monkeypatch.setattr(asgi, "cancelling", request.param.endswith("server"))
    return request.param
