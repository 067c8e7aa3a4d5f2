"""Composition in code: ``compose.gather()`` makes calls on the engine that also runs the routes of a configuration.

A handler of ``@app.compose`` is given a ``Compose``. Any trio program can make one with httpx transports of its own.

Theory
------
**Problem.** In a route of the configuration all calls are known at load. In a handler, code launches calls one by one,
between any awaits of its own; it may read one result before it launches the next call. The calls must still be sent
together where possible, run under the request's deadline, and be over when the block is left, however it is left.

**Two tasks, one scope.** ``gather`` enters the engine's ``scope``, which has the request's deadline, and opens a
nursery. The *body* of the ``async with`` block runs in the handler's task. ``GatherEngine.run_loop`` runs in a task of
the nursery; this task starts the calls, as ``engine.py`` explains. ``__aexit__`` waits for the loop, and so for all
calls.

**From launch to outcome.** ``Gather.request`` is synchronous. It checks the options, prepares the request, creates a
``CallHandle`` and puts the call into ``GatherEngine._ready``; nothing is sent yet. The loop starts all calls of
``_ready`` in its next turn, so calls launched without an await between them are sent together. A handle gets its
outcome exactly once, from ``Engine.settle``:

- when the call ends or is cut;
- within ``launch``, if the request cannot be made or the composition is over already;
- from ``_start_ready`` or ``cut``, if the composition ends before the call begins.

**States of a block.**

==========  ======================================  ============================  ===============================
state       how it begins                           effect of ``get``, ``post``…  how it ends
==========  ======================================  ============================  ===============================
open        ``async with compose.gather()``         launches a call               end of the body, over
ending      end of the body: ``end_block``          launches a call (*)           no call is under way, over
over        decision, deadline, cancel, last call   a settled handle              body and loop have ended
closed      ``Engine.close`` in ``gather``          UmbelError                    never
==========  ======================================  ============================  ===============================

(*) Another task of the handler may still hold the ``Gather``.

**How a block is left.**

- The body has ended, all calls are settled, and no required one failed: the block ends, and all handles have outcomes.
- A required call fails: ``decide`` cancels ``scope``, and with it the body at its next checkpoint. The scope absorbs
  that cancel, and ``gather`` raises ``CompositionFailedError``.
- The deadline passes: ``scope`` is cancelled. A required call that is cut fails with kind timeout and decides, as
  above. If only optional calls were under way and the body had ended, the block ends with their defaults. If the cancel
  ended the body early, ``CompositionFailedError`` is raised, because the rest of the body did not run.
- A cancel from outside (the client left, for example): both tasks see it, ``cut`` settles all calls with its reason,
  and ``Cancelled`` leaves the block.
- An exception of the body: the nursery cancels the loop, which cuts all calls. The exception leaves the block without
  an exception group, because the loop raises nothing but a cancel or a bug.

In each case the loop ends before ``gather`` does: no call is under way then, and no handle is without an outcome. (A
block that is cancelled at once is no exception: trio runs a new task up to its first checkpoint.) ``gather`` calls
``cut`` once more, as a safeguard, and ``close``.

**Cancel of a handle's await.** It ends only the wait. The call goes on, and its outcome is in the handle later.

**A failure that ends the block.** A task that awaits a handle is woken by ``settle``, before the failure decides and
``scope`` is cancelled. trio does not cancel a task that is woken already, so the task must look for a cancel itself;
otherwise the body would go on with the None of a required call that failed. A task that ``scope`` does not cancel (one
of a nursery around the block, or a shielded one) gets ``CompositionFailedError`` from the await.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Unpack

import msgspec
import trio

from ..core.call import Call, Caller, FieldBlocks, PreparedRequest
from ..core.errors import UmbelError, UpstreamError
from ..core.events import Recorder
from ..core.failure_kinds import CUT, Kind
from ..core.http.header_field import Field, raw_value
from ..core.httpx_calls.httpx_messages import headers_of
from ..core.httpx_calls.transport_caller import caller_of
from ..core.model import JSON_MAX, OTHER_MAX, Failure, Inputs, Json, Outcome, RequestFacts
from ..net.exception_groups import raise_unwrapped
from .answer.cache_control import answer_cache_control
from .answer.decision import worst_failure
from .answer.result import Result, own_time
from .answer.result_builder import failed_result, failure_fields
from .call_result import CallRules, Redirects, passed_statuses
from .decode import ACCEPT
from .engine import INLINE_MAX, Callers, Engine
from .plan.plan import CREDENTIAL_HEADERS
from .request.call_options import CallOptions, check_options
from .request.call_policies import CallPolicies
from .request.code_request import (
    MISSING,
    UNFIT,
    UpstreamDefaults,
    build_content,
    build_headers,
    build_query,
    build_target,
    default_fields,
)
from .request.credentials import carries_credential
from .request.request_template import drop_gateway_fields, gateway_fields
from .running_call import RunningCall
from .text.expression import ExpressionError, failed_expression
from .text.fault import bad_request
from .text.field_template import record_left_out, set_client_texts
from .text.template import BadValueError

if TYPE_CHECKING:
    import httpx

TIMEOUT_WITHOUT_DEADLINE = 60.0
"""Seconds: the timeout of a call if neither the call, nor its upstream, nor the request has a time limit."""


class CompositionFailedError(UmbelError):
    """A required call failed, or the deadline passed before the gather block ended.

    ``result`` is the failed result of the request; its ``problem`` makes the problem document.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result.failure.detail if result.failure is not None else "")
        self.result = result


class CallHandle:
    """Handle of a launched call. It has the call's outcome after the gather block, or once the handle was awaited.

    Until then ``outcome``, ``value``, ``status`` and ``headers`` raise UmbelError.

    Args:
        name: the call's name.
        failed: makes the result of a request that fails with a failure.
    """

    def __init__(self, name: str, failed: Callable[[Failure], Result]) -> None:
        self.name = name
        self._failed = failed
        self._outcome: Outcome | None = None
        self._deciding: Failure | None = None
        """The failure that fails the block, if the call is required and failed."""
        self._status: int | None = None
        self._fields: Sequence[Field] = ()
        self._settled_event: trio.Event | None = None

    def __await__(self) -> Generator[Any, Any, Json]:
        """Wait for this call, and return its value; the default if the call is optional and failed.

        If the call is required and failed, the block is cancelled, so this raises ``Cancelled``. Cancelled, it ends the
        wait and not the call.

        Raises:
            CompositionFailedError: the call is required and failed, and the cancel of the block does not reach this
                task, or the block has ended.
        """
        return self._wait().__await__()

    async def _wait(self) -> Json:
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
        else:
            if self._settled_event is None:
                self._settled_event = trio.Event()
            await self._settled_event.wait()
        outcome = self.outcome
        if outcome.failure is not None:
            # The failure may have cancelled the block in the turn in which it woke this task (see the theory).
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._deciding is not None:
                raise CompositionFailedError(self._failed(self._deciding))
        return outcome.value

    @property
    def outcome(self) -> Outcome:
        """The outcome of the call.

        Raises:
            UmbelError: the call has none yet.
        """
        self._check_settled()
        assert self._outcome is not None
        return self._outcome

    def _check_settled(self) -> None:
        if self._outcome is None:
            raise UmbelError(f"call {self.name} is in flight; read it after the gather block, or await it")

    @property
    def value(self) -> Json:
        """The call's value; if the call failed, its default, or None without one."""
        return self.outcome.value

    @property
    def status(self) -> int | None:
        """The status of the upstream's last response, also of a failed call; None without a response."""
        self._check_settled()
        return self._status

    @property
    def headers(self) -> httpx.Headers:
        """The header fields of the upstream's last response, without hop-by-hop fields; empty without a response."""
        self._check_settled()
        return headers_of(self._fields)

    def answered(self, status: int | None, fields: Sequence[Field]) -> None:
        """Set the status and the fields of the response. Must precede ``settle``."""
        self._status = status
        self._fields = fields

    def settle(self, outcome: Outcome, deciding: Failure | None) -> None:
        """Set the outcome and wake the tasks that await the handle.

        Args:
            deciding: the failure that fails the block, if the call is required and failed; else None.
        """
        self._outcome = outcome
        self._deciding = deciding
        if self._settled_event is not None:
            self._settled_event.set()


class Gather:
    """A gather block: each method launches a call and returns its handle, without waiting.

    If a required call fails, the other calls are cancelled and the block ends with ``CompositionFailedError``. If an
    optional call fails (``optional=True``, or one with a ``default``), its value is its default, or None without one.

    ``get``, ``post``, ``put``, ``patch`` and ``delete`` take the arguments of ``request``, except the method, and raise
    the same errors.
    """

    def __init__(self, compose: Compose, engine: GatherEngine) -> None:
        self._compose = compose
        self._engine = engine

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
        """Launch a call and return its handle.

        A value that cannot be sent makes the call fail with kind bad-request. If the block is over already (decided,
        or past its deadline), the call is not made, and its handle has a failure.

        Args:
            method: the method of HTTP, in upper case.
            upstream: the name of the upstream.
            path: the path at the upstream, with a leading slash; with the option ``values``, a template.
            options: see ``CallOptions``.

        Raises:
            TypeError: an option is unknown, or its value has a wrong type.
            ValueError: the call can never be made: two bodies, a path without a leading slash, numbers out of range, or
                a name that another call has.
            UmbelError: the upstream is unknown, or the block has ended.
        """
        if options:
            check_options(options)
        compose, engine = self._compose, self._engine
        name = compose.free_name(options.get("name"), upstream)
        engine.check_open(name)
        defaults = compose.defaults(upstream)
        timeout = options.get("timeout", defaults.timeout)
        if timeout is None and compose.facts.deadline == math.inf:
            timeout = TIMEOUT_WITHOUT_DEADLINE
        credential = False
        if defaults.reads or not _OPTIONS_OF_VALUES.isdisjoint(options):
            credential = _carries_credential(defaults, options)
        if _OPTIONS_OF_RULES.isdisjoint(options):
            optional = options.get("optional", False)
            rules = _cached_rules(name, upstream, timeout, defaults.max_body, optional, credential, defaults.redirects)
        else:
            redirects = options.get("redirects", defaults.redirects)
            rules = _rules(name, upstream, timeout, defaults.max_body, options, credential, redirects)
        prepared = self._prepare(method, path, defaults, options)
        compose.register_call(rules, options.get("headers", ()), defaults.reads)
        return engine.launch(rules, prepared)

    def _prepare(
        self, method: str, path: str, defaults: UpstreamDefaults, options: CallOptions
    ) -> PreparedRequest | Failure:
        context = self._compose.context
        try:
            content, content_type = None, b""
            if not _OPTIONS_OF_BODY.isdisjoint(options):
                content, content_type = build_content(
                    options.get("json", MISSING), options.get("form"), options.get("content")
                )
            usual = default_fields(ACCEPT[options.get("decode", "json")], content_type, defaults.user_agent)
            gateway = self._compose.gateway_fields(forwarded=defaults.forwarded)
            left_out = partial(record_left_out, self._compose.facts, self._compose.recorder)
            headers = build_headers(options.get("headers", {}), defaults, context, usual, left_out)
            return PreparedRequest(
                method,
                build_target(path, options.get("values"), build_query(options.get("params", {}), defaults, context)),
                # The default fields have no name that the gateway's fields have.
                headers if headers is usual else drop_gateway_fields(headers, gateway),
                content,
                gateway,
            )
        except BadValueError as error:
            return bad_request(str(error), error.client_parameter, error.reason)
        except ExpressionError as error:
            where = ".".join(map(str, error.where))
            return failed_expression(error, where, self._compose.facts, self._compose.recorder)


_NO_DEFAULTS = UpstreamDefaults()
_OPTIONS_OF_BODY = frozenset({"json", "form", "content"})
_OPTIONS_OF_RULES = frozenset(
    {
        *("default", "max_body", "decode", "ok", "null_on", "pass_status", "pass_body"),
        *("retry", "hedge", "coalesce", "redirects"),
    }
)
"""The options that set a call's rules, except name, timeout and optional."""
_OPTIONS_OF_VALUES = frozenset({"headers", "params", "values", "form", "json"})
"""The options that send values under names."""


def _carries_credential(defaults: UpstreamDefaults, options: CallOptions) -> bool:
    """Whether a call sends a value under the name of a credential. Such a value is assumed to be the client's."""
    names: list[str] = [*defaults.reads, *options.get("headers", ()), *options.get("params", ())]
    for given in (options.get("values"), options.get("form"), options.get("json")):
        if isinstance(given, Mapping):
            names.extend(map(str, given))
    return carries_credential(names, body=False, own=False)


@lru_cache(maxsize=1024)
def _cached_rules(
    name: str,
    upstream: str,
    timeout: float | None,
    max_body: int | None,
    optional: bool,
    credential: bool,
    redirects: Redirects,
) -> CallRules:
    """The rules of a call that sets none of ``_OPTIONS_OF_RULES``; cached, since many requests make the same call."""
    return _rules(name, upstream, timeout, max_body, {"optional": optional}, credential, redirects)


def _rules(
    name: str,
    upstream: str,
    timeout: float | None,
    max_body: int | None,
    options: CallOptions,
    credential: bool,
    redirects: Redirects,
) -> CallRules:
    """The rules of a call.

    Args:
        max_body: the upstream's bound in bytes; None: the default.
        credential: the call carries a credential of the client's.
    """
    decode = options.get("decode", "json")
    has_default = "default" in options
    return CallRules(
        name,
        upstream,
        options.get("optional", False) or has_default,
        has_default,
        options.get("default"),
        timeout,
        options.get("max_body") or max_body or (JSON_MAX if decode == "json" else OTHER_MAX),
        decode,
        frozenset(options.get("ok", ())),
        frozenset(options.get("null_on", ())),
        passed_statuses(options.get("pass_status"), credential=credential, redirects=redirects),
        options.get("pass_body", False),
        policies=CallPolicies.of_options(
            options.get("retry"), options.get("hedge"), options.get("coalesce"), follows=redirects == "follow"
        ),
    )


class GatherEngine(Engine):
    """The engine of one gather block: code launches calls, and the loop ends after the body of the block.

    Args:
        outcomes: the outcomes of the request's earlier gather blocks, to which this block adds its own.
        failed: makes the result of a request that fails with a failure.
    """

    __slots__ = ("_all_outcomes", "_failed", "_handles", "_optional", "_ready")

    def __init__(
        self,
        facts: RequestFacts,
        callers: Callers,
        recorder: Recorder,
        outcomes: dict[str, Outcome],
        failed: Callable[[Failure], Result],
    ) -> None:
        super().__init__(facts, callers, recorder)
        self._failed = failed
        self._handles: dict[str, CallHandle] = {}
        self._optional: dict[str, bool] = {}
        self._all_outcomes = outcomes
        """The outcomes of all gather blocks of the request."""
        self._more_may_come = True
        self._ready: list[Call] = []
        """The launched calls that have not begun; the loop starts all of them in its next turn."""

    def end_block(self) -> None:
        """Let the loop end as soon as no call is under way: the body of the block has ended."""
        self._more_may_come = False
        self._parking.wake()

    def check_open(self, name: str) -> None:
        """Check that the block has not ended.

        Raises:
            UmbelError: the block has ended.
        """
        if self.closed:
            raise UmbelError(f"call {name} cannot be launched: its gather block has ended")

    def launch(self, rules: CallRules, prepared: PreparedRequest | Failure) -> CallHandle:
        """Launch a call and return its handle, which gets exactly one outcome in every case.

        In a composition that is over, the call is settled at once and not made.

        Args:
            prepared: the request, or the failure if no request could be made.
        """
        handle = self._handles[rules.name] = CallHandle(rules.name, self._failed)
        self._optional[rules.name] = rules.optional
        now = trio.current_time()
        if isinstance(prepared, Failure):
            self.settle(rules, prepared, now, now, ())
        elif self.over:
            self.settle(rules, self.cut_failure(), None, now, ())
        else:
            self._ready.append(self.prepare_call(rules, prepared, now))
            self._has_work = True
            self._parking.wake()
        return handle

    def _start_ready(self, now: float) -> None:
        ready, self._ready = self._ready, []
        self.start(ready, now)
        # The start of one call may have ended the composition: the calls after it never begin, and are settled here.
        for call in ready:
            running: RunningCall = call.context
            if running.rules.name not in self.outcomes and running not in self._under_way:
                self.settle(running.rules, self.cut_failure(), None, trio.current_time(), ())

    def cut(self, cancelled: trio.Cancelled | None) -> None:
        """Do as ``Engine.cut``, and settle the launched calls that have not begun."""
        super().cut(cancelled)
        ready, self._ready = self._ready, []
        for call in ready:
            self.settle(call.context.rules, self.cut_failure(), None, trio.current_time(), ())

    def call_ended(self, call: Call, inline_max: float = INLINE_MAX) -> None:
        """Do as ``Engine.call_ended``, after the handle was given the response's status and fields."""
        status, fields = (call.status if call.error is None else None), call.fields
        if isinstance(call.error, UpstreamError) and call.error.answered is not None:
            status, fields = call.error.answered
        try:
            self._handles[call.context.call].answered(status, fields)
        except Exception as error:  # noqa: BLE001  # a bug: run_loop raises it, not the reader's task
            self._note_callback_error(error)
            return
        super().call_ended(call, inline_max)

    def _on_settled(self, outcome: Outcome) -> None:
        self._all_outcomes[outcome.call] = outcome
        failure = None if self._optional[outcome.call] else outcome.failure
        self._handles[outcome.call].settle(outcome, failure and (self.failure or failure))
        if failure is not None and failure.kind not in CUT:
            self.decide(failure)

    def decide(self, failure: Failure | None) -> None:
        """Do as ``Engine.decide``, and cancel the body of the block."""
        super().decide(failure)
        self.scope.cancel(reason="decided: " + ("answered" if failure is None else failure.kind))


class Compose:
    """Composition of one request in code. All gather blocks of a handler add their outcomes to one answer.

    Args:
        transports: by upstream name, httpx transports, or callers.
        inputs: the validated inbound request.
        facts: the inbound request's identifiers and times; ``facts.deadline`` holds for all gather blocks.
        recorder: receives the record of each call.
        upstreams: the configured defaults by upstream name.
        outcomes: receives each outcome when its call is settled; None: a new dict.
    """

    def __init__(
        self,
        transports: Mapping[str, httpx.AsyncBaseTransport | Caller],
        inputs: Inputs,
        facts: RequestFacts,
        recorder: Recorder,
        upstreams: Mapping[str, UpstreamDefaults] | None = None,
        outcomes: dict[str, Outcome] | None = None,
    ) -> None:
        self.inputs = inputs
        self.facts = facts
        self._transports = transports
        self.recorder = recorder
        self._upstreams = upstreams or {}
        self._rules: dict[str, CallRules] = {}
        self._outcomes: dict[str, Outcome] = {} if outcomes is None else outcomes
        self._personal: dict[str, None] = {}
        self._callers: dict[str, Caller] = {}
        """The callers of the upstreams that calls were made to. A request makes calls to few upstreams of many."""
        self._gateway_fields: dict[bool, FieldBlocks] = {}

    @cached_property
    def context(self) -> dict[str, Json]:
        """The context for the expressions of the upstreams' configured headers and parameters."""
        inputs = self.inputs
        context: dict[str, Json] = {"path": inputs.path, "query": inputs.query, "body": inputs.body}
        set_client_texts(context, "headers", {name.replace("-", "_"): each for name, each in inputs.headers.items()})
        return context

    @asynccontextmanager
    async def gather(self) -> AsyncIterator[Gather]:
        """Open a gather block, in which calls run under the request's deadline. Leaving the block waits for all calls.

        If at the deadline the body of the block has ended and all calls in flight are optional, the block ends, and
        those calls have their defaults. An exception of the body cancels all calls, and leaves the block without an
        exception group. Cancelled, the block cancels all calls and raises ``Cancelled``.

        Raises:
            CompositionFailedError: a required call failed, or the deadline passed while a required call was in flight
                or the body of the block had not ended.
        """
        engine = GatherEngine(self.facts, self._callers, self.recorder, self._outcomes, self.failed)
        ended = False
        try:
            with engine.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(engine.run_loop, nursery)
                    yield Gather(self, engine)
                    ended = True
                    engine.end_block()
        except BaseException as error:
            # The exception of the body, without its group: the nursery's other tasks raise only cancels and bugs.
            raise_unwrapped(error)
            raise
        finally:
            # A safeguard: the loop has ended, and has settled every call.
            engine.cut(None)
            engine.close()
        if engine.decided or not ended:
            failure = engine.failure or Failure.of(Kind.TIMEOUT, "the gather block had not ended at the deadline")
            raise CompositionFailedError(self.failed(failure))

    def result(self, answer: Json, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Result:
        """The result of the request with ``answer``; a failed one if every call failed and none has a default.

        Args:
            answer: the JSON value of the answer.
            status: the status of the answer; a failed result has the status of its failure.
            headers: header fields of the answer, with names in lower case. A Cache-Control among them has the meaning
                of a route's ``answer.cache_control``. A field with an invalid value is left out and recorded.
        """
        outcomes, parts, complete = self._ordered(), [], True
        if outcomes:
            failure = worst_failure(outcomes, any(rules.has_default for rules in self._rules.values()))
            if failure is not None:
                return self.failed(failure)
            parts = [outcome.headers for outcome in outcomes if outcome.state == "value"]
            complete = all(outcome.complete for outcome in outcomes)
        configured: str | None = None
        fields: Sequence[tuple[str, str]] = ()
        if headers:
            headers = [field for field in headers if self._fits(*field)]
            configured = ", ".join(value for name, value in headers if name == "cache-control") or None
            fields = [field for field in headers if field[0] != "cache-control"]
        asked = self.inputs.headers
        personal = bool(self._personal) or "cookie" in asked or "authorization" in asked
        caching, fields = answer_cache_control(configured, parts, fields, personal=personal, complete=complete)
        return Result(
            outcomes,
            None,
            answer,
            status,
            fields,
            complete,
            caching,
            self._own_ms(),
            tuple(self._personal),
            failed=any(outcome.worst is not None for outcome in outcomes),
        )

    def _fits(self, name: str, value: str) -> bool:
        """Whether a header field can have this value; record an invalid one."""
        if raw_value(value) is not None:
            return True
        record_left_out(self.facts, self.recorder, name, UNFIT)
        return False

    def failed(self, failure: Failure) -> Result:
        """The result of the request with this deciding failure."""
        return failed_result(self._ordered(), failure, failure_fields(failure), self._own_ms())

    def with_all_calls(self, result: Result) -> Result:
        """A copy of ``result`` with the outcomes of all calls that have been settled by now."""
        return msgspec.structs.replace(result, outcomes=self._ordered(), own_ms=self._own_ms())

    # The interface for ``Gather``; handlers must not use it.

    def free_name(self, wanted: str | None, upstream: str) -> str:
        """A call name that no call of this request has: ``wanted``, or by default the upstream's name.

        If a call has the upstream's name already, the default is that name with a number (``users-2``).

        Raises:
            ValueError: another call has the name ``wanted``.
        """
        if wanted is not None:
            if wanted in self._rules:
                raise ValueError(f'this request has a call "{wanted}" already; give the new call another name')
            return wanted
        name, number = upstream, 1
        while name in self._rules:
            number += 1
            name = f"{upstream}-{number}"
        return name

    def defaults(self, upstream: str) -> UpstreamDefaults:
        """The configured defaults of an upstream.

        Raises:
            UmbelError: no upstream has this name.
        """
        if upstream not in self._callers:
            transport = self._transports.get(upstream)
            if transport is None:
                known = ", ".join(self._transports) or "none"
                raise UmbelError(f'there is no upstream "{upstream}"; known upstreams: {known}')
            self._callers[upstream] = caller_of(transport)
        return self._upstreams.get(upstream, _NO_DEFAULTS)

    def gateway_fields(self, *, forwarded: bool) -> FieldBlocks:
        """The gateway fields of the calls of this request, the same object for each call.

        Attempts recognise the object, and then reuse the lines that they have in common.
        """
        found = self._gateway_fields.get(forwarded)
        if found is None:
            found = self._gateway_fields[forwarded] = gateway_fields(self.inputs, forwarded=forwarded)
        return found

    def register_call(self, rules: CallRules, headers: Iterable[str], reads: Iterable[str]) -> None:
        """Register a call before its launch: its rules, and the credentials of the client that it may carry.

        An answer made with a client's credential is for that client: no shared cache may store it.

        Args:
            headers: the names of the call's own header fields.
            reads: the names of the client's header fields that the upstream's configuration reads.
        """
        self._rules[rules.name] = rules
        if headers or reads:
            named = (*headers, *reads)
            self._personal |= dict.fromkeys(name.lower() for name in named if name.lower() in CREDENTIAL_HEADERS)

    def _ordered(self) -> tuple[Outcome, ...]:
        """The outcomes in the order in which the calls were launched."""
        return tuple(self._outcomes[name] for name in self._rules if name in self._outcomes)

    def _own_ms(self) -> float:
        return own_time(self.facts.due_from, trio.current_time(), self._ordered()) * 1000
