"""The master: keeps a number of workers running, and stops, reloads and scales them.

``Master.run`` has two nurseries. The inner one has a task per slot (``slot.py``), and in each slot a task per worker
process (``process.py``). The outer one has the tasks that concern all slots: signals, reloads, the health check, the
watchdog. The inner nursery ends when the last slot has ended, which happens only after ``stop``; then the outer one is
cancelled. So no worker is ever left without a task that watches it.

All state changes happen in the trio thread, between two checkpoints; no lock is needed. Callbacks of slots
(``on_worker_message``, ``on_worker_exit``, ``on_restart``) are plain functions: they cannot be interrupted, and start
a task for what must wait.

A stop goes through the slots: each drains its workers, and the listening sockets are closed after the drain delay. A
cancel of ``run`` kills the workers instead; each worker's task reaps its process before it ends. The master binds
nothing, reads no file and loads no application.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random

import trio
from trio_util import periodic

from ...core.events import Level
from ...logs import recover_all
from ..control import messages
from ..control.worker_queries import WorkerQueries
from .backoff import STABLE_S, RestartIntensity
from .console_output import ConsoleOutput
from .exit_status import MASTER_FAILED, MASTER_MISCONFIGURED, MASTER_NEVER_READY, MASTER_STOPPED, Exit, ExitClass
from .listeners import Listeners
from .options import QUICK_S, WORKERS_MAX
from .process import Worker, WorkerSpec
from .reload import Reloader
from .sd_notify import SystemdNotifier
from .settings import Settings
from .signals import handle_signals
from .slot import Slot

_HEALTH_CHECK_S = 1.0
_REOPEN_S = 5.0
_RECOVER_S = 5.0
_REAPED_MAX = 1000
"""Children that one call reaps at most."""
_PLANNED = frozenset({ExitClass.DRAINED, ExitClass.RECYCLE})
_FATAL_AT_START = frozenset({ExitClass.LOAD, ExitClass.CONFIG})
"""Failures that every worker will have, so that one is enough to stop the start."""


class Master:
    """Keeps ``size`` workers running."""

    def __init__(
        self,
        size: int,
        settings: Settings,
        listeners: Listeners,
        console: ConsoleOutput,
        *,
        reread: Callable[[Settings, bool], Awaitable[Settings]] | None = None,
        notifier: SystemdNotifier | None = None,
    ) -> None:
        self.settings = settings
        self.options = settings.options
        self.console = console
        self.random = Random()
        self.generation = 1
        self.degraded = False
        self.stopping = False
        self.status = MASTER_STOPPED
        self.slots: dict[int, Slot] = {}
        self.size = size
        self.queries = WorkerQueries()
        self.reloader = Reloader(self, self._reread)
        self.started_at = trio.current_time()
        self._read = reread
        self._listeners = listeners
        self._notifier = notifier if notifier is not None else SystemdNotifier({})
        self._intensity = RestartIntensity(self.options.intensity_restarts, self.options.intensity_window)
        self._reported_failures: set[tuple[int, str]] = set()
        self._never_ready = set(range(1, size + 1))
        """Slots whose first worker has neither been ready nor ended."""
        self._ever_ready = False
        self._announced = False
        self._all_slots: set[Slot] = set()
        """The slots, and those that have been given up and still drain."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Keep the workers running until ``stop``; return the exit status (``exit_status.py``).

        Cancelled, it kills the workers.
        """
        async with trio.open_nursery() as background:
            self._background = background
            await background.start(handle_signals, self)
            background.start_soon(self.reloader.run)
            background.start_soon(self._check_health)
            background.start_soon(self._ping_watchdog)
            async with trio.open_nursery() as self._nursery:
                for _ in range(self.size):
                    self._add_slot()
                task_status.started()
            with trio.move_on_after(_RECOVER_S):
                await self._recover()
            background.cancel_scope.cancel(reason="the last worker has ended")
        self.console.report("info", "master.stopped", f"exit status {self.status}", status=self.status)
        return self.status

    async def _recover(self) -> None:
        """Append to the logs the records of killed workers that are still in their rings."""
        logs = self.settings.logs
        if logs is None or not logs.ring:
            return
        try:
            count = await trio.to_thread.run_sync(recover_all, logs, abandon_on_cancel=True)
        except OSError as error:
            self.console.report(
                "error", "logs.not_recovered", f"what killed workers had recorded is still in memory: {error}"
            )
        else:
            if count:
                self.console.report("info", "logs.recovered", f"{count} records of killed workers", count=count)

    # Commands, of signals and of the control socket.

    def stop(self, reason: str, *, quick: bool = False, status: int = MASTER_STOPPED) -> None:
        """End all slots: gracefully (row 12 of docs/supervisor.md), or with ``quick`` within ``QUICK_S``.

        A second call has an effect only with ``quick``.
        """
        if self.stopping and not quick:
            return
        options = self.options
        grace, delay = (0.0, 0.0) if quick else (options.graceful_timeout, options.drain_delay)
        longest = QUICK_S if quick else delay + grace + options.cancel_timeout
        how = "at once" if quick else f"within {longest:g} s"
        self.console.report("info", "master.stopping", f"{reason}: {len(self.slots)} workers end {how}", reason=reason)
        self._notifier.stopping(longest + QUICK_S, f"stopping ({reason})")
        if not self.stopping:
            self.stopping = True
            self.status = status
            self._background.start_soon(self._close_listeners, delay)
        for slot in self._all_slots:
            slot.stop(grace, delay, quick=quick)

    def reload(self, *, allow_empty: bool = False) -> int:
        """Replace every worker by a new one; return the number for ``reloader.wait_for``.

        With ``allow_empty`` the configuration may have lost its routes.
        """
        return self.reloader.request(allow_empty=allow_empty)

    def scale(self, count: int) -> None:
        """Set the number of workers, at least one; the slots with the highest numbers end first."""
        if self.stopping:
            return
        count = max(1, min(count, WORKERS_MAX))
        if count != self.size:
            self.console.report("info", "master.scaled", f"{self.size} to {count} workers", size=count)
        self.size = count
        while len(self.slots) < count:
            self._add_slot()
        for slot in self.slots_in_order()[count:]:
            del self.slots[slot.number]
            slot.stop(self.options.graceful_timeout)

    def reopen_logs(self) -> None:
        """Reopen the log files of all processes; reported when all have answered."""
        self._background.start_soon(self.reopen_logs_and_wait)

    async def reopen_logs_and_wait(self) -> tuple[int, int]:
        """Reopen the log files of all processes; return how many workers have answered, and how many were asked."""
        for name in ("reopen", "flush"):
            if (act := getattr(self.console.recorder, name, None)) is not None and (waiting := act()) is not None:
                await waiting
        workers = self.workers
        answers = await self.queries.ask(workers, messages.ReopenLogs(), messages.LogsReopened, _REOPEN_S)
        level: Level = "info" if len(answers) == len(workers) else "warning"
        text = f"{len(answers)} of {len(workers)} workers have reopened their log files"
        self.console.report(level, "logs.reopened", text, workers=len(workers), answered=len(answers))
        return len(answers), len(workers)

    def reap(self) -> None:
        """Reap ended children that are no workers."""
        workers = [worker for slot in self._all_slots for worker in slot.all_workers]
        # A worker that is being started has no pid yet, and would be taken for a child that the master does not know.
        if all(worker.pid for worker in workers):
            _reap_unknown_children({worker.pid for worker in workers})

    # State.

    def slots_in_order(self) -> list[Slot]:
        """The slots by their numbers."""
        return [self.slots[number] for number in sorted(self.slots)]

    @property
    def workers(self) -> list[Worker]:
        """The workers that are ready, one of each slot at most."""
        return [slot.worker for slot in self.slots_in_order() if slot.worker is not None and slot.serves]

    @property
    def addresses(self) -> Sequence[str]:
        """The addresses of the listening sockets."""
        return self._listeners.addresses

    def summary(self) -> str:
        """Describe the state in one line."""
        ready = len(self.workers)
        words = [f"{ready} of {self.size} workers ready"]
        if self.degraded:
            words.append("degraded: too many restarts" + (", nobody serves" if not ready else ""))
        return ", ".join(words)

    # Callbacks of the slots.

    def worker_spec(self, slot: int) -> WorkerSpec:
        """Return how the next worker of the slot is to be started."""
        settings, options = self.settings, self.options
        application = settings.application
        start = messages.Start(
            slot=slot,
            generation=self.generation,
            app=application.app,
            config=application.config,
            routes=settings.routes,
            server=dict(settings.server),
            limits=settings.limits,
            logs=settings.log_values(),
            logs_required=settings.logs is not None,
            secure=self._listeners.secure,
            insecure=self._listeners.insecure,
            heartbeat_every=options.heartbeat_every,
            orphan_grace=options.orphan_grace,
            max_rss=options.max_rss,
            max_lifetime=options.max_lifetime,
        )
        return WorkerSpec(start, f"worker {slot} of {application.name}")

    def on_worker_message(self, slot: Slot, worker: Worker, message: messages.WorkerMessage) -> None:
        """Handle a message of a worker."""
        self.queries.on_message(worker, message)
        if isinstance(message, messages.Ready):
            took = (worker.ready_at or 0.0) - worker.spawned_at
            text = f"worker {slot.number} ({worker.pid}) is ready after {took:.2f} s"
            self.console.report("info", "worker.ready", text, slot=slot.number, pid=worker.pid, seconds=round(took, 3))
            self._ever_ready = True
            self._never_ready.discard(slot.number)
            self._background.start_soon(self._publish_state)
        elif isinstance(message, messages.Recycle):
            self.reloader.recycle(slot, message.reason)

    def on_worker_exit(self, slot: Slot, worker: Worker, end: Exit) -> None:
        """Report a worker's end; stop the master if no worker can get ready."""
        self.queries.on_worker_exit(worker)
        uptime = trio.current_time() - worker.spawned_at
        text = f"worker {slot.number} ({worker.pid}) ended: {end}, after {uptime:.1f} s and {worker.requests} requests"
        if end.kind is ExitClass.HANG and (place := worker.blocked_at()):
            text += f"; its loop was blocked at {place}"
        if worker.failure is not None:
            text += self._failure(worker.failure)
        self.console.report(
            "info" if end.kind in _PLANNED else "error",
            "worker.ended",
            text,
            slot=slot.number,
            pid=worker.pid,
            kind=str(end.kind),
            status=end.status,
            uptime_s=round(uptime, 3),
            requests=worker.requests,
            stderr=worker.stderr_tail.decode("utf-8", "replace"),
        )
        if end.kind not in _PLANNED:
            self._background.start_soon(self._recover)
        self._never_ready.discard(slot.number)
        if self._ever_ready:
            self._background.start_soon(self._publish_state)
        elif not self.stopping and (end.kind in _FATAL_AT_START or not self._never_ready):
            status = MASTER_MISCONFIGURED if end.kind is ExitClass.CONFIG else MASTER_NEVER_READY
            self.stop("no worker got ready", quick=True, status=status)

    def on_restart(self, slot: Slot, delay: float) -> None:
        """Count a restart; too many of them degrade the master, or stop it."""
        if delay:
            text = f"worker {slot.number} starts again in {delay:.1f} s"
            self.console.report("info", "worker.waiting", text, slot=slot.number, seconds=round(delay, 3))
        if not self._intensity.add(trio.current_time(), self.size) or self.degraded or self.stopping:
            return
        options = self.options
        limit = f"more than {options.intensity_restarts * self.size} restarts in {options.intensity_window:g} s"
        if options.on_intensity == "exit":
            self.stop(limit, status=MASTER_FAILED)
            return
        self.degraded = True
        cap = options.restart_max_delay
        self.console.report("error", "master.degraded", f"{limit}: from now on one try in {cap:g} s for each worker")
        self._background.start_soon(self._publish_state)

    def reload_began(self) -> None:
        """Notify systemd."""
        self._notifier.reloading()

    def reload_ended(self) -> None:
        """Notify systemd."""
        self._notifier.ready(self.summary())

    # Tasks and helpers.

    async def _reread(self, allow_empty: bool) -> None:
        """Read the configuration anew.

        Raises:
            ConfigError: it cannot be used, or asks for what needs a restart.
        """
        if self._read is not None:
            self.settings = await self._read(self.settings, allow_empty)
            self.options = self.settings.options

    def _add_slot(self) -> None:
        number = next(number for number in range(1, WORKERS_MAX + 1) if number not in self.slots)
        slot = self.slots[number] = Slot(number, self)
        self._all_slots.add(slot)
        self._nursery.start_soon(self._run_slot, slot)

    async def _run_slot(self, slot: Slot) -> None:
        await slot.run()
        self._all_slots.discard(slot)

    async def _close_listeners(self, delay: float) -> None:
        """Close the sockets after the drain delay: new connections are refused, and do not wait in a backlog."""
        await trio.sleep(delay)
        self._listeners.close()

    def _failure(self, failure: messages.Failed) -> str:
        """Why a worker did not get ready; the traceback only once in a generation."""
        known = (self.generation, failure.reason)
        if known in self._reported_failures:
            return f"; {failure.reason.splitlines()[0]} (as above)"
        self._reported_failures = {each for each in self._reported_failures if each[0] == self.generation} | {known}
        return f"; {failure.reason}\n{failure.traceback}".rstrip()

    async def _publish_state(self) -> None:
        """Send the state to workers and systemd, and report once that the master has begun to serve."""
        state = messages.State(ready=len(self.workers), degraded=self.degraded)
        for worker in self.workers:
            worker.send(state)
        if self._announced or self._never_ready or self.stopping:
            self._notifier.status(self.summary())
            return
        self._announced = True
        where = " and ".join(self.addresses)
        text = f"Umbel runs on {where} with {len(self.workers)} workers (Ctrl-C stops it)"
        self.console.report("info", "master.ready", text, pid=os.getpid(), addresses=list(self.addresses))
        self._notifier.ready(self.summary())

    async def _check_health(self) -> None:
        """Reap inherited children, and end the degraded state when every worker has been ready for ``STABLE_S``."""
        async for _ in periodic(_HEALTH_CHECK_S):
            self.reap()
            if self.degraded and all(
                slot.worker is not None and (slot.worker.ready_for or 0.0) >= STABLE_S for slot in self.slots.values()
            ):
                self.degraded = False
                self._intensity.clear()
                self.console.report("info", "master.recovered", f"every worker has been ready for {STABLE_S:g} s")
                await self._publish_state()

    async def _ping_watchdog(self) -> None:
        """Ping systemd's watchdog as long as any worker sends heartbeats, or the master stops."""
        if self._notifier.watchdog_interval is None:
            return
        async for _ in periodic(self._notifier.watchdog_interval):
            if self.stopping or any(worker.is_responsive for worker in self.workers):
                self._notifier.ping_watchdog()


def _reap_unknown_children(ours: Collection[int]) -> None:
    """Reap the ended children that are not among ``ours``, which their own tasks reap. Never waits.

    As PID 1 of a container the master inherits every orphan. ``waitid`` shows one ended child at a time. If that is one
    of ours, its task must reap it first; the children behind it are reaped by the next call.
    """
    for _ in range(_REAPED_MAX):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        os.waitpid(found.si_pid, os.WNOHANG)
