"""A composition against a scripted upstream over sockets, run once or several times, and what is observed."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from msgspec import structs
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import facts
from tests.support.gateway.answers.plain_json import plain
from tests.support.logs.records import Records
from tests.support.upstream.raw_server import Peer, RawServer, raw_server, response
from umbel.composition.answer.result import Result
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.plan import Plan
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Config
from umbel.core.events import AttemptEnded
from umbel.core.model import Attempt, Inputs, RequestFacts
from umbel.upstream import Client, ClientStatistics, build
from umbel.upstream.calls.call import UpstreamCall

Step = bytes | Sequence[bytes] | Callable[[Peer], Awaitable[object]]
"""What an upstream does with one request: send these bytes, send these pieces one by one, or call the function. A
function that returns False ends the connection."""

WARM = response(b'{"warm":true}', b"Content-Type: application/json")
BUSY = response(b"no", status=b"503 Busy")
ONE = response(b'{"one":1}', b"Content-Type: application/json")

_SPAN = re.compile(rb"(traceparent: 00-[0-9a-f]{32}-)[0-9a-f]{16}")
_MILLISECONDS = re.compile(rb"((?:x-envoy-expected-rq-timeout-ms|x-left): )\d+")


@dataclass
class Case:
    """A composition and the behaviour of its upstream.

    ``steps`` has one step for each request after the warm-up; further requests get the last step. A mapping has the
    steps by a part of the target. ``upstream`` and ``route`` are tables of the configuration; ``calls`` are the calls
    of the route.
    """

    steps: Sequence[Step] | Mapping[str, Sequence[Step]] = (ONE,)
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"a": {}})
    upstream: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=lambda: Inputs(path={"id": "7"}))
    deadline: float = 5.0
    trace_state: str = ""
    warm: int = 1
    """The number of idle connections at the beginning."""
    times: int = 1
    """The number of runs of the composition, one after the other."""
    replicas: int = 1
    tls: tuple[ssl.SSLContext, Mapping[str, str]] | None = None
    uds: str | None = None
    before: Callable[[Lab], Awaitable[object]] | None = None
    """Called after the warm-up."""
    around: Callable[[Lab, Callable[[], Awaitable[Result | None]]], Awaitable[Result | None]] | None = None
    """Called with the function that runs the composition, for example to cancel it; None: it is awaited."""


@dataclass
class Seen:
    """The observations of a case."""

    requests: list[bytes]
    """The requests, without ports, span ids and remaining milliseconds, which differ from run to run."""
    results: list[Result | None]
    records: Records
    statistics: ClientStatistics
    kept: int
    """The number of connections that are open at both ends after the runs."""
    tasks: int
    """How often an attempt needed a task, including the warm-up."""

    @property
    def ends(self) -> list[dict[str, Any]]:
        """For each run, by call: its value, or the kind of its failure."""
        return [
            {each.call: plain(each.value) if each.failure is None else each.failure.kind for each in result.outcomes}
            for result in self.results
            if result is not None
        ]

    @property
    def attempts(self) -> list[tuple[Any, ...]]:
        """Status, kind and cause of each attempt, in the order in which they ended."""
        return [(each.status, each.kind, each.cause) for each in self.full_attempts]

    @property
    def full_attempts(self) -> list[Attempt]:
        """The attempts in the order in which they ended."""
        return [event.attempt for event in self.records.events if isinstance(event, AttemptEnded)]


class Lab:
    """One case while it runs."""

    def __init__(self, case: Case, client: Client, plan: Plan, servers: list[RawServer]) -> None:
        self.case = case
        self.client = client
        self.plan = plan
        self.servers = servers
        self.records = Records()

    def facts(self) -> RequestFacts:
        made = facts(self.case.deadline)
        return structs.replace(made, trace=structs.replace(made.trace, state=self.case.trace_state))

    async def run(self) -> Result:
        return await run(self.plan, self.case.inputs, self.facts(), {"u": self.client}, self.records)

    async def settled(self) -> int:
        """Wait until the upstreams have noticed each closed connection; return the number of idle connections."""
        with trio.fail_after(5):
            while sum(server.open for server in self.servers) > self.client.statistics().pool.idle:
                await wait_all_tasks_blocked()
        return self.client.statistics().pool.idle


class Upstream:
    """An upstream that answers the warm-up requests, then does the steps of a case. It keeps every other request."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._warm = trio.Event()
        self.requests: list[bytes] = []
        self.sending = 0
        """The number of steps that still have a piece to send."""
        self._made: dict[str, int] = {}
        self._waiting = 0

    async def handler(self, peer: Peer) -> None:
        while True:
            head, body = await peer.read_request()
            if not head:
                return
            target = head.split(b" ")[1].decode()
            if target.startswith("/warm"):
                await self._warmed()
                await peer.send(WARM)
                continue
            self.requests.append(_scrubbed(head + body))
            if await self._do(peer, self._step(target)) is False:
                return

    async def _warmed(self) -> None:
        """Wait until all warm-up requests have arrived, so that each one opens a connection."""
        self._waiting += 1
        if self._waiting == self._case.warm:
            self._warm.set()
        await self._warm.wait()

    def _step(self, target: str) -> Step:
        steps = self._case.steps
        key = ""
        if isinstance(steps, Mapping):
            key = next(part for part in steps if part in target)
            steps = steps[key]
        made = self._made[key] = self._made.get(key, -1) + 1
        return steps[min(made, len(steps) - 1)]

    async def _do(self, peer: Peer, step: Step) -> object:
        if callable(step):
            return await step(peer)
        self.sending += 1
        try:
            for piece in [step] if isinstance(step, bytes) else step:
                await peer.send(piece)
                await wait_all_tasks_blocked()
        finally:
            self.sending -= 1
        return True


def _scrubbed(request: bytes) -> bytes:
    request = _MILLISECONDS.sub(rb"\1N", _SPAN.sub(rb"\1S", request))
    return re.sub(rb"127\.0\.0\.1:\d+", b"H", request)


@asynccontextmanager
async def laboratory(case: Case) -> AsyncIterator[tuple[Lab, Upstream]]:
    """Open the upstreams, a client with idle connections, and the plan of a case."""
    upstream = Upstream(case)
    server_tls, tls = case.tls or (None, {})
    async with AsyncExitStack() as entered:
        if case.uds is not None:
            entered.callback(Path(case.uds).unlink)
        opened = [
            await entered.enter_async_context(raw_server(upstream.handler, tls=server_tls, uds=case.uds))
            for _ in range(case.replicas)
        ]
        scheme = "https" if case.tls else "http"
        urls = [f"unix:{case.uds}"] if case.uds else [f"{scheme}://127.0.0.1:{int(server)}" for server in opened]
        more: dict[str, Any] = {"tls": dict(tls)} if tls else {}
        if case.replicas > 1:
            more["balance"] = "round_robin"
        made = configured({"urls": urls, **more, **case.upstream}, case.calls, **case.route)
        records = Records()
        client = await entered.enter_async_context(build("u", made.upstreams["u"], recorder=records))
        lab = Lab(case, client, compile_route(made, 0), opened)
        lab.records = records
        if case.warm:
            await _warm(lab)
        yield lab, upstream


def configured(upstream: Mapping[str, Any], calls: Mapping[str, Mapping[str, Any]], **route: Any) -> Config:
    """A configuration with one route, whose calls go to the upstream ``u``, by default to the path ``/<name>``."""
    made = {name: {"upstream": "u", "path": f"/{name}", **call} for name, call in calls.items()}
    return Config.model_validate(
        {"upstreams": {"u": dict(upstream)}, "routes": [{"path": "/r/<id>", **route, "calls": made}]}
    )


async def _warm(lab: Lab) -> None:
    """Make ``case.warm`` concurrent calls, so that as many connections are idle afterwards."""
    calls = {f"w{n}": {"path": f"/warm/{n}"} for n in range(lab.case.warm)}
    plan = compile_route(configured({"urls": ["http://anywhere"]}, calls), 0)
    result = await run(plan, Inputs(), facts(5.0), {"u": lab.client}, Records())
    assert result.failure is None, result.failure
    assert lab.client.statistics().pool.idle == lab.case.warm


async def observe(case: Case) -> Seen:
    """Run a case.

    Raises:
        AssertionError: after the runs something of a call is left, or a call or attempt was not recorded exactly once.
    """
    tasks, usual = 0, UpstreamCall.attempt_waits

    def attempt_waits(call: UpstreamCall, attempt: Any) -> None:
        nonlocal tasks
        tasks += 1
        usual(call, attempt)

    UpstreamCall.attempt_waits = attempt_waits  # type: ignore[method-assign]
    try:
        with trio.fail_after(20):
            async with laboratory(case) as (lab, upstream):
                if case.before is not None:
                    await case.before(lab)
                results = []
                for _ in range(case.times):
                    results.append(await (lab.run() if case.around is None else case.around(lab, lab.run)))
                    await wait_all_tasks_blocked()
                    while upstream.sending:
                        await wait_all_tasks_blocked()
                kept = await lab.settled()
                assert_nothing_left(lab.client)
                seen = Seen(upstream.requests, results, lab.records, lab.client.statistics(), kept, tasks)
    finally:
        UpstreamCall.attempt_waits = usual  # type: ignore[method-assign]
    assert_recorded_once(lab.records, len(case.calls) * case.times)
    return seen


def assert_recorded_once(records: Records, calls: int) -> None:
    """Assert that ``calls`` calls are recorded, and each attempt once by itself and once in the outcome of its call."""
    assert len(records.calls) == calls
    attempts = [event.attempt for event in records.events if isinstance(event, AttemptEnded)]
    in_outcomes = [attempt for event in records.calls for attempt in event.outcome.attempts]
    assert sorted(attempts, key=repr) == sorted(in_outcomes, key=repr)


def assert_nothing_left(client: Client) -> None:
    """Assert that no call is in flight, no timer is set, and only the sockets of idle connections are watched."""
    said = client.statistics()
    assert (said.pool.active, said.pool.connecting) == (0, 0)
    assert (said.bulkhead.in_flight, said.bulkhead.waiting) == (0, 0)
    assert not any(replica.in_flight for replica in said.balance.replicas)
    assert (said.budget.active, said.budget.extra) == (0, 0)
    assert said.hedge.pending == 0
    assert (said.coalesce.in_flight, said.coalesce.waiting) == (0, 0)
    assert len(client.timers) == 0
    reader = client.pool._dialer.reader
    assert reader is None or len(reader) <= said.pool.idle
