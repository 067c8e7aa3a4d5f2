"""Plans from TOML text, and upstreams from functions or scripts, for tests of the engine without sockets."""

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
from umbel.core.model import Inputs, RequestFacts, Trace
from umbel.core.transport_caller import TransportCaller
from umbel.net.timers import TimerQueue

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def calls(names: str, **more: str) -> str:
    """The tables of calls that need nothing of each other; ``more`` is added to those that it names."""
    return "".join(f'[routes.calls.{name}]\nupstream = "u"\npath = "/{name}"\n{more.get(name, "")}\n' for name in names)


TWO = calls("ab")
"""The calls of a route that has two. What is added belongs to the second."""


class Scripted(httpx.AsyncBaseTransport):
    """An upstream that is a function of the request; counts what is in flight."""

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
    """A configuration from TOML, with upstream "u" unless the text has its own."""
    data = tomllib.loads(text)
    data.setdefault("upstreams", {"u": {"urls": ["http://127.0.0.1:1"]}})
    return Config.model_validate(data)


def plan(text: str) -> Plan:
    """The plan of the first route; ``[[routes]]`` and a path are put before the text if it has none."""
    if "[[routes]]" not in text:
        text = f'[[routes]]\npath = "/r/<id>"\n{text}'
    return compile_route(config(text), 0)


def facts(deadline: float = 5.0) -> RequestFacts:
    """Facts of a request that begins now."""
    now = trio.current_time()
    return RequestFacts("r-1", Trace("0" * 31 + "1"), "GET", "/r/1", "/r/<id>", now, now + deadline)


def answer(value: Any, status: int = 200, after: float = 0.0, headers: Mapping[str, str] | None = None) -> Handler:
    """A handler that answers with a JSON value after a while."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        return httpx.Response(status, content=msgspec.json.encode(value), headers=headers)

    return handler


def by_path(handlers: Mapping[str, Handler]) -> Handler:
    """Dispatch on the target's path; an unknown path is a 404."""

    async def handler(request: httpx.Request) -> httpx.Response:
        path = request.extensions["target"].decode().partition("?")[0]
        found = handlers.get(path)
        return await found(request) if found is not None else httpx.Response(404)

    return handler


@dataclass
class Ran:
    """What one run came to."""

    result: Result
    upstream: Scripted
    recorder: Records
    elapsed: float

    @property
    def outcomes(self) -> dict[str, Any]:
        return {outcome.call: outcome for outcome in self.result.outcomes}

    @property
    def kinds(self) -> dict[str, Any]:
        """What became of each call: its value, or the kind of its failure."""
        return {each.call: each.failure.kind if each.failure else each.value for each in self.result.outcomes}


async def compose(
    text: str | Plan,
    upstream: Mapping[str, Handler] | Handler | Caller,
    *,
    inputs: Inputs | None = None,
    deadline: float = 5.0,
    observer: Observer | None = None,
) -> Ran:
    """Run a plan against an upstream, with a timer queue, and give everything that came of it.

    Nothing is left under way then, and each call is recorded once.
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
        nursery.cancel_scope.cancel(reason="it has run")
    assert not len(timers), "no timer is left behind"
    assert functions.in_flight == 0
    assert not (isinstance(upstream, ScriptedCaller) and upstream.under_way)
    assert recorder.ended_calls == sorted(outcome.call for outcome in result.outcomes), "every call is recorded once"
    return Ran(result, functions, recorder, trio.current_time() - started)
