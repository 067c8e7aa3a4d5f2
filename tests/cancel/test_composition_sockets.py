"""Cancels of a composition over real sockets at each checkpoint in turn: nothing is left, and the client works on.

Only with sockets are responses pushed to the calls from the reader's task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.checkpoints import for_every_checkpoint
from tests.support.composition.composing import facts
from tests.support.logs.records import Records
from tests.support.upstream.memory_client import assert_client_is_idle
from tests.support.upstream.raw_server import Peer, open_sockets, raw_server, response
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Config
from umbel.core.events import AttemptEnded
from umbel.core.model import Inputs
from umbel.upstream import Client, build

ONE, BUSY = response(b'{"one":1}'), response(b"no", status=b"503 Busy")
CALLS: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {"timeout": "3s"},
    "c": {"path": "/c/{a.one}", "optional": True},
    "d": {"method": "POST", "optional": True},
    "e": {"each": "[a.one, b.one]", "path": "/e/{item}"},
}
RETRY = {"attempts": 3, "backoff": "1ms", "max_backoff": "1ms"}


class Upstream:
    """Upstream that fails each request, or each second one, in changing ways while ``faulty``."""

    def __init__(self, other: str, every: int = 2) -> None:
        self.faulty = False
        self._other = other
        self._every = every
        self._count = 0

    async def __call__(self, peer: Peer) -> None:
        while (await peer.read_request())[0]:
            self._count += 1
            other = self._other if self.faulty and self._count % self._every == 0 else "none"
            if other == "ends":
                return
            answer = BUSY if other == "busy" else ONE
            for piece in (answer[:20], answer[20:-3], answer[-3:]) if other == "in pieces" else (answer,):
                await peer.send(piece)
                await wait_all_tasks_blocked()


class Cut:
    """Cancelled compositions of one client."""

    def __init__(self, made: Config, client: Client, upstream: Upstream) -> None:
        self.plan, self.client, self.upstream = compile_route(made, 0), client, upstream
        self.records = Records()
        self.finished = False

    async def run(self, *, faulty: bool) -> bool:
        """Run a composition; return whether it succeeded."""
        self.records.events.clear()
        self.finished, self.upstream.faulty = False, faulty
        result = await run(self.plan, Inputs(), facts(), {"u": self.client}, self.records)
        self.finished = True
        return result.failure is None

    async def check(self) -> None:
        assert_client_is_idle(self.client)
        # A cancel before the very first step may come before the composition itself has begun.
        names = sorted(call.name for call in self.plan.calls)
        assert self.records.ended_calls == names or not (self.records.events or self.finished)
        recorded = [event.call for event in self.records.events if isinstance(event, AttemptEnded)]
        made = [event.outcome.call for event in self.records.calls for _ in event.outcome.attempts]
        assert sorted(recorded) == sorted(made)
        # The client still works: the next call gets its own response, and no part of a cancelled one.
        assert await self.run(faulty=False)
        assert_client_is_idle(self.client)


@asynccontextmanager
async def cutting(
    upstream: Upstream, policies: dict[str, Any], names: str = "abcde", **route: Any
) -> AsyncIterator[Cut]:
    calls = {name: {"upstream": "u", "path": f"/{name}", **CALLS[name]} for name in names}
    async with raw_server(upstream) as server:
        urls = [f"http://127.0.0.1:{int(server)}"]
        made = Config.model_validate(
            {"upstreams": {"u": {"urls": urls, **policies}}, "routes": [{"path": "/r", "calls": calls, **route}]}
        )
        async with build("u", made.upstreams["u"]) as client:
            cut = Cut(made, client, upstream)
            assert await cut.run(faulty=False)
            yield cut


@pytest.mark.parametrize(
    ("other", "policies"),
    [
        ("none", {}),
        ("in pieces", {}),
        ("ends", {}),
        ("busy", {"retry": RETRY, "breaker": {}}),
        ("none", {"max_concurrency": 1, "breaker": {}}),
        ("in pieces", {"hedge": {"after": "1ms"}}),
        ("none", {"coalesce": True}),
    ],
    ids=["at once", "in pieces", "replaced", "retried", "queued", "hedged", "coalesced"],
)
@pytest.mark.parametrize("route", [{}, {"combine": "first"}], ids=["all", "first"])
async def test_a_cancelled_composition_leaves_nothing_and_its_client_works_on(
    other: str, policies: dict[str, Any], route: dict[str, Any]
) -> None:
    sockets = open_sockets()
    async with cutting(Upstream(other), policies, **route) as cut:
        assert await for_every_checkpoint(lambda: cut.run(faulty=True), cut.check, any_task=True) > 10
    assert open_sockets() == sockets


async def test_a_cancelled_probe_of_a_breaker_returns_its_slot(mock_clock: MockClock) -> None:
    policies = {"breaker": {"min_requests": 1, "open_for": "1s"}}
    async with cutting(Upstream("busy", every=1), policies, names="a") as cut:
        breaker = cut.client.breaker
        assert breaker is not None

        def check() -> None:
            assert_client_is_idle(cut.client)
            assert breaker._probe is None
            mock_clock.jump(2)

        while not breaker.statistics(trio.current_time()).opened:
            await cut.run(faulty=True)
        check()
        assert await for_every_checkpoint(lambda: cut.run(faulty=True), check, any_task=True) > 5
        assert breaker.statistics(trio.current_time()).opened > 1
