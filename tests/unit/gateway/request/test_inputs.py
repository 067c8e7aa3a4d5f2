"""Inputs of a plan: cookies of the client."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import Function, gateway, route, says


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("s=1", "s=1"),
        ("t=2; s=1;u=3", "s=1"),
        ("s=a=b; x", "s=a=b"),
        ("s=first; s=second", "s=first"),
        ("s=", "s="),
        ('s="quoted"', 's="quoted"'),
        # Escapes that servers decode: a semicolon and a line end.
        (r's="a\073 admin=1"', r's="a\073 admin=1"'),
        (r's="a\015\012x-admin: 1"', r's="a\015\012x-admin: 1"'),
        ("s", None),
        ("t=2", None),
        ("", None),
        (";;=;", None),
    ],
)
async def test_a_forwarded_cookie_is_unchanged_and_alone(
    field: str, sent: str | None, autojump_clock: MockClock
) -> None:
    calls = {"part": {"upstream": "up", "path": "/", "forward_cookies": ["s"]}}
    upstream = Function(says(1))
    app, _ = gateway(route(calls=calls), up=upstream)
    async with living(app):
        assert (await ask(app, target="/r", headers=[("cookie", field)])).status == 200
    assert upstream.asked[0].headers.get("cookie") == sent
