"""A slot: the task that keeps one worker running, by the state machine of ``slot_state.py``.

Every worker of the slot (the current one, a successor, those that still drain) is a task in the slot's own nursery. The
slot's task ends when the slot has been stopped and the last of them has ended.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

import trio
from trio_util import AsyncValue

from ..control import messages
from .backoff import Backoff
from .console_output import ConsoleOutput
from .exit_status import Exit, ExitClass
from .options import Options
from .process import Worker, WorkerSpec
from .slot_state import Action, Event, SlotMachine, State


class SlotOwner(Protocol):
    """The part of the master that a slot needs."""

    options: Options
    console: ConsoleOutput
    random: Random
    degraded: bool

    def worker_spec(self, slot: int) -> WorkerSpec:
        """Return how the next worker of the slot is to be started."""

    def on_worker_message(self, slot: Slot, worker: Worker, message: messages.WorkerMessage) -> None:
        """Called with every message of a worker but heartbeats."""

    def on_worker_exit(self, slot: Slot, worker: Worker, end: Exit) -> None:
        """Called when a worker has ended, before the slot acts on it."""

    def on_restart(self, slot: Slot, delay: float) -> None:
        """Called when a worker that died is to be replaced after ``delay`` seconds."""


class Renewal:
    """One replacement of a slot's worker: its reason, and its result once it has ended."""

    def __init__(self, why: ExitClass) -> None:
        self.why = why
        self.succeeded: bool | None = None
        self.ended = trio.Event()

    def end(self, *, succeeded: bool) -> None:
        """Set the result."""
        self.succeeded = succeeded
        self.ended.set()


class Slot:
    """Keeps one worker running: restarts it when it dies, and replaces it on request."""

    def __init__(self, number: int, owner: SlotOwner) -> None:
        self.number = number
        self.state: AsyncValue[State] = AsyncValue(State.EMPTY)
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.restarts = 0
        self.last_exit: Exit | None = None
        self._owner = owner
        self._machine = SlotMachine()
        self._backoff = Backoff(owner.options.restart_max_delay)
        self._workers: set[Worker] = set()
        self._ready_for: float | None = None
        """For how many seconds the last worker that died had been ready; None if it never was."""
        self._renewal: Renewal | None = None
        self._waiting = trio.CancelScope()
        self._drain = messages.Drain(grace=0.0)

    async def run(self) -> None:
        """Run the workers until the slot has been stopped and the last one has ended. A cancel kills them."""
        async with trio.open_nursery() as self._nursery:
            self._handle(Event.STARTED)

    def stop(self, grace: float, delay: float = 0.0, *, quick: bool = False) -> None:
        """End the slot; the arguments are those of ``Worker.drain``. A second call can only shorten the times."""
        self._drain = messages.Drain(grace=grace, delay=delay, quick=quick)
        # The state machine drains the current worker, but for a second call, which it ignores.
        drained = None if self.state.value is State.LEAVING else self.worker
        self._handle(Event.STOP)
        for worker in self._workers - {drained}:
            worker.drain(grace, delay, quick=quick)

    async def renew(self, why: ExitClass) -> bool:
        """Replace the worker by a new one, which is ready before the old one drains; says whether that succeeded.

        A slot in the delay before a restart starts a worker at once. For a slot that ends there is nothing to do, which
        counts as success. To be called by one task at a time.
        """
        await self.state.wait_value(lambda _: self._machine.is_settled)
        if self.state.value in (State.LEAVING, State.GONE):
            return True
        self._renewal = renewal = Renewal(why)
        self._backoff.reset()
        self._handle(Event.RENEW)
        await renewal.ended.wait()
        return bool(renewal.succeeded)

    @property
    def serves(self) -> bool:
        """Whether the current worker is ready."""
        return self.worker is not None and self.worker.is_ready

    @property
    def all_workers(self) -> frozenset[Worker]:
        """The workers that have not ended: the current one, a successor, those that drain."""
        return frozenset(self._workers)

    # The state machine and its actions.

    def _handle(self, event: Event) -> None:
        actions = self._machine.on(event)
        for action in actions:
            self._act(action)
        self.state.value = self._machine.state
        self._settle_renewal(event)

    def _act(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                self._waiting.cancel(reason="the next worker starts")
                self.worker = self._spawn()
            case Action.SPAWN_SUCCESSOR:
                self.successor = self._spawn()
            case Action.PROMOTE | Action.ADOPT:
                old, self.worker, self.successor = self.worker, self.successor, None
                if old is not None and action is Action.PROMOTE:
                    why = ExitClass.DRAINED if self._renewal is None else self._renewal.why
                    old.drain(self._owner.options.graceful_timeout, why=why)
            case Action.WAIT:
                self._wait()
            case Action.DRAIN:
                if self.worker is not None:
                    self.worker.drain(self._drain.grace, self._drain.delay, quick=self._drain.quick)
            case Action.DISCARD:
                if self.successor is not None:
                    self.successor.drain(0.0, quick=True)
                    self.successor = None

    def _spawn(self) -> Worker:
        owner = self._owner
        worker = Worker(owner.worker_spec(self.number), owner.options, owner.console)
        self._workers.add(worker)
        self._nursery.start_soon(self._supervise, worker)
        return worker

    async def _supervise(self, worker: Worker) -> None:
        def on_message(message: messages.WorkerMessage) -> None:
            self._owner.on_worker_message(self, worker, message)
            if isinstance(message, messages.Ready):
                if worker is self.worker:
                    self._handle(Event.READY)
                elif worker is self.successor:
                    self._handle(Event.SUCCESSOR_READY)

        try:
            end = await worker.run(on_message)
        except OSError as error:
            # The system is out of processes or memory. It counts as a death, so that it is tried again after the delay.
            worker.failure = messages.Failed(reason=f"cannot be started: {error}")
            end = Exit(ExitClass.CRASH, 1)
        self._workers.discard(worker)
        self.last_exit = end
        self._owner.on_worker_exit(self, worker, end)
        if worker is self.worker:
            self._ready_for = worker.ready_for
            self.worker = None
            self._handle(Event.DIED)
        elif worker is self.successor:
            self.successor = None
            self._handle(Event.SUCCESSOR_DIED)

    def _wait(self) -> None:
        owner = self._owner
        delay = self._backoff.after_death(self._ready_for, owner.random, degraded=owner.degraded)
        self.restarts += 1
        owner.on_restart(self, delay)
        self._waiting = trio.CancelScope()
        self._nursery.start_soon(self._wait_for, delay, self._waiting)

    async def _wait_for(self, delay: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(delay)
            self._handle(Event.WAITED)

    def _settle_renewal(self, event: Event) -> None:
        """End the renewal if the state that ``event`` led to decides it."""
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
