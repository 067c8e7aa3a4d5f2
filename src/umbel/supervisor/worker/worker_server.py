"""The server of a worker process, and the tasks that exchange messages with the master.

The server drains when the master sends ``drain``, at SIGTERM, and when the channel ends because the master has ended.
Each drain has a deadline, after which the scope around the server is cancelled. The last messages are sent after that:
a final heartbeat and ``ended``.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from time import monotonic
from typing import Any

import msgspec
import trio
from hypercorn.config import Config

from ...limits.machine_sharing import sharing_by
from ...logs import failing_logs, set_app_level
from ...observe.figures import ProcessFigures
from ...observe.kept_requests import KeptRequests, Listing
from ...observe.lints.log_queues import log_queues
from ...observe.lints.watch import LintWatch
from ...observe.process.live_process import LiveProcess
from ...observe.process.process_figures import process_figures
from ...observe.traffic.upstreams import Snapshots
from ...server.handler import handler_of
from ...server.limits.memory import resident
from ...server.limits.server_limits import Limits
from ...server.serving import serve
from ...server.state import ServerState
from ..control import messages
from ..control.channel import Channel
from ..control.messages import Start
from ..master.exit_status import WORKER_DONE, WORKER_ORPHANED
from ..master.options import QUICK_S
from .block_watch import BlockWatch
from .limit_reports import LimitReports
from .recording import recording

_LAST_MESSAGES_S = 1.0
_QUICK_CLEANUP_S = QUICK_S / 2
"""Seconds of a quick stop for responses and cleanup; the rest is for lifespan shutdown and the last records."""
_FIGURES_S = 1.0
"""Seconds between two messages with changed figures. A killed worker loses what it counted since the last one."""
_RECYCLE_AGAIN_S = 15.0
"""Seconds after which a worker that was not replaced sends ``recycle`` again."""


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An application and the settings of its server."""

    app: Any
    settings: Config
    limits: Limits | None
    """The server's limits, for an application without limits of its own."""


class WorkerServer:
    """The server of an application in a worker process.

    Args:
        start: the first message of the master.
        loaded: the application.
    """

    def __init__(self, start: Start, loaded: LoadedApp) -> None:
        self.status = WORKER_DONE
        """The exit status after ``run`` has returned."""
        self.is_ready = False
        """Whether the lifespan has started and connections are accepted."""
        self.on_ready: Callable[[], object] = _nothing
        """A function that is called once, when the server is ready."""
        self._start = start
        self._loaded = loaded
        self._drain_requested = trio.Event()
        self._serving_scope = trio.CancelScope()
        self._reason = "asked to"
        self._sends_figures = trio.Lock()
        self._live = LiveProcess(f"worker {start.slot}", getattr(loaded.app, "task_frames", None))
        self._lints = LintWatch(f"worker {start.slot}", lambda: log_queues(self._server.recorder))

    async def run(self, sock: socket.socket) -> None:
        """Serve until a drain has ended. ``sock`` is the worker's end of the channel; it is closed at the end.

        A cancel ends the server without the last messages.

        Raises:
            LifespanFailureError: the application's lifespan failed at its startup, while serving or at its shutdown.
            OSError: an inherited socket cannot be used.
        """
        self._channel = Channel(sock)
        self._limit_reports = LimitReports(self._channel)
        app, start = self._loaded.app, self._start
        self._server = ServerState(app, self._loaded.settings, self._loaded.limits, handle=handler_of(app))
        self._server.accept_batch = 1
        self._server.on_late = self._send_heartbeat_while_busy
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.run)
            with self._serving_scope:
                async with recording(
                    app, start.logs, self._server.limits.probes, _warn, required=start.logs_required
                ) as recorder:
                    self._server.given_recorder = recorder
                    await self._serve()
            # Outside of the scope: the last messages must be sent after a cancel too, within a time of their own.
            self._channel.send(self._heartbeat(0.0))  # The final counters.
            self._channel.send(messages.Figures(figures=self._figures()))
            self._channel.send(messages.Ended(reason=self._reason))
            self._channel.finish()
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_MESSAGES_S
        self._channel.close()

    async def _serve(self) -> None:
        """Serve, and handle messages and SIGTERM meanwhile."""
        self._require_keys(self._start.may_lack_keys)
        async with trio.open_nursery() as nursery:
            # Before the lifespan, which may take long: a drain must be able to end it.
            nursery.start_soon(self._handle_messages, nursery)
            await nursery.start(self._drain_on_sigterm)

            def ready() -> None:
                if self._start.log_level is not None:
                    set_app_level(self._server.recorder, self._start.log_level)
                self.is_ready = True
                self.on_ready()
                self._channel.send(messages.Ready(limits=self._limit_reports.identities))
                nursery.start_soon(self._send_heartbeats)
                nursery.start_soon(self._lints.run)
                nursery.start_soon(BlockWatch(self._channel).run)

            await nursery.start(self._limit_reports.run)
            with sharing_by(self._limit_reports):
                await serve(
                    self._loaded.app,
                    self._loaded.settings,
                    server=self._server,
                    shutdown_trigger=self._drain_requested.wait,
                    task_status=_OnStarted(ready),
                )
            nursery.cancel_scope.cancel(reason="the worker has served")

    # Messages of the master.

    async def _handle_messages(self, nursery: trio.Nursery) -> None:
        """Handle the master's messages; at the end of the channel, drain as an orphan.

        What takes more than a moment runs in ``nursery``.
        """
        async for line in self._channel.lines():
            match message := messages.decode_master_message(line):
                case messages.Drain(grace=grace, delay=delay, quick=quick):
                    self._drain(grace, delay, "asked to", quick=quick)
                case messages.State(degraded=degraded):
                    if (set_degraded := getattr(self._loaded.app, "set_degraded", None)) is not None:
                        set_degraded(degraded)
                case messages.ServeWithoutKeys():
                    self._require_keys(None)
                case messages.LimitTats():
                    self._limit_reports.on_tats(message)
                case messages.SetLogLevel(level=level):
                    set_app_level(self._server.recorder, level)
                case messages.ReopenLogs(query=number):
                    await self._reopen_logs(number)
                case messages.StatsQuery(query=number):
                    self._channel.send(self._stats(number))
                case messages.FiguresQuery(query=number):
                    await self._send_figures(number)
                case messages.TreeQuery(query=number):
                    nursery.start_soon(self._send_tree, number)
                case messages.LintsQuery(query=number):
                    nursery.start_soon(self._send_lints, number)
                case messages.UpstreamsQuery(query=number):
                    snapshots: Snapshots = getattr(self._loaded.app, "upstream_snapshots", dict)()
                    self._channel.send(messages.Upstreams(query=number, upstreams=snapshots))
                case messages.SlowQuery(query=number):
                    kept = self._kept_requests()
                    listing = Listing() if kept is None else kept.listing()
                    self._channel.send(messages.Slow(query=number, listing=listing))
                case messages.SlowRequestQuery(query=number, request=request):
                    kept = self._kept_requests()
                    timeline = None if kept is None else kept.find(request)
                    self._channel.send(messages.SlowRequest(query=number, timeline=msgspec.Raw(timeline or b"null")))
        self.status = WORKER_ORPHANED
        self._drain(self._start.orphan_grace, 0.0, "the master is gone")

    async def _drain_on_sigterm(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Drain at SIGTERM, with Hypercorn's ``graceful_timeout``."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._drain(self._loaded.settings.graceful_timeout, 0.0, "SIGTERM")

    def _drain(self, grace: float, delay: float, reason: str, *, quick: bool = False) -> None:
        """Begin the drain. A later call can only shorten it; a later one with ``quick`` cancels it at once."""
        again = self._drain_requested.is_set()
        if not again:
            self._reason = reason
            limits = self._server.limits
            cleanup = min(limits.cancel_timeout, _QUICK_CLEANUP_S) if quick else limits.cancel_timeout
            self._server.limits = replace(limits, drain_delay=delay, cancel_timeout=cleanup)
            self._loaded.settings.graceful_timeout = grace
            self._drain_requested.set()
        if not self.is_ready or (again and quick):
            self._serving_scope.cancel(reason=f"the worker ends: {reason}")
        latest = trio.current_time() + delay + grace + self._server.limits.cancel_timeout
        self._serving_scope.deadline = min(self._serving_scope.deadline, latest)

    def _require_keys(self, may_lack: tuple[str, ...] | None) -> None:
        if (require_keys := getattr(self._loaded.app, "require_keys", None)) is not None:
            require_keys(may_lack)

    async def _reopen_logs(self, query: int) -> None:
        """Reopen the log files, if the recorder has any, then send ``logs_reopened``."""
        recorder = self._server.recorder
        if (reopen := getattr(recorder, "reopen", None)) is not None:
            reopen()
        if (flush := getattr(recorder, "flush", None)) is not None:
            await flush()
        self._channel.send(messages.LogsReopened(query=query))

    # Messages to the master.

    async def _send_heartbeats(self) -> None:
        """Send heartbeats and figures at regular times, and ``recycle`` when a limit is exceeded.

        Each heartbeat states its lateness, which is the time for which the event loop was blocked.
        """
        due = trio.current_time()
        began, ask_at, figures_at = due, due, due
        figures = b""
        while True:
            now = trio.current_time()
            beat = self._heartbeat(now - due)
            self._channel.send(beat)
            self._server.late_at = monotonic() + 2 * self._start.heartbeat_every
            if now >= figures_at:
                figures_at = now + _FIGURES_S
                figures = await self._send_figures(0, figures)
            if (
                now >= ask_at
                and (reason := self._recycle_reason(beat, now - began))
                and not self._drain_requested.is_set()
            ):
                ask_at = now + _RECYCLE_AGAIN_S
                self._channel.send(messages.Recycle(reason=reason))
            due = max(due, now) + self._start.heartbeat_every
            await trio.sleep_until(due)

    def _send_heartbeat_while_busy(self) -> None:
        """Send a heartbeat within a turn of the event loop that is so long that ``_send_heartbeats`` is late.

        A loop that completes requests is busy and not hung: it must not be killed.
        """
        self._server.late_at = monotonic() + self._start.heartbeat_every
        self._channel.send(self._heartbeat(2 * self._start.heartbeat_every))

    def _heartbeat(self, late: float) -> messages.Heartbeat:
        statistics = self._server.statistics()
        return messages.Heartbeat(
            lag_ms=round(late * 1000, 3),
            inflight=statistics.requests_in_flight,
            streams=statistics.streams,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            rss=resident(),
            connections=statistics.connections,
            requests=statistics.requests_total,
            failing_logs=failing_logs(self._server.recorder),
            missing_keys=getattr(self._loaded.app, "missing_keys", ()),
        )

    def _recycle_reason(self, beat: messages.Heartbeat, age: float) -> str:
        """Return the limit that this worker exceeds, as a text for the record; empty if it exceeds none."""
        start = self._start
        if self._server.exhausted.is_set():
            return f"{beat.requests} requests (max_requests)"
        if start.max_rss is not None and beat.rss > start.max_rss:
            return f"{beat.rss} bytes of memory (max_rss)"
        if start.max_lifetime is not None and age > start.max_lifetime:
            return f"{age:.0f} s after its start (max_lifetime)"
        return ""

    def _figures(self) -> ProcessFigures:
        return process_figures(str(self._start.slot), self._loaded.app, self._server)

    async def _send_figures(self, query: int, before: bytes = b"") -> bytes:
        """Send the figures as a message if it differs from the one ``before``; return the message."""
        async with self._sends_figures:  # Figures that were collected later must not be overtaken: sums would fall.
            figures = self._figures()
            # With thousands of time series each of the two steps takes about a millisecond, so they are apart.
            await trio.lowlevel.checkpoint()
            line = messages.encode(messages.Figures(query=query, figures=figures))
            if line != before:
                self._channel.send_line(line)
        return line

    def _kept_requests(self) -> KeptRequests | None:
        kept_requests = getattr(self._loaded.app, "kept_requests", None)
        found: KeptRequests | None = None if kept_requests is None else kept_requests()
        return found

    async def _send_tree(self, query: int) -> None:
        self._channel.send(messages.Tree(query=query, tree=await self._live.tree()))

    async def _send_lints(self, query: int) -> None:
        self._channel.send(messages.Lints(query=query, lints=tuple(await self._lints.look())))

    def _stats(self, query: int) -> messages.Stats:
        app = getattr(self._loaded.app, "statistics", None)
        return messages.Stats(
            query=query,
            server=_as_dict(self._server.statistics()),
            app=_as_dict(app()) if app is not None else {},
            queues={each.name: each.size for each in log_queues(self._server.recorder)},
        )


class _OnStarted(trio.TaskStatus[list[str]]):
    """A task status that calls a function when the server has started."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def started(self, value: list[str] | None = None) -> None:
        self._call()


def _nothing() -> None:
    """The default of ``on_ready``."""


def _warn(problem: object) -> None:
    sys.stderr.write(f"warning: {problem}\n")


def _as_dict(snapshot: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary; an empty one for anything else."""
    return asdict(snapshot) if is_dataclass(snapshot) and not isinstance(snapshot, type) else {}
