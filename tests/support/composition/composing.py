"""Plans from TOML text, and upstreams made of functions, for tests of the engine without sockets."""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import trio

from tests.support.composition.scripted_calls import ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.answer.result import Result
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.plan import Plan
from umbel.composition.plan_run import Observer, run
from umbel.config.schema.sections import Config
from umbel.core.call import Caller
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs, RequestFacts, Trace
from umbel.net.timers import TimerQueue

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def calls(names: str, **more: str) -> str:
    """The tables of independent calls, one for each letter of ``names``; ``more`` has further keys by call."""
    return "".join(f'[routes.calls.{name}]\nupstream = "u"\npath = "/{name}"\n{more.get(name, "")}\n' for name in names)


TWO = calls("ab")
"""The tables of the calls ``a`` and ``b``. Text that is appended belongs to ``b``."""


class Scripted(httpx.AsyncBaseTransport):
    """An upstream that is a function of the request; it keeps the requests and counts those in flight."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.in_flight = 0
        self.targets: list[str] = []
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.targets.append(request.extensions["target"].decode())
        self.requests.append(request)
        self.in_flight += 1
        try:
            return await self.handler(request)
        finally:
            self.in_flight -= 1


def config(text: str) -> Config:
    """Make a configuration from TOML, with the upstream ``u`` unless the text has upstreams."""
    data = tomllib.loads(text)
    data.setdefault("upstreams", {"u": {"urls": ["http://127.0.0.1:1"]}})
    return Config.model_validate(data)


def plan(text: str) -> Plan:
    """Compile the first route. A text without ``[[routes]]`` gets that header and a path."""
    if "[[routes]]" not in text:
        text = f'[[routes]]\npath = "/r/<id>"\n{text}'
    return compile_route(config(text), 0)


def facts(deadline: float = 5.0) -> RequestFacts:
    """Make the facts of a request that begins now; ``deadline``: seconds from now."""
    now = trio.current_time()
    return RequestFacts("r-1", Trace("0" * 31 + "1"), "GET", "/r/1", "/r/<id>", now, now + deadline)


def answer(value: Any, status: int = 200, after: float = 0.0, headers: Mapping[str, str] | None = None) -> Handler:
    """Make a handler that answers with a JSON value after ``after`` seconds."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        return httpx.Response(status, content=msgspec.json.encode(value), headers=headers)

    return handler


def by_path(handlers: Mapping[str, Handler]) -> Handler:
    """Make a handler that dispatches on the path of the target; an unknown path gets a 404."""

    async def handler(request: httpx.Request) -> httpx.Response:
        path = request.extensions["target"].decode().partition("?")[0]
        found = handlers.get(path)
        return await found(request) if found is not None else httpx.Response(404)

    return handler


@dataclass
class PlanRun:
    """The result of one run of a plan, with the upstream, the records and the duration in seconds."""

    result: Result
    upstream: Scripted
    recorder: Records
    elapsed: float

    @property
    def outcomes(self) -> dict[str, Any]:
        return {outcome.call: outcome for outcome in self.result.outcomes}

    @property
    def kinds(self) -> dict[str, Any]:
        """By call: its value, or the kind of its failure."""
        return {each.call: each.failure.kind if each.failure else each.value for each in self.result.outcomes}


async def compose(
    text: str | Plan,
    upstream: Mapping[str, Handler] | Handler | Caller,
    *,
    inputs: Inputs | None = None,
    deadline: float = 5.0,
    observer: Observer | None = None,
) -> PlanRun:
    """Run a plan with a timer queue against an upstream.

    Raises:
        AssertionError: after the run a timer or a request is left, or a call was not recorded exactly once.
    """
    compiled = plan(text) if isinstance(text, str) else text
    by_target = upstream if isinstance(upstream, Mapping) else {}
    functions = Scripted(upstream if callable(upstream) else by_path(by_target))
    recorder = Records()
    caller = upstream if isinstance(upstream, Caller) else TransportCaller(functions)
    callers = {call.rules.upstream: caller for call in compiled.calls}
    started = trio.current_time()
    timers = TimerQueue()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        given = inputs or Inputs(path={"id": "1"})
        result = await run(compiled, given, facts(deadline), callers, recorder, observer, timers=timers)
        nursery.cancel_scope.cancel(reason="the plan has run")
    assert not len(timers), "a timer is left"
    assert functions.in_flight == 0
    assert not (isinstance(upstream, ScriptedCaller) and upstream.under_way)
    assert recorder.ended_calls == sorted(outcome.call for outcome in result.outcomes)
    return PlanRun(result, functions, recorder, trio.current_time() - started)
