"""Limits of upstreams: the calls of every kind of route spend for whoever makes the request, and wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.support.logs.records import Records
from tests.support.server.asgi import Answer, ask, living
from tests.support.upstream.raw_server import RawServer, answering, raw_server, response
from tests.unit.gateway.access.test_limits import sections
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel

KINDS = ("composed", "each", "proxy", "handler", "required")
"""The kinds of routes, each at this path."""
ONE_AN_HOUR = {"key": "client.ip", "rate": "1/h", "burst": 1}
"""So slow that no test sees a second call of it, however long the test takes."""


@pytest.fixture(autouse=True)
def _ways(way: str) -> None:
    """Run each test in the three ways to answer a request."""


@asynccontextmanager
async def limited(**given: Any) -> AsyncIterator[tuple[Umbel, Records, RawServer]]:
    """An application with a route of each kind, to an upstream that has the limit ``l``."""
    async with raw_server(answering(response(b"{}", b"Content-Type: application/json"))) as server:
        url, call, records = f"http://127.0.0.1:{int(server)}", {"upstream": "slow", "path": "/"}, Records()
        auth = {"auth": "partners"} if "auth" in given else {}
        routes = [
            {"path": "/composed", "calls": {"c": call}},
            {"path": "/each", "calls": {"c": {**call, "each": "[`1`, `2`]", "path": "/{item}"}}},
            {"path": "/proxy", "proxy": {"upstream": "slow"}},
            {"path": "/by/<id>", "calls": {"c": call}},
        ]
        parts = {"limits": {"l": ONE_AN_HOUR}, **given}
        upstreams = {"slow": {"urls": [url], "limits": "l", "timeout": "2s"}}
        config = {"upstreams": upstreams, "routes": [{**each, **auth} for each in routes], **parts}
        app = Umbel(__name__, Config.model_validate(config), recorder=records)

        @app.compose("/handler")
        async def handler(compose: Any) -> Any:
            async with compose.gather() as calls:
                calls.get("slow", "/")
            return {}

        @app.compose("/required")
        @app.requires("none")
        async def required(compose: Any) -> Any:
            return await handler(compose)

        async with living(app):
            yield app, records, server


def counted(app: Umbel) -> tuple[int, int, int, int]:
    (said,) = app.statistics().limits
    return said.admitted, said.refused, said.delayed, said.waiting


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_whose_turn_is_too_late_fails_at_once_with_503_and_kind_overflow(kind: str) -> None:
    async with limited() as (app, records, _):
        if kind != "each":
            assert (await ask(app, target=f"/{kind}")).status == 200
        began = trio.current_time()
        answer = await ask(app, target=f"/{kind}")
        assert trio.current_time() - began < 1
        assert answer.status == 503
        assert 3500 < int(answer["retry-after"]) <= 3600
        assert "its turn does not come in time" in answer.json["detail"]
        assert records.requests[-1].limit == "l"
        assert counted(app) == (1, 1, 0, 0)
    outcome = records.calls[-1].outcome
    failure = outcome.failure
    assert failure is not None
    assert failure.kind is Kind.OVERFLOW
    assert "limit l admits the call only in" in failure.detail


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_over_the_limit_wait_and_their_records_show_it(kind: str) -> None:
    async with limited(limits={"l": {"key": "'all'", "rate": "20/s", "burst": 1}}) as (app, records, _):
        answers: list[Answer] = []

        async def one() -> None:
            answers.append(await ask(app, target=f"/{kind}"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        calls = 6 if kind == "each" else 3
        assert [each.status for each in answers] == [200, 200, 200]
        assert counted(app) == (calls, 0, calls - 1, 0)
    attempts = sorted(each.started_at for record in records.calls for each in record.outcome.attempts)
    assert all(later - earlier > 0.04 for earlier, later in pairwise(attempts))
    waits = [each.outcome.attempts[0].started_at - (each.outcome.started_at or 0) for each in records.calls]
    assert max(waits) > 0.08


async def test_calls_count_for_the_identity_of_their_request(tmp_path: Path) -> None:
    limit = {**ONE_AN_HOUR, "key": "auth.sub"}
    async with limited(**sections(tmp_path, l=limit)) as (app, _, _):
        statuses = [
            (await ask(app, target=f"/{kind}", headers=[("x-api-key", key)])).status
            for kind, key in (("composed", "ada"), ("proxy", "ada"), ("proxy", "bob"), ("composed", "bob"))
        ]
    assert statuses == [200, 503, 200, 503]


@pytest.mark.parametrize("key", ["path.id", "query.q", "headers.x_tenant", "cookies.c"])
async def test_the_key_of_a_call_is_that_of_its_request(key: str) -> None:
    async with limited(limits={"l": {**ONE_AN_HOUR, "key": key}}) as (app, _, _):

        async def status(value: str) -> int:
            fields = [("x-tenant", value), ("cookie", f"c={value}")]
            answer = await ask(app, target=f"/by/{value}?q={value}", headers=fields)
            assert answer.status is not None
            return answer.status

        assert [await status(value) for value in "abab"] == [200, 200, 503, 503]


async def test_a_client_that_leaves_ends_the_wait_and_spends_nothing() -> None:
    async with limited(limits={"l": {**ONE_AN_HOUR, "rate": "1/s"}}) as (app, _, server):
        assert (await ask(app, target="/composed")).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, app, target="/composed"))
            with trio.fail_after(5):
                while not counted(app)[3]:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel(reason="client-gone")
        assert counted(app) == (1, 0, 1, 0)
        assert app.statistics().requests_in_flight == 0
        assert len(server.connections) == 1
