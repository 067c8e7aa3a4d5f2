"""One request through one plan: the calls in one nursery under one deadline, and the result they make.

Called by the gateway for every composed request. It knows nothing of HTTP towards the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import httpx
import trio

from ..events import Recorder
from ..inflight import Prepared
from ..kinds import CUT, Kind
from ..model import Attempt, CallFacts, Failure, Inputs, Json, Outcome, RequestFacts
from .call import CallFailedError, CallRules, Landed, ask
from .combine import conclude, decide
from .dag import CallPlan, EachPlan, Plan
from .each import EachWork, Item, ItemEnded, item_list
from .expression import Expression, ExpressionError, failed_expression
from .fault import bad_request, described
from .group import CallGroup, Work, first_cancelled, only_leaf
from .result import Result
from .shape import shape_result
from .template import BadValueError
from .wave import Wave

Transports = Mapping[str, httpx.AsyncBaseTransport]


class Observer:
    """Hears of outcomes as they land, before the composition ends. This one does nothing with them."""

    def item_ended(self, call: str, ended: ItemEnded) -> None:
        """An item of an ``each`` has ended."""

    def call_ended(self, outcome: Outcome, *, decisive: bool) -> None:
        """A call has its outcome; ``decisive`` if it is the failure that decides the answer."""


def request_context(plan: Plan, inputs: Inputs) -> dict[str, Json]:
    """The context before any call has ended: what a plan can name of the request."""
    return {
        "path": inputs.path,
        "query": inputs.query,
        "headers": {name: inputs.headers.get(name.replace("_", "-")) for name in plan.headers},
        "body": inputs.body,
    }


async def run(
    plan: Plan,
    inputs: Inputs,
    facts: RequestFacts,
    transports: Transports,
    recorder: Recorder,
    observer: Observer | None = None,
) -> Result:
    """Run the plan for one request.

    Args:
        transports: one per upstream name.
        facts: their ``deadline`` is when the answer is due, in ``trio.current_time()`` seconds.

    Returns:
        The result, at the deadline at the latest (plus the time of cleaning up, which waits for nobody).

    Cancelled from outside, it cuts every call, records each outcome and passes the cancel on.
    """
    composition = _Composition(plan, inputs, facts, transports, recorder, observer)
    return await composition.fly()


@dataclass(slots=True)
class _PlainWork:
    """The work of a plain call that has a task: see ``group.Work``."""

    rules: CallRules
    composition: _Composition
    prepared: Prepared
    attempts: list[Attempt] = field(default_factory=list)
    items: None = None

    async def do(self) -> Landed:
        return await self.composition.ask(self.rules, self.prepared, self.attempts, None)

    def cut(self, failure: Failure) -> Landed | Failure:
        return failure


class _Composition:
    """The state of one run: what is known so far, and who waits for what."""

    def __init__(
        self,
        plan: Plan,
        inputs: Inputs,
        facts: RequestFacts,
        transports: Transports,
        recorder: Recorder,
        observer: Observer | None,
    ) -> None:
        self._plan = plan
        self._inputs = inputs
        self._facts = facts
        self._transports = transports
        self._recorder = recorder
        self._observer = observer
        self._group = CallGroup(facts, recorder, self._settled)
        self._wave = Wave(self._group)
        self._context = request_context(plan, inputs)
        self._waiting = dict(plan.waiting)

    async def fly(self) -> Result:
        """The result, at the deadline at the latest. A cancel from outside passes on, with every outcome settled."""
        group, cancelled = self._group, None
        try:
            with group.scope:
                # So that nothing is sent for a client that has gone already.
                await trio.lowlevel.checkpoint_if_cancelled()
                for call in self._plan.first:
                    if not group.over:
                        self._begin(call)
                await self._wave.fly(self._board)
                if group.waiting:
                    async with group.tasks():
                        await self._wave.fly(self._board)
        except BaseException as error:
            self._wave.cut(error)
            cancelled = first_cancelled(error)
            leaf = only_leaf(error)
            if leaf is error or leaf is None:
                raise
            raise leaf from leaf.__cause__
        finally:
            group.over = True
            if len(group.outcomes) < len(self._plan.calls):
                self._settle_owed(cancelled)
            group.close()
        plan, whole = self._plan, not (group.flawed or self._plan.needed)
        failure = group.failure if group.decided else None if whole else conclude(plan, group.outcomes)
        return shape_result(plan, group.outcomes, self._context, failure, self._facts, self._recorder, whole=whole)

    def _settle_owed(self, cancelled: trio.Cancelled | None) -> None:
        """The calls that never began, in config order."""
        group = self._group
        for call in self._plan.calls:
            if call.name not in group.outcomes:
                group.fail(call.rules, group.cut_failure(cancelled))

    def _settled(self, outcome: Outcome) -> None:
        group = self._group
        self._context[outcome.call] = outcome.value
        # Where all calls make the answer, one that brought its value decides nothing.
        open_ = not group.decided and (self._plan.needed or outcome.failure is not None)
        decision = decide(self._plan, group.outcomes, outcome) if open_ else None
        if self._observer is not None:
            decisive = decision is not None and decision.failure is not None
            self._observer.call_ended(outcome, decisive=decisive)
        if decision is not None:
            group.decide(decision.failure)
            return
        for dependant in self._plan.dependants[outcome.call]:
            if dependant.name not in group.outcomes:
                self._release(dependant, outcome)

    def _release(self, dependant: CallPlan, outcome: Outcome) -> None:
        """One of the values that ``dependant`` names has come, or never will."""
        group = self._group
        if outcome.state == "value" or self._plan.by_name[outcome.call].rules.has_default:
            self._waiting[dependant.name] -= 1
            if self._waiting[dependant.name] == 0 and not group.over:
                self._begin(dependant)
        elif outcome.failure is None:
            group.skip(dependant.rules)
        elif outcome.failure.kind not in CUT:
            cause = outcome.failure
            detail = f"it needs {outcome.call}, which failed: {cause.kind}"
            group.fail(dependant.rules, replace(cause, kind=Kind.DEPENDENCY, detail=detail, proxy_error=None))

    def _begin(self, call: CallPlan) -> None:
        """Everything that the call names is there: skip it, fail it or launch it."""
        try:
            if call.when is not None and _is_false(self._evaluate(call.when)):
                self._group.skip(call.rules)
                return
            if call.each is None:
                self._launch(call)
            else:
                self._group.launch(self._each(call, call.each))
        except CallFailedError as error:
            self._group.fail(call.rules, error.failure)

    def _launch(self, call: CallPlan) -> None:
        """Make a plain call ready to be sent off, or give it a task."""
        rules = call.rules
        failure: Failure
        try:
            prepared = self._prepared(call, self._context)
        except CallFailedError as error:
            failure = error.failure
        except Exception as error:  # noqa: BLE001  # as of a call that has a task: told by crashed()
            failure = self._group.crashed(rules, error)
        else:
            if self._wave.open and not rules.extensions:
                self._wave.begin(rules, prepared)
            else:
                self._group.launch(_PlainWork(rules, self, prepared))
            return
        now = trio.current_time()
        self._group.land(now, rules, failure, now, ())

    def _board(self, rules: CallRules, prepared: Prepared) -> None:
        """Have a call sent off, or give it a task: there one that nobody wants ends before anything is sent."""
        now = trio.current_time()
        try:
            if self._group.over or not self._send_off(rules, prepared, now):
                self._group.launch(_PlainWork(rules, self, prepared))
        except Exception as error:  # noqa: BLE001  # as in _launch
            failure = self._group.crashed(rules, error)
            self._group.land(now, rules, failure, now, ())

    def _send_off(self, rules: CallRules, prepared: Prepared, now: float) -> bool:
        request = self._facts
        deadline, limit = request.deadline, None
        if rules.timeout is not None and now + rules.timeout < deadline:
            deadline = limit = now + rules.timeout
        facts = CallFacts(rules.name, rules.upstream, request, deadline, self._recorder, rules.max_body)
        return self._wave.send_off(rules, prepared, facts, limit, now, self._transports[rules.upstream])

    def _each(self, call: CallPlan, each: EachPlan) -> Work:
        async def fetch_item(item: Item, attempts: list[Attempt]) -> Landed:
            prepared = self._prepared(call, {**self._context, "item": item.value}, client)
            return await self.ask(call.rules, prepared, attempts, item.places[0])

        value = self._evaluate(each.source)

        def client() -> str:
            return each.client or described(each.source.holders(self._context, value))

        values = item_list(value, call.config.max_items, client)
        return EachWork(
            call.rules,
            values,
            fetch_item,
            call.config.limit,
            call.config.item_default,
            call.config.as_ == "map",
            lambda ended: None if self._observer is None else self._observer.item_ended(call.name, ended),
        )

    def _prepared(self, call: CallPlan, context: Mapping[str, Json], item: Callable[[], str] = lambda: "") -> Prepared:
        """A call's request; ``item`` describes the client's list that the item is from, if it is the client's."""
        try:
            return call.recipe.prepare(context, self._inputs)
        except BadValueError as error:
            client = error.client or call.recipe.owner(error.name, context, item())
            raise CallFailedError(bad_request(str(error), client, error.reason)) from error
        except ExpressionError as error:
            raise self._failed_expression(error, item()) from error

    async def ask(self, rules: CallRules, prepared: Prepared, attempts: list[Attempt], item: int | None) -> Landed:
        """Make a call in this task. Raises CallFailedError."""
        request = self._facts
        facts = CallFacts(
            rules.name, rules.upstream, request, request.deadline, self._recorder, rules.max_body, item, attempts
        )
        return await ask(rules, prepared, facts, self._transports[rules.upstream])

    def _evaluate(self, expression: Expression) -> Json:
        try:
            return expression.evaluate(self._context)
        except ExpressionError as error:
            raise self._failed_expression(error) from error

    def _failed_expression(self, error: ExpressionError, item: str = "") -> CallFailedError:
        where = self._plan.where(error.where)
        return CallFailedError(failed_expression(error, where, self._facts, self._recorder, item))


def _is_false(value: Json) -> bool:
    """False as JMESPath sees it: false, null, and what is empty; the number 0 is true."""
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)
