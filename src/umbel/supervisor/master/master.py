"""The master: keeps a number of workers running, and stops, reloads and scales them.

Theory
======

The problem. Workers crash, hang, leak and are replaced; operators send signals at any time, also while a reload is
under way. Meanwhile the listening sockets stay open, no worker process may be left behind, and the end must be bounded.

Tasks. ``Master.run`` has two nurseries::

    background nursery                          until the last slot has ended
    ├── handle_signals                          signals, in order; the handlers themselves only enqueue
    ├── Reloader.run                            one replacement of workers at a time
    ├── _check_health, _ping_watchdog           once a second; at systemd's interval
    ├── CommonLimits.run                        what the workers have spent of limits, to all of them
    ├── short tasks of callbacks                publish the state, recover rings, reopen logs, close the sockets
    └── slots' nursery                          inner nursery, in the task of ``run``
        └── one task per slot (slot.py)
            └── one task per worker process (process.py)

A slot ends only after it was stopped. So the inner nursery ends after ``stop`` and the end of the last worker; then
``run`` recovers the rings of killed workers (for at most ``_RECOVER_S``), cancels the background nursery and returns
the exit status. A worker is always a task of a running slot: none is without a task that watches and reaps it.

States of the master::

    from               when                                                to
    starting           a worker is ready                                   serving
    starting           no worker can get ready                             stopping, exit status 3 or 78
    starting, serving  more restarts than the restart intensity allows     degraded, or stopping with 1
    degraded           every worker has been ready for STABLE_S            serving
    any                ``stop``                                            stopping

*   **starting** (not ``_ever_ready``). A failure that every worker will have (the application cannot be loaded, the
    configuration is wrong) stops the master at once. Otherwise it stops when the first worker of each slot that it
    began with has ended. Both hold also if the master becomes degraded before any worker was ready.
*   **serving**. Workers that die are restarted, however often they fail to get ready. Once the first worker of each
    slot that the master began with is ready or has ended, the start is announced on stderr and to systemd
    (``_announced``).
*   **degraded**. A worker that dies before it was ready for ``STABLE_S`` (10 s) is restarted only after the longest
    delay, or by a reload. Other dead workers are restarted at once, and the living ones serve on. With
    ``on_intensity = "exit"`` the master stops with 1 instead.
*   **stopping**. Final. Every slot drains its workers and starts none; the sockets are closed after the drain delay. A
    later quick stop shortens the times of all workers, including those that drain already.

Reload. The Reloader reads the settings anew; a mistake aborts it before anything has changed. Then it replaces the
worker of each slot in turn, and aborts at the first successor that does not get ready. The new settings then stay: they
hold for each worker that is started later. The Reloader runs in its own task: the master acts on signals, deaths and
hangs meanwhile. ``generation`` tells the workers of different readings apart.

Invariants:

1.  The state changes only in the trio thread and between two checkpoints, so there is no lock. The callbacks of slots
    (``on_worker_message``, ``on_worker_exit``, ``on_restart``) are plain functions; for anything that waits they start
    a task in the background nursery.
2.  ``slots`` holds the slots that count for ``size``. ``_all_slots`` also holds those that ``scale`` has given up and
    that still drain: a stop must reach their workers too.
3.  Of the slots that the master began with, those whose first worker is neither ready nor ended are in
    ``_never_ready``. A slot leaves the set once and for all; ``scale`` adds no slot to it.
4.  ``Master`` serves nothing, loads no application and binds no socket (``run.py`` gives it the bound sockets). The
    configuration and the rings are read in threads.

Cancellation. A cancel of ``run`` cancels both nurseries. Each worker's task then kills and reaps its process, shielded
with a deadline. Nothing else needs cleanup: no other await here holds a resource.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import NamedTuple

import trio
from trio_util import periodic

from ...core.events import Level
from ...logs import failing_logs, recover_all
from ...logs.records.level import LevelName
from ..control import messages
from ..control.common_limits import CommonLimits
from ..control.worker_figures import WorkerFigures
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
"""The bound on the children that one call reaps."""
_PLANNED = frozenset({ExitClass.DRAINED, ExitClass.RECYCLE})
_FATAL_AT_START = frozenset({ExitClass.LOAD, ExitClass.CONFIG})
"""Failures that every worker will have: the first of them ends the start."""


class ReopenResult(NamedTuple):
    """Which processes have reopened their log files in time."""

    answered: int
    """The number of workers that have."""
    asked: int
    """The number of workers that were asked."""
    own: bool
    """Whether the master has."""

    @property
    def complete(self) -> bool:
        """Whether all processes have."""
        return self.own and self.answered == self.asked

    @property
    def sentence(self) -> str:
        """The result for people."""
        workers = f"{self.answered} of {self.asked} workers have reopened their log files"
        return workers if self.own else f"{workers}; the master has not, because its own cannot be written"


class Master:
    """Keeps ``size`` workers running; the module's docstring states its rules.

    Args:
        size: the number of workers.
        settings: what files and command line say.
        listeners: the bound sockets, which the master closes when it stops.
        console: the output for operators.
        reread: reads and returns the settings for a reload, or raises ``ConfigError``. Its arguments are the present
            settings, and whether the routes may be lost. None: a reload keeps the settings.
        notifier: the connection to systemd; None: there is none.
    """

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
        self.figures = WorkerFigures()
        self.limits = CommonLimits()
        self.reloader = Reloader(self, self._reread)
        self.started_at = trio.current_time()
        self._read = reread
        self._listeners = listeners
        self._notifier = notifier if notifier is not None else SystemdNotifier({})
        self._intensity = RestartIntensity()
        self._own_logs = settings.logs
        """The section ``[logs]`` by which the master itself records; a reload does not change it."""
        self._reported_failures: set[tuple[int, str]] = set()
        self._never_ready = set(range(1, size + 1))
        """The numbers of the slots whose first worker has neither been ready nor ended."""
        self._ever_ready = False
        """Whether any worker has ever been ready."""
        self._log_level: tuple[int, LevelName] | None = None
        """What ``set_log_level`` has set, with the generation for which it holds."""
        self._announced = False
        """Whether ``master.ready`` was reported."""
        self._all_slots: set[Slot] = set()
        """All slots that have not ended, including those that ``scale`` has given up."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Keep the workers running until ``stop``; return the exit status (``exit_status.py``).

        A cancel kills and reaps the workers.
        """
        async with trio.open_nursery() as background:
            self._background = background
            # Before the first worker: a signal must never find the default action, which would leave workers behind.
            await background.start(handle_signals, self)
            background.start_soon(self.reloader.run)
            background.start_soon(self._check_health)
            background.start_soon(self._ping_watchdog)
            background.start_soon(self.limits.run)
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
        """Append the records in the rings of killed workers to the logs, in a thread."""
        sections = [self._own_logs, *([self.settings.logs] if self.settings.logs != self._own_logs else [])]
        count = 0
        try:
            for logs in sections:
                if logs is not None and logs.ring:
                    count += await trio.to_thread.run_sync(recover_all, logs, abandon_on_cancel=True)
        except OSError as error:
            self.console.report(
                "error", "logs.not_recovered", f"the last records of killed workers cannot be written: {error}"
            )
        else:
            if count:
                text = f"{count} records of killed workers were written to the logs"
                self.console.report("info", "logs.recovered", text, count=count)

    # Commands, of signals and of the admin side.

    def stop(self, reason: str, *, quick: bool = False, status: int = MASTER_STOPPED) -> None:
        """Begin the stop of all slots: graceful (docs/supervisor.md, *drain*), or with ``quick`` within ``QUICK_S``.

        ``run`` returns ``status`` after the last worker has ended. A second call has an effect only with ``quick``, and
        does not change the status.

        Args:
            reason: why, in a few words for the console and systemd.
            quick: whether requests in flight are cancelled at once.
            status: the exit status.
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
        for slot in self._all_slots:  # Not only ``slots``: a slot that scale() has given up may still drain.
            slot.stop(grace, delay, quick=quick)

    def reload(self, *, allow_empty: bool = False) -> int:
        """Request the replacement of all workers; return the number for ``reloader.wait_for``.

        ``allow_empty`` accepts a configuration that has lost its routes.
        """
        return self.reloader.request(allow_empty=allow_empty)

    def scale(self, count: int) -> None:
        """Set the number of workers to ``count``, at least 1 and at most ``WORKERS_MAX``. Ignored during a stop.

        The slots with the highest numbers are given up: their workers drain.
        """
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
        """Request that all processes reopen their log files; the result is reported on the console."""
        self._background.start_soon(self.reopen_logs_and_wait)

    async def reopen_logs_and_wait(self) -> ReopenResult:
        """Reopen the log files of all processes, within ``_REOPEN_S`` seconds, and report the result on the console.

        A cancel, or the end of that time, ends the wait; what was requested is still done.
        """
        workers = self.workers
        own = trio.CancelScope(deadline=trio.current_time() + _REOPEN_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reopen_own_logs, own)
            answers = await self.queries.ask(workers, messages.ReopenLogs(), messages.LogsReopened, _REOPEN_S)
        result = ReopenResult(len(answers), len(workers), not own.cancelled_caught)
        level: Level = "info" if result.complete else "warning"
        counts = {"workers": result.asked, "answered": result.answered, "master": result.own}
        self.console.report(level, "logs.reopened", result.sentence, **counts)
        return result

    async def _reopen_own_logs(self, scope: trio.CancelScope) -> None:
        """Reopen the master's own log files, within ``scope``: a flush lasts as long as they cannot be written."""
        with scope:
            for name in ("reopen", "flush"):
                if (act := getattr(self.console.recorder, name, None)) is not None and (waiting := act()) is not None:
                    await waiting

    @property
    def log_level(self) -> LevelName | None:
        """The level of the log ``app`` of the workers, as ``set_log_level`` has set it; None: as configured."""
        return None if self._log_level is None or self._log_level[0] != self.generation else self._log_level[1]

    def set_log_level(self, level: LevelName) -> None:
        """Set the level of the log ``app`` of all workers, also of later ones, until the next reload."""
        self._log_level = self.generation, level
        for worker in self.workers:
            worker.send(messages.SetLogLevel(level=level))
        text = f"the level of the log app is {level} until the next reload"
        self.console.report("info", "logs.level", text, app_level=level)

    def reap(self) -> None:
        """Reap ended children that are not workers. Never waits."""
        workers = [worker for slot in self._all_slots for worker in slot.all_workers]
        # A worker that is being started has no pid yet. Reaping it here would steal its status from its task.
        if all(worker.pid for worker in workers):
            _reap_unknown_children({worker.pid for worker in workers})

    # State.

    def slots_in_order(self) -> list[Slot]:
        """Return the slots that count for ``size``, in the order of their numbers."""
        return [self.slots[number] for number in sorted(self.slots)]

    @property
    def workers(self) -> list[Worker]:
        """The ready workers, at most one of each slot."""
        return [slot.worker for slot in self.slots_in_order() if slot.worker is not None and slot.serves]

    @property
    def silent(self) -> int:
        """The number of ready workers whose heartbeats are late."""
        return sum(worker.is_silent for worker in self.workers)

    @property
    def without_keys(self) -> int:
        """The number of ready workers, silent ones left out, that wait for the first keys of ``[auth]``."""
        return sum(worker.waits_for_keys and not worker.is_silent for worker in self.workers)

    @property
    def addresses(self) -> Sequence[str]:
        """The addresses of the listening sockets."""
        return self._listeners.addresses

    def failing_logs(self) -> set[str]:
        """Return the names of the logs that this process or a worker cannot write at the moment."""
        beats = [worker.last_heartbeat for worker in self.workers]
        return {*failing_logs(self.console.recorder), *(log for beat in beats if beat for log in beat.failing_logs)}

    def summary(self) -> str:
        """Return one line that describes the state, such as ``4 of 4 workers ready, 1 of them silent``."""
        ready = len(self.workers)
        words = [f"{ready} of {self.size} workers ready"]
        for number, reason in ((self.silent, "silent"), (self.without_keys, "waiting for keys")):
            if number:
                words.append(f"{number} of them {reason}")
        if self.degraded:
            words.append("degraded: too many restarts" + (", no worker serves" if not ready else ""))
        return ", ".join(words)

    # Callbacks of the slots.

    def worker_spec(self, slot: int, may_lack_keys: tuple[str, ...] | None) -> WorkerSpec:
        """Return how the next worker of the slot is started, from the present settings."""
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
            shows_requests=settings.shows_requests,
            may_lack_keys=may_lack_keys,
            # At the start a broken file is a mistake to be seen, and a successor must not have less than its worker.
            needs_key_files=not self._ever_ready or may_lack_keys is not None,
            log_level=self.log_level,
        )
        return WorkerSpec(start, f"worker {slot} of {application.name}")

    def on_worker_message(self, slot: Slot, worker: Worker, message: messages.WorkerMessage) -> None:
        """Handle a message of a worker that is not a heartbeat."""
        self.figures.on_message(worker, message)  # Before the query ends, which reads them.
        self.queries.on_message(worker, message)
        self.limits.on_message(worker, message)
        if isinstance(message, messages.Ready):
            took = (worker.ready_at or 0.0) - worker.spawned_at
            text = f"worker {slot.number} ({worker.pid}) is ready after {took:.2f} s"
            self.console.report("info", "worker.ready", text, slot=slot.number, pid=worker.pid, seconds=round(took, 3))
            self._ever_ready = True
            # The level may have been set after the worker had been started.
            if self._log_level is not None and worker.generation == self._log_level[0]:
                worker.send(messages.SetLogLevel(level=self._log_level[1]))
            self._never_ready.discard(slot.number)
            self._background.start_soon(self._publish_state)
        elif isinstance(message, messages.Recycle):
            self.reloader.recycle(slot, message.reason)

    def on_worker_exit(self, slot: Slot, worker: Worker, end: Exit) -> None:
        """Report a worker's end, and stop the master if no worker has been ready and none will be."""
        self.figures.on_worker_exit(worker, end)
        self.queries.on_worker_exit(worker)
        self.limits.on_worker_exit(worker)
        uptime = trio.current_time() - worker.spawned_at
        text = f"worker {slot.number} ({worker.pid}) ended: {end}, after {uptime:.1f} s and {worker.requests} requests"
        if end.kind is ExitClass.HANG and (place := worker.aborted_at()):
            text += f"; its event loop was blocked at {place}"
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
        # Before the check below, which asks whether this was the last slot that could have got ready.
        self._never_ready.discard(slot.number)
        if self._ever_ready:
            self._background.start_soon(self._publish_state)
        elif not self.stopping and (end.kind in _FATAL_AT_START or not self._never_ready):
            status = MASTER_MISCONFIGURED if end.kind is ExitClass.CONFIG else MASTER_NEVER_READY
            self.stop("no worker got ready", quick=True, status=status)

    def on_restart(self, slot: Slot, delay: float) -> None:
        """Count a restart. If there are too many, the master becomes degraded or stops, by ``on_intensity``."""
        if delay:
            text = f"worker {slot.number} restarts in {delay:.1f} s"
            self.console.report("info", "worker.waiting", text, slot=slot.number, seconds=round(delay, 3))
        options = self.options
        allowed, window = options.intensity_restarts * self.size, options.intensity_window
        if not self._intensity.add(trio.current_time(), allowed, window) or self.degraded or self.stopping:
            return
        limit = f"more than {allowed} restarts in {window:g} s"
        if options.on_intensity == "exit":
            self.stop(limit, status=MASTER_FAILED)
            return
        self.degraded = True
        cap = options.restart_max_delay
        text = f"{limit}: a worker that dies before it was ready for {STABLE_S:g} s now restarts only after {cap:g} s"
        self.console.report("error", "master.degraded", text)
        self._background.start_soon(self._publish_state)

    def reload_began(self) -> None:
        """Notify systemd of the beginning of a reload; without systemd, do nothing."""
        self._notifier.reloading()

    def reload_ended(self) -> None:
        """Notify systemd of the end of a reload, unless it was notified of a stop; without systemd, do nothing."""
        if not self.stopping:
            self._notifier.ready(self.summary())

    # Tasks and helpers.

    async def _reread(self, allow_empty: bool) -> None:
        """Read the settings anew; they hold for all workers that are started from now on.

        Reports a changed ``[logs]``, because the master itself goes on to record as before.

        Raises:
            ConfigError: they cannot be used, or differ in something that only a restart can change.
        """
        if self._read is None:
            return
        before = self.settings.logs
        self.settings = await self._read(self.settings, allow_empty)
        self.options = self.settings.options
        if self.settings.logs not in (before, self._own_logs):
            text = (
                "[logs], or a name of credentials that the logs hide, has changed: new workers use it; the master's "
                "own records follow it after a restart"
            )
            self.console.report("warning", "reload.logs", text)

    def _add_slot(self) -> None:
        number = next(number for number in range(1, WORKERS_MAX + 1) if number not in self.slots)
        slot = self.slots[number] = Slot(number, self)
        self._all_slots.add(slot)
        self._nursery.start_soon(self._run_slot, slot)

    async def _run_slot(self, slot: Slot) -> None:
        await slot.run()
        self._all_slots.discard(slot)

    async def _close_listeners(self, delay: float) -> None:
        """Close the sockets after the drain delay: new connections are then refused instead of waiting in a backlog."""
        await trio.sleep(delay)
        self._listeners.close()

    def _failure(self, failure: messages.Failed) -> str:
        """Return why a worker did not get ready, with the traceback only the first time in a generation."""
        known = (self.generation, failure.reason)
        if known in self._reported_failures:
            return f"; {failure.reason.splitlines()[0]} (as above)"
        self._reported_failures = {each for each in self._reported_failures if each[0] == self.generation} | {known}
        return f"; {failure.reason}\n{failure.traceback}".rstrip()

    async def _publish_state(self) -> None:
        """Send the state to workers and systemd; report ``master.ready`` once, when ``_never_ready`` is empty."""
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
        """Ping systemd's watchdog while any worker is responsive or the master is stopping."""
        if self._notifier.watchdog_interval is None:
            return
        async for _ in periodic(self._notifier.watchdog_interval):
            if self.stopping or any(worker.is_responsive for worker in self.workers):
                self._notifier.ping_watchdog()


def _reap_unknown_children(ours: Collection[int]) -> None:
    """Reap the ended children whose pids are not in ``ours``. Never waits.

    As PID 1 of a container the master inherits every orphan. ``waitid`` shows one ended child at a time. If that child
    is a worker, the task of the worker must reap it; the next call reaps the children behind it.
    """
    for _ in range(_REAPED_MAX):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        os.waitpid(found.si_pid, os.WNOHANG)
