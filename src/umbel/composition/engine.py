"""Engine of a composition: it starts the calls, settles their outcomes, and enforces the route's deadline.

Theory
------
**Responsibility.** ``Engine`` starts calls, receives their results and makes outcomes of them. It owns its calls
(``core.call.CallOwner``). ``PlanRun`` (``plan_run.py``) adds a route's plan: which calls there are, what each depends
on, and what decides. ``GatherEngine`` (``gather.py``) adds calls made in code. The items of an ``each`` are calls like
any other, of one ``FanOut``.

**The deadline** of a composition is enforced here: ``_on_deadline`` (timer) or ``scope`` (cancel scope); see "External
end" below. A call's own ``timeout`` is a timer of the call in its upstream (``RunningCall.limit``).

**States of a call.** *waiting* for other calls (plans only) → *ready* → *under way* → *ended*. A call gets its outcome
when it ends, exactly once: ``settle`` is the only place, and it refuses a second outcome. A call that is skipped, or
whose request cannot be made, goes from ready to ended.

**States of a composition.** *open* → *over* → *closed*. It is over when it is decided (a required call has failed, or
enough calls have succeeded), when its deadline has passed, when it is cancelled, or when no call is left. Nothing
starts once it is over: ``cut`` ends the calls that are under way, each with an outcome, and calls that never began get
an outcome too. A closed composition notifies nobody.

**Callbacks.** An upstream calls ``call_ended`` and ``call_waits`` in the tasks of the socket reader and of timers. They
do little: a result with a body of at most ``INLINE_MAX`` bytes is decoded and settled there, which may decide the
composition, end an ``each`` or make calls ready. They start no call and cancel nothing but items: they note the work
and wake the engine's task, and only if there is work. So of ten calls that end in one turn only the last one wakes the
task. Results of one batch are settled in the order of the batch; if one decides, the results after it are settled as
well, but decide nothing. Larger bodies are decoded by the engine's task, one per turn of the event loop, so that many
of them do not block it; once the composition is decided their calls are cut.

**The loop** (``run_loop``): do the noted work, give waiting calls a task, park. It needs no nursery until a call waits;
from then on it runs inside one, which waits for all of these tasks. The calls of a turn are first prepared, then
started, then sent one right after the other, so that a peer on this machine is woken once for all of them. If one of
them decides the composition as it is started (its upstream's breaker is open, say), none is sent.

**External end** has three causes and one mechanism. ``cut`` ends every call that is under way by ``Call.cancel`` and
gives each its outcome, synchronously. The last call is cancelled first: it may be queued for the place of an earlier
one, and must not get it now. A result that came in the same turn, before the task ran, is settled already and stands; a
call with a large body is cut.

- ``end_now(reason)`` cuts and wakes the task; ``client_gone`` is ``end_now`` with the reason "client-gone". Both may be
  called at any time. ``on_wait`` hands ``client_gone`` out right before the loop parks for the first time.
- The deadline is a timer whose callback calls ``end_now``. The timer is set when the loop parks for the first time;
  each turn that has work compares the clock with the deadline as well.
- A cancel of the task is raised where the loop parks, or before the loop starts anything. It goes on after the cut.

As soon as the task waits for anything besides the loop (tasks of calls, a body that is decoded in a thread), the
deadline is that of ``scope`` instead, which is entered together with the nursery: tasks can only be cancelled. Without
a timer queue, and for a gather block, the scope is entered from the beginning. The tasks in ``Call.finish`` are
shielded from a cancel until their calls are cut, since a place that one of them gave back could go to another call;
they end with their calls. (docs/decisions/0007.)

An exception that an observer or a recorder raises in a callback is kept, and ends the composition: the loop raises it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from ..core.call import Call, Caller, Parking, PreparedRequest
from ..core.events import CallEnded, Recorder
from ..core.failure_kinds import CUT, Kind
from ..core.model import Attempt, Failure, Outcome, RequestFacts
from ..net.exception_groups import first_leaf
from .call_result import (
    CallFailedError,
    CallResult,
    CallRules,
    decoded_in_thread,
    needs_decode_thread,
    record_crash,
    result_of,
    result_without_content,
)
from .fan_out import FanOut
from .running_call import RunningCall

if TYPE_CHECKING:
    from ..net.timers import Timer, TimerQueue

Callers = Mapping[str, Caller]
"""The callers by upstream name."""

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""The cancel reason of a request whose client has left."""
OnWait = Callable[[Callable[[], object]], object]
"""Called once, before the composition first parks, with ``Engine.client_gone``; ``InboundRequest.on_gone`` is one."""
INLINE_MAX = 16 * 1024
"""The largest body in bytes that is decoded in a callback; a larger one is decoded in the engine's task."""


class Engine:
    """Runs the calls of one composition under one deadline; the module's docstring is its theory.

    Args:
        facts: the inbound request; ``facts.deadline`` is absolute, in ``trio.current_time()`` seconds.
        callers: the callers by upstream name.
        recorder: receives the record of each call.
        outcomes: is filled in as calls end, also if the composition is cancelled; None: a dict of the engine's own.
        timers: runs the timer of the deadline; None: ``scope`` is entered around ``run_loop`` by the caller.
    """

    # Class attributes, not set per request: nearly every request leaves them at these values.
    failure: Failure | None = None
    """The failure that decides the answer, once one does."""
    closed = False
    any_failed = False
    """Whether a call or an item has failed."""
    _timer: Timer | None = None
    """The timer of the deadline, once it is set."""
    _deadline_reached = False
    _shields: list[trio.CancelScope] | None = None
    """The shielded scopes around the tasks of calls."""
    _callback_error: Exception | None = None
    """The exception that a callback caught; the loop raises it."""
    _cut_reason: str | None = None
    """The reason of the cancel that cut the composition."""
    _more_may_come = False
    """Whether further calls may be launched: the loop then goes on although no call is under way."""

    def __init__(
        self,
        facts: RequestFacts,
        callers: Callers,
        recorder: Recorder,
        outcomes: dict[str, Outcome] | None = None,
        timers: TimerQueue | None = None,
    ) -> None:
        self.facts = facts
        self.callers = callers
        self.recorder = recorder
        self._takes_attempts: bool = getattr(recorder, "takes_attempts", True)
        self._slow_call: float = getattr(recorder, "slow_call", 0.0)
        self._timers = timers
        """None while ``scope`` is entered: the scope has the deadline then."""
        self._now: Callable[[], float] = trio.current_time if timers is None else timers.now
        self.outcomes: dict[str, Outcome] = {} if outcomes is None else outcomes
        """The outcomes in the order in which the calls ended."""
        self.decided = False
        self.over = False
        """Whether no further call may begin."""
        self._parking = Parking()
        self._under_way: dict[RunningCall, Call] = {}
        """The calls that have begun and have not ended, by context. A context does not refer to its call: a reference
        cycle would keep both until a garbage collection."""
        self._large_results: deque[Call] | None = None
        """Ended calls whose bodies are to be decoded in the engine's task."""
        self._waiting_calls: list[Call] = []
        """The calls that need a task."""
        self._fan_outs: dict[FanOut, None] = {}
        """The fan-outs that are not over, in order of their start."""
        self._startable: dict[FanOut, None] = {}
        """The fan-outs of which another item may start."""
        self._has_work = False
        """Whether ``_do_work`` has anything to do."""
        self._unnotified: deque[Outcome] | None = None
        """The outcomes that were settled while ``_on_settled`` ran for another one."""
        self._notifying = False
        self.on_wait: OnWait | None = None
        """None once it was called."""

    @cached_property
    def scope(self) -> trio.CancelScope:
        """The cancel scope of everything that is waited for; its deadline is the request's."""
        return trio.CancelScope(deadline=self.facts.deadline)

    # Hooks for subclasses.

    def _on_settled(self, outcome: Outcome) -> None:
        """React to an outcome. Called in the order of the outcomes, and never re-entered."""

    def _start_ready(self, now: float) -> None:
        """Start the calls that have become ready; runs in the engine's task."""

    # Starting calls.

    def prepare_call(
        self,
        rules: CallRules,
        prepared: PreparedRequest,
        now: float,
        fan_out: FanOut | None = None,
        number: int = 0,
    ) -> Call:
        """Make a call that is ready to be started; its context is a ``RunningCall``.

        The call's deadline is the request's, or ``now`` + its own timeout if that is earlier.
        """
        facts = self.facts
        deadline, limit = facts.deadline, None
        if rules.timeout is not None and now + rules.timeout < deadline:
            deadline, limit = now + rules.timeout, rules.timeout
        retry, hedge, coalesce = rules.policies
        running = RunningCall(
            self,
            rules.name,
            rules.upstream,
            facts,
            deadline,
            self.recorder,
            limit,
            rules.max_body,
            [] if fan_out is None else fan_out.attempts,
            retry,
            hedge,
            coalesce,
            self._takes_attempts,
            rules=rules,
            method=prepared.method,
            started_at=now,
            fan_out=fan_out,
            number=number,
        )
        return self.callers[rules.upstream].new_call(prepared, running)

    def start(self, calls: Sequence[Call], now: float) -> None:
        """Start calls, then send them. Calls after one that decides never begin, and calls before it are not sent."""
        under_way = self._under_way
        for call in calls:
            running: RunningCall = call.context
            fan_out = running.fan_out
            if not (self.over or (fan_out is not None and fan_out.over)):
                under_way[running] = call
                call.start(now)
        for call in calls:
            # Sending a call may decide the composition: the calls that were not sent yet are cut.
            if call.context in under_way and not self.over:
                call.send()

    def begin_fan_out(self, fan_out: FanOut, now: float) -> None:
        """Start the first items of an ``each``."""
        self._fan_outs[fan_out] = None
        self._start_items(fan_out, now)

    def _start_items(self, fan_out: FanOut, now: float) -> None:
        ready: list[Call] = []
        while (number := fan_out.next_item()) is not None:
            try:
                prepared = fan_out.prepare(fan_out.items[number].value)
                ready.append(self.prepare_call(fan_out.rules, prepared, now, fan_out, number))
            except CallFailedError as error:
                fan_out.item_ended(number, error.failure)
            except Exception as error:  # noqa: BLE001  # a bug: it fails the item, and is recorded
                fan_out.item_ended(number, record_crash(error, fan_out.rules.name, self.facts, self.recorder))
        self.start(ready, now)  # Starts none, if an item that failed just now has ended the fan-out.
        if fan_out.over:
            self._end_fan_out(fan_out, now)

    # The interface for calls, ``core.call.CallOwner``. These run in the tasks of readers and timers.

    def call_ended(self, call: Call, inline_max: float = INLINE_MAX) -> None:
        """Settle an ended call if its body has at most ``inline_max`` bytes; else leave it to the engine's task."""
        running: RunningCall = call.context
        try:
            if running not in self._under_way:
                return  # Its fan-out was over and cut it in the very step in which the call ended.
            if len(call.content) > inline_max:
                if self._large_results is None:
                    self._large_results = deque()
                self._large_results.append(call)
                self._has_work = True
                self._parking.wake()
                return
            del self._under_way[running]
            result: CallResult | Failure
            try:
                if call.error is None:
                    result = result_of(running.rules, running.method, call, running.decoded)
                else:
                    result = result_without_content(running.rules, running.method, call.error, running)
            except CallFailedError as error:
                result = error.failure
            except Exception as error:  # noqa: BLE001  # a bug: it fails the call, and is recorded
                result = record_crash(error, running.call, self.facts, self.recorder)
            fan_out = running.fan_out
            if fan_out is not None:
                self._item_ended(fan_out, running, result, call.ended_at)
            else:
                self.settle(running.rules, result, running.started_at, call.ended_at, running.attempts)
        except Exception as error:  # noqa: BLE001  # a bug: the composition's task raises it, not the reader's
            self._note_callback_error(error)

    def _note_callback_error(self, error: Exception) -> None:
        """Keep an exception that a callback caught: the engine's task raises it, not the task of the reader."""
        self._callback_error = error
        self.over = True
        self._parking.wake()

    def call_waits(self, call: Call) -> None:
        """Note that a call needs a task, which runs ``call.finish``."""
        self._waiting_calls.append(call)
        self._parking.wake()

    # Settling.

    def _item_ended(self, fan_out: FanOut, running: RunningCall, result: CallResult | Failure, now: float) -> None:
        """Hand an item's result to its fan-out, and end the fan-out or let another item start."""
        fan_out.item_ended(running.number, result)
        if fan_out.over:
            self._end_fan_out(fan_out, now)
        elif fan_out.has_next:
            self._startable[fan_out] = None
            self._has_work = True
            self._parking.wake()

    def _end_fan_out(self, fan_out: FanOut, now: float) -> None:
        if fan_out not in self._fan_outs:
            return  # An item that failed at once has ended it already.
        del self._fan_outs[fan_out]
        self._startable.pop(fan_out, None)
        if fan_out.under_way:
            siblings = [running for running in self._under_way if running.fan_out is fan_out]
            # All are removed before one is cancelled: its place may go to another call, which may end at once.
            calls = [self._under_way.pop(running) for running in siblings]
            for call in reversed(calls):
                call.cancel("a required item failed")
        self.settle(fan_out.rules, fan_out.result(), fan_out.started_at, now, fan_out.attempts, len(fan_out.items))

    def settle(
        self,
        rules: CallRules,
        result: CallResult | Failure | None,
        started_at: float | None,
        now: float,
        attempts: Sequence[Attempt],
        items: int | None = None,
    ) -> None:
        """Give a call its outcome. The only place where a call gets one.

        Args:
            result: the call's result or failure; None: the call is skipped.
            started_at: None: the call never began.
            now: when the call ended.
            items: the number of items of an ``each``.

        Raises:
            AssertionError: the call has an outcome already.
        """
        name, outcomes = rules.name, self.outcomes
        if name in outcomes:
            raise AssertionError(f"call {name} ended twice")
        attempts = tuple(attempts)
        if type(result) is CallResult:
            value, failed_items, headers = result.value, result.failed_items, result.headers
            status = result.answer_status
            outcome = Outcome(name, "value", value, None, started_at, now, attempts, failed_items, headers, status)
            # Recorders want few of the successes; this cheap test rules out most.
            is_notable = failed_items or started_at is None or len(attempts) > 1 or now - started_at >= self._slow_call
        elif isinstance(result, Failure):
            outcome, is_notable = Outcome(name, "failed", rules.default, result, started_at, now, attempts), True
        else:
            outcome, is_notable = Outcome(name, "skipped", rules.default, ended_at=now), True
        outcomes[name] = outcome
        if is_notable:
            self.any_failed = self.any_failed or outcome.failure is not None or bool(outcome.failed_items)
            if self._is_recorded(outcome):
                self.recorder.record(CallEnded(self.facts, rules.upstream, outcome, items))
        # One outcome may settle others (dependants that fail or are skipped). One loop handles them in turn instead of
        # recursion, so that a long chain of calls needs no stack.
        if self._notifying:
            if self._unnotified is None:
                self._unnotified = deque()
            self._unnotified.append(outcome)
            return
        self._notifying = True
        try:
            self._on_settled(outcome)
            while self._unnotified:
                self._on_settled(self._unnotified.popleft())
        finally:
            self._notifying = False
        if self.over or not self._under_way or self._has_work:
            self._parking.wake()

    def _is_recorded(self, outcome: Outcome) -> bool:
        """Whether the recorder wants a record of this call."""
        slow, failure = self._slow_call, outcome.failure
        if not slow or outcome.failed_items:
            return True
        if failure is not None and failure.kind not in CUT and failure.kind is not Kind.DEPENDENCY:
            return True
        if outcome.started_at is not None and outcome.ended_at - outcome.started_at >= slow:
            return True
        return any(attempt.cause != "first" for attempt in outcome.attempts)

    def decide(self, failure: Failure | None) -> None:
        """End the composition with this failure, or (None) with the outcomes so far. Only the first decision counts."""
        if not self.decided:
            self.decided = self.over = True
            self.failure = failure
            self._parking.wake()

    # The loop, the deadline and the end.

    async def run_loop(self, nursery: trio.Nursery | None = None) -> None:
        """Run the composition until it is over or no call is left. No call is under way afterwards.

        Cancelled, it cuts every call before it passes the cancel on.

        Args:
            nursery: where the tasks of calls run; None: one is opened when a call needs a task.

        Raises:
            Exception: what a callback caught, a bug.
        """
        parking = self._parking
        try:
            while not self.over:
                if self._has_work:
                    # So that nothing is sent for a request that is cancelled already.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    if self._large_results and self._needs_thread(self._large_results[0]):
                        if nursery is None:
                            await self._run_loop_in_nursery()
                            return
                        await self._decode_in_thread(self._large_results[0])
                    self._do_work()
                    if self.over:
                        break
                if self._waiting_calls:
                    if nursery is None:
                        await self._run_loop_in_nursery()
                        return
                    waits, self._waiting_calls = self._waiting_calls, []
                    for call in waits:
                        nursery.start_soon(self._finish_call, call, name=call.finish)
                if not (self._under_way or self._fan_outs or self._has_work or self._more_may_come):
                    self.over = True
                    return
                if self._large_results:
                    await trio.lowlevel.checkpoint()
                elif not (self._has_work or self._waiting_calls or parking.woken):
                    if self.on_wait is not None:
                        on_wait, self.on_wait = self.on_wait, None
                        on_wait(self.client_gone)  # May call client_gone at once, so look at ``over`` again.
                        continue
                    if self._timer is None and self._timers is not None and self.facts.deadline < math.inf:
                        self._timer = self._timers.add(self.facts.deadline, self._on_deadline)
                    await parking.park()
                parking.woken = False
            callback_error, self._callback_error = self._callback_error, None
            if callback_error is not None:
                raise callback_error
        except BaseException as error:
            # Here and not around the nursery: the nursery would first wait for its tasks, which may have to clean up.
            self.cut(first_leaf(error, trio.Cancelled))
            raise
        self.cut(None)

    def _do_work(self) -> None:
        """Decode one large body, check the deadline, start items and calls that are ready."""
        self._has_work = False
        if self._large_results:
            # One per turn: each may block the event loop for a while, and other tasks have their turn in between.
            self.call_ended(self._large_results.popleft(), math.inf)
            self._has_work = bool(self._large_results) or self._has_work
        now = self._now()
        if self._timers is not None and now >= self.facts.deadline:
            self._on_deadline()
            return
        while self._startable and not self.over:
            self._start_items(self._startable.popitem()[0], now)
        self._start_ready(now)

    async def _run_loop_in_nursery(self) -> None:
        """Run the loop in a nursery under ``scope``, to which the deadline passes from the timer."""
        if self._timers is None:
            async with trio.open_nursery() as nursery:
                await self.run_loop(nursery)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timers = None
        with self.scope:
            await self._run_loop_in_nursery()

    def _needs_thread(self, call: Call) -> bool:
        """Whether the body of ``call`` holds so many values that to decode it would block the event loop."""
        running: RunningCall = call.context
        return running in self._under_way and needs_decode_thread(running.rules, call)

    async def _decode_in_thread(self, call: Call) -> None:
        """Decode the body of ``call`` in a thread."""
        running: RunningCall = call.context
        running.decoded = await decoded_in_thread(running.rules, call)

    async def _finish_call(self, call: Call) -> None:
        """Run ``call.finish`` in a task of its own, shielded until the call is cut."""
        with trio.CancelScope(shield=not self.over) as scope:
            if self._shields is None:
                self._shields = []
            self._shields.append(scope)
            await call.finish()

    def end_now(self, reason: str) -> None:
        """Cut every call and wake the engine's task: a synchronous cancel with this reason.

        May be called at any time and from any task, also before the start and after the end; never raises. If the
        composition is over already, nothing changes.
        """
        if self.over:
            return
        self._cut_reason = reason
        try:
            self.cut(None)
        except Exception as error:  # noqa: BLE001  # a bug: the engine's task raises it, not the caller
            self._note_callback_error(error)
        if self._timers is None:
            self.scope.cancel(reason=reason)  # The task may wait for more than the loop.
        self._parking.wake()

    def client_gone(self) -> None:
        """End the composition because its client has left; as ``end_now``."""
        self.end_now(CLIENT_GONE)

    def _on_deadline(self) -> None:
        """End the composition because the route's deadline has passed."""
        self._deadline_reached = True
        self.end_now("the route's deadline")

    def cut(self, cancelled: trio.Cancelled | None) -> None:
        """Cancel every call that is under way and settle it. No further call begins."""
        self.over = True
        if cancelled is not None:
            self._cut_reason = cancelled.reason
        failure = self.cut_failure()
        reason = "decided" if self.decided else self._cut_reason or ""
        if self._deadline_reached:
            reason = "the route's deadline"
        under_way, self._under_way = self._under_way, {}
        fan_outs, self._fan_outs = list(self._fan_outs), {}
        self._large_results = None
        self._startable.clear()
        self._waiting_calls.clear()
        # The last one first: it may be queued for the place of an earlier one, and must not get it now.
        for call in reversed(under_way.values()):
            call.cancel(reason)
        for shield in self._shields or ():
            shield.shield = False
        now = self._now()
        for running in under_way:
            if running.fan_out is None:
                self.settle(running.rules, failure, running.started_at, now, running.attempts)
        for fan_out in fan_outs:
            result = fan_out.cut(failure)
            self.settle(fan_out.rules, result, fan_out.started_at, now, fan_out.attempts, len(fan_out.items))

    def close(self) -> None:
        """Close the composition: no further call begins, and nobody is notified."""
        self.over = self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting_calls:  # A call has ended before it got its task.
            self._waiting_calls.clear()

    def cut_failure(self) -> Failure:
        """The failure of a call that is cut now or never began: timeout, cancelled or client-gone."""
        if not self.decided and self._now() >= self.facts.deadline:
            self._deadline_reached = True
        if self._deadline_reached:
            # Also where the first call cut by the deadline has decided the answer: the deadline cut them all.
            return Failure.of(Kind.TIMEOUT, "unfinished at the route's deadline")
        if self.decided:
            return Failure.of(Kind.CANCELLED, "the answer was decided without it")
        if self._cut_reason == CLIENT_GONE:
            return Failure.of(Kind.CLIENT_GONE, "the client has gone")
        return Failure.of(Kind.CANCELLED, f"cancelled: {self._cut_reason or 'no reason given'}")
