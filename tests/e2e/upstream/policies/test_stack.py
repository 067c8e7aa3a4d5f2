"""The policies of an upstream are those of its configuration, and a call may have its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.composition.composing import facts
from tests.support.logs.records import Records
from tests.support.server.asgi import ask, living
from tests.support.upstream.nameserver import Zone, nameserver
from tests.support.upstream.raw_server import Peer, answering, raw_server, response
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Config
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs
from umbel.gateway.app import Umbel
from umbel.policy.gradient_limit import GradientLimit
from umbel.policy.hedge import HedgeRules
from umbel.policy.replicas.ejection import EjectionRules
from umbel.policy.retry import RetryOn, RetryRules
from umbel.policy.retry_budget import BudgetStatistics
from umbel.upstream import BreakerRules, Client, HealthRules, build
from umbel.upstream.replicas import dns


def config(urls: list[Any], call: dict[str, Any] | None = None, **upstream: Any) -> Config:
    calls = {"c": {"upstream": "u", "path": "/", **(call or {})}}
    return Config.model_validate(
        {"upstreams": {"u": {"urls": urls, **upstream}}, "routes": [{"path": "/r", "calls": calls}]}
    )


def client(made: Config) -> Client:
    return build("u", made.upstreams["u"])


async def test_a_policy_that_is_not_configured_is_none() -> None:
    policies = client(config(["http://127.0.0.1:1"])).policies
    assert (policies.coalesce, policies.breaker, policies.retry, policies.hedge) == (False, None, None, None)
    assert (policies.health, policies.weights, policies.max_concurrency) == (None, None, 100)


async def test_every_configured_policy_is_made() -> None:
    made = client(
        config(
            [{"url": "http://a", "weight": 2}, "http://b"],
            balance="weighted",
            retry={"attempts": 3, "on": ["connect", 503], "backoff": "1ms", "max_backoff": "2ms"},
            retry_budget="50%",
            hedge={"after": "200ms", "max": 2},
            breaker={"window": "1s", "min_requests": 2, "failure_ratio": "10%", "open_for": "1s"},
            ejection={"failures": 2, "base": "1s", "max": "2s", "share": "50%"},
            health={"path": "/h", "every": "1s", "healthy": 1, "unhealthy": 1},
            coalesce=True,
            max_concurrency="auto",
            max_queue=7,
            deadline_header="x-left",
            max_body="1KB",
            connect_timeout="3s",
        )
    )
    policies = made.policies
    assert (policies.balance, policies.weights) == ("weighted", [2, 1])
    assert policies.retry == RetryRules(3, RetryOn.of(["connect", 503]), 0.001, 0.002)
    assert policies.hedge == HedgeRules(seconds=0.2, max=2)
    assert policies.breaker == BreakerRules(1.0, 2, 0.1, 1.0)
    assert policies.ejection == EjectionRules(2, 1.0, 2.0, 0.5)
    assert policies.health == HealthRules("/h", 1.0, 1, 1)
    assert (policies.coalesce, policies.max_concurrency, policies.max_queue) == (True, "auto", 7)
    assert (policies.deadline_header, policies.max_body, policies.connect_timeout) == ("x-left", 1000, 3.0)
    calls = [object() for _ in range(10)]
    for each in calls:
        policies.budget.enter(each)
    said = made.statistics()
    assert said.budget == BudgetStatistics(active=10, extra=0, limit=5.0, denied=0)
    assert [replica.name for replica in said.balance.replicas] == ["http://a", "http://b"]
    assert said.bulkhead.capacity == GradientLimit().limit
    assert said.breaker is not None


async def test_a_call_is_retried_by_its_own_rules_and_its_attempts_are_recorded() -> None:
    async with raw_server(answering(response(b"no", status=b"503 No"), response(b"1"))) as port:
        made = config([f"http://127.0.0.1:{int(port)}"], {"retry": {"backoff": "1ms"}})
        plan, recorder = compile_route(made, 0), Records()
        async with client(made) as upstream:
            result = await run(plan, Inputs(), facts(), {"u": upstream}, recorder)
    assert result.answer == {"c": 1}
    made_of = [(attempt.status, attempt.cause) for attempt in result.outcomes[0].attempts]
    assert made_of == [
        (503, "first"),
        (200, "retry"),
    ]


async def test_a_call_in_code_has_own_policies_on_an_upstream_without_policies() -> None:
    asked = 0

    async def handler(peer: Peer) -> None:
        nonlocal asked
        while (await peer.read_request())[0]:
            asked += 1
            if asked <= 2:
                await peer.send(response(b"no", status=b"503 No"))
            elif asked == 3:
                await peer.closed()
            else:
                await peer.send(response(b"%d" % asked))

    async with raw_server(handler) as port:
        made = config([f"http://127.0.0.1:{int(port)}"])
        records = Records()
        app = Umbel("test", made, recorder=records, static_folder=None)

        @app.compose("/x")
        async def x(compose: Any) -> Any:
            async with compose.gather() as g:
                # The first fails and so does its hedge; the retry gets no answer, but its hedge does.
                call = g.get("u", "/", retry={"backoff": 0.001}, hedge={"after": 0.05, "max": 1})
            async with compose.gather() as g:
                both = [g.get("u", "/same", coalesce=True) for _ in range(2)]
            return [call.value, *(each.value for each in both)]

        async with living(app):
            answer = await ask(app, target="/x")
        assert answer.json == [4, 5, 5]
    causes = [[attempt.cause for attempt in call.outcome.attempts] for call in records.calls]
    assert (sorted(causes[0]), causes[1:]) == (["first", "hedge", "hedge", "retry"], [["first"], ["first"]])


async def test_an_open_breaker_is_answered_with_retry_after() -> None:
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    made = config([f"http://127.0.0.1:{int(port)}"], breaker={"min_requests": 2, "open_for": "5s"})
    plan = compile_route(made, 0)
    async with client(made) as upstream:
        kinds = []
        for _ in range(3):
            result = await run(plan, Inputs(), facts(), {"u": upstream}, Records())
            assert result.failure is not None
            kinds.append(result.failure.kind)
    assert kinds == [Kind.CONNECT, Kind.CONNECT, Kind.BREAKER_OPEN]
    assert (result.failure.status, result.failure.fields) == (503, (("retry-after", "5"),))


async def test_changes_of_breaker_ejection_and_health_are_recorded() -> None:
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    made = config(
        [dead, f"{dead}/other"],
        breaker={"min_requests": 3},
        ejection={"failures": 1},
        health={"path": "/", "every": "10ms", "unhealthy": 1},
    )
    plan, records = compile_route(made, 0), Records()
    async with build("u", made.upstreams["u"], recorder=records) as upstream:
        for _ in range(3):
            await run(plan, Inputs(), facts(), {"u": upstream}, records)
        with trio.fail_after(10):
            while len(records.logged) < 4:  # noqa: ASYNC110  # there is no event of it
                await trio.sleep(0.002)
    assert sorted(note.event for note in records.logged) == [
        "breaker.open",
        "ejection.out",
        "health.down",
        "health.down",
    ]
    assert {note.fields["upstream"] for note in records.logged} == {"u"}


async def test_a_dns_url_is_a_replica_per_address(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["127.0.0.1", "127.0.0.2"]
    async with AsyncExitStack() as entered:
        one = await entered.enter_async_context(raw_server(answering(response(b"1")), host=addresses[0]))
        await entered.enter_async_context(raw_server(answering(response(b"2")), host=addresses[1], port=int(one)))
        names = await entered.enter_async_context(nameserver({"users.test": Zone(a=addresses, ttl=60)}))
        monkeypatch.setattr(dns, "DnsReplicas", partial(dns.DnsReplicas, nameservers=names.at))
        made = config([f"dns+http://users.test:{int(one)}"], balance="round_robin")
        plan = compile_route(made, 0)
        upstream = await entered.enter_async_context(client(made))
        results = [await run(plan, Inputs(), facts(), {"u": upstream}, Records()) for _ in range(4)]
    assert sorted(result.answer["c"] for result in results) == [1, 1, 2, 2]
