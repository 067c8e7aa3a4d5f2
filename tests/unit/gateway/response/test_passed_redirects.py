"""Passed redirects: a complete answer with its Location, and a failure in a stream that has begun."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import gateway
from umbel.core.failure_kinds import Kind

pytestmark = pytest.mark.usefixtures("way")

CALLS = {
    "a": {"upstream": "up", "path": "/a"},
    "b": {"upstream": "up", "path": "/b", "redirects": "pass", "params": {"a": "a"}},
}


def up(request: httpx.Request) -> httpx.Response:
    return httpx.Response(302, headers={"location": "/x"}) if request.url.path == "/b" else httpx.Response(200, json=1)


@pytest.mark.parametrize(
    ("route", "status", "completed", "kind"),
    [({"calls": CALLS}, 302, True, None), ({"calls": CALLS, "stream": True}, 200, False, Kind.STATUS)],
)
async def test_a_passed_redirect_is_complete_unless_a_stream_has_begun(
    route: dict[str, object], status: int, completed: bool, kind: Kind | None, autojump_clock: trio.testing.MockClock
) -> None:
    app, records = gateway({"path": "/r", **route}, up=up)
    async with living(app):
        answer = await ask(app, "GET", "/r")
    assert answer.status == status
    assert answer.all("umbel-completed") == (["true"] if completed else [])
    assert answer.all("location") == (["/x"] if completed else [])
    (record,) = records.requests
    assert (record.status, record.completed, record.kind) == (status, completed, kind)
