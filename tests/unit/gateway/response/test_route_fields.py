"""Header fields of a route's responses, prepared for each kind of client."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.config.schema.sections import Config
from umbel.core.inbound import PreparedFields, ResponseFields
from umbel.core.networks import Networks
from umbel.gateway.browsers.browser_fields import BrowserRules
from umbel.gateway.request.client_origin import ClientOrigin, origin_of
from umbel.gateway.response.route_fields import REQUEST_ID, RouteFields

APP = b"https://app.example"
CORS = {"cors": {"origins": [APP.decode()]}}
OWN = [(b"vary", b"Accept"), (b"etag", None), (b"x-last", b"%")]


def client(origin: bytes | None = None, scheme: str = "http") -> ClientOrigin:
    fields = () if origin is None else ((b"origin", origin),)
    return origin_of("127.0.0.1", fields, Networks(()), scheme=scheme)


@pytest.mark.parametrize("tables", [{}, CORS, {"headers": {"preset": "web", "set": {"x-last": "1"}}}])
def test_completed_fields_are_those_of_a_list(tables: dict[str, Any]) -> None:
    rules = BrowserRules(Config.model_validate(tables)).default
    route = RouteFields(OWN)
    for asks in (client(), client(APP), client(b"https://evil.example"), client(scheme="https"), client()):
        completed = route.completed(rules, asks)
        assert completed is not None
        assert completed is route.completed(rules, asks)
        expected = [(b"vary", b"Accept"), (b"etag", b"1"), (b"x-last", b"%"), (REQUEST_ID, b"2")]
        rules.add(expected, asks)
        assert [*ResponseFields(completed, (b"1", b"2"))] == expected


@pytest.mark.parametrize(
    ("tables", "own"),
    [
        ({"headers": {"remove": ["server-timing"]}}, [(b"server-timing", None)]),
        ({"headers": {"remove": ["etag"]}}, [(b"etag", None)]),
        (CORS, [(b"vary", None)]),
    ],
)
def test_fields_for_browsers_that_change_an_own_value_need_a_list(
    tables: dict[str, Any], own: list[tuple[bytes, bytes | None]]
) -> None:
    rules = BrowserRules(Config.model_validate(tables)).default
    route = RouteFields(own)
    assert route.completed(rules, client(APP)) is None
    assert route.completed(rules, client(APP)) is None


def test_each_route_has_its_own_fields_for_browsers() -> None:
    route, plain = RouteFields(OWN), BrowserRules(Config.model_validate({})).default
    rules = BrowserRules(Config.model_validate(CORS)).default
    assert route.completed(plain, client(APP)) is not route.completed(rules, client(APP))


def test_extended_fields_are_made_once() -> None:
    route, more = RouteFields(OWN), PreparedFields([(b"server-timing", None)])
    assert route.extended(more).fields == (*OWN, (b"server-timing", None))
    assert route.extended(more) is route.extended(more)
