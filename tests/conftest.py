"""What tests of several directories share: the ways in which a request can be answered."""

from __future__ import annotations

import pytest

from tests.support import asgi
from umbel.gateway.directroutes import DirectRoutes
from umbel.server import install_in_hypercorn

install_in_hypercorn()


@pytest.fixture(params=["quart", "direct", "direct and cancelled by the server"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How applications of the test answer requests for routes of their configuration. The answers must be the same.

    Through Quart, because they have a hook; without Quart, watching for the client's leaving; and without, under a
    server that cancels who does not watch. (The third differs only for conversations in memory.)
    """
    if request.param == "quart":
        look = DirectRoutes.open

        async def nothing() -> None:
            """A hook that changes nothing."""

        def hook_in(routes: DirectRoutes) -> None:
            routes._app.before_request(nothing)
            look(routes)
            assert routes.obstacle == "a before_request function of the application"

        monkeypatch.setattr(DirectRoutes, "open", hook_in)
    monkeypatch.setattr(asgi, "cancelling", request.param.endswith("server"))
    return request.param
