"""What the admin side of a process without a master asks: its event loop, from a thread of the admin side."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio

from ...admin.source import LEVEL_NEEDED, CommandError, Metrics, Topic
from ...logs.records.level import LevelName
from ...server.limits.memory import resident
from .. import catalogue
from ..exposition import metrics_of
from ..figures import ProcessFigures
from ..kept_requests import KeptRequests, Listing, as_answer, as_request
from ..lints.watch import LintWatch, running_step
from ..traffic.live_traffic import LiveTraffic
from ..tree.nodes import Blocked, ProcessTree
from .live_process import LiveProcess
from .observed_loop import ANSWER_S, LoopBlockedError, ObservedLoop
from .topics import topics_of

if TYPE_CHECKING:
    from ..figures import Labels, Value
    from ..lints.lint import Lint
    from ..lints.tasks import ObservedQueue
    from ..traffic.upstreams import Snapshots
    from ..tree.reader import Frames

PROCESS = "main"
"""The name of the process in trees and figures."""
TREE_S = 2.0
"""The time limit in seconds for the reading of the task tree."""
REOPEN_S = 5.0
"""The time limit in seconds for the reopening of the log files."""


class ProcessView(Protocol):
    """What a process without a master shows. The methods run in the event loop if they do not say otherwise.

    None waits but ``reopen``.
    """

    def state(self) -> str:
        """The state in one word."""
        ...

    def statistics(self) -> dict[str, Any]:
        """The snapshots of the counters: ``server`` and ``app``."""
        ...

    def figures(self) -> ProcessFigures:
        """The figures of the process, under the name ``PROCESS``."""
        ...

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As ``AdminSource.readiness``. It only reads, and is called from another thread."""
        ...

    def kept_requests(self) -> KeptRequests | None:
        """The kept requests; None: the application keeps none. They are read from another thread."""
        ...

    def frames(self) -> Frames:
        """As ``TreeReader``. Called from another thread."""
        ...

    def upstreams(self) -> Snapshots:
        """The snapshots of the upstreams, by name."""
        ...

    def queues(self) -> Iterable[ObservedQueue]:
        """The bounded queues of the process, for lints."""
        ...

    def plan(self, route: str) -> dict[str, Any] | None:
        """As ``AdminSource.plan``. Called from another thread; takes milliseconds."""
        ...

    def configuration(self) -> dict[str, Any]:
        """As ``AdminSource.configuration``. Called from another thread; takes up to a second."""
        ...

    def set_log_level(self, level: LevelName) -> bool:
        """Set the level of the log ``app``; return False if there is none."""
        ...

    async def reopen(self) -> None:
        """Reopen the log files, and return when nothing more is written to the old ones."""
        ...


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a command, a JSON object."""

    quick: bool = False
    """Of ``stop``: whether requests in flight are cancelled."""
    level: LevelName | None = None
    """Of ``log-level``: the lowest level that is recorded."""


class ProcessSource:
    """The ``AdminSource`` of a process without a master.

    Args:
        loop: the event loop of the process.
        views: what the process shows; the last one counts.
        lints: the lints of the loop, whose ``run`` runs in it.
    """

    def __init__(self, loop: ObservedLoop, views: Sequence[ProcessView], lints: LintWatch) -> None:
        self._loop = loop
        self._views = views
        self._lints = lints
        self._live = LiveProcess(PROCESS)
        self._started_at = monotonic()
        self._last: dict[str, Any] = {"state": "starting"}
        self._tasks = 0
        self._last_figures: ProcessFigures | None = None
        self._traffic = LiveTraffic(self.figures, self._upstreams)

    async def beat(self) -> None:
        """Watch the event loop until cancelled."""
        await self._loop.beat()

    async def status(self) -> dict[str, Any]:
        """The state, with the latest counters; while the event loop is blocked, for how long and where."""

        def ask() -> dict[str, Any]:
            view = self._views[-1]
            self._tasks = trio.lowlevel.current_statistics().tasks_living
            queues = {each.name: each.size for each in view.queues()}
            return {"state": view.state(), **view.statistics(), "queues": queues}

        try:
            self._last = await self._loop.ask(ask)
            blocked = None
        except LoopBlockedError:
            blocked = {"seconds": self._blocked_s(), "at": self._loop.blocked_at()}
        state, summary = self._last["state"], "the event loop runs"
        if blocked is not None:
            state = "blocked"
            summary = self._blocked_sentence()
        process = {
            "pid": os.getpid(),
            "uptime_s": round(monotonic() - self._started_at, 3),
            "state": state,
            "summary": summary,
            "blocked": blocked,
            "lag_s": round(self._loop.lag(), 3),
            "rss": resident(),
            "tasks": self._tasks,
        }
        return {"process": process, **{name: value for name, value in self._last.items() if name != "state"}}

    def _blocked_s(self) -> float:
        """For how many seconds at least a loop that has not answered has been blocked."""
        return round(max(self._loop.blocked_s(), ANSWER_S), 1)

    def _blocked_sentence(self) -> str:
        return f"the event loop has been blocked for {self._blocked_s()} s, at {self._loop.blocked_at()}"

    async def trees(self) -> list[ProcessTree]:
        """The task tree. While the event loop is blocked, it is read from outside, with the place where the loop is."""
        self._live.reader.frames = self._views[-1].frames()
        try:
            await self._loop.ask(_nothing)  # So that a blocked loop is noticed soon, and a large tree has its time.
            return [await self._loop.ask_async(self._live.tree, TREE_S)]
        except LoopBlockedError:
            blocked = Blocked(seconds=self._blocked_s(), at=self._loop.blocked_at())
        root = self._loop.tree(self._live.reader)
        note = "" if root is not None else "the tasks change too fast to be read from outside of the event loop"
        return [ProcessTree(process=PROCESS, pid=os.getpid(), root=root, blocked=blocked, note=note)]

    async def lints(self) -> list[Lint]:
        """The lints. While the event loop is blocked, those that are known, with the step that blocks it."""
        try:
            await self._loop.ask(_nothing)
            return await self._loop.ask_async(self._lints.look, TREE_S)
        except LoopBlockedError:
            lints = self._lints.lints()
        if any(lint.ongoing for lint in lints):
            return lints
        return [running_step(PROCESS, self._loop.blocked_at(), self._blocked_s()), *lints]

    async def figures(self) -> list[ProcessFigures]:
        """The figures of the process; while its event loop is blocked, the latest ones and ``umbel_worker_stale 1``."""
        try:
            self._last_figures = await self._loop.ask(lambda: self._views[-1].figures())
            stale = 0.0
        except LoopBlockedError:
            stale = 1.0
        worker: Labels = (PROCESS,)
        values: dict[str, list[tuple[Labels, Value]]] = {
            catalogue.WORKER_STALE.name: [(worker, stale)],
            catalogue.LOOP_LAG.name: [(worker, self._loop.lag())],
            catalogue.WORKER_MEMORY.name: [(worker, resident())],
        }
        own = ProcessFigures(process=PROCESS, pid=os.getpid(), values=values)
        return [own] if self._last_figures is None else [own, self._last_figures]

    async def slow(self) -> dict[str, Any]:
        """The kept requests, read from outside the event loop, so also while it is blocked."""
        kept = self._views[-1].kept_requests()
        return as_answer({PROCESS: Listing() if kept is None else kept.listing()})

    async def slow_request(self, request: str) -> dict[str, Any] | None:
        """The timeline of a kept request, as ``AdminSource``."""
        kept = self._views[-1].kept_requests()
        timeline = None if kept is None else kept.find(request)
        return None if timeline is None else as_request(PROCESS, request, timeline)

    def topics(self) -> dict[str, Topic]:
        """The task tree, lints, the state of the process, its traffic, kept requests and reloads."""
        return topics_of(self, self._traffic, _never_reloaded)

    async def _upstreams(self) -> dict[str, Snapshots | None]:
        try:
            return {PROCESS: await self._loop.ask(lambda: self._views[-1].upstreams())}
        except LoopBlockedError:
            return {PROCESS: None}

    async def plan(self, route: str) -> dict[str, Any] | None:
        """The plans of a route, as ``AdminSource``."""
        return await trio.to_thread.run_sync(self._views[-1].plan, route)

    async def configuration(self) -> dict[str, Any]:
        """The configuration, as ``AdminSource``."""
        return await trio.to_thread.run_sync(self._views[-1].configuration)

    async def metrics(self, *, openmetrics: bool) -> Metrics:
        """The metrics of ``figures``."""
        return await metrics_of(await self.figures(), openmetrics=openmetrics)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As the process says; not ready while its event loop is blocked."""
        ready, details = self._views[-1].readiness()
        blocked = self._loop.blocked_s()
        return ready and not blocked, {**details, "blocked_s": round(blocked, 1)}

    async def command(self, name: str, arguments: bytes) -> dict[str, Any]:
        """As ``AdminSource``: ``reopen``, ``log-level`` and ``stop``; the other commands need a master."""
        if name not in ("reopen", "log-level", "stop"):
            raise CommandError(f"{name} needs a master: umbel serve -w N")
        try:
            given = msgspec.json.decode(arguments or b"{}", type=Arguments)
        except msgspec.DecodeError as error:
            raise CommandError(f"the arguments are invalid: {error}") from error
        if name == "stop":
            return _stop(quick=given.quick)
        if name == "log-level":
            return await self._set_log_level(given.level)
        try:
            await self._loop.ask_async(self._views[-1].reopen, REOPEN_S)
        except LoopBlockedError as error:
            raise CommandError(f"the log files were not reopened: {error}") from error
        return {}

    async def _set_log_level(self, level: LevelName | None) -> dict[str, Any]:
        if level is None:
            raise CommandError(LEVEL_NEEDED)
        try:
            if not await self._loop.ask(lambda: self._views[-1].set_log_level(level)):
                raise CommandError("this process has no log app whose level could be set")
        except LoopBlockedError as error:
            raise CommandError(f"the level was not set: {error}") from error
        return {"level": level}


async def _never_reloaded() -> dict[str, Any]:
    """The reloads of a process without a master: there are none."""
    return {"generation": 1, "last_reload": None}


def _nothing() -> None:
    """Ask the event loop only whether it runs."""


def _stop(*, quick: bool) -> dict[str, Any]:
    """Send this process the signal that stops it.

    Raises:
        CommandError: the process does not handle the signal, which would end it without a stop.
    """
    number = signal.SIGQUIT if quick else signal.SIGTERM
    if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN, None):
        raise CommandError(f"this process does not handle {number.name}; stop it by its own means")
    os.kill(os.getpid(), number)
    return {}


def as_dict(snapshot: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary; an empty one for anything else."""
    return asdict(snapshot) if is_dataclass(snapshot) and not isinstance(snapshot, type) else {}
