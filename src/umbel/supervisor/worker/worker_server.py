"""The server of a worker process, and the tasks that exchange messages with the master.

A worker ends when the master sends ``drain``, at SIGTERM, or when the channel ends, that is, when the master has ended.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from time import monotonic
from typing import Any

import trio
from hypercorn.config import Config

from ...server.handler import handler_of
from ...server.limits.memory import resident
from ...server.limits.server_limits import Limits
from ...server.serving import serve
from ...server.state import ServerState
from ..control import messages
from ..control.channel import Channel
from ..control.messages import Start
from ..control.task_tree import task_tree
from ..master.exit_status import WORKER_DONE, WORKER_ORPHANED
from ..master.options import QUICK_S
from .recording import recording

_LAST_MESSAGES_S = 1.0
_QUICK_CLEANUP_S = QUICK_S / 2
"""The part of a quick stop for answers and cleanup. The rest is for the end of the lifespan and the last records."""
_RECYCLE_AGAIN_S = 15.0
"""Seconds after which a worker sends ``recycle`` again, if it was not replaced because the new one failed."""


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An application and the settings of its server."""

    app: Any
    settings: Config
    limits: Limits | None
    """The limits for an application that has none of its own."""


class WorkerServer:
    """Serves an application until the worker is to end.

    Args:
        start: the first message of the master.
        loaded: the application.
    """

    def __init__(self, start: Start, loaded: LoadedApp) -> None:
        self.status = WORKER_DONE
        """The exit status, once ``run`` has returned."""
        self.is_ready = False
        self.on_ready: Callable[[], object] = _nothing
        """Called once, when the server is ready."""
        self._start = start
        self._loaded = loaded
        self._drain_requested = trio.Event()
        self._serving_scope = trio.CancelScope()
        self._reason = "asked to"

    async def run(self, sock: socket.socket) -> None:
        """Serve until the worker is to end. ``sock`` is its end of the channel, which this closes.

        Raises:
            LifespanFailureError: the application failed to start, to live on or to stop.
            OSError: an inherited socket cannot be used.
        """
        self._channel = Channel(sock)
        app, start = self._loaded.app, self._start
        self._server = ServerState(app, self._loaded.settings, self._loaded.limits, handle=handler_of(app))
        self._server.accept_batch = 1
        self._server.on_late = self._send_heartbeat_while_busy
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.run)
            with self._serving_scope:
                async with recording(app, start.logs, _warn, required=start.logs_required) as recorder:
                    self._server.given_recorder = recorder
                    await self._serve()
            self._channel.send(self._heartbeat(0.0))  # The final counters.
            self._channel.send(messages.Ended(reason=self._reason))
            self._channel.finish()
            nursery.cancel_scope.deadline = trio.current_time() + _LAST_MESSAGES_S
        self._channel.close()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._handle_messages)
            await nursery.start(self._drain_on_sigterm)

            def ready() -> None:
                self.is_ready = True
                self.on_ready()
                self._channel.send(messages.Ready())
                nursery.start_soon(self._send_heartbeats)

            await serve(
                self._loaded.app,
                self._loaded.settings,
                server=self._server,
                shutdown_trigger=self._drain_requested.wait,
                task_status=_OnStarted(ready),
            )
            nursery.cancel_scope.cancel(reason="the worker has served")

    # Messages of the master.

    async def _handle_messages(self) -> None:
        async for line in self._channel.lines():
            match messages.decode_master_message(line):
                case messages.Drain(grace=grace, delay=delay, quick=quick):
                    self._drain(grace, delay, "asked to", quick=quick)
                case messages.State(degraded=degraded):
                    if (set_degraded := getattr(self._loaded.app, "set_degraded", None)) is not None:
                        set_degraded(degraded)
                case messages.ReopenLogs():
                    await self._reopen_logs()
                case messages.StatsQuery():
                    self._channel.send(self._stats())
                case messages.TreeQuery():
                    self._channel.send(messages.Tree(lines=task_tree()))
        self.status = WORKER_ORPHANED
        self._drain(self._start.orphan_grace, 0.0, "the master is gone")

    async def _drain_on_sigterm(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Drain at a SIGTERM, as at the master's ``drain``."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._drain(self._loaded.settings.graceful_timeout, 0.0, "SIGTERM")

    def _drain(self, grace: float, delay: float, reason: str, *, quick: bool = False) -> None:
        """Stop serving. A second call can only shorten the time; with ``quick`` it cancels at once what is left."""
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

    async def _reopen_logs(self) -> None:
        """Reopen the log files, if the recorder can, and then answer the master."""
        recorder = self._server.recorder
        if (reopen := getattr(recorder, "reopen", None)) is not None:
            reopen()
        if (flush := getattr(recorder, "flush", None)) is not None:
            await flush()
        self._channel.send(messages.LogsReopened())

    # Messages to the master.

    async def _send_heartbeats(self) -> None:
        """Send a heartbeat at regular times. Each has its own lateness: for so long the loop was blocked."""
        due = trio.current_time()
        began, ask_at = due, due
        while True:
            now = trio.current_time()
            beat = self._heartbeat(now - due)
            self._channel.send(beat)
            self._server.late_at = monotonic() + 2 * self._start.heartbeat_every
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
        """Send a heartbeat from a loop that handles so many requests in one turn that ``_send_heartbeats`` cannot run.

        Such a loop completes requests: it is busy and not hung, and must not be killed.
        """
        self._server.late_at = monotonic() + self._start.heartbeat_every
        self._channel.send_now(self._heartbeat(2 * self._start.heartbeat_every))

    def _heartbeat(self, late: float) -> messages.Heartbeat:
        statistics = self._server.statistics()
        return messages.Heartbeat(
            lag_ms=round(late * 1000, 3),
            inflight=statistics.requests_in_flight,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            rss=resident(),
            connections=statistics.connections,
            requests=statistics.requests_total,
        )

    def _recycle_reason(self, beat: messages.Heartbeat, age: float) -> str:
        """The limit that this worker has exceeded, so that it is to be replaced; empty if there is none."""
        start = self._start
        if self._server.exhausted.is_set():
            return f"{beat.requests} requests (max_requests)"
        if start.max_rss is not None and beat.rss > start.max_rss:
            return f"{beat.rss} bytes of memory (max_rss)"
        if start.max_lifetime is not None and age > start.max_lifetime:
            return f"{age:.0f} s of life (max_lifetime)"
        return ""

    def _stats(self) -> messages.Stats:
        app = getattr(self._loaded.app, "statistics", None)
        return messages.Stats(
            server=_as_dict(self._server.statistics()), app=_as_dict(app()) if app is not None else {}
        )


class _OnStarted(trio.TaskStatus[list[str]]):
    """Calls a function when the server has started."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def started(self, value: list[str] | None = None) -> None:
        self._call()


def _nothing() -> None:
    """The default of ``on_ready``."""


def _warn(problem: object) -> None:
    sys.stderr.write(f"warning: {problem}\n")


def _as_dict(snapshot: Any) -> dict[str, Any]:
    """A dataclass as a dictionary; an empty one of anything else."""
    return asdict(snapshot) if is_dataclass(snapshot) and not isinstance(snapshot, type) else {}
