"""The worker's trio side: the server, and the tasks that talk with the master beside it.

Run once the application is loaded. It never decides to end by itself, except when the master is gone.
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

from ..server.limits import Limits
from ..server.memory import resident
from ..server.service import Service
from ..server.serving import serve
from . import messages
from .channel import Channel
from .exit_status import WORKER_DONE, WORKER_ORPHANED
from .messages import Start
from .options import QUICK_S
from .recording import recording
from .task_tree import task_tree

_FAREWELL_S = 1.0
_QUICK_CLEANUP_S = QUICK_S / 2
"""Of a quick end: what last answers and cleanup get. The rest is for the lifespan's end and the last records."""
_ASK_AGAIN_S = 15.0
"""A worker that was not replaced although it asked, because the new one failed, asks again."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is served, and how."""

    app: Any
    settings: Config
    limits: Limits | None
    """For an application that carries none of its own."""


class Serving:
    """One worker's serving."""

    def __init__(self, start: Start, loaded: Loaded) -> None:
        self.status = WORKER_DONE
        self.is_ready = False
        self.on_ready: Callable[[], object] = _nothing
        """Called once when it is."""
        self._start = start
        self._loaded = loaded
        self._leaving = trio.Event()
        self._cut = trio.CancelScope()
        self._reason = "asked to"

    async def run(self, sock: socket.socket) -> None:
        """Serve until the master says drain, or is gone. ``sock`` is the channel.

        Raises:
            LifespanFailureError: the application failed to start, to live on or to stop.
            OSError: an inherited socket cannot be used.
        """
        self._channel = Channel(sock)
        self._service = Service(self._loaded.app, self._loaded.settings, self._loaded.limits)
        self._service.accept_batch = 1
        self._service.on_late = self._beat_while_busy
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.run)
            app, start = self._loaded.app, self._start
            with self._cut:
                async with recording(app, start.logs, _warn, required=start.logs_required) as recorder:
                    self._service.given_recorder = recorder
                    await self._serve()
            self._channel.send(self._heartbeat(0.0))  # Its numbers are the last ones.
            self._channel.send(messages.Bye(reason=self._reason))
            self._channel.finish()
            nursery.cancel_scope.deadline = trio.current_time() + _FAREWELL_S
        self._channel.close()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            await nursery.start(self._hear_sigterm)

            def ready() -> None:
                self.is_ready = True
                self.on_ready()
                self._channel.send(messages.Ready())
                nursery.start_soon(self._beat)

            await serve(
                self._loaded.app,
                self._loaded.settings,
                service=self._service,
                shutdown_trigger=self._leaving.wait,
                task_status=_OnStarted(ready),
            )
            nursery.cancel_scope.cancel(reason="the worker has served")

    # Down.

    async def _obey(self) -> None:
        async for line in self._channel.lines():
            match messages.decode_down(line):
                case messages.Drain(grace=grace, delay=delay, quick=quick):
                    self._drain(grace, delay, "asked to", quick=quick)
                case messages.State(degraded=degraded):
                    if (tell := getattr(self._loaded.app, "set_degraded", None)) is not None:
                        tell(degraded)
                case messages.ReopenLogs():
                    await self._reopen_logs()
                case messages.AskStats():
                    self._channel.send(self._stats())
                case messages.AskTree():
                    self._channel.send(messages.Tree(lines=task_tree()))
        self.status = WORKER_ORPHANED
        self._drain(self._start.orphan_grace, 0.0, "the master is gone")

    async def _hear_sigterm(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Somebody who knows this process only wants it to end."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._drain(self._loaded.settings.graceful_timeout, 0.0, "SIGTERM")

    def _drain(self, grace: float, delay: float, reason: str, *, quick: bool = False) -> None:
        """End the serving; once asked, only a shorter time changes anything, and ``quick`` cuts at once."""
        again = self._leaving.is_set()
        if not again:
            self._reason = reason
            limits = self._service.limits
            cleanup = min(limits.cancel_timeout, _QUICK_CLEANUP_S) if quick else limits.cancel_timeout
            self._service.limits = replace(limits, drain_delay=delay, cancel_timeout=cleanup)
            self._loaded.settings.graceful_timeout = grace
            self._leaving.set()
        if not self.is_ready or (again and quick):
            self._cut.cancel(reason=f"the worker ends: {reason}")
        latest = trio.current_time() + delay + grace + self._service.limits.cancel_timeout
        self._cut.deadline = min(self._cut.deadline, latest)

    async def _reopen_logs(self) -> None:
        """A recorder that finds out by itself that its files have been renamed needs no word of ours."""
        recorder = self._service.recorder
        if (reopen := getattr(recorder, "reopen", None)) is not None:
            reopen()
        if (flush := getattr(recorder, "flush", None)) is not None:
            await flush()
        self._channel.send(messages.LogsReopened())

    # Up.

    async def _beat(self) -> None:
        """A heartbeat at regular times; each says how late it is, which is how long the loop was held up."""
        due = trio.current_time()
        began, ask_at = due, due
        while True:
            now = trio.current_time()
            beat = self._heartbeat(now - due)
            self._channel.send(beat)
            self._service.late_at = monotonic() + 2 * self._start.heartbeat_every
            if now >= ask_at and (reason := self._outlived(beat, now - began)) and not self._leaving.is_set():
                ask_at = now + _ASK_AGAIN_S
                self._channel.send(messages.Recycle(reason=reason))
            due = max(due, now) + self._start.heartbeat_every
            await trio.sleep_until(due)

    def _beat_while_busy(self) -> None:
        """A heartbeat of a loop that works off so many requests in one go that ``_beat`` does not get its turn.

        It ends requests, so it is not hung, and must not be replaced for being busy.
        """
        self._service.late_at = monotonic() + self._start.heartbeat_every
        self._channel.send_now(self._heartbeat(2 * self._start.heartbeat_every))

    def _heartbeat(self, late: float) -> messages.Heartbeat:
        statistics = self._service.statistics()
        return messages.Heartbeat(
            lag_ms=round(late * 1000, 3),
            inflight=statistics.requests_in_flight,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            rss=resident(),
            connections=statistics.connections,
            requests=statistics.requests_total,
        )

    def _outlived(self, beat: messages.Heartbeat, age: float) -> str:
        """Why this worker should be replaced; empty if it need not be."""
        start = self._start
        if self._service.exhausted.is_set():
            return f"{beat.requests} requests (max_requests)"
        if start.max_rss is not None and beat.rss > start.max_rss:
            return f"{beat.rss} bytes of memory (max_rss)"
        if start.max_lifetime is not None and age > start.max_lifetime:
            return f"{age:.0f} s of life (max_lifetime)"
        return ""

    def _stats(self) -> messages.Stats:
        app = getattr(self._loaded.app, "statistics", None)
        return messages.Stats(server=_plain(self._service.statistics()), app=_plain(app()) if app is not None else {})


class _OnStarted(trio.TaskStatus[list[str]]):
    """Calls a function when the server is ready to answer."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def started(self, value: list[str] | None = None) -> None:
        self._call()


def _nothing() -> None:
    """Where nobody waits for it."""


def _warn(problem: object) -> None:
    sys.stderr.write(f"warning: {problem}\n")


def _plain(snapshot: Any) -> dict[str, Any]:
    """A snapshot as JSON takes it; nothing of one that is no dataclass."""
    return asdict(snapshot) if is_dataclass(snapshot) and not isinstance(snapshot, type) else {}
