"""The engine: the calls of one composition, their outcomes, and the one decision that ends it.

Theory
------
**What it does.** ``Engine`` starts calls, takes their results, and makes outcomes of them. It is the owner of its calls
(``core.call.CallOwner``). ``PlanRun`` (``plan_run.py``) adds a route's plan: which calls there are, what each waits
for, and what decides. ``gather.py`` adds calls made in code. Items of an ``each`` are calls like any other, of one
``FanOut``.

**States of a call here.** *waiting* for other calls (only of a plan) → *ready* → *under way* → *ended*. A call has its
outcome when it has ended, exactly once: ``settle`` is the one place, and it refuses a second one. A call that is
skipped, or whose request cannot be made, goes from ready to ended.

**States of a composition.** *open* → *over* → *closed*. It is over when it is decided (a required call has failed, or
enough calls have succeeded), when its deadline has come, or when somebody cancels it; it is also done when no call is
left. Nothing starts once it is over: what is under way is cut (``cut``), each with its outcome, and what never began
gets one too. Closed it tells nobody anything.

**Events.** The functions that a call's upstream calls (``call_ended``, ``call_waits``) run in the tasks of the reader
and of timers. They may do a little: a result with a body of up to ``INLINE_MAX`` bytes is taken there, which may decide
the composition, end an ``each`` or make calls ready. They start nothing and cancel nothing but items: they note what is
to be done and wake the engine's task, and only if there is something to be done. So of ten calls that end in one
turn only the last one wakes the task. Results that come in one batch are taken in the order of the batch; if one
decides, those after it are taken as well, since they are there, but decide nothing. Larger bodies are decoded by the
engine's task, one per turn of the loop, so that many of them do not hold it up; once it is decided they are cut.

**The loop** (``run_loop``): act on what was noted, give calls that wait a task, park. It needs no nursery until a call
says that it waits; from then on it runs inside of one, which waits for all of these tasks. Calls of a turn are first
prepared, then started, and then sent one right after the other, so that a peer on this machine is woken once for all of
them. If one of them decides the composition as it is started (its upstream's breaker is open, say), none is sent.

**Its end from outside** has three causes and one mechanism. ``cut`` ends every call that is under way by
``Call.cancel`` and gives each its outcome, synchronously. The last call is cancelled first: it may wait in a queue for
the place of an earlier one, and must not get it now. A result that came in the same turn, before the task ran, has been
taken already and stands; one with a large body is cut.

- ``end_now(reason)`` cuts and wakes the task. ``client_gone`` is that, and may be called at any time. Whoever can
  call it is given it by ``on_wait``, right before the loop parks for the first time.
- The deadline is a timer whose callback does the same. It is set when the loop parks for the first time; each turn that
  has work looks at the clock as well.
- A cancel of the task is seen where the loop parks, or before it starts anything. It is passed on after the cut.

As soon as anything else than the loop is waited for (tasks of calls, a body that is decoded in a thread), the deadline
is that of ``scope`` instead, which is entered together with the nursery: these can only be cancelled. Without a timer
queue, and for a block of code, the scope is there from the beginning. The tasks in ``Call.finish`` are shielded from a
cancel until their calls are cut, since a place that one of them gave back could go to another call; they end with their
calls. (docs/decisions/0007.)

A bug of an observer or of a recorder that a callback comes upon is noted, and ends the composition where the loop
raises it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from ..core.call import Call, Caller, Parking, Prepared
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
"""One per upstream name."""

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""The reason that the gateway gives when it cancels a request whose client has left."""
OnWait = Callable[[Callable[[], object]], object]
"""Called before a composition first waits, with what cuts it (``Engine.client_gone``): ``InboundRequest.on_gone``."""
INLINE_MAX = 16 * 1024
"""Bytes of a body that is decoded in a callback; a larger one is decoded in the composition's task."""


class Engine:
    """See the module.

    Args:
        timers: runs the timer of the deadline; None: ``scope`` has been entered around ``run_loop``.
    """

    # Not set for each request: these stay as they are here for nearly all of them, and are read once or twice.
    failure: Failure | None = None
    """The failure that decides the answer, once one does."""
    closed = False
    any_failed = False
    """Whether a call, or an item of one, has failed."""
    _timer: Timer | None = None
    """Of the deadline."""
    _deadline_reached = False
    _shields: list[trio.CancelScope] | None = None
    """Around the tasks of calls."""
    _callback_error: Exception | None = None
    """A bug that came up in a callback."""
    _cut_reason: str | None = None
    """Of the cancel that cut it."""
    _more_may_come = False
    """Whether further calls may be launched, so that it is not done though nothing is under way."""

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
        """None: the scope has been entered."""
        self._now: Callable[[], float] = trio.current_time if timers is None else timers.now
        self.outcomes: dict[str, Outcome] = {} if outcomes is None else outcomes
        """In the order in which the calls ended. Whoever passed the mapping sees it filled, also if this is
        cancelled."""
        self.decided = False
        self.over = False
        """Nothing new begins."""
        self._parking = Parking()
        self._under_way: dict[RunningCall, Call] = {}
        """Calls that have begun and have not ended, by their contexts. Only here a context leads to its call: the two
        must not refer to each other, or they would wait for the garbage collector."""
        self._large_results: deque[Call] | None = None
        """Results whose bodies are to be decoded in the engine's task."""
        self._waiting_calls: list[Call] = []
        """Calls that want a task."""
        self._fan_outs: dict[FanOut, None] = {}
        """Those that have no result yet."""
        self._startable: dict[FanOut, None] = {}
        """Those of which another item may start."""
        self._has_work = False
        """Whether there is something for ``_do_work`` to do."""
        self._unnotified: deque[Outcome] | None = None
        """Outcomes that came while another one was told of."""
        self._notifying = False
        self.on_wait: OnWait | None = None
        """Until the composition waits."""

    @cached_property
    def scope(self) -> trio.CancelScope:
        """What cancels whatever is waited for; its deadline is the request's."""
        return trio.CancelScope(deadline=self.facts.deadline)

    # Hooks.

    def _on_settled(self, outcome: Outcome) -> None:
        """A call has its outcome. Called in the order in which they come, never inside itself."""

    def _start_ready(self, now: float) -> None:
        """Start the calls that have become ready, in the engine's task."""

    # Starting calls.

    def prepare_call(
        self,
        rules: CallRules,
        prepared: Prepared,
        now: float,
        fan_out: FanOut | None = None,
        number: int = 0,
    ) -> Call:
        """A call that is ready to be started. Its context is a ``RunningCall``."""
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
        """Start calls, then send them. Those behind one that decides never begin, and those before it send nothing."""
        under_way = self._under_way
        for call in calls:
            running: RunningCall = call.context
            fan_out = running.fan_out
            if not (self.over or (fan_out is not None and fan_out.over)):
                under_way[running] = call
                call.start(now)
        for call in calls:
            # Sending one may have decided: what has not departed yet is cut unsent.
            if call.context in under_way and not self.over:
                call.depart()

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
            except Exception as error:  # noqa: BLE001  # a bug: it fails the item, and is told
                fan_out.item_ended(number, record_crash(error, fan_out.rules.name, self.facts, self.recorder))
        self.start(ready, now)  # None of them, if an item that failed just now has ended it.
        if fan_out.over:
            self._end_fan_out(fan_out, now)

    # What calls say; see ``core.call.CallOwner``.

    def call_ended(self, call: Call, inline_max: float = INLINE_MAX) -> None:
        """Take a call's result, if its body has ``inline_max`` bytes at most; a larger one is left to the task."""
        running: RunningCall = call.context
        try:
            if running not in self._under_way:
                return  # Its ``each`` has ended without it, in the step in which it ended itself.
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
            except Exception as error:  # noqa: BLE001  # a bug: it fails the call, and is told
                result = record_crash(error, running.call, self.facts, self.recorder)
            fan_out = running.fan_out
            if fan_out is not None:
                self._item_ended(fan_out, running, result, call.ended_at)
            else:
                self.settle(running.rules, result, running.started_at, call.ended_at, running.attempts)
        except Exception as error:  # noqa: BLE001  # a bug: the composition's task raises it, not the reader's
            self._note_callback_error(error)

    def _note_callback_error(self, error: Exception) -> None:
        """A bug came up in a callback: the task raises it."""
        self._callback_error = error
        self.over = True
        self._parking.wake()

    def call_waits(self, call: Call) -> None:
        """A call wants a task."""
        self._waiting_calls.append(call)
        self._parking.wake()

    # Taking results.

    def _item_ended(self, fan_out: FanOut, running: RunningCall, result: CallResult | Failure, now: float) -> None:
        """An item of an ``each`` has its result."""
        fan_out.item_ended(running.number, result)
        if fan_out.over:
            self._end_fan_out(fan_out, now)
        elif fan_out.has_next:
            self._startable[fan_out] = None
            self._has_work = True
            self._parking.wake()

    def _end_fan_out(self, fan_out: FanOut, now: float) -> None:
        if fan_out not in self._fan_outs:
            return  # An item that failed at once has ended it.
        del self._fan_outs[fan_out]
        self._startable.pop(fan_out, None)
        if fan_out.under_way:
            siblings = [running for running in self._under_way if running.fan_out is fan_out]
            # All are out before one is cancelled: its place may go to another, which may end at once.
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
        """Give a call its outcome: what it brought, or its failure; None: it is skipped. The one place.

        ``started_at`` None: it never began.
        """
        name, outcomes = rules.name, self.outcomes
        if name in outcomes:
            raise AssertionError(f"call {name} ended twice")
        attempts = tuple(attempts)
        if type(result) is CallResult:
            value, failed_items, headers = result.value, result.failed_items, result.headers
            status = result.answer_status
            outcome = Outcome(name, "value", value, None, started_at, now, attempts, failed_items, headers, status)
            # Of these a recorder wants to hear of few, and most are told from them by this alone.
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
        # One outcome may settle others (dependants that fail or are skipped). They are told in turn, by one loop and
        # not by recursion, so a long chain of calls costs no stack.
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
        """Whether the recorder wants to hear of the call by itself."""
        slow, failure = self._slow_call, outcome.failure
        if not slow or outcome.failed_items:
            return True
        if failure is not None and failure.kind not in CUT and failure.kind is not Kind.DEPENDENCY:
            return True
        if outcome.started_at is not None and outcome.ended_at - outcome.started_at >= slow:
            return True
        return any(attempt.cause != "first" for attempt in outcome.attempts)

    def decide(self, failure: Failure | None) -> None:
        """The composition is over: with this failure, or (None) with the outcomes that are there. The first counts."""
        if not self.decided:
            self.decided = self.over = True
            self.failure = failure
            self._parking.wake()

    # The loop, and the end.

    async def run_loop(self, nursery: trio.Nursery | None = None) -> None:
        """Act on what comes until the composition is over or nothing is left; then nothing is under way.

        Cancelled, it cuts every call before it passes the cancel on.

        Raises:
            Exception: a bug of ours that came up in a callback.
        """
        parking = self._parking
        try:
            while not self.over:
                if self._has_work:
                    # So that nothing is sent for a client that has gone already.
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
                        on_wait(self.client_gone)  # It may call that at once.
                        continue
                    if self._timer is None and self._timers is not None and self.facts.deadline < math.inf:
                        self._timer = self._timers.add(self.facts.deadline, self._on_deadline)
                    await parking.park()
                parking.woken = False
            callback_error, self._callback_error = self._callback_error, None
            if callback_error is not None:
                raise callback_error
        except BaseException as error:
            # Here, and not around the nursery: that would first wait for its tasks, which may have to clean up.
            self.cut(first_leaf(error, trio.Cancelled))
            raise
        self.cut(None)

    def _do_work(self) -> None:
        """Do what has become possible, in the engine's task."""
        self._has_work = False
        if self._large_results:
            # One at a time: each may hold the loop for a while, and others have their turn in between.
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
        """The same with a nursery, under the scope: something besides the loop itself is to be waited for."""
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
        """Whether the next large body, ``call``'s, holds so many values that the loop would be held up."""
        running: RunningCall = call.context
        return running in self._under_way and needs_decode_thread(running.rules, call)

    async def _decode_in_thread(self, call: Call) -> None:
        """Decode the next large body, ``call``'s, in a thread."""
        running: RunningCall = call.context
        running.decoded = await decoded_in_thread(running.rules, call)

    async def _finish_call(self, call: Call) -> None:
        """Carry a call on, in a task of its own."""
        with trio.CancelScope(shield=not self.over) as scope:
            if self._shields is None:
                self._shields = []
            self._shields.append(scope)
            await call.finish()

    def end_now(self, reason: str) -> None:
        """Cut it, and wake its task: no call is under way afterwards. A cancel with this reason, but synchronous.

        May be called at any time and from any task, also before the beginning and after the end; never raises. Where
        it is decided already, that stands, and its task cuts what is under way.
        """
        if self.over:
            return
        self._cut_reason = reason
        try:
            self.cut(None)
        except Exception as error:  # noqa: BLE001  # a bug: the composition's task raises it, not who calls this
            self._note_callback_error(error)
        if self._timers is None:
            self.scope.cancel(reason=reason)  # It waits for more than its loop.
        self._parking.wake()

    def client_gone(self) -> None:
        """End it, whose client has left, as ``end_now`` does."""
        self.end_now(CLIENT_GONE)

    def _on_deadline(self) -> None:
        self._deadline_reached = True
        self.end_now("the route's deadline")

    def cut(self, cancelled: trio.Cancelled | None) -> None:
        """Nothing more begins, and what is under way ends now, each call with its outcome."""
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
        # The last one first: it may wait in a queue for the place of an earlier one, and must not get it now.
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
        """Nothing begins any more, and nobody is told of anything."""
        self.over = self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting_calls:  # A call has ended before it got its task.
            self._waiting_calls.clear()

    def cut_failure(self) -> Failure:
        """The failure of a call that is cut now, or never began: who ended it?"""
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
