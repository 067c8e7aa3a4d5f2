"""Composition in code: ``compose.gather()`` puts calls into the same group that plans use.

What ``@app.compose`` hands to a handler; any trio program can use it with httpx transports of its own.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

import trio

from ..errors import UmbelError
from ..events import Recorder
from ..inflight import Prepared
from ..kinds import CUT, Kind
from ..model import JSON_MAX, OTHER_MAX, Attempt, CallFacts, Failure, Inputs, Json, Outcome, RequestFacts
from .call import ACCEPT, PASSED, CallFailedError, CallRules, Landed, ask
from .combine import worst_of_all
from .dag import PERSONAL
from .expression import ExpressionError, failed_expression
from .fault import bad_request
from .group import CallGroup, open_group
from .merge import strictest_cache_control
from .options import CallOptions, check_options
from .outgoing import MISSING, UpstreamDefaults, build_content, build_headers, build_query, build_target
from .overrides import in_code
from .request import gateway_blocks, without
from .result import Result, own_time
from .run import Transports
from .template import BadValueError

TIMEOUT_WITHOUT_DEADLINE = 60.0
"""Seconds of a call where neither it nor its upstream names a timeout, and the handler has no deadline."""


class CompositionFailedError(UmbelError):
    """A required call failed, or the deadline came before the block's end. ``result`` holds the problem to answer."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.failure.detail if result.failure is not None else "")
        self.result = result


class CallHandle:
    """A call that has been launched. Its ``value`` is there after the gather block, or once it was awaited."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._outcome: Outcome | None = None
        self._landed = trio.Event()

    def __await__(self) -> Generator[Any, Any, Json]:
        """Wait for the call alone; its value, or the default of an optional call that failed."""
        yield from self._landed.wait().__await__()
        return self.value

    @property
    def outcome(self) -> Outcome:
        """What became of the call.

        Raises:
            UmbelError: it is still in flight.
        """
        if self._outcome is None:
            raise UmbelError(f"call {self.name} is in flight; read it after the gather block, or await it")
        return self._outcome

    @property
    def value(self) -> Json:
        """The call's value, or its default (null) where it failed."""
        return self.outcome.value

    def settle(self, outcome: Outcome) -> None:
        """Take the outcome and wake whoever waits."""
        self._outcome = outcome
        self._landed.set()


@dataclass(slots=True)
class _CodeWork:
    """The work of a call made in code: see ``group.Work``."""

    rules: CallRules
    prepared: Prepared | Failure
    compose: Compose
    attempts: list[Attempt] = field(default_factory=list)
    items: None = None

    async def do(self) -> Landed:
        if isinstance(self.prepared, Failure):
            raise CallFailedError(self.prepared)
        return await self.compose.send(self.rules, self.prepared, self.attempts)

    def cut(self, failure: Failure) -> Landed | Failure:
        return failure


class Gather:
    """The calls of one gather block; each method launches one at once and returns its handle.

    A required call that fails cancels the rest and ends the block with ``CompositionFailedError``; an optional one
    (``optional=True``, or with a ``default``) gives its default. Methods raise TypeError for an option that there is
    not or that is of another type, and ValueError for a call that could never be made (two bodies, a path without a
    slash, numbers out of range); a value that cannot be sent is the call's failure, bad-request.
    """

    def __init__(self, compose: Compose, group: CallGroup, handles: dict[str, CallHandle]) -> None:
        self._compose = compose
        self._group = group
        self._handles = handles

    def get(self, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a GET."""
        return self.request("GET", upstream, path, **options)

    def post(self, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a POST."""
        return self.request("POST", upstream, path, **options)

    def put(self, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a PUT."""
        return self.request("PUT", upstream, path, **options)

    def patch(self, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a PATCH."""
        return self.request("PATCH", upstream, path, **options)

    def delete(self, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a DELETE."""
        return self.request("DELETE", upstream, path, **options)

    def request(self, method: str, upstream: str, path: str, **options: Unpack[CallOptions]) -> CallHandle:
        """Launch a call with any method."""
        check_options(options)
        name = self._compose.free_name(options.get("name"), upstream)
        defaults = self._compose.defaults(upstream)
        decode = options.get("decode", "json")
        has_default = "default" in options
        timeout = options.get("timeout", defaults.timeout)
        if timeout is None and self._compose.facts.deadline == math.inf:
            timeout = TIMEOUT_WITHOUT_DEADLINE
        rules = CallRules(
            name,
            upstream,
            options.get("optional", False) or has_default,
            has_default,
            options.get("default"),
            timeout,
            options.get("max_body") or defaults.max_body or (JSON_MAX if decode == "json" else OTHER_MAX),
            decode,
            frozenset(options.get("ok", ())),
            frozenset(options.get("null_on", ())),
            frozenset(options.get("pass_status", PASSED)),
            options.get("pass_body", False),
            extensions=in_code(options.get("retry"), options.get("hedge"), options.get("coalesce")),
        )
        work = _CodeWork(rules, self._prepare(method, path, defaults, options), self._compose)
        handle = self._handles[name] = CallHandle(name)
        self._compose.claim(rules, (*options.get("headers", ()), *defaults.reads))
        self._group.launch(work)
        return handle

    def _prepare(self, method: str, path: str, defaults: UpstreamDefaults, options: CallOptions) -> Prepared | Failure:
        inputs, context = self._compose.inputs, self._compose.context
        try:
            content, content_type = build_content(
                options.get("json", MISSING), options.get("form"), options.get("content")
            )
            usual = {b"accept": ACCEPT[options.get("decode", "json")]}
            if content_type:
                usual[b"content-type"] = content_type
            gateway = gateway_blocks(inputs.forwarded, inputs.forwarded_for if defaults.forwarded else ())
            return Prepared(
                method,
                build_target(path, options.get("values"), build_query(options.get("params", {}), defaults, context)),
                without(build_headers(options.get("headers", {}), defaults, context, usual), gateway),
                content,
                gateway,
            )
        except BadValueError as error:
            return bad_request(str(error), error.client, error.reason)
        except ExpressionError as error:
            where = ".".join(map(str, error.where))
            return failed_expression(error, where, self._compose.facts, self._compose.recorder)


class Compose:
    """One request's composition in code. Every gather of a handler adds its outcomes to the one answer."""

    def __init__(
        self,
        transports: Transports,
        inputs: Inputs,
        facts: RequestFacts,
        recorder: Recorder,
        upstreams: Mapping[str, UpstreamDefaults] | None = None,
    ) -> None:
        self.inputs = inputs
        self.facts = facts
        self.context: dict[str, Json] = {
            "path": inputs.path,
            "query": inputs.query,
            "headers": {name.replace("-", "_"): value for name, value in inputs.headers.items()},
            "body": inputs.body,
        }
        self._transports = transports
        self.recorder = recorder
        self._upstreams = upstreams or {}
        self._rules: dict[str, CallRules] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._personal: dict[str, None] = {}

    @asynccontextmanager
    async def gather(self) -> AsyncIterator[Gather]:
        """A nursery of calls under the request's deadline; leaving the block waits for all of them.

        Raises:
            CompositionFailedError: a required call failed, or the deadline came while one was in flight or the block
                itself had not ended. At the deadline with only optional calls open, the block ends and they have
                their defaults.
        """
        handles: dict[str, CallHandle] = {}
        group: CallGroup

        def settled(outcome: Outcome) -> None:
            self._outcomes[outcome.call] = outcome
            handles[outcome.call].settle(outcome)
            failure = outcome.failure
            if failure is not None and failure.kind not in CUT and not self._rules[outcome.call].optional:
                group.decide(failure)

        ended = False
        async with open_group(self.facts, self.recorder, settled) as group:
            yield Gather(self, group, handles)
            ended = True
        if group.decided or not ended:
            failure = group.failure or Failure.of(Kind.TIMEOUT, "the gather block was open at the deadline")
            raise CompositionFailedError(self.failed(failure))

    def result(self, answer: Json, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Result:
        """The result with this answer; if every call failed and none has a default, the worst one's problem."""
        outcomes = self._ordered()
        failure = worst_of_all(outcomes, any(rules.has_default for rules in self._rules.values()))
        if failure is not None:
            return self.failed(failure)
        parts = [outcome.headers for outcome in outcomes if outcome.state == "value"]
        return Result(
            outcomes,
            None,
            answer,
            status,
            tuple(headers),
            all(outcome.complete for outcome in outcomes),
            strictest_cache_control(parts, private=bool(self._personal)),
            self._own_ms(),
            tuple(self._personal),
        )

    def failed(self, failure: Failure) -> Result:
        """The result that a failure decides."""
        return Result(self._ordered(), failure, completed=False, own_ms=self._own_ms())

    # What Gather needs; not for handlers.

    def free_name(self, wanted: str | None, upstream: str) -> str:
        """A name that no call of this request bears.

        Raises:
            ValueError: the wanted one is taken.
        """
        if wanted is not None:
            if wanted in self._rules:
                raise ValueError(f'this request has a call "{wanted}" already; give this one another name')
            return wanted
        name, number = upstream, 1
        while name in self._rules:
            number += 1
            name = f"{upstream}-{number}"
        return name

    def defaults(self, upstream: str) -> UpstreamDefaults:
        """What the configuration says of an upstream.

        Raises:
            UmbelError: there is no such upstream.
        """
        if upstream not in self._transports:
            raise UmbelError(f'there is no upstream "{upstream}"; there are {", ".join(self._transports) or "none"}')
        return self._upstreams.get(upstream, UpstreamDefaults())

    def claim(self, rules: CallRules, headers: Iterable[str]) -> None:
        """Note a call that is about to be launched, and whether it speaks for a person.

        A handler that sends a person's credentials on makes an answer for that person: no shared cache may keep it.
        """
        self._rules[rules.name] = rules
        self._personal |= dict.fromkeys(name.lower() for name in headers if name.lower() in PERSONAL)

    async def send(self, rules: CallRules, prepared: Prepared, attempts: list[Attempt]) -> Landed:
        """Make a call. Raises CallFailedError."""
        facts = CallFacts(
            rules.name,
            rules.upstream,
            self.facts,
            self.facts.deadline,
            self.recorder,
            rules.max_body,
            None,
            attempts,
        )
        return await ask(rules, prepared, facts, self._transports[rules.upstream])

    def _ordered(self) -> tuple[Outcome, ...]:
        """The outcomes in the order in which the calls were launched, never of completion."""
        return tuple(self._outcomes[name] for name in self._rules if name in self._outcomes)

    def _own_ms(self) -> float:
        return own_time(self.facts.started_at, trio.current_time(), self._ordered()) * 1000
