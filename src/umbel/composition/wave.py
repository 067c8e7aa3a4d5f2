"""The plain calls that one composition has in the air, flown by its own task instead of one each.

Used by ``run.py``. A call whose upstream can send it off is sent at once; the task of the composition is told of each
answer and lands it. What must wait for anything else is carried by a task of the group, as every other call is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import trio

from ..inflight import InFlight, Prepared
from ..model import Attempt, CallFacts, Failure
from .call import CallFailedError, CallRules, Landed, failure_of, landed, too_late
from .group import CallGroup, first_cancelled


class _Aloft(NamedTuple):
    """A call that is in the air."""

    rules: CallRules
    method: str
    facts: CallFacts
    started_at: float
    limit: float | None
    """When the call's own limit ends it; None where the composition's deadline is nearer."""


class Wave:
    """See the module. Belongs to one task: the one that calls ``fly``."""

    def __init__(self, group: CallGroup) -> None:
        self._group = group
        self._aloft: dict[InFlight, _Aloft] = {}
        self._arrived: list[InFlight] = []
        self._ready: list[tuple[CallRules, Prepared]] = []
        self._boarded: list[tuple[InFlight, _Aloft]] = []
        self._pilot: trio.lowlevel.Task | None = None
        self._limited = False
        self.open = True
        """Whether somebody will land what is sent off."""

    def send_off(
        self,
        rules: CallRules,
        prepared: Prepared,
        facts: CallFacts,
        limit: float | None,
        now: float,
        transport: httpx.AsyncBaseTransport,
    ) -> bool:
        """Have a call sent off at the end of this turn, if that can be done; its outcome is settled once."""
        send_off: Callable[..., InFlight | None] | None = getattr(transport, "send_off", None)
        if send_off is None:
            return False
        flight = send_off(prepared, facts, self._tell, now)
        if flight is None:
            return False
        self._boarded.append((flight, _Aloft(rules, prepared.method, facts, now, limit)))
        return True

    def begin(self, rules: CallRules, prepared: Prepared) -> None:
        """Have a call depart, after all else that is done in this turn: that may decide that nobody wants it."""
        self._ready.append((rules, prepared))
        self._wake()

    async def fly(self, board: Callable[[CallRules, Prepared], None]) -> None:
        """``board`` what is ready, send it, and land what is in the air, until calls wait for a nursery.

        Cancelled, it cuts all of it and settles each.
        """
        group = self._group
        try:
            while (self._aloft or self._ready) and not group.waiting:
                if self._ready:
                    ready, self._ready = self._ready, []
                    for call in ready:
                        board(*call)
                    self._depart()
                    continue
                if not self._arrived:
                    await (self._wait_limited() if self._limited else self._wait())
                arrived, self._arrived = self._arrived, []
                now = trio.current_time()
                group.batching = True
                try:
                    for flight in arrived:
                        self._land(flight, now)
                finally:
                    group.batching = False
                    group.record()
        except BaseException as error:
            self.cut(error)
            raise
        self.open = bool(group.waiting)

    def cut(self, error: BaseException) -> None:
        """Nobody lands anything any more, because of ``error``: cut what is in the air, and what waits for a nursery.

        What was in the air is settled.
        """
        group = self._group
        group.over = True
        self._ready.clear()
        aloft, self._aloft = {**self._aloft, **dict(self._boarded)}, {}
        self._boarded.clear()
        for flight, call in aloft.items():
            self._cut_one(flight, call.facts, error)
        for work, _ in group.waiting:
            if isinstance(work, _Carried):
                self._cut_one(work.flight, work.aloft.facts, error)
        group.waiting.clear()
        failure = group.cut_failure(first_cancelled(error))
        for call in aloft.values():
            self._settle(call, failure)

    def _depart(self) -> None:
        """Send what has boarded, one right after the other.

        A peer on this machine is woken once for all of them: a send that wakes it takes longer.
        """
        boarded, self._boarded = self._boarded, []
        for flight, aloft in boarded:
            try:
                flight.depart()
            except Exception as error:  # noqa: BLE001  # a bug: it fails its call, and is told
                self._cut_one(flight, aloft.facts, error)
                self._settle(aloft, failure_of(error, aloft.facts))
                continue
            if flight.in_air:
                self._aloft[flight] = aloft
                self._limited = self._limited or aloft.limit is not None
            else:
                self._group.launch(_Carried(flight, aloft), aloft.started_at)

    def _tell(self, flight: InFlight) -> None:
        """Something has come for it; called by another task."""
        self._arrived.append(flight)
        if self._pilot is not None:
            self._wake()

    def _wake(self) -> None:
        if (pilot := self._pilot) is not None:
            self._pilot = None
            trio.lowlevel.reschedule(pilot)

    async def _wait(self) -> None:
        """Wait until something has come, or is ready.

        One wait for all of it: what comes in one turn is landed in one.
        """
        self._pilot = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._pilot = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _wait_limited(self) -> None:
        """The same, and end the calls whose own limit comes first."""
        limits = [aloft.limit for aloft in self._aloft.values() if aloft.limit is not None]
        self._limited = bool(limits)
        if not limits:
            await self._wait()
            return
        cancelled: BaseException | None = None
        with trio.CancelScope(deadline=min(limits)) as scope:
            try:
                await self._wait()
            except BaseException as error:
                cancelled = error
                raise
        if scope.cancelled_caught and cancelled is not None:
            now = trio.current_time()
            late = [flight for flight, aloft in self._aloft.items() if aloft.limit is not None and aloft.limit <= now]
            for flight in late:
                aloft = self._aloft.pop(flight)
                self._cut_one(flight, aloft.facts, cancelled)
                self._settle(aloft, too_late(aloft.rules))

    def _land(self, flight: InFlight, now: float) -> None:
        aloft = self._aloft.get(flight)
        if aloft is None:
            return  # Cut, in the turn in which it came.
        ended: Landed | Failure
        try:
            response = flight.land(now)
            if response is None:
                if not flight.in_air:
                    del self._aloft[flight]
                    self._group.launch(_Carried(flight, aloft), aloft.started_at)
                return
            ended = landed(aloft.rules, aloft.method, response)
        except CallFailedError as error:
            ended = error.failure
        except Exception as error:  # noqa: BLE001  # of a transport, or a bug: it fails the call, and is told
            ended = failure_of(error, aloft.facts)
        del self._aloft[flight]
        self._group.land(now, aloft.rules, ended, aloft.started_at, aloft.facts.attempts)

    @staticmethod
    def _cut_one(flight: InFlight, facts: CallFacts, cancelled: BaseException) -> None:
        try:
            flight.cut(cancelled)
        except Exception as error:  # noqa: BLE001  # a bug: it is told, and keeps no other flight in the air
            failure_of(error, facts)

    def _settle(self, aloft: _Aloft, ended: Landed | Failure) -> None:
        self._group.land(trio.current_time(), aloft.rules, ended, aloft.started_at, aloft.facts.attempts)


@dataclass(slots=True)
class _Carried:
    """The work of a call that was sent off and must wait: see ``group.Work``."""

    flight: InFlight
    aloft: _Aloft
    items: None = None

    @property
    def rules(self) -> CallRules:
        return self.aloft.rules

    @property
    def attempts(self) -> list[Attempt]:
        return self.aloft.facts.attempts

    async def do(self) -> Landed:
        rules, method, facts, _, limit = self.aloft
        try:
            if limit is None:
                response = await self.flight.carry()
            else:
                with trio.CancelScope(deadline=limit) as scope:
                    response = await self.flight.carry()
                if scope.cancelled_caught:
                    raise CallFailedError(too_late(rules))
        except CallFailedError:
            raise
        except Exception as error:
            raise CallFailedError(failure_of(error, facts)) from error
        return landed(rules, method, response)

    def cut(self, failure: Failure) -> Landed | Failure:
        return failure
