"""One composition against one scripted upstream, by the express way and by the ordinary one, and all that can be seen.

``both_ways`` runs the same case twice and asserts that everything which it saw is the same. What differs by its nature
is scrubbed: ports, span ids, the milliseconds that a deadline leaves.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composing import facts
from tests.support.rawserver import Peer, RawServer, raw_server, response
from tests.support.records import Records
from umbel.composition.dag import Plan
from umbel.composition.plan import compile_route
from umbel.composition.result import Result
from umbel.composition.run import run
from umbel.config.schema import Config
from umbel.events import AttemptEnded, CallEnded, Noted
from umbel.gateway.runtime import overrides_in
from umbel.inflight import InFlight, Prepared
from umbel.model import Attempt, CallFacts, Failure, Inputs, RequestFacts
from umbel.upstream.express import Express
from umbel.upstream.stack import Stack, build

Step = bytes | Sequence[bytes] | Callable[[Peer], Awaitable[object]]
"""What an upstream does with one request: sends this, or these pieces one by one, or whatever the function does. A
function that returns False ends the connection."""

WARM = response(b'{"warm":true}', b"Content-Type: application/json")
BUSY = response(b"no", status=b"503 Busy")
ONE = response(b'{"one":1}', b"Content-Type: application/json")

_SPAN = re.compile(rb"(traceparent: 00-[0-9a-f]{32}-)[0-9a-f]{16}")
_MILLISECONDS = re.compile(rb"((?:x-envoy-expected-rq-timeout-ms|x-left): )\d+")
_PORT = re.compile(r"(:| port )\d{4,5}\b")
_TASK = re.compile(r"source_task=.*?, (?=reason=)")
_NUMBER = re.compile(r"\bc\d+\b")
# Times, and what is made of them.
_TIMES = frozenset({"usual", "ejected_for"})


class Counting:
    """An express way that counts what takes it."""

    def __init__(self, express: Express) -> None:
        self._express = express
        self.in_air = self.carried = self.refused = 0

    def send_off(
        self, prepared: Prepared, facts: CallFacts, arrived: Callable[[InFlight], None], now: float
    ) -> InFlight | None:
        sent = self._express.send_off(prepared, facts, arrived, now)
        if sent is None:
            self.refused += 1
        else:
            usual = sent.depart

            def depart() -> None:
                usual()
                self.in_air += sent.in_air
                self.carried += not sent.in_air

            sent.depart = depart  # type: ignore[method-assign]  # so that whoever sent it off goes by here
        return sent


@dataclass
class Case:
    """A composition and what its upstream does.

    ``steps``: one for each request after the warming ones, the last one again and again; or by a part of the target.
    ``upstream`` and ``route`` are the configuration's tables; ``calls`` is what ``route`` has of calls.
    """

    steps: Sequence[Step] | Mapping[str, Sequence[Step]] = (ONE,)
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"a": {}})
    upstream: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=lambda: Inputs(path={"id": "7"}))
    deadline: float = 5.0
    trace_state: str = ""
    warm: int = 1
    """How many connections are kept when the case begins."""
    times: int = 1
    """How often the composition is run, one after the other."""
    replicas: int = 1
    tls: tuple[ssl.SSLContext, Mapping[str, str]] | None = None
    uds: str | None = None
    before: Callable[[Lab], Awaitable[object]] | None = None
    """Run after the warming."""
    around: Callable[[Lab, Callable[[], Awaitable[Result | None]]], Awaitable[Result | None]] | None = None
    """Runs the composition, instead of just awaiting it."""

    alike: bool = False
    """Whether only their names (c0, c1, ...) tell the calls apart, so that any of them may be the unlucky one."""

    @property
    def ordered(self) -> bool:
        """Whether requests and events come in one order only, each on one connection only: tasks run in any order."""
        return len(self.calls) == 1


@dataclass
class Seen:
    """All that could be seen of a case."""

    requests: list[tuple[int, bytes]]
    results: list[Any]
    events: list[Any]
    statistics: dict[str, Any]
    kept: int
    way: Counting | None


class Lab:
    """One way of one case while it runs."""

    def __init__(self, case: Case, stack: Stack, plan: Plan, servers: list[RawServer], records: Records) -> None:
        self.case = case
        self.stack = stack
        self.plan = plan
        self.servers = servers
        self.records = records

    def facts(self) -> RequestFacts:
        made = facts(self.case.deadline)
        return made._replace(trace=made.trace._replace(state=self.case.trace_state))

    async def run(self) -> Result:
        return await run(self.plan, self.case.inputs, self.facts(), {"u": self.stack}, self.records)

    async def settled(self) -> int:
        """How many connections the upstreams still have, once they have heard of those that were closed."""
        with trio.fail_after(5):
            while sum(server.open for server in self.servers) > self.stack.statistics().pool.idle:
                await wait_all_tasks_blocked()
        return self.stack.statistics().pool.idle


class Upstream:
    """Answers the warming requests, then goes through the steps. It remembers every request."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._warm = trio.Event()
        self.warming = case.warm
        self.requests: list[tuple[int, bytes]] = []
        self.sending = 0
        """Steps of which a piece is still to be sent."""
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
            self.requests.append((peer.number, _scrubbed(head + body)))
            if await self._do(peer, self._step(target)) is False:
                return

    async def _warmed(self) -> None:
        """All at once, so that each has a connection of its own."""
        self._waiting += 1
        if self._waiting == self.warming:
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
    return _MILLISECONDS.sub(rb"\1N", _SPAN.sub(rb"\1S", request)).replace(b"127.0.0.1", b"H")


def _plain(value: Any) -> Any:
    """A value without what is different each time."""
    if isinstance(value, Attempt):
        return (value.number, value.status, value.kind, value.reused, value.cause, _plain(value.replica))
    if isinstance(value, Failure):
        return (
            value.kind,
            value.status,
            _plain(value.detail),
            value.received_status,
            value.proxy_error,
            value.body,
            value.retry_after,
        )
    if isinstance(value, str):
        return _TASK.sub("", _PORT.sub(r"\1P", value))
    if isinstance(value, bytes):
        return re.sub(rb":\d{4,5}\b", b":P", value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if key not in _TIMES}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({each.name: getattr(value, each.name) for each in fields(value)})
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _event(event: Any) -> Any:
    if isinstance(event, AttemptEnded):
        return ("attempt", event.call, event.upstream, _plain(event.attempt), _plain(event.detail))
    if isinstance(event, CallEnded):
        return ("call", event.upstream, event.items, _outcome(event.outcome))
    assert isinstance(event, Noted)
    return ("note", event.level, event.event, _plain(event.message), repr(event.error))


def _outcome(outcome: Any) -> Any:
    began = outcome.started_at is not None
    return (
        outcome.call,
        outcome.state,
        began,
        *map(_plain, (outcome.value, outcome.failure, outcome.attempts)),
        (
            outcome.headers,
            outcome.complete,
        ),
    )


def plain_result(result: Result | None) -> Any:
    """A result without what is different each time."""
    if result is None:
        return None
    return (_plain(result.answer), _plain(result.failure), result.completed, [*map(_outcome, result.outcomes)])


@asynccontextmanager
async def laboratory(case: Case, express: bool) -> AsyncIterator[tuple[Lab, Upstream, Counting | None]]:
    """Upstreams, a warm stack and the plan of a case."""
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
        calls = {name: {"upstream": "u", "path": f"/{name}", **call} for name, call in case.calls.items()}
        more: dict[str, Any] = {"tls": dict(tls)} if tls else {}
        if case.replicas > 1:
            more["balance"] = "round_robin"
        made = Config.model_validate(
            {
                "upstreams": {"u": {"urls": urls, **more, **case.upstream}},
                "routes": [{"path": "/r/<id>", **case.route, "calls": calls}],
            }
        )
        records = Records()
        stack = await entered.enter_async_context(
            build("u", made.upstreams["u"], overrides=overrides_in(made, "u"), recorder=records)
        )
        lab = Lab(case, stack, compile_route(made, 0), opened, records)
        counting: Counting | None = None
        usual, stack._express = stack._express, None
        if case.warm:
            await _warm(lab)
        if express and usual is not None:
            counting = stack._express = Counting(usual)  # type: ignore[assignment]  # it does what Express does
        yield lab, upstream, counting


async def _warm(lab: Lab) -> None:
    """So many kept connections: as many ordinary calls at once."""
    calls = {f"w{n}": {"upstream": "u", "path": f"/warm/{n}"} for n in range(lab.case.warm)}
    made = Config.model_validate(
        {"upstreams": {"u": {"urls": ["http://anywhere"]}}, "routes": [{"path": "/w", "calls": calls}]}
    )
    result = await run(compile_route(made, 0), Inputs(), facts(5.0), {"u": lab.stack}, Records())
    assert result.failure is None, result.failure
    assert lab.stack.statistics().pool.idle == lab.case.warm


async def seen(case: Case, express: bool) -> Seen:
    """Run the case one way."""
    with trio.fail_after(20):
        async with laboratory(case, express) as (lab, upstream, counting):
            if case.before is not None:
                await case.before(lab)
            results = []
            for _ in range(case.times):
                result = await (lab.run() if case.around is None else case.around(lab, lab.run))
                results.append(plain_result(result))
                await wait_all_tasks_blocked()
                while upstream.sending:
                    await wait_all_tasks_blocked()
            kept = await lab.settled()
            events = [_event(event) for event in lab.records.events]
            statistics = _plain(lab.stack.statistics())
            assert_nothing_left(lab.stack)
    requests = [(number, _plain(request)) for number, request in upstream.requests]
    if case.warm > 1:
        requests = [(0, request) for _, request in requests]
    if case.alike:
        requests, results, events = (
            [_NUMBER.sub("c", repr(each)) for each in some] for some in (requests, results, events)
        )
        results = [sorted(result) for result in results]
        replicas = statistics["balance"].pop("replicas")
        statistics["balance"] |= {what: sum(each[what] for each in replicas) for what in ("taken", "failed")}
    if not case.ordered:
        requests.sort(key=repr)
        events.sort(key=repr)
    return Seen(requests, results, events, statistics, kept, counting)


def assert_nothing_left(stack: Stack) -> None:
    """Nothing of any call is in flight, and no wire but the kept ones is watched."""
    said = stack.statistics()
    assert (said.pool.active, said.pool.connecting) == (0, 0)
    assert (said.bulkhead.in_flight, said.bulkhead.waiting) == (0, 0)
    assert not any(replica.in_flight for replica in said.balance.replicas)
    assert (said.budget.active, said.budget.extra) == (0, 0)
    assert watched(stack) <= said.pool.idle


def watched(stack: Stack) -> int:
    """How many sockets the pool's reader watches."""
    reader = stack._layers.pool._dialer.reader
    return 0 if reader is None else len(reader)


async def both_ways(case: Case) -> Seen:
    """Run the case by both ways and assert that nothing differs but what it costs. Returns the express way's."""
    ordinary = await seen(case, False)
    express = await seen(case, True)
    for what, by_ordinary in vars(ordinary).items():
        by_express = getattr(express, what)
        if what != "way" and by_express != by_ordinary:
            raise AssertionError(f"{what}\nordinary: {by_ordinary}\nexpress:  {by_express}")
    return express
