"""Limits of requests: on every kind of route, before Quart and through it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import http_sf
import pytest
import trio
from quart import websocket

from tests.support.logs.records import Records
from tests.support.server.asgi import Answer, ask, living
from tests.support.server.asgi_websocket import converse
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel

KINDS = ("composed", "shape", "respond", "redirect", "proxy", "handler", "required-handler", "view")
"""The kinds of routes, each at this path."""
LIMIT = {"key": "client.ip", "rate": "1/h", "burst": 2}
"""So slow that no test sees a second request of it, however long the test takes."""


@pytest.fixture(autouse=True)
def _ways(way: str) -> None:
    """Run each test in the three ways to answer a request."""


def every_kind(**limit: Any) -> tuple[Umbel, Records, Function]:
    """An application with a route of each kind, all with the same limit."""
    up = Function(says({"from": "up"}))
    app, records = gateway(
        route("/composed", limits=["l"]),
        {"path": "/shape", "limits": ["l"], "answer": {"shape": "path"}},
        {"path": "/respond", "limits": ["l"], "respond": {"text": "text"}},
        {"path": "/redirect", "limits": ["l"], "redirect": {"to": "/elsewhere"}},
        {"path": "/proxy", "limits": ["l"], "proxy": {"upstream": "up"}},
        sections={"limits": {"l": {**LIMIT, **limit}}, "cors": {"origins": ["https://app.example"]}},
        up=up,
    )

    @app.compose("/handler", limits="l")
    async def handler(compose: Any) -> Any:
        return {}

    @app.compose("/required-handler")
    @app.requires("none", limits="l")
    async def required_handler(compose: Any) -> Any:
        return {}

    @app.route("/view")
    @app.requires("none", limits=["l"])
    async def view() -> Any:
        return {}

    return app, records, up


def members(answer: Answer, field: str) -> Any:
    return http_sf.parse(answer[field].encode(), tltype="list")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_over_the_limit_gets_429_and_starts_nothing(kind: str, autojump_clock: trio.abc.Clock) -> None:
    app, records, up = every_kind(rate="1/s")
    async with living(app):
        answers = [await ask(app, target=f"/{kind}", headers=[("origin", "https://app.example")]) for _ in range(3)]
        await trio.sleep(1)
        again = await ask(app, target=f"/{kind}")
    status = 308 if kind == "redirect" else 200
    assert [answer.status for answer in (*answers, again)] == [status, status, 429, status]
    refused = answers[2]
    assert refused.json["type"] == "urn:umbel:problem:quota-exceeded"
    assert refused["retry-after"] == "1"
    assert refused["cache-control"] == "no-store"
    assert refused["access-control-allow-origin"] == "https://app.example"
    for answer, left, reset in zip(answers, (1, 0, 0), (1, 2, 2), strict=True):
        assert members(answer, "ratelimit-policy") == [("l", {"q": 1, "w": 1})]
        assert members(answer, "ratelimit") == [("l", {"r": left, "t": reset})]
    record = records.requests[2]
    assert (record.status, record.kind, record.limit, record.of_client) == (429, Kind.QUOTA_EXCEEDED, "l", True)
    assert record.request.route == f"/{kind}"
    assert [each.limit for each in records.requests] == ["", "", "l", ""]
    assert len(up.asked) == (3 if kind in ("composed", "proxy") else 0)
    assert app.statistics().limits == ()


async def test_all_routes_with_a_limit_spend_of_the_same_keys() -> None:
    app, *_ = every_kind(burst=3)
    async with living(app):
        statuses = [(await ask(app, target=f"/{kind}")).status for kind in ("shape", "respond", "view", "handler")]
        (statistics,) = app.statistics().limits
    assert statuses == [200, 200, 200, 429]
    assert (statistics.name, statistics.admitted, statistics.refused, statistics.keys) == ("l", 3, 1, 1)


async def test_a_cost_above_the_burst_is_refused_with_a_detail_that_says_so() -> None:
    app, _, _ = every_kind(cost="`5`")
    async with living(app):
        answer = await ask(app, target="/shape")
    assert answer.status == 429
    assert "more than its limit ever admits" in answer.json["detail"]
    assert "retry-after" not in dict(answer.headers)


def sections(directory: Path, **limits: Any) -> dict[str, Any]:
    keys = "".join(
        f'[[keys]]\nid = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n' for name in ("ada", "bob")
    )
    (directory / "keys.toml").write_text(keys)
    return {"auth": {"partners": {"kind": "api-key", "file": str(directory / "keys.toml")}}, "limits": limits}


async def asked_as(app: Umbel, key: str) -> int:
    return (await ask(app, target="/r", headers=[("x-api-key", key)])).status


async def test_a_limit_of_addresses_counts_wrong_credentials_and_one_of_subjects_does_not(tmp_path: Path) -> None:
    limits = {"ip": {**LIMIT, "burst": 4}, "sub": {**LIMIT, "key": "auth.sub || client.ip"}}
    app, records = gateway(
        route(auth=["partners"], limits=["sub", "ip"]), sections=sections(tmp_path, **limits), up=says(1)
    )
    async with living(app):
        statuses = [await asked_as(app, key) for key in ("wrong", "ada", "bob", "wrong", "ada")]
        ip, sub = app.statistics().limits
    assert statuses == [401, 200, 200, 401, 429]
    assert (ip.admitted, ip.refused, sub.admitted, sub.refused, sub.keys) == (4, 1, 2, 0, 2)
    assert [each.limit for each in records.requests] == ["", "", "", "", "ip"]


async def test_each_subject_has_a_limit_of_its_own_and_both_fields_name_all_limits(tmp_path: Path) -> None:
    limits = {"ip": {**LIMIT, "burst": 40}, "sub": {**LIMIT, "key": "auth.sub"}}
    app, _ = gateway(route(auth=["partners"], limits=["ip", "sub"]), sections=sections(tmp_path, **limits), up=says(1))
    async with living(app):
        statuses = [await asked_as(app, key) for key in ("ada", "ada", "ada", "bob")]
        answer = await ask(app, target="/r", headers=[("x-api-key", "bob")])
    assert statuses == [200, 200, 429, 200]
    assert [name for name, _ in members(answer, "ratelimit-policy")] == ["ip", "sub"]
    assert [(name, each["r"]) for name, each in members(answer, "ratelimit")] == [("ip", 35), ("sub", 0)]


async def test_a_request_that_one_limit_refuses_spends_nothing_of_the_other() -> None:
    limits = {"wide": {**LIMIT, "burst": 10}, "narrow": {**LIMIT, "key": "query.q", "burst": 1}}
    app, _ = gateway(route(limits=["wide", "narrow"]), sections={"limits": limits}, up=says(1))
    async with living(app):
        statuses = [(await ask(app, target=f"/r?q={q}")).status for q in ("a", "a", "a", "b")]
        wide, narrow = app.statistics().limits
    assert statuses == [200, 429, 429, 200]
    assert (wide.admitted, wide.refused, narrow.admitted, narrow.refused) == (2, 0, 2, 2)


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("headers.x_tenant", ("/t/1", [("x-tenant", "a")]), ("/t/1", [("x-tenant", "b")])),
        ("path.id", ("/t/1", []), ("/t/2", [])),
        ("query.q", ("/t/1?q=a", []), ("/t/1?z=%ff&q=b", [])),
        ("cookies.s", ("/t/1", [("cookie", "s=a")]), ("/t/1", [("cookie", "s=b")])),
        ("[path.id, headers.x_tenant]", ("/t/1", []), ("/t/1", [("x-tenant", "a")])),
    ],
)
async def test_a_key_reads_the_parts_of_the_request(key: str, one: Any, other: Any) -> None:
    rule = {"path": "/t/<int:id>", "limits": ["l"], "answer": {"shape": "path"}}
    app, _ = gateway(rule, sections={"limits": {"l": {**LIMIT, "key": key, "burst": 1}}})
    async with living(app):
        statuses = [(await ask(app, target=t, headers=f)).status for t, f in (one, one, other, other)]
    assert statuses == [200, 429, 200, 429]


async def test_a_websocket_over_the_limit_is_refused_with_a_problem() -> None:
    app, records = gateway(sections={"limits": {"l": {**LIMIT, "burst": 1}}})

    @app.websocket("/ws")
    @app.requires("none", limits="l")
    async def socket() -> None:
        await websocket.accept()

    async with living(app):
        first = await converse(app, "/ws")
        second = await converse(app, "/ws")
    assert first[0]["type"] == "websocket.accept"
    assert (b"ratelimit", b'"l";r=0;t=3600') in first[0]["headers"]
    start = second[0]
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert {b"retry-after", b"ratelimit", b"ratelimit-policy"} <= {name for name, _ in start["headers"]}
    assert [each.limit for each in records.requests] == ["", "l"]


@pytest.mark.parametrize("target", ["/r", "/view", "/missing"])
async def test_a_limit_of_the_server_counts_every_request_once(target: str) -> None:
    server, limits = {"limits": ["all"]}, {"all": {**LIMIT, "burst": 4}, "own": {**LIMIT, "burst": 9}}
    app, records = gateway(route(limits=["own"]), server=server, sections={"limits": limits}, up=says(1))

    @app.route("/view")
    @app.requires("none", limits="own")
    async def view() -> Any:
        return {}

    async with living(app):
        answers = [await ask(app, target=target) for _ in range(5)]
        probe = await ask(app, target="/livez")
        every, own = app.statistics().limits
        socket = await converse(app, client=("127.0.0.1", 1))
    status = 404 if target == "/missing" else 200
    assert [answer.status for answer in answers] == [status] * 4 + [429]
    assert probe.status == 200
    assert (every.admitted, every.refused) == (4, 1)
    assert own.admitted == (0 if target == "/missing" else 4)
    assert [name for name, _ in members(answers[0], "ratelimit")] == ["all", "own"][: 1 if target == "/missing" else 2]
    assert answers[-1].json["type"] == "urn:umbel:problem:quota-exceeded"
    assert socket[0]["status"] == 429
    assert [each.limit for each in records.requests if each.status == 429] == ["all", "all"]


async def test_the_figures_have_what_limits_decided() -> None:
    app, *_ = every_kind()
    async with living(app):
        for _ in range(3):
            await ask(app, target="/shape")
        values, _ = app.figures()
    assert values["umbel_limit_requests_total"] == [(("l", "admitted"), 2), (("l", "refused"), 1)]
    assert values["umbel_limit_keys"] == [(("l",), 1)]
    assert values["umbel_limit_evictions_total"] == [(("l",), 0)]


def test_a_limit_that_no_section_has_or_that_lacks_auth_is_refused_in_code() -> None:
    app, _ = gateway(sections={"limits": {"l": LIMIT, "sub": {**LIMIT, "key": "auth.sub"}}})
    with pytest.raises(ValueError, match=r"no section \[limits.m\]; name one of: l, sub"):
        app.requires("none", limits="m")
    with pytest.raises(ValueError, match="sub reads auth"):
        app.requires("none", limits="sub")
    with pytest.raises(ValueError, match="stated twice"):

        @app.compose("/x", limits="l")
        @app.requires("none", limits="l")
        async def twice(compose: Any) -> None: ...
