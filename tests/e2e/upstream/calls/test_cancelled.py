"""Compositions over sockets that are cancelled at random moments, by the thousand, leave nothing but their records.

Without a server before them, so that most of it is calls. ``make soak`` runs ten times as many.
"""

from __future__ import annotations

import gc
import random
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import facts
from tests.support.composition.over_sockets import assert_nothing_left, assert_recorded_once, configured
from tests.support.logs.records import Records
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import Peer, RawServer, open_sockets, raw_server, response
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan_run import run
from umbel.core.model import Inputs
from umbel.upstream import Client, build

CANCELS = 20_000 if SOAK else 400
AT_ONCE = 20
SLOTS = 40
CALLS: dict[str, Any] = {
    "profile": {"optional": True, "default": {"n": 1}},
    "orders": {"optional": True, "timeout": "20ms"},
    "offers": {"path": "/offers/{profile.n}", "optional": True},
    "news": {"optional": True, "default": []},
    "basket": {"method": "PUT", "json": "{of: profile.n}", "optional": True},
    "payment": {"method": "POST", "json": "{of: profile.n}", "optional": True},
    "items": {"each": "[`1`, `2`, `3`, profile.n]", "path": "/items/{item}", "limit": 2, "optional": True},
}
RETRIES = {"retry": {"attempts": 3, "backoff": "2ms"}, "retry_budget": "50%"}
HEDGES = {"hedge": {"after": "3ms", "max": 2}}
BREAKER = {"breaker": {"min_requests": 100, "failure_ratio": "90%", "open_for": "20ms"}}
POLICIES: dict[str, tuple[int, bool, dict[str, Any]]] = {
    "no policy": (1, False, {"max_concurrency": SLOTS}),
    "over TLS": (1, True, {"max_concurrency": SLOTS, **RETRIES}),
    "retries, hedges, breaker": (1, False, {"max_concurrency": SLOTS, **RETRIES, **HEDGES, **BREAKER}),
    "coalesced": (2, False, {"max_concurrency": SLOTS, "coalesce": True, **RETRIES}),
    "every policy": (
        3,
        False,
        {
            "max_concurrency": "auto",
            "coalesce": True,
            "ejection": {"failures": 4, "base": "50ms", "max": "1s"},
            **RETRIES,
            **BREAKER,
            "hedge": {"after": "p90"},
            "balance": "p2c",
        },
    ),
}


class Flaky:
    """Answers at once, late or in two pieces, with a success or a failure, and closes idle connections at random."""

    def __init__(self) -> None:
        self.rng = random.Random("upstream")
        self.answered = 0

    async def handler(self, peer: Peer) -> None:
        rng = self.rng
        while (await peer.read_request())[0]:
            way = rng.random()
            if way < 0.4:
                await trio.sleep(rng.expovariate(1 / 0.003))
            if way < 0.01:
                peer.reset()
                return
            if way < 0.02:
                return
            answer = response(b'{"n":%d}' % rng.randrange(100))
            if way > 0.95:
                answer = response(b"no", status=b"503 Busy")
            cut = rng.randrange(len(answer)) if 0.02 < way < 0.2 else 0
            if cut:
                await peer.send(answer[:cut])
                await trio.lowlevel.checkpoint()
                if way < 0.04:
                    return
            await peer.send(answer[cut:])
            self.answered += 1
            if way > 0.9:
                # The next request may be under way already when the connection ends.
                await trio.sleep(rng.choice([0, 0.001]))
                return


class Clients:
    """Run compositions of the plan, and cancel some at a random moment."""

    def __init__(self, client: Client, plan: Any) -> None:
        self.client = client
        self.plan = plan
        self.rng = random.Random("clients")
        self.cancelled = self.ended = 0

    async def round(self, cancels: int) -> None:
        """Run ``AT_ONCE`` clients, until this many more compositions have been cancelled."""
        goal = self.cancelled + cancels

        async def some() -> None:
            while self.cancelled < goal:
                await self.one()

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(some)

    async def one(self, *, stays: bool = False) -> None:
        records, rng, whole = Records(), self.rng, False
        with trio.CancelScope() as scope:
            if not stays and rng.random() < 0.6:
                scope.deadline = trio.current_time() + rng.expovariate(1 / 0.006)
            if rng.random() < 0.2:
                whole = await self.of_options(records)
            else:
                await run(self.plan, Inputs(), facts(1.0), {"u": self.client}, records)
                whole = True
        self.cancelled += not whole
        self.ended += whole
        names = {event.outcome.call for event in records.calls}
        # A composition that is cancelled before its first step has begun nothing.
        assert names in (set(CALLS), set()) or names <= {"u", "u-2", "u-3"}
        assert names or not whole
        if self.client.policies.coalesce:  # Only one caller records the attempts of a shared call.
            assert len(names) == len(records.calls)
        else:
            assert_recorded_once(records, len(names))

    async def of_options(self, records: Records) -> bool:
        compose = Compose({"u": self.client}, Inputs(), facts(1.0), records)
        try:
            async with compose.gather() as block:
                first = block.get("u", "/first", optional=True)
                block.put("u", "/second", json=[1], default=None)
                await first
                block.get("u", "/third", optional=True, hedge={"after": 0.001})
        except CompositionFailedError:
            pass  # The deadline has passed, on a slow machine.
        return True


@pytest.mark.timeout(600 if SOAK else 60)
@pytest.mark.parametrize(("replicas", "tls", "policies"), POLICIES.values(), ids=POLICIES)
async def test_cancelled_at_random_moments_compositions_leave_nothing(
    replicas: int, tls: bool, policies: dict[str, Any], tmp_path: Path
) -> None:
    sockets, does = open_sockets(), Flaky()
    context, more = None, {}
    if tls:
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        more = {"tls": {"ca": str(tmp_path / "ca.pem")}}
    async with AsyncExitStack() as entered:
        servers = [await entered.enter_async_context(raw_server(does.handler, tls=context)) for _ in range(replicas)]
        urls = [f"http{'s' * tls}://127.0.0.1:{int(server)}" for server in servers]
        made = configured({"urls": urls, "max_queue": 1000, **more, **policies}, CALLS)
        client = await entered.enter_async_context(build("u", made.upstreams["u"]))
        clients = Clients(client, compile_route(made, 0))
        await settled(client, servers)
        tasks = trio.lowlevel.current_statistics().tasks_living - open_connections(servers)
        objects: list[int] = []
        for _ in range(5):
            await clients.round(CANCELS // 5)
            await settled(client, servers)
            assert_nothing_left(client)
            assert trio.lowlevel.current_statistics().tasks_living - open_connections(servers) == tasks
            for server in servers:
                server.connections.clear()
            gc.collect()
            objects.append(len(gc.get_objects()))
        # Every place is free: as many calls as there are places get one at once.
        before = client.statistics().bulkhead
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(lambda: clients.one(stays=True))
        assert client.statistics().bulkhead.overflowed == before.overflowed == 0
        said = client.statistics()
        assert_nothing_left(client)
        assert_policies_worked(said, policies)
    assert clients.ended > CANCELS / 3
    assert does.answered > CANCELS
    # The number of idle connections varies, but nothing grows from round to round.
    assert min(objects[-2:]) < max(objects[:3]) + 2000, objects
    assert open_sockets() == sockets


def assert_policies_worked(said: Any, policies: dict[str, Any]) -> None:
    """Check that each policy was in effect."""
    assert said.pool.replaced > 0
    assert said.pool.stale > 0
    assert said.retry.retries + said.hedge.hedges > 0
    assert said.hedge.hedges > 0
    assert bool(said.coalesce.made) == ("coalesce" in policies)
    if "breaker" in policies:
        assert said.breaker.requests > 0


def open_connections(servers: list[RawServer]) -> int:
    return sum(server.open for server in servers)


async def settled(client: Client, servers: list[RawServer]) -> None:
    """Wait until the upstreams have seen the end of each closed connection."""
    with trio.fail_after(5):
        while open_connections(servers) > client.statistics().pool.idle:
            await wait_all_tasks_blocked(0.001)
