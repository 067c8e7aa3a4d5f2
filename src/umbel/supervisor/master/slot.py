"""A slot: the task that keeps one worker running, driven by the state machine of ``slot_state.py``.

Theory
======

The problem. A slot has at most one *current worker*. It may have a *successor*, which is not ready yet, and any number
of *replaced* workers (discarded successors among them), which drain. All of them are processes that can end at any
moment. The slot must restart the current worker when it dies, replace it without a moment with fewer ready workers, and
end.

The table in ``slot_state.py`` says what follows from what. This file only carries out its actions and reports events to
it::

    event            reported when
    STARTED          ``run`` begins
    READY            the current worker has sent ``ready``
    DIED             the current worker has ended
    WAITED           the delay before a restart is over
    RENEW            ``renew`` begins a replacement
    SUCCESSOR_READY  the successor has sent ``ready``
    SUCCESSOR_DIED   the successor has ended before it was ready
    STOP             ``stop`` is called

The end of a replaced worker is no event: ``_supervise`` compares the worker with ``worker`` and ``successor``, and a
replaced one is neither. Hence its late end can never restart the slot.

Invariants, after each ``_handle``:

1.  ``worker`` is set in the states starting, serving, renewing and leaving; ``successor`` only in renewing.
2.  Each worker in ``_workers`` has a task in ``_nursery`` that runs ``Worker.run`` and so enforces its time limits,
    kills it if necessary and reaps it. The nursery, and with it ``run``, ends when the slot is *gone* and the last
    replaced worker has ended.
3.  At most one renewal is open. It ends in the first settled state after ``RENEW``: successfully in serving (unless
    the event was ``SUCCESSOR_DIED``), leaving and gone; without success in waiting.

Sequences that matter:

*   ``renewing`` + ``DIED``: the successor is adopted as the current worker although it is not ready, because no new
    process could be ready sooner. The renewal stays open until the adopted worker is ready or dies, or the slot is
    stopped.
*   Keys of ``[auth]``: a successor must not get ready without keys that the current worker has got, or the replacement
    would turn answers into 503. It fails then (``Failed.lacks_keys``), which is SUCCESSOR_DIED. Any other worker
    replaces nobody, so it may lack them: a first one, one after a death, and an adopted one, which is told so. An
    adopted one that has failed already is followed by one of the second kind.
*   A second ``stop``: the table ignores a second STOP, so ``stop`` itself drains all workers again. ``Worker.drain``
    can only shorten their times.

*   ``stop`` within DIED: ``on_restart`` may call ``stop`` while the slot acts on DIED. The table is in *waiting* by
    then, so STOP leads to *gone* and cancels the delay that has just begun.

``_handle`` is synchronous and is called only in the trio thread, so no task can interrupt it. A cancel of ``run``
cancels the workers' tasks, which kill and reap their processes.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple, Protocol

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

    def worker_spec(self, slot: int, may_lack_keys: tuple[str, ...] | None) -> WorkerSpec:
        """Return how the next worker of the slot is started; ``may_lack_keys`` as in ``Start``."""

    def on_worker_message(self, slot: Slot, worker: Worker, message: messages.WorkerMessage) -> None:
        """Handle a message of a worker that is not a heartbeat."""

    def on_worker_exit(self, slot: Slot, worker: Worker, end: Exit) -> None:
        """Handle the end of a worker, before the slot acts on it."""

    def on_restart(self, slot: Slot, delay: float) -> None:
        """Take note that the slot's worker has died, and that the slot starts a new one after ``delay`` seconds."""


class Renewed(NamedTuple):
    """The result of a replacement of a slot's worker."""

    succeeded: bool
    """Whether the new worker is ready, or the slot was stopped."""
    missing_keys: str = ""
    """Of a successor that has failed because keys have not come: which, and why; else empty."""


class Renewal:
    """One replacement of a slot's worker: its reason, and its result after its end."""

    def __init__(self, why: ExitClass) -> None:
        self.why = why
        self.missing_keys = ""
        self.result = Renewed(succeeded=False)
        self.ended = trio.Event()

    def end(self, *, succeeded: bool) -> None:
        """Set the result, and notify the waiting task."""
        self.result = Renewed(succeeded, "" if succeeded else self.missing_keys)
        self.ended.set()


class Slot:
    """Keeps one worker running: restarts it when it dies, and replaces it on request.

    Args:
        number: the slot's number, from 1 on.
        owner: the master.
    """

    def __init__(self, number: int, owner: SlotOwner) -> None:
        self.number = number
        self.state: AsyncValue[State] = AsyncValue(State.EMPTY)
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.restarts = 0
        """How often a worker of this slot has died and another one was due."""
        self.last_exit: Exit | None = None
        """How the latest worker ended; None if none has."""
        self._owner = owner
        self._machine = SlotMachine()
        self._backoff = Backoff()
        self._workers: set[Worker] = set()
        self._ready_for: float | None = None
        """The seconds for which the latest dead worker had been ready; None if it never was."""
        self._renewal: Renewal | None = None
        self._waiting = trio.CancelScope()
        self._drain = messages.Drain(grace=0.0)

    async def run(self) -> None:
        """Run the workers until the slot was stopped and the last worker has ended. A cancel kills and reaps them."""
        async with trio.open_nursery() as self._nursery:
            self._handle(Event.STARTED)

    def stop(self, grace: float, delay: float = 0.0, *, quick: bool = False) -> None:
        """Drain all workers and start none; ``run`` returns after the last one has ended.

        The arguments are those of ``Worker.drain``. A second call can only shorten the times.
        """
        self._drain = messages.Drain(grace=grace, delay=delay, quick=quick)
        # The table drains the current worker at the first STOP and ignores further ones.
        drained = None if self.state.value is State.LEAVING else self.worker
        self._handle(Event.STOP)
        self._waiting.cancel(reason="the slot is stopped")
        for worker in self._workers - {drained}:
            worker.drain(grace, delay, quick=quick)

    async def renew(self, why: ExitClass) -> Renewed:
        """Replace the current worker by a successor, which is ready before the old worker drains.

        Waits until the new worker is ready or has died, and returns which. If the slot is in the delay
        before a restart, it starts the next worker at once. A slot that was stopped has nothing to replace, which
        counts as success. Only one task may call this at a time. A cancel ends the wait; the replacement goes on.

        ``why`` is the class of the replaced worker's end.
        """
        await self.state.wait_value(lambda _: self._machine.is_settled)
        if self.state.value in (State.LEAVING, State.GONE):
            return Renewed(succeeded=True)
        self._renewal = renewal = Renewal(why)
        self._backoff.reset()
        self._handle(Event.RENEW)
        await renewal.ended.wait()
        return renewal.result

    @property
    def serves(self) -> bool:
        """Whether the current worker is ready."""
        return self.worker is not None and self.worker.is_ready

    @property
    def all_workers(self) -> frozenset[Worker]:
        """The workers that have not ended: the current one, the successor, and the draining ones."""
        return frozenset(self._workers)

    # The state machine and its actions.

    def _handle(self, event: Event) -> None:
        """Give an event to the table, carry out its actions, then publish the new state."""
        actions = self._machine.on(event)
        for action in actions:
            self._act(action)
        self.state.value = self._machine.state
        self._settle_renewal(event)

    def _act(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                self._waiting.cancel(reason="the next worker starts")
                self.worker = self._spawn(None)
            case Action.SPAWN_SUCCESSOR:
                # A worker that has keys is worth more than a newer one that has none.
                self.successor = self._spawn(() if self.worker is None else self.worker.missing_keys)
            case Action.PROMOTE | Action.ADOPT:
                # The new worker is in place before the old one drains: its end must not be taken for DIED.
                old, self.worker, self.successor = self.worker, self.successor, None
                if self.worker is not None and action is Action.ADOPT:
                    self.worker.serve_without_keys()
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

    def _spawn(self, may_lack_keys: tuple[str, ...] | None) -> Worker:
        owner = self._owner
        worker = Worker(owner.worker_spec(self.number, may_lack_keys), owner.options, owner.console)
        self._workers.add(worker)
        self._nursery.start_soon(self._supervise, worker)
        return worker

    async def _supervise(self, worker: Worker) -> None:
        """Run a worker to its end, and report its events to the owner and then to the table."""

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
            # The system is out of processes or memory. It counts as a death, so the slot tries again after the delay.
            worker.failure = messages.Failed(reason=f"the worker process cannot be started: {error}")
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
            if self._renewal is not None and worker.failure is not None and worker.failure.lacks_keys:
                self._renewal.missing_keys = worker.failure.reason
            self._handle(Event.SUCCESSOR_DIED)

    def _wait(self) -> None:
        """Count a restart, and begin the delay before it."""
        owner = self._owner
        max_delay = owner.options.restart_max_delay
        delay = self._backoff.after_death(self._ready_for, max_delay, owner.random, degraded=owner.degraded)
        self.restarts += 1
        self._waiting = trio.CancelScope()
        self._nursery.start_soon(self._wait_for, delay, self._waiting)
        # After the scope exists: the owner may stop the slot, and the stop ends the delay.
        owner.on_restart(self, delay)

    async def _wait_for(self, delay: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(delay)
            self._handle(Event.WAITED)

    def _settle_renewal(self, event: Event) -> None:
        """End the open renewal if the state after ``event`` decides it."""
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
