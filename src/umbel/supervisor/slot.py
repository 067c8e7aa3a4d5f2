"""The task of one slot: carries out what the restart machine says, with real processes and real time.

Started in its nursery, once per slot. Every worker of the slot (the one that it has, a successor, those that still
drain) is a task in the slot's own nursery; when the slot is stopped and the last of them has ended, so has the slot.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

import trio
from trio_util import AsyncValue

from . import messages
from .backoff import Backoff
from .console_output import Journal
from .exit_status import Exit, ExitClass
from .options import Options
from .process import Job, Worker
from .slot_state import Action, Event, SlotMachine, State


class Household(Protocol):
    """What a slot needs of the master."""

    options: Options
    journal: Journal
    random: Random
    degraded: bool

    def job(self, slot: int) -> Job:
        """What the next worker of the slot is started with."""

    def worker_said(self, slot: Slot, worker: Worker, message: messages.Up) -> None:
        """Hear of everything that a worker says, but heartbeats."""

    def worker_ended(self, slot: Slot, worker: Worker, end: Exit) -> None:
        """Hear of a worker's end, before the slot acts on it."""

    def restarting(self, slot: Slot, delay: float) -> None:
        """Hear that a worker that died will be replaced after ``delay`` seconds."""


class Renewal:
    """One replacement of a slot's worker: its reason, and in the end whether it came about."""

    def __init__(self, why: ExitClass) -> None:
        self.why = why
        self.succeeded: bool | None = None
        self.over = trio.Event()

    def end(self, *, succeeded: bool) -> None:
        """Say how it went."""
        self.succeeded = succeeded
        self.over.set()


class Slot:
    """A worker's place."""

    def __init__(self, number: int, household: Household) -> None:
        self.number = number
        self.state: AsyncValue[State] = AsyncValue(State.EMPTY)
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.restarts = 0
        self.last_exit: Exit | None = None
        self._household = household
        self._machine = SlotMachine()
        self._backoff = Backoff(household.options.restart_max_delay)
        self._everybody: set[Worker] = set()
        self._ready_for: float | None = None
        """How long the last worker that died had been ready."""
        self._renewal: Renewal | None = None
        self._waiting = trio.CancelScope()
        self._ending = messages.Drain(grace=0.0)

    async def run(self) -> None:
        """Keep a worker in the slot until it is stopped and its last worker has ended."""
        async with trio.open_nursery() as self._nursery:
            self._on(Event.STARTED)

    def stop(self, grace: float, delay: float = 0.0, *, quick: bool = False) -> None:
        """Give the slot up, with the times of ``Worker.drain``. A second call only shortens them."""
        self._ending = messages.Drain(grace=grace, delay=delay, quick=quick)
        told = None if self.state.value is State.LEAVING else self.worker
        self._on(Event.STOP)
        for worker in self._everybody - {told}:
            worker.drain(grace, delay, quick=quick)

    async def renew(self, why: ExitClass) -> bool:
        """Replace the worker by a fresh one, which is ready before the old one drains; whether that came about.

        A slot that waits to restart starts at once. One that is being stopped needs no renewal: that is no failure.
        To be called by one task at a time.
        """
        await self.state.wait_value(lambda _: self._machine.is_settled)
        if self.state.value in (State.LEAVING, State.GONE):
            return True
        self._renewal = renewal = Renewal(why)
        self._backoff.reset()
        self._on(Event.RENEW)
        await renewal.over.wait()
        return bool(renewal.succeeded)

    @property
    def serves(self) -> bool:
        """Whether it has a worker that is ready."""
        return self.worker is not None and self.worker.is_ready

    @property
    def everybody(self) -> frozenset[Worker]:
        """All workers of the slot that have not ended."""
        return frozenset(self._everybody)

    # The machine, and what it says.

    def _on(self, event: Event) -> None:
        actions = self._machine.on(event)
        for action in actions:
            self._act(action)
        self.state.value = self._machine.state
        self._judge_renewal(event)

    def _act(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                self._waiting.cancel(reason="the next worker starts")
                self.worker = self._employ()
            case Action.SPAWN_SUCCESSOR:
                self.successor = self._employ()
            case Action.PROMOTE | Action.ADOPT:
                old, self.worker, self.successor = self.worker, self.successor, None
                if old is not None and action is Action.PROMOTE:
                    why = ExitClass.DRAINED if self._renewal is None else self._renewal.why
                    old.drain(self._household.options.graceful_timeout, why=why)
            case Action.WAIT:
                self._wait()
            case Action.DRAIN:
                if self.worker is not None:
                    self.worker.drain(self._ending.grace, self._ending.delay, quick=self._ending.quick)
            case Action.DISCARD:
                if self.successor is not None:
                    self.successor.drain(0.0, quick=True)
                    self.successor = None

    def _employ(self) -> Worker:
        household = self._household
        worker = Worker(household.job(self.number), household.options, household.journal)
        self._everybody.add(worker)
        self._nursery.start_soon(self._tend, worker)
        return worker

    async def _tend(self, worker: Worker) -> None:
        def on_message(message: messages.Up) -> None:
            self._household.worker_said(self, worker, message)
            if isinstance(message, messages.Ready):
                if worker is self.worker:
                    self._on(Event.READY)
                elif worker is self.successor:
                    self._on(Event.SUCCESSOR_READY)

        try:
            end = await worker.run(on_message)
        except OSError as error:
            # No more processes or memory: as if it had died at once, so that it is tried again later.
            worker.failure = messages.Failed(reason=f"cannot be started: {error}")
            end = Exit(ExitClass.CRASH, 1)
        self._everybody.discard(worker)
        self.last_exit = end
        self._household.worker_ended(self, worker, end)
        if worker is self.worker:
            self._ready_for = worker.ready_for
            self.worker = None
            self._on(Event.DIED)
        elif worker is self.successor:
            self.successor = None
            self._on(Event.SUCCESSOR_DIED)

    def _wait(self) -> None:
        household = self._household
        delay = self._backoff.after_death(self._ready_for, household.random, degraded=household.degraded)
        self.restarts += 1
        household.restarting(self, delay)
        self._waiting = trio.CancelScope()
        self._nursery.start_soon(self._wait_for, delay, self._waiting)

    async def _wait_for(self, delay: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(delay)
            self._on(Event.WAITED)

    def _judge_renewal(self, event: Event) -> None:
        """The machine has moved: is the renewal over?"""
        if self._renewal is None:
            return
        state = self._machine.state
        if state is State.SERVING:
            succeeded = event is not Event.SUCCESSOR_DIED
        elif state in (State.LEAVING, State.GONE):
            succeeded = True
        elif state is State.WAITING:
            succeeded = False
        else:
            return
        self._renewal.end(succeeded=succeeded)
        self._renewal = None
