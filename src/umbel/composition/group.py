"""The nursery of one composition: its calls, their outcomes, and the one decision that ends it.

A plan (``run.py``) and code (``gather.py``) both put their calls into one. It promises that every call ends exactly
once, that no exception of a call reaches the nursery, and that nothing is left when it closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from ..errors import UmbelError
from ..events import CallEnded, Noted, Recorder
from ..kinds import Kind
from ..model import Attempt, Failure, Outcome, RequestFacts
from .call import CallFailedError, CallRules, Landed

CLIENT_GONE = str(Kind.CLIENT_GONE)
"""The reason that the gateway gives when it cancels a request whose client has left."""


class Work(Protocol):
    """What a call does: once for a plain call, once per distinct value for an ``each``."""

    @property
    def rules(self) -> CallRules:
        """The call's rules."""

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts made so far, by whatever layers were below."""

    @property
    def items(self) -> int | None:
        """How many distinct items an ``each`` makes; None for a plain call, and before it is known."""

    async def do(self) -> Landed:
        """Bring the value. Raises CallFailedError."""

    def cut(self, failure: Failure) -> Landed | Failure:
        """What it amounts to when it is cancelled before its end: what it has so far, or the failure."""


class CallGroup:
    """See the module. ``settled`` is called with each outcome, in the order in which they come.

    Used inside of its ``scope``. It has a nursery only while one is open (``tasks``): a composition whose calls need no
    tasks never opens one. What is launched without one is ``waiting`` for it.
    """

    def __init__(self, facts: RequestFacts, recorder: Recorder, settled: Callable[[Outcome], None]) -> None:
        self.scope = trio.CancelScope(deadline=facts.deadline)
        """Ends the composition: at its deadline, or once it is decided."""
        self._nursery: trio.Nursery | None = None
        self._facts = facts
        self._recorder = recorder
        self._settled = settled
        self.outcomes: dict[str, Outcome] = {}
        self.failure: Failure | None = None
        """The failure that decides the answer, once one does."""
        self.decided = False
        self.over = False
        """Nothing new begins: decided, cancelled or closed."""
        self.closed = False
        self.flawed = False
        """Whether a call, or an item of one, has failed."""
        self.waiting: list[tuple[Work, float | None]] = []
        """What was launched while there is no nursery."""
        self._due = False
        self._landed: deque[Outcome] = deque()
        self._telling = False
        self.batching = False
        """Whether more calls will end in this turn, and ``record`` will be called at its end."""
        self._unrecorded: list[CallEnded] = []

    @asynccontextmanager
    async def tasks(self) -> AsyncIterator[None]:
        """The nursery of the calls that have a task; on leaving the block it waits for them."""
        async with trio.open_nursery() as self._nursery:
            waiting, self.waiting = self.waiting, []
            for work, began in waiting:
                self.launch(work, began)
            yield

    def launch(self, work: Work, began: float | None = None) -> None:
        """Give a call a task; it began then, or begins with the task. Its outcome is settled once, whatever happens.

        Raises:
            UmbelError: the group has closed.
        """
        if self.closed:
            raise UmbelError(f"call {work.rules.name} comes too late: its gather block has ended")
        if self._nursery is None:
            self.waiting.append((work, began))
        else:
            self._nursery.start_soon(self._fly, work, began, name=f"call {work.rules.name}")

    def decide(self, failure: Failure | None) -> None:
        """End the composition: with this failure, or (None) with the outcomes that are there. The first one counts."""
        if not self.decided:
            self.decided = self.over = True
            self.failure = failure
            self.scope.cancel(reason="decided: " + ("answered" if failure is None else failure.kind))

    def close(self) -> None:
        """The composition is over: nothing begins any more, and nobody is told of anything.

        Whoever was told holds the group, so the two would otherwise wait for the garbage collector.
        """
        self.over = self.closed = True
        self._settled = _nobody

    def settle(self, outcome: Outcome, upstream: str, items: int | None = None) -> None:
        """Take a call's outcome, record it and tell whoever waits for it."""
        if outcome.call in self.outcomes:
            raise AssertionError(f"call {outcome.call} ended twice")
        self.outcomes[outcome.call] = outcome
        if outcome.failure is not None or outcome.failed_items:
            self.flawed = True
        self._unrecorded.append(CallEnded(self._facts, upstream, outcome, items))
        if not self.batching:
            self.record()
        # One outcome may settle others (dependants that fail or are skipped). They are told in turn, by one loop and
        # not by recursion, so a long chain of calls costs no stack.
        if self._telling:
            self._landed.append(outcome)
            return
        self._telling = True
        try:
            self._settled(outcome)
            while self._landed:
                self._settled(self._landed.popleft())
        finally:
            self._telling = False

    def record(self) -> None:
        """Record the calls that have ended since it was last asked for."""
        ended, self._unrecorded = self._unrecorded, []
        record_calls: Callable[[Sequence[CallEnded]], None] | None = getattr(self._recorder, "record_calls", None)
        if record_calls is not None:
            record_calls(ended)
        else:
            for event in ended:
                self._recorder.record(event)

    def fail(self, rules: CallRules, failure: Failure) -> None:
        """Settle a call that never began."""
        self.settle(self._outcome(trio.current_time(), rules, failure, None, []), rules.upstream)

    def skip(self, rules: CallRules) -> None:
        """Settle a call that has nothing to do."""
        now = trio.current_time()
        self.settle(Outcome(rules.name, "skipped", rules.default, ended_at=now), rules.upstream)

    def cut_failure(self, cancelled: trio.Cancelled | None) -> Failure:
        """The failure of a call that is cancelled now, or never began: who ended it?"""
        if not self.decided and trio.current_time() >= self._facts.deadline:
            self._due = True
        if self._due:
            # Also where the first call cut by the deadline has decided the answer: the deadline cut them all.
            return Failure.of(Kind.TIMEOUT, "unfinished at the route's deadline")
        if self.decided:
            return Failure.of(Kind.CANCELLED, "the answer was decided without it")
        if cancelled is not None and cancelled.reason == CLIENT_GONE:
            return Failure.of(Kind.CLIENT_GONE, "the client has gone")
        reason = cancelled.reason if cancelled is not None else None
        return Failure.of(Kind.CANCELLED, f"cancelled: {reason or 'no reason given'}")

    async def _fly(self, work: Work, began: float | None) -> None:
        started_at = trio.current_time() if began is None else began
        rules = work.rules
        ended: Landed | Failure
        try:
            ended = await work.do()
        except CallFailedError as error:
            ended = error.failure
        except Exception as error:  # noqa: BLE001  # told by crashed()
            ended = self.crashed(rules, error)
        except BaseException as error:
            self.over = True
            # Cancelled, alone or as a group from the nursery of an each: the outcome is owed all the same.
            ended = work.cut(self.cut_failure(first_cancelled(error)))
            self.land(trio.current_time(), rules, ended, started_at, work.attempts, work.items)
            raise
        self.land(trio.current_time(), rules, ended, started_at, work.attempts, work.items)

    def land(
        self,
        now: float,
        rules: CallRules,
        ended: Landed | Failure,
        started_at: float,
        attempts: Sequence[Attempt],
        items: int | None = None,
    ) -> None:
        """Settle a call that began at ``started_at`` and ends ``now``, with its value or its failure."""
        if isinstance(ended, Failure):
            outcome = self._outcome(now, rules, ended, started_at, attempts)
        else:
            outcome = Outcome(
                rules.name,
                "value",
                ended.value,
                None,
                started_at,
                now,
                tuple(attempts),
                ended.failed_items,
                ended.headers,
            )
        self.settle(outcome, rules.upstream, items)

    def crashed(self, rules: CallRules, error: Exception) -> Failure:
        """Record a bug of ours, or of a layer's: it fails its call and is told, and never ends a worker."""
        self._recorder.record(
            Noted("error", "call.crashed", f"call {rules.name} crashed", self._facts, {"call": rules.name}, error)
        )
        return Failure.of(Kind.INTERNAL, f"{type(error).__name__} in the call")

    @staticmethod
    def _outcome(
        now: float, rules: CallRules, failure: Failure, started_at: float | None, attempts: Sequence[Attempt]
    ) -> Outcome:
        return Outcome(rules.name, "failed", rules.default, failure, started_at, now, tuple(attempts))


@asynccontextmanager
async def open_group(
    facts: RequestFacts, recorder: Recorder, settled: Callable[[Outcome], None]
) -> AsyncIterator[CallGroup]:
    """A group with a nursery that ends at the request's deadline.

    On leaving the block it waits for its calls; the deadline and the group's own decision end it silently. A cancel
    from outside cuts every call, settles each, and passes on. An exception of the block's body comes out as itself,
    never inside an exception group: no other task of the nursery can raise one.

    Args:
        settled: called with each outcome, in the order in which they come.
    """
    group = CallGroup(facts, recorder, settled)
    try:
        with group.scope:
            async with group.tasks():
                yield group
    except BaseException as error:
        leaf = only_leaf(error)
        if leaf is error or leaf is None:
            raise
        raise leaf from leaf.__cause__
    finally:
        group.close()


def _nobody(outcome: Outcome) -> None:
    """Hears of the outcomes of a group that is closed."""


def only_leaf(error: BaseException) -> BaseException | None:
    """The one exception inside a group, if there is just one."""
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None
        error = error.exceptions[0]
    return error


def first_cancelled(error: BaseException) -> trio.Cancelled | None:
    """The first cancel inside an exception."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(first_cancelled, error.exceptions)), None)
    return error if isinstance(error, trio.Cancelled) else None
