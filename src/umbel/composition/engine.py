"""Engine of a composition: it starts the calls, gives each its outcome, and enforces the deadline.

Theory
------
**Problem.** One inbound request makes several calls under one deadline. The client may leave at any moment, and one
failure may make all other calls useless. Every call must get exactly one outcome, and no call may run after the end of
the composition. A task per call is expensive, so the engine has one task and callbacks. Only a call that must wait, or
whose body is decoded in a thread, gets a task of its own.

``Engine`` holds what all compositions have in common. ``PlanRun`` (``plan_run.py``) adds the plan of a configured
route: its calls, their dependencies, and the decision. ``GatherEngine`` (``gather.py``) adds calls made in code. A call
with an ``each`` makes one call per item. An item has no outcome of its own: the ``FanOut`` of the ``each`` combines the
results of the items into the one outcome of the call.

**States of a call**::

    waiting ──all dependencies have values──> ready ──start──> under way ──ended or cut──> settled
       └─────────────skipped, failed or never begun─────┴────────────────────────────────────┘

(A default counts as a value.) Only a plan has waiting calls. A call or item under way is an entry of ``_under_way``, an
``each`` under way is an entry of ``_fan_outs``. A settled call has an ``Outcome``; ``settle`` is the only function that
makes one, and it refuses a second outcome for the same call.

**States of a composition**: *open* → *over* → *closed*. A composition is over when it is decided, when its deadline has
passed, when its client has left, when its task is cancelled, when a callback has caught a bug, or when no call is left.
Nothing starts in a composition that is over. A closed one notifies no observer.

**Callbacks.** An upstream calls ``call_ended`` and ``call_waits`` in any task: that of the socket reader, that of the
timers, or one of the engine's (within ``start``, ``send`` and ``finish``). They never wait, never raise and never start
a call. ``call_ended`` decodes a body of at most ``INLINE_MAX`` bytes and settles the call; this may decide the
composition. A larger body is left to the engine's task, which decodes one per turn of the event loop; a body of many
values is decoded in a thread, for which a task of its own waits. A callback wakes the engine's task only if that task
has something to do: of ten calls with small bodies whose ends start and decide nothing, only the last one wakes it. An
unexpected exception while a result is made fails that call. Any other exception in a callback is kept, and ``run_loop``
raises it.

**The loop** (``run_loop``) repeats: do the noted work, give each call that waits a task, park. The calls that are ready
in one turn are all prepared, then all started, then all sent, so that a peer on this machine wakes once. The items of
an ``each`` go through these three steps apart from the other calls.

**The end.** ``cut`` cancels every call under way and settles it, without a checkpoint in between. It cancels the last
call first: that call may be queued for the place of an earlier one, and must not get it now. An outcome that was
settled before ``cut`` stands. A body that is complete but not decoded yet is lost. At the deadline an optional ``each``
keeps the results of its ended items (``FanOut.cut``).

=====================  ==========================================  =========================  ====================
cause                  ``cut`` is called by                        cancel reason of a call    kind of its failure
=====================  ==========================================  =========================  ====================
decided                the loop, when it finds ``over`` set        "decided"                  cancelled
deadline               ``_on_deadline``; with a scope, the loop    "the route's deadline"     timeout
client has left        ``client_gone``, from the server            "client-gone"              client-gone
cancel of the task     the loop, before it raises ``Cancelled``    the reason of the cancel   cancelled, client-gone
required item failed   not called: ``_end_fan_out`` cuts siblings  "a required item failed"   (that of the item)
bug in a callback      the loop, before it raises the exception    none                       cancelled
=====================  ==========================================  =========================  ====================

**Timer or scope.** As long as the engine's task waits only in ``park``, a finite deadline is a timer, set before the
first ``park``; its callback can cut everything. Once it has a nursery (for tasks of calls, or for threads), only a
cancel can end the wait for the tasks in it: ``_run_loop_in_nursery`` then moves the deadline to ``scope``. Without a
timer queue the caller enters ``scope`` around ``run_loop`` from the beginning.

**Cancels.** Each ``await`` of ``run_loop`` may raise ``Cancelled``: the checkpoint before noted work (so nothing is
sent for a cancelled request), ``park``, the checkpoint between large bodies, and the end of the nursery. Each time
``cut`` runs before the exception leaves. ``cut`` also cancels the tasks that wait for threads: the threads are
abandoned, so that the answer does not wait for a body that it does not have. A task in ``Call.finish`` is
shielded until ``cut`` has cancelled all calls. Otherwise the cancelled task would free its place while its siblings are
still queued, and the upstream would send a request of a cancelled composition. (docs/decisions/0007.)

**Why each call is settled exactly once.** A call leaves ``_under_way`` in ``call_ended``, ``_end_fan_out`` or ``cut``,
and each of them settles it. For an item, ``call_ended`` gives the result to the fan-out, and the other two settle the
fan-out. Only the engine's task adds to ``_under_way``, only while the composition is not over, and ``run_loop`` returns
only after ``cut`` or with an empty ``_under_way``. Calls that never began are settled by the subclass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import trio

from ..core.call import Call, Caller, PreparedRequest
from ..core.events import CallEnded, Recorder
from ..core.failure_kinds import Kind
from ..core.model import Attempt, Failure, Outcome, RequestFacts
from ..net.exception_groups import first_leaf
from ..net.parking import Parking
from .call_record import is_recorded
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
"""Receives ``Engine.client_gone``, once, before the engine's task parks for the first time."""
INLINE_MAX = 16 * 1024
"""Bytes of the largest body that a callback decodes; the engine's task decodes larger ones."""


class Engine:
    """Runs the calls of one composition under one deadline, and gives each call its outcome. See the module's theory.

    Args:
        facts: the inbound request; ``facts.deadline`` is absolute, in ``trio.current_time()`` seconds.
        callers: the callers by upstream name.
        recorder: receives the record of each call.
        outcomes: receives each outcome when its call is settled, also in a cancelled composition; None: a new dict.
        timers: runs the timer of the deadline; None: the caller enters ``scope`` around ``run_loop``.
    """

    __slots__ = (
        "_callback_error",
        "_cut_reason",
        "_deadline_reached",
        "_decodings",
        "_fan_outs",
        "_has_work",
        "_large_results",
        "_more_may_come",
        "_notifying",
        "_now",
        "_parking",
        "_scope",
        "_shields",
        "_slow_call",
        "_startable",
        "_takes_attempts",
        "_timer",
        "_timers",
        "_under_way",
        "_unnotified",
        "_waiting_calls",
        "any_failed",
        "callers",
        "closed",
        "decided",
        "facts",
        "failure",
        "on_wait",
        "outcomes",
        "over",
        "recorder",
    )

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
        """None: ``scope`` has the deadline."""
        self._now: Callable[[], float] = trio.current_time if timers is None else timers.now
        self.outcomes: dict[str, Outcome] = {} if outcomes is None else outcomes
        """The outcomes by call name, in the order in which the calls were settled."""
        self.failure: Failure | None = None
        """The deciding failure; None: none so far."""
        self.decided = False
        self.over = False
        """Whether no further call may begin."""
        self.closed = False
        self.any_failed = False
        """Whether a call or an item of an ``each`` has failed."""
        self._parking = Parking()
        self._under_way: dict[RunningCall, Call] = {}
        """The calls under way, by context. A context does not refer to its call: a reference cycle would keep both in
        memory until a garbage collection."""
        self._large_results: deque[Call] | None = None
        """Calls under way whose large bodies are complete: the engine's task decodes them."""
        self._waiting_calls: list[Call] = []
        """The calls that need a task for ``Call.finish``."""
        self._fan_outs: dict[FanOut, None] = {}
        """The fan-outs that are not over, in the order of their start (an ordered set)."""
        self._startable: dict[FanOut, None] = {}
        """The fan-outs that may start another item."""
        self._has_work = False
        """Whether ``_do_work`` has anything to do."""
        self._unnotified: deque[Outcome] | None = None
        """The outcomes that were settled while ``_on_settled`` ran for another one."""
        self._notifying = False
        self._more_may_come = False
        """Whether code may still launch calls: the loop then goes on although no call is under way."""
        self.on_wait: OnWait | None = None
        """None: not given, or called already."""
        self._timer: Timer | None = None
        """The timer of the deadline; None: not set, or ``scope`` has the deadline."""
        self._scope: trio.CancelScope | None = None
        self._deadline_reached = False
        self._cut_reason: str | None = None
        """The reason of the cancel that ended the composition."""
        self._callback_error: Exception | None = None
        """An exception that a callback caught; ``run_loop`` raises it."""
        self._shields: list[trio.CancelScope] | None = None
        """The shielded scopes around the tasks of calls."""
        self._decodings: dict[RunningCall, trio.CancelScope] | None = None
        """The scopes around the waits for threads, by the call whose body is decoded there."""

    @property
    def scope(self) -> trio.CancelScope:
        """The cancel scope with the request's deadline, around everything that the engine waits for.

        It is not entered while a timer has the deadline (``timers``); ``end_now`` ends the wait in both cases.
        """
        if self._scope is None:
            self._scope = trio.CancelScope(deadline=self.facts.deadline)
        return self._scope

    # What an observer of the process sees.

    @property
    def under_way(self) -> Mapping[RunningCall, Call]:
        """The calls and items under way, by context."""
        return self._under_way

    def calls_to_come(self) -> Sequence[CallRules]:
        """The calls that have not begun, as far as they are known."""
        return ()

    # Hooks for subclasses.

    def _on_settled(self, outcome: Outcome) -> None:
        """Handle a new outcome. Calls come in the order of the outcomes and never overlap."""

    def _start_ready(self, now: float) -> None:
        """Start the calls that have become ready; runs in the engine's task."""

    # Starting calls.

    def prepare_call(
        self,
        rules: CallRules,
        prepared: PreparedRequest,
        now: float,
        fan_out: FanOut | None = None,
        item: int | None = None,
    ) -> Call:
        """Make a call that has not begun, with a ``RunningCall`` as its context.

        The call's deadline is the request's, or ``now`` plus the call's own timeout if that is earlier.

        Args:
            rules: the rules of the call, or of the ``each`` that it is an item of.
            prepared: the request of the call.
            now: ``trio.current_time()``.
            fan_out: the fan-out that the call is an item of.
            item: the number of the item within ``fan_out``.
        """
        facts = self.facts
        deadline, limit = facts.deadline, None
        if rules.timeout is not None and now + rules.timeout < deadline:
            deadline, limit = now + rules.timeout, rules.timeout
        retry, hedge, coalesce, follows = rules.policies
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
            follows=follows,
            started_at=now,
            item=item,
            rules=rules,
            method=prepared.method,
            fan_out=fan_out,
        )
        return (rules.caller or self.callers[rules.upstream]).new_call(prepared, running)

    def start(self, calls: Sequence[Call], now: float) -> None:
        """Start all calls, then send them.

        If the start of one call decides the composition, the calls after it never begin, and none is sent. ``cut``
        settles those that have begun. An item of a fan-out that is over is not started.

        Args:
            now: ``trio.current_time()``.
        """
        under_way = self._under_way
        for call in calls:
            running: RunningCall = call.context
            fan_out = running.fan_out
            if not (self.over or (fan_out is not None and fan_out.over)):
                under_way[running] = call
                call.start(now)
        for call in calls:
            # A call may end while it is sent, and decide the composition: the remaining calls must not be sent.
            if call.context in under_way and not self.over:
                call.send()

    def begin_fan_out(self, fan_out: FanOut, now: float) -> None:
        """Start the first items of an ``each``, at ``now`` (``trio.current_time()``). Others start as items end."""
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

    # The interface ``core.call.CallOwner``. These functions may run in any task; see "Callbacks" in the theory.

    def call_ended(self, call: Call, inline_max: float = INLINE_MAX) -> None:
        """Settle a call that has its result.

        A call with a body of more than ``inline_max`` bytes stays under way: the engine's task decodes its body.
        """
        running: RunningCall = call.context
        try:
            if running not in self._under_way:
                return  # Its fan-out was over and has cancelled it in the turn in which it ended.
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
        except Exception as error:  # noqa: BLE001  # a bug: the engine's task raises it, not the reader's
            self._note_callback_error(error)

    def _note_callback_error(self, error: Exception) -> None:
        """End the composition with an exception that a callback caught; ``run_loop`` raises it."""
        self._callback_error = error
        self.over = True
        self._parking.wake()

    def call_waits(self, call: Call) -> None:
        """Let the engine's task start a task that runs ``call.finish``."""
        self._waiting_calls.append(call)
        self._parking.wake()

    # Settling.

    def _item_ended(self, fan_out: FanOut, running: RunningCall, result: CallResult | Failure, now: float) -> None:
        """Give an item's result to its fan-out. Then end the fan-out, or let another item start."""
        assert running.item is not None
        fan_out.item_ended(running.item, result)
        if fan_out.over:
            self._end_fan_out(fan_out, now)
        elif fan_out.has_next:
            self._startable[fan_out] = None
            self._has_work = True
            self._parking.wake()

    def _end_fan_out(self, fan_out: FanOut, now: float) -> None:
        if fan_out not in self._fan_outs:
            return  # An item that failed while the items were started has ended the fan-out.
        del self._fan_outs[fan_out]
        self._startable.pop(fan_out, None)
        if fan_out.under_way:
            siblings = [running for running in self._under_way if running.fan_out is fan_out]
            # Remove all siblings before the first cancel: the cancelled call's place may go to a sibling, which may end
            # at once, and ``call_ended`` must ignore that sibling.
            calls = [self._under_way.pop(running) for running in siblings]
            for running in siblings if self._decodings else ():
                self._abandon_decoding(running, "a required item failed")
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
        """Give a call its outcome, record the outcome if the recorder wants it, and call ``_on_settled``.

        Args:
            result: the call's result or failure; None: the call is skipped.
            started_at: when the call began, in ``trio.current_time()``; None: never.
            now: when the call ended, in ``trio.current_time()``.
            items: the number of items of an ``each``; None: the call has no ``each``.

        Raises:
            AssertionError: the call has an outcome already.
        """
        name, outcomes = rules.name, self.outcomes
        if name in outcomes:
            raise AssertionError(f"call {name} ended twice")
        attempts, upstream, needs = tuple(attempts), rules.upstream, rules.needs
        if type(result) is CallResult:
            value, failed, headers, status = result.value, result.failed_items, result.headers, result.answer_status
            outcome = Outcome(
                name, "value", value, None, started_at, now, attempts, failed, headers, status, upstream, needs
            )
            # Recorders want few successes; this cheap test excludes most of the others.
            is_notable = failed or started_at is None or len(attempts) > 1 or now - started_at >= self._slow_call
        else:
            failure = result if isinstance(result, Failure) else None
            state: Literal["failed", "skipped"] = "skipped" if failure is None else "failed"
            if failure is None:
                started_at, attempts = None, ()
            default = rules.default
            outcome = Outcome(name, state, default, failure, started_at, now, attempts, (), (), None, upstream, needs)
            is_notable = True
        outcomes[name] = outcome
        if is_notable:
            self.any_failed = self.any_failed or outcome.failure is not None or bool(outcome.failed_items)
            if is_recorded(outcome, self._slow_call):
                self.recorder.record(CallEnded(self.facts, rules.upstream, outcome, items))
        # An outcome may settle other calls: dependants that fail or are skipped. A loop instead of recursion handles
        # them, so that a long chain of dependants needs no deep stack.
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

    def decide(self, failure: Failure | None) -> None:
        """Decide the composition by ``failure``; None: by the outcomes so far. Later decisions have no effect."""
        if not self.decided:
            self.decided = self.over = True
            self.failure = failure
            self._parking.wake()

    # The loop, the deadline and the end.

    async def run_loop(self, nursery: trio.Nursery | None = None) -> None:
        """Run the composition until it is over. Afterwards no call is under way.

        Cancelled, it cancels and settles every call under way, then raises ``Cancelled``.

        Args:
            nursery: runs the tasks of calls; None: the loop opens a nursery when a call needs a task.

        Raises:
            Exception: an exception that a callback caught; it is a bug.
        """
        parking = self._parking
        try:
            while not self.over:
                if self._has_work:
                    # Nothing must be sent for a request that is cancelled already.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    while self._large_results and self._needs_thread(self._large_results[0]):
                        if nursery is None:
                            await self._run_loop_in_nursery()
                            return
                        nursery.start_soon(self._decode_in_thread, self._large_results.popleft())
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
                        on_wait(self.client_gone)  # May call client_gone at once: check ``over`` again.
                        continue
                    if self._timer is None and self._timers is not None and self.facts.deadline < math.inf:
                        self._timer = self._timers.add(self.facts.deadline, self._on_deadline)
                    await parking.park()
                parking.woken = False
            callback_error, self._callback_error = self._callback_error, None
            if callback_error is not None:
                raise callback_error
        except BaseException as error:
            # Cut here and not around the nursery: the nursery first waits for its tasks, which end only when cut.
            self.cut(first_leaf(error, trio.Cancelled))
            raise
        self.cut(None)

    def _do_work(self) -> None:
        """Decode one large body, check the deadline, and start the items and calls that are ready."""
        self._has_work = False
        if self._large_results:
            # One per turn of the event loop: a large body blocks it, and other tasks must run in between.
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
        """Run the loop in a nursery, with ``scope`` instead of the timer for the deadline."""
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
        """Whether the body of ``call`` must be decoded in a thread, since it would block the event loop."""
        running: RunningCall = call.context
        return running in self._under_way and needs_decode_thread(running.rules, call)

    async def _decode_in_thread(self, call: Call) -> None:
        """Decode the body of ``call`` in a thread, and settle the call. Runs in a task of its own.

        Meanwhile the loop runs on: other calls start, and a decision ends the composition at once. Cancelled, also by
        ``_abandon_decoding``, it abandons the thread.
        """
        running: RunningCall = call.context
        if running not in self._under_way:
            return  # It was cut before this task ran.
        with trio.CancelScope() as scope:
            if self._decodings is None:
                self._decodings = {}
            self._decodings[running] = scope
            try:
                running.decoded = await decoded_in_thread(running.rules, call)
            except Exception as error:  # noqa: BLE001  # a bug: run_loop raises it, as that of a callback
                self._note_callback_error(error)
                return
            finally:
                self._decodings.pop(running, None)
            self.call_ended(call, math.inf)

    def _abandon_decoding(self, running: RunningCall, reason: str) -> None:
        """End the wait for the thread that decodes the body of a call, if there is one."""
        scope = None if self._decodings is None else self._decodings.pop(running, None)
        if scope is not None:
            scope.cancel(reason=reason or None)

    async def _finish_call(self, call: Call) -> None:
        """Run ``call.finish``, shielded from cancels until ``cut`` has cancelled all calls."""
        with trio.CancelScope(shield=not self.over) as scope:
            if self._shields is None:
                self._shields = []
            self._shields.append(scope)
            await call.finish()

    def end_now(self, reason: str) -> None:
        """Cancel and settle every call under way with this reason, and wake the engine's task.

        May be called at any time and from any task of the event loop. Never waits and never raises. In a composition
        that is over it does nothing.
        """
        if self.over:
            return
        self._cut_reason = reason
        try:
            self.cut(None)
        except Exception as error:  # noqa: BLE001  # a bug: the engine's task raises it, not this caller
            self._note_callback_error(error)
        if self._timers is None:
            self.scope.cancel(reason=reason)  # The task may wait for something that ``wake`` does not end.
        self._parking.wake()

    def client_gone(self) -> None:
        """End the composition because its client has left. See ``end_now``."""
        self.end_now(CLIENT_GONE)

    def _on_deadline(self) -> None:
        """End the composition because the route's deadline has passed."""
        self._deadline_reached = True
        self.end_now("the route's deadline")

    def cut(self, cancelled: trio.Cancelled | None) -> None:
        """Cancel and settle every call and fan-out under way. Afterwards no call begins.

        Args:
            cancelled: the cancel that ends the composition; None: anything else ends it.
        """
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
        # The last call first: it may be queued for the place of an earlier call, and must not get that place now.
        for call in reversed(under_way.values()):
            call.cancel(reason)
        for shield in self._shields or ():
            shield.shield = False
        for running in list(self._decodings or ()):
            self._abandon_decoding(running, reason)
        now = self._now()
        for running in under_way:
            if running.fan_out is None:
                self.settle(running.rules, failure, running.started_at, now, running.attempts)
        for fan_out in fan_outs:
            result = fan_out.cut(failure)
            self.settle(fan_out.rules, result, fan_out.started_at, now, fan_out.attempts, len(fan_out.items))

    def close(self) -> None:
        """Close the composition: no call begins any more, no observer is notified, and the timer is cancelled."""
        self.over = self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting_calls:  # A call may have ended before its task was started.
            self._waiting_calls.clear()

    def cut_failure(self) -> Failure:
        """The failure of a call that is cut now or never begins: timeout, cancelled or client-gone."""
        if not self.decided and self._now() >= self.facts.deadline:
            self._deadline_reached = True
        if self._deadline_reached:
            # Before ``decided``: the deadline cuts all calls, also after the first of them has decided the answer.
            return Failure.of(Kind.TIMEOUT, "unfinished at the route's deadline")
        if self.decided:
            return Failure.of(Kind.CANCELLED, "the answer was decided without it")
        if self._cut_reason == CLIENT_GONE:
            return Failure.of(Kind.CLIENT_GONE, "the client has gone")
        return Failure.of(Kind.CANCELLED, f"cancelled: {self._cut_reason or 'no reason given'}")
