"""Execution of a plan for one request: when each call starts, and what decides. ``engine.py`` explains the loop.

A call starts as soon as every call that it names has a value (or a default). A call is skipped if its ``when`` is
false, or if it depends on a skipped call without a default. It fails with kind dependency if it depends on a failed
call without a default. ``answer/decision.py`` says after which outcome the composition is decided.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ..core.call import FieldBlocks, PreparedRequest
from ..core.events import Recorder
from ..core.failure_kinds import CUT, Kind
from ..core.inbound import ClientGoneError
from ..core.model import Failure, Inputs, Json, Outcome, RequestFacts
from ..net.exception_groups import raise_unwrapped
from .answer.decision import decide, final_failure
from .answer.result import Result
from .answer.result_builder import build_result
from .call_result import CallFailedError, CallRules, record_crash
from .engine import CLIENT_GONE, Callers, Engine, OnWait
from .fan_out import FanOut, ItemOutcome, item_list
from .plan.plan import Copy, request_context
from .request.request_template import gateway_fields
from .text.expression import Expression, ExpressionError, failed_expression, is_false
from .text.fault import bad_request, describe_parameters
from .text.field_template import record_left_out
from .text.template import BadValueError

if TYPE_CHECKING:
    from ..core.call import Call
    from ..net.timers import TimerQueue
    from .plan.plan import CallPlan, FanOutPlan, MirrorPlan, Plan, SplitPlan


class Observer:
    """Receiver of outcomes while the composition runs. This base class ignores them.

    The functions run in callbacks of the event loop: they must not wait. An exception of one ends the composition, and
    ``run`` raises it.
    """

    def item_ended(self, call: str, ended: ItemOutcome) -> None:
        """Handle the outcome of an item of the ``each`` of ``call``."""

    def call_ended(self, outcome: Outcome, *, decisive: bool) -> None:
        """Handle the outcome of a call. ``decisive``: the composition fails now, with this outcome's failure."""


async def run(
    plan: Plan,
    inputs: Inputs,
    facts: RequestFacts,
    callers: Callers,
    recorder: Recorder,
    observer: Observer | None = None,
    outcomes: dict[str, Outcome] | None = None,
    timers: TimerQueue | None = None,
    copies: list[Copy] | None = None,
) -> Result:
    """Run a plan for one request, and return its result at the deadline at the latest.

    Cancelled, it cancels every call under way, records each outcome and raises ``Cancelled``.

    Args:
        inputs: the validated inbound request.
        facts: its identifiers and times; ``facts.deadline`` is absolute, in ``trio.current_time()`` seconds.
        callers: the callers by upstream name.
        recorder: receives the record of each call.
        observer: receives each outcome when its call is settled.
        outcomes: receives each outcome when its call is settled, also if ``run`` is cancelled; None: a new dict.
        timers: a timer queue that another task runs; None: a cancel scope has the deadline.
        copies: receives the copies that mirrors get after the answer; None: none are made.
    """
    made = PlanRun(plan, inputs, facts, callers, recorder, observer, outcomes, None, timers)
    made.copies = copies
    return await made.run()


class PlanRun(Engine):
    """The engine of one request to a configured route. Its arguments are those of ``run``, and ``on_wait``.

    Args:
        on_wait: receives ``client_gone`` before the engine's task parks for the first time (``engine.OnWait``).
    """

    __slots__ = (
        "_context",
        "_gateway_fields",
        "_inputs",
        "_missing_dependencies",
        "_observer",
        "_plan",
        "_ready",
        "_unsettled",
        "copies",
        "draw",
    )

    def __init__(
        self,
        plan: Plan,
        inputs: Inputs,
        facts: RequestFacts,
        callers: Callers,
        recorder: Recorder,
        observer: Observer | None = None,
        outcomes: dict[str, Outcome] | None = None,
        on_wait: OnWait | None = None,
        timers: TimerQueue | None = None,
    ) -> None:
        Engine.__init__(self, facts, callers, recorder, outcomes, timers)  # Not super(): once per request.
        self.on_wait = on_wait
        self._plan = plan
        self._inputs = inputs
        self._observer = observer
        self._context = request_context(plan, inputs)
        self._missing_dependencies = dict(plan.dependency_counts)
        """The number of dependencies without a value so far, by the name of the dependant."""
        self._ready: Sequence[CallPlan] = plan.initial_calls
        """The calls whose dependencies have values, and which have not begun."""
        self._has_work = True
        self._unsettled = len(plan.calls)
        """The number of calls without an outcome."""
        self._gateway_fields: dict[bool, FieldBlocks] = {}
        """The gateway fields, made once per request: with X-Forwarded-* (True) and without (False)."""
        self.copies: list[Copy] | None = None
        """Receives the copies that mirrors get after the answer; None: none are made. To be set before ``run``."""
        self.draw: Callable[[], float] = random.random
        """Returns a random number, at least 0 and below 1, for splits and mirrors."""

    async def run(self) -> Result:
        """Run the plan, and return its result. See the function ``run``. May be called once.

        Raises:
            ClientGoneError: ``client_gone`` was called before the composition was over.
        """
        try:
            if self._timers is not None:
                await self.run_loop()
            else:
                with self.scope:
                    await self.run_loop()
        except BaseException as error:
            raise_unwrapped(error)
            raise
        finally:
            self.over = True
            if self._unsettled:
                self._settle_never_started()
            self.close()
        if self._cut_reason == CLIENT_GONE:
            raise ClientGoneError("the client has gone")
        plan, whole = self._plan, not (self.any_failed or self._plan.needed)
        failure = self.failure if self.decided else None if whole else final_failure(plan, self.outcomes)
        return build_result(
            plan,
            self.outcomes,
            self._context,
            self._inputs,
            failure,
            self.facts,
            self.recorder,
            self._now(),
            whole=whole,
        )

    def calls_to_come(self) -> Sequence[CallRules]:
        """The calls of the plan that have neither begun nor an outcome, in config order."""
        begun = {running.call for running in self.under_way}
        return [call.rules for call in self._plan.calls if call.name not in self.outcomes and call.name not in begun]

    def _settle_never_started(self) -> None:
        """Settle the calls that have not begun, in config order."""
        now = self._now()
        for call in self._plan.calls:
            if call.name not in self.outcomes:
                self.settle(call.rules, self.cut_failure(), None, now, ())

    def _start_ready(self, now: float) -> None:
        while self._ready and not self.over:
            ready, self._ready = self._ready, ()
            calls = [made for call in ready if (made := self._make_ready(call, now)) is not None]
            self.start(calls, now)

    def _on_settled(self, outcome: Outcome) -> None:
        plan = self._plan
        self._unsettled -= 1
        self._context[outcome.call] = outcome.value
        # With combine = "all" a success decides nothing, so ``decide`` need not be asked.
        open_ = not self.decided and (plan.needed or outcome.failure is not None)
        decision = decide(plan, self.outcomes, outcome) if open_ else None
        if self._observer is not None and not self.closed:
            # With first and quorum an outcome may end the composition with the failure of an earlier one.
            failure = None if decision is None else decision.failure
            self._observer.call_ended(outcome, decisive=failure is not None and failure is outcome.failure)
        if decision is not None:
            self.decide(decision.failure)
            return
        for dependant in plan.dependants[outcome.call]:
            if dependant.name not in self.outcomes:
                self._dependency_settled(dependant, outcome)

    def _dependency_settled(self, dependant: CallPlan, outcome: Outcome) -> None:
        """Make ``dependant`` ready if this was the last dependency without a value; skip or fail it without one.

        A dependency that was cut leaves its dependant as it is: the end of ``run`` settles that.
        """
        if outcome.state == "value" or self._plan.by_name[outcome.call].rules.has_default:
            self._missing_dependencies[dependant.name] -= 1
            if self._missing_dependencies[dependant.name] == 0 and not self.over:
                self._ready = (*self._ready, dependant)
                self._has_work = True
        elif outcome.failure is None:
            self.settle(dependant.rules, None, None, trio.current_time(), ())
        elif outcome.failure.kind not in CUT:
            cause = outcome.failure
            detail = f"this call needs {outcome.call}, which failed: {cause.kind}"
            failure = replace(cause, kind=Kind.DEPENDENCY, detail=detail, proxy_error=None, received_status=None)
            self.settle(dependant.rules, failure, None, outcome.ended_at, ())

    def _make_ready(self, call: CallPlan, now: float) -> Call | None:
        """Make a call whose dependencies have values; None: the call is settled already, or has an ``each``."""
        try:
            if call.when is not None and is_false(self._evaluate(call.when)):
                self.settle(call.rules, None, None, trio.current_time(), ())
                return None
            if call.split is not None:
                call = self._variant(call.split)
            if call.fan_out is not None:
                self.begin_fan_out(self._fan_out(call, call.fan_out, now), now)
                return None
        except CallFailedError as error:
            self.settle(call.rules, error.failure, None, now, ())
            return None
        try:
            request_template = call.request_template
            if request_template.forwarded not in self._gateway_fields:
                self._gateway_fields[request_template.forwarded] = gateway_fields(
                    self._inputs, forwarded=request_template.forwarded
                )
            gateway = self._gateway_fields[request_template.forwarded]
            prepared = request_template.prepare(self._context, self._inputs, gateway, self._left_out)
            rules = call.rules
            if call.conditions:
                rules = call.rules_for(self.facts.method, self._inputs.headers)
            if call.mirror is not None:
                self._note_copy(call.mirror, self._context)
            return self.prepare_call(rules, prepared, now)
        except Exception as error:  # noqa: BLE001  # a bad value or a bug: either fails the call
            self.settle(call.rules, self._preparation_failure(error, call, self._context, lambda: ""), now, now, ())
            return None

    def _fan_out(self, call: CallPlan, fan_out: FanOutPlan, now: float) -> FanOut:
        value = self._evaluate(fan_out.source)
        values = item_list(value, call.config.max_items, lambda: self._client_parameters(fan_out, value))
        return FanOut(
            call.rules,
            values,
            prepare=lambda item: self._prepare_item(call, fan_out, item),
            limit=call.config.limit,
            item_default=call.config.item_default,
            as_map=call.config.as_ == "map",
            started_at=now,
            on_item_ended=lambda ended: None if self._observer is None else self._observer.item_ended(call.name, ended),
        )

    def _variant(self, split: SplitPlan) -> CallPlan:
        """The call as the upstream gets it that the split chooses for this request. Raises CallFailedError."""
        try:
            return split.chosen(self._context, self.draw)
        except ExpressionError as error:
            raise self._failed_expression(error) from error

    def _note_copy(self, mirror: MirrorPlan, context: Mapping[str, Json]) -> None:
        """Add a copy of a request to ``copies``, if chance chooses the request."""
        if self.copies is not None and self.draw() < mirror.share:
            self.copies.append(Copy(mirror, context, self._inputs))

    def _left_out(self, header: str, reason: str) -> None:
        record_left_out(self.facts, self.recorder, header, reason)

    def _client_parameters(self, fan_out: FanOutPlan, part: Json) -> str:
        """Words for the client's parameters that ``part`` of the list of an ``each`` is made of."""
        return fan_out.client_parameter or describe_parameters(fan_out.source.origins(self._context, part))

    def _prepare_item(self, call: CallPlan, fan_out: FanOutPlan, item: Json) -> PreparedRequest:
        context = {**self._context, "item": item}
        try:
            prepared = call.request_template.prepare(context, self._inputs, left_out=self._left_out)
            if call.mirror is not None:
                self._note_copy(call.mirror, context)
            return prepared
        except Exception as error:
            failure = self._preparation_failure(error, call, context, lambda: self._client_parameters(fan_out, item))
            raise CallFailedError(failure) from error

    def _preparation_failure(
        self, error: Exception, call: CallPlan, context: Mapping[str, Json], item: Callable[[], str]
    ) -> Failure:
        """The failure of a call whose request could not be made because of ``error``.

        Args:
            item: returns words for the client's list that the item of an ``each`` comes from; called only if needed.
        """
        if isinstance(error, BadValueError):
            client_parameter = error.client_parameter or call.request_template.client_parameter_of(
                error.name, context, item()
            )
            return bad_request(str(error), client_parameter, error.reason)
        if isinstance(error, ExpressionError):
            return self._failed_expression(error, item()).failure
        return record_crash(error, call.name, self.facts, self.recorder)

    def _evaluate(self, expression: Expression) -> Json:
        try:
            return expression.evaluate(self._context)
        except ExpressionError as error:
            raise self._failed_expression(error) from error

    def _failed_expression(self, error: ExpressionError, item: str = "") -> CallFailedError:
        where = self._plan.where(error.where)
        return CallFailedError(failed_expression(error, where, self.facts, self.recorder, item))
