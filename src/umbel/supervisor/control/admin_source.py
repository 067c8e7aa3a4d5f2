"""What the admin side of a master asks: its state, those of its workers, and the commands.

No method waits for a worker without a limit: a worker whose event loop is blocked delays an answer by some seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from ...admin.source import LEVEL_NEEDED, CommandError, Metrics, Topic
from ...config.display.rows import as_answer as as_configuration
from ...gateway.operation.plans import plans_of
from ...logs.records.level import LevelName
from ...observe.exposition import metrics_of
from ...observe.figures import ProcessFigures
from ...observe.kept_requests import as_answer, as_request
from ...observe.lints.lint import Lint
from ...observe.lints.watch import LintWatch, running_step
from ...observe.process.live_process import LiveProcess
from ...observe.process.topics import topics_of
from ...observe.traffic.live_traffic import LiveTraffic
from ...observe.traffic.upstreams import Snapshots
from ...observe.tree.nodes import Blocked, ProcessTree
from ..master.master import Master
from ..master.options import WORKERS_MAX
from ..master.process import Worker
from ..master.slot import Slot
from . import messages
from .figures import all_figures
from .status import state_of, status

_TREE_S = 2.0
_LINTS_S = 2.0
_SLOW_S = 2.0
_UPSTREAMS_S = 1.0
"""Seconds for which workers are waited for."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a command, a JSON object."""

    count: int | None = None
    """Of ``scale``: the number of workers."""
    slot: int | None = None
    """Of ``drain`` and ``kill``: the number of the slot."""
    level: LevelName | None = None
    """Of ``log-level``: the lowest level that is recorded."""
    quick: bool = False
    """Of ``stop``: whether to stop within ``QUICK_S``."""
    allow_empty: bool = False
    """Of ``reload``: whether the configuration may have lost its routes."""


Answer = dict[str, Any]


class MasterSource:
    """The ``AdminSource`` of a master."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._live = LiveProcess("master")
        self._lints = LintWatch("master")
        self._traffic = LiveTraffic(self.figures, self._upstreams)

    async def run(self) -> None:
        """Watch the master's event loop while somebody asks for lints, until cancelled."""
        await self._lints.run()

    async def status(self) -> Answer:
        """The state of the master, its slots and their workers."""
        return await status(self._master)

    async def trees(self) -> list[ProcessTree]:
        """The task trees of the master and of all ready workers.

        Waits for the workers for at most ``_TREE_S``. A worker that does not answer in this time has no tree, and is
        shown as blocked.
        """
        master = self._master
        workers = master.workers
        answers = await master.queries.ask(workers, messages.TreeQuery(), messages.Tree, _TREE_S)
        trees = [await self._live.tree()]
        for worker in workers:
            answer = answers.get(worker)
            trees.append(_silent_tree(worker) if answer is None else answer.tree)
        return trees

    async def lints(self) -> list[Lint]:
        """The lints of the master and of all ready workers, waited for at most 2 s.

        Of a worker whose event loop is blocked there is only the lint that says so.
        """
        master = self._master
        workers = master.workers
        answers = await master.queries.ask(workers, messages.LintsQuery(), messages.Lints, _LINTS_S)
        lints = await self._lints.look()
        for worker in workers:
            if worker in answers:
                lints += answers[worker].lints
            else:
                blocked = _blocked(worker)
                lints.append(running_step(_name(worker), blocked.at, blocked.seconds))
        return lints

    async def slow(self) -> Answer:
        """The kept requests of all ready workers, waited for at most 2 s."""
        workers = self._master.workers
        answers = await self._master.queries.ask(workers, messages.SlowQuery(), messages.Slow, _SLOW_S)
        return as_answer({_name(worker): answers[worker].listing if worker in answers else None for worker in workers})

    async def slow_request(self, request: str) -> Answer | None:
        """The timeline of a kept request of a worker, waited for at most 2 s; None also if it does not answer."""
        process = request.partition("-")[0]
        worker = next((each for each in self._master.workers if str(each.pid) == process), None)
        if worker is None:
            return None
        query = messages.SlowRequestQuery(request=request)
        answers = await self._master.queries.ask([worker], query, messages.SlowRequest, _SLOW_S)
        timeline = bytes(answers[worker].timeline) if worker in answers else b"null"
        return None if timeline == b"null" else as_request(_name(worker), request, timeline)

    async def figures(self) -> Sequence[ProcessFigures]:
        """The figures of the master, of its workers and of ended workers (``figures.py``)."""
        return await all_figures(self._master)

    def topics(self) -> dict[str, Topic]:
        """Task trees, lints and traffic of all processes, the state of the workers, kept requests, and reloads."""
        return topics_of(self, self._traffic, self._reloads)

    async def _upstreams(self) -> dict[str, Snapshots | None]:
        """The snapshots of the upstreams of all ready workers, waited for at most 1 s."""
        workers = self._master.workers
        answers = await self._master.queries.ask(workers, messages.UpstreamsQuery(), messages.Upstreams, _UPSTREAMS_S)
        return {_name(worker): answers[worker].upstreams if worker in answers else None for worker in workers}

    async def _reloads(self) -> Answer:
        """How often the configuration was read, and the last reload with what it has changed."""
        master = self._master
        last = master.reloader.last
        reload: Answer | None = None
        if last is not None:
            changes = master.settings.changes if last.read else None
            reload = {"at": last.at, "failure": last.failure, "changes": changes}
        return {"generation": master.generation, "last_reload": reload}

    async def plan(self, route: str) -> Answer | None:
        """The plans of a route in the configuration that the master has read last, as ``AdminSource``."""
        config = self._master.settings.config
        return None if config is None else await trio.to_thread.run_sync(plans_of, config, route)

    async def configuration(self) -> Answer:
        """The configuration that the master has read last, as ``AdminSource``; without a file of its own no rows."""
        config = self._master.settings.config
        if config is None:
            return {"rows": [], "left_out": 0}
        return await trio.to_thread.run_sync(as_configuration, config)

    async def metrics(self, *, openmetrics: bool) -> Metrics:
        """The metrics of ``figures``."""
        return await metrics_of(await self.figures(), openmetrics=openmetrics)

    def readiness(self) -> tuple[bool, Answer]:
        """Ready if a worker is ready, neither silent nor without keys, and the master neither degraded nor stopping."""
        master = self._master
        ready, silent, without_keys = len(master.workers), master.silent, master.without_keys
        details = {
            "state": state_of(master),
            "draining": master.stopping,
            "degraded": master.degraded,
            "workers": {"ready": ready, "silent": silent, "without_keys": without_keys, "size": master.size},
            "failing_logs": sorted(master.failing_logs()),
        }
        return ready > silent + without_keys and not master.stopping and not master.degraded, details

    async def command(self, name: str, arguments: bytes) -> Answer:
        """Carry out one command and return its answer, after a reload at its end; see ``AdminSource``."""
        try:
            given = msgspec.json.decode(arguments or b"{}", type=Arguments)
        except msgspec.DecodeError as error:
            raise CommandError(f"the arguments are invalid: {error}") from error
        return await _COMMANDS[name](self._master, given)


def _name(worker: Worker) -> str:
    return f"worker {worker.slot}"


def _blocked(worker: Worker) -> Blocked:
    """For how long a worker that does not answer has been blocked, and where if its thread could say so."""
    told = worker.blocked
    return Blocked(seconds=round(worker.silent_for, 3)) if told is None else Blocked(seconds=told.seconds, at=told.at)


def _silent_tree(worker: Worker) -> ProcessTree:
    """What is shown of a worker that does not answer: for how long it has sent nothing."""
    return ProcessTree(
        process=_name(worker),
        pid=worker.pid,
        blocked=_blocked(worker),
        note=f"no answer within {_TREE_S:g} s: its event loop is blocked, or the process is stopped",
    )


async def _scale(master: Master, given: Arguments) -> Answer:
    if given.count is None or not 1 <= given.count <= WORKERS_MAX:
        raise CommandError(f"scale needs a number of workers from 1 to {WORKERS_MAX}")
    if master.stopping:
        raise CommandError("the master is stopping and cannot scale; start it again")
    master.scale(given.count)
    return {"size": master.size}


async def _reload(master: Master, given: Arguments) -> Answer:
    if master.stopping:
        raise CommandError("the master is stopping and cannot reload; start it again")
    if failure := await master.reloader.wait_for(master.reload(allow_empty=given.allow_empty)):
        raise CommandError(failure)
    return {"generation": master.generation}


async def _drain(master: Master, given: Arguments) -> Answer:
    slot = _slot(master, given, "drain")
    master.reloader.recycle(slot, "umbel ctl drain")
    return {"slot": slot.number}


async def _kill(master: Master, given: Arguments) -> Answer:
    slot = _slot(master, given, "kill")
    if slot.worker is None:
        raise CommandError(f"slot {slot.number} has no worker at the moment; try again after its restart")
    slot.worker.kill()
    return {"slot": slot.number, "pid": slot.worker.pid}


async def _reopen(master: Master, given: Arguments) -> Answer:
    result = await master.reopen_logs_and_wait()
    if not result.complete:
        raise CommandError(f"in time, {result.sentence}; see umbel ctl status")
    return {"workers": result.asked}


async def _log_level(master: Master, given: Arguments) -> Answer:
    if given.level is None:
        raise CommandError(LEVEL_NEEDED)
    master.set_log_level(given.level)
    return {"level": given.level}


async def _stop(master: Master, given: Arguments) -> Answer:
    master.stop("umbel ctl stop", quick=given.quick)
    return {}


def _slot(master: Master, given: Arguments, command: str) -> Slot:
    slot = None if given.slot is None else master.slots.get(given.slot)
    if slot is None:
        slots = ", ".join(map(str, sorted(master.slots)))
        missing = f"{command} needs the number of a slot" if given.slot is None else f"there is no slot {given.slot}"
        raise CommandError(f"{missing}; the slots are {slots}")
    return slot


_COMMANDS: dict[str, Callable[[Master, Arguments], Awaitable[Answer]]] = {
    "scale": _scale,
    "reload": _reload,
    "drain": _drain,
    "kill": _kill,
    "reopen": _reopen,
    "log-level": _log_level,
    "stop": _stop,
}
