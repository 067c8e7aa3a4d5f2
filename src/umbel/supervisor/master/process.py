"""One worker process as the master sees it, from spawn to reap, with all of its time limits.

One task runs each worker. It passes on the worker's messages and returns how the worker has ended; ``slot.py`` decides
what follows. At each moment one limit is the next: ``start_timeout`` until the worker is ready, then ``hang_timeout``
since its last message, and the time of its drain. A worker that exceeds one gets SIGABRT, at which it writes its
stacks, and ``ABORT_S`` later SIGKILL. Whatever ends ``run``, the process is killed and reaped.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import trio

from ...core.statistics.recent_maximum import RecentMaximum
from ...observe.catalogue import LAG_PERIOD_S
from ..control import messages
from ..control.channel import Channel
from .console_output import ConsoleOutput
from .exit_status import Exit, ExitClass, classify
from .options import ABORT_S, QUICK_S, Options

SILENT_BEATS = 2
"""A ready worker without a message for so many times ``heartbeat_every`` is silent."""
STDERR_TAIL_BYTES = 8 * 1024
"""The number of last bytes of a worker's stderr that are kept for the record of its end."""
_PIPES_S = 1.0
"""Seconds for which the pipes of an ended worker are still read: a process that it started may keep them open."""
_VMSTAT = Path("/proc/vmstat")
_BLOCKED = re.compile(r'most recent call first\):\n  File "([^\n"]+)", line (\d+) in ([^\n]+)')
"""The innermost frame of the thread that got SIGABRT, as faulthandler writes it."""
_WORKER_MODULE = "umbel.supervisor.worker.worker"
_NOT_FOR_WORKERS = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)
"""Environment variables that systemd means only for the master."""


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A snapshot of one worker. All times are seconds."""

    pid: int
    """The process id; 0 before the start."""
    generation: int
    """The number of the configuration that the worker was started with."""
    state: str
    """``starting``, ``serving``, ``silent`` (ready, but without a message for ``SILENT_BEATS``) or ``draining``."""
    uptime: float
    """The time since the start."""
    ready_for: float | None
    """The time since the worker became ready; None if it never was."""
    beat: messages.Heartbeat | None
    """The latest heartbeat; None if there was none."""
    beat_age: float | None
    """The time since the latest message of any kind; None if there was none."""
    blocked: messages.LoopBlocked | None
    """Where its event loop is blocked and for how long, if a thread of the worker could say so."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is started: its first message, and its process title until the application is known."""

    start: messages.Start
    title: str

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors of the listening sockets that the worker inherits."""
        return (*self.start.secure, *self.start.insecure)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that was just started, with the master's ends of the channel and of the stderr pipe."""

    process: trio.Process
    channel: socket.socket
    stderr: trio.abc.ReceiveStream


class Worker:
    """One worker process. ``run`` starts it, and returns after its end.

    Args:
        spec: how the process is started.
        options: the time limits.
        console: the output for the worker's stderr.
    """

    def __init__(self, spec: WorkerSpec, options: Options, console: ConsoleOutput) -> None:
        self.slot = spec.start.slot
        self.generation = spec.start.generation
        self.pid = 0
        """The process id; 0 before the start."""
        self.spawned_at = trio.current_time()
        self.ready_at: float | None = None
        self.draining = False
        self.last_heartbeat: messages.Heartbeat | None = None
        self._lag = RecentMaximum(LAG_PERIOD_S)
        self._blocked: messages.LoopBlocked | None = None
        self._blocked_at = 0.0
        """When ``_blocked`` came."""
        self.failure: messages.Failed | None = None
        self.stderr_tail = bytearray()
        self._spec = spec
        self._heartbeat_at: float | None = None
        self._process: trio.Process | None = None
        self._channel: Channel | None = None
        self._options = options
        self._console = console
        self._requested_end: ExitClass | None = None
        self._forced_end: ExitClass | None = None
        self._kill_at = math.inf
        self._changed = trio.Event()

    async def run(self, on_message: Callable[[messages.WorkerMessage], None]) -> Exit:
        """Start the process, read its messages until it has ended, and return how it ended.

        ``on_message`` is called in the trio thread with each message that is not a heartbeat. After a ``drain`` before
        the call, no process is started. A cancel kills and reaps the process.

        Raises:
            OSError: the process cannot be started.
        """
        if self._requested_end is not None:
            return Exit(self._requested_end, 0)  # Drained before the start: the sockets may be closed already.
        ooms = _oom_kills()
        spawned = await spawn(self._spec.descriptors, self._spec.title)
        self._process, self.pid = spawned.process, spawned.process.pid
        self._channel = channel = Channel(spawned.channel)
        channel.send(self._spec.start)
        if self._requested_end is not None:  # Drained during the start, when there was no process to signal.
            self.signal(signal.SIGTERM)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.run)
                nursery.start_soon(self._enforce_limits)
                read_to_end = [trio.Event(), trio.Event()]
                nursery.start_soon(self._read_messages, channel, on_message, read_to_end[0])
                nursery.start_soon(self._relay_stderr, spawned.stderr, read_to_end[1])
                status = await spawned.process.wait()
                # The last messages and the last of stderr may say why the worker has ended.
                with trio.move_on_after(_PIPES_S):
                    for event in read_to_end:
                        await event.wait()
                nursery.cancel_scope.cancel(reason="the worker has ended")
        finally:
            channel.close()
            await _kill_and_reap(spawned)
        return classify(status, self._forced_end, requested=self._requested_end, oom=_oom_kills() > ooms)

    def send(self, message: messages.MasterMessage) -> bool:
        """Send a message to the worker, if the process was started. Never waits. As ``Channel.send``."""
        return self._channel is not None and self._channel.send(message)

    @property
    def has_room(self) -> bool:
        """As ``Channel.has_room``."""
        return self._channel is not None and self._channel.has_room

    # Commands.

    def serve_without_keys(self) -> None:
        """Let the worker get ready without the keys that it was to have (``Start.may_lack_keys``)."""
        if self._channel is None:  # The process is being started; its first message is not sent yet.
            self._spec = replace(self._spec, start=msgspec.structs.replace(self._spec.start, may_lack_keys=None))
        else:
            self._channel.send(messages.ServeWithoutKeys())

    def drain(
        self, grace: float, delay: float = 0.0, *, quick: bool = False, why: ExitClass = ExitClass.DRAINED
    ) -> None:
        """Ask the worker to end; ``run`` kills it when its time is over. A second call can only shorten the time.

        A worker that is not ready gets SIGTERM, and has ``QUICK_S``. A ready one has ``delay`` + ``grace`` and
        ``cancel_timeout``; with ``quick``, ``QUICK_S``.

        Args:
            grace: the seconds for requests in flight, before they are cancelled.
            delay: the seconds for which the worker still accepts connections before that.
            quick: whether the worker must end within ``QUICK_S``.
            why: the class of the worker's end, if it ends in time.
        """
        now = trio.current_time()
        self._requested_end = self._requested_end or why
        self.draining = True
        self.send(messages.Drain(grace=grace, delay=delay, quick=quick))
        if self.ready_at is None:
            # Nothing is in flight, and before its event loop runs the worker reads no messages.
            self.signal(signal.SIGTERM)
            limit = QUICK_S
        else:
            limit = QUICK_S if quick else delay + grace + self._options.cancel_timeout
        self._kill_at = min(self._kill_at, now + limit)
        self._changed.set()

    def kill(self) -> None:
        """Send SIGKILL; the end of the worker counts as unplanned."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process was already reaped: its pid may belong to another process by now."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    # State.

    @property
    def is_ready(self) -> bool:
        """Whether the worker has become ready and is not draining."""
        return self.ready_at is not None and not self.draining

    @property
    def is_silent(self) -> bool:
        """Whether the worker is ready and its heartbeat is late: its event loop is blocked, or the process stopped."""
        latest = self._heartbeat_at or self.ready_at
        if latest is None or not self.is_ready:
            return False
        return trio.current_time() - latest > SILENT_BEATS * self._options.heartbeat_every

    @property
    def silent_for(self) -> float:
        """Seconds since the latest message of the worker, or since it became ready; 0 before that."""
        latest = self._heartbeat_at or self.ready_at
        return 0.0 if latest is None else trio.current_time() - latest

    @property
    def missing_keys(self) -> tuple[str, ...]:
        """The keys of ``[auth]`` that the worker has not got yet, by its latest heartbeat."""
        return () if self.last_heartbeat is None else self.last_heartbeat.missing_keys

    @property
    def waits_for_keys(self) -> bool:
        """Whether the worker is ready but for keys: requests that need them get 503, and so does its ``/readyz``."""
        return self.is_ready and bool(self.missing_keys)

    @property
    def is_responsive(self) -> bool:
        """Whether the worker has sent a message within the last ``hang_timeout``."""
        return self._heartbeat_at is not None and trio.current_time() - self._heartbeat_at < self._options.hang_timeout

    @property
    def ready_for(self) -> float | None:
        """Seconds since the worker became ready; None if it never was."""
        return None if self.ready_at is None else trio.current_time() - self.ready_at

    @property
    def requests(self) -> int:
        """The number of requests that the latest heartbeat states; 0 if there was none."""
        return 0 if self.last_heartbeat is None else self.last_heartbeat.requests

    @property
    def lag(self) -> float:
        """Seconds of the highest lateness that a heartbeat of the last ``LAG_PERIOD_S`` states; 0 without one."""
        return self._lag.at(trio.current_time())

    def take_heartbeat(self, beat: messages.Heartbeat) -> None:
        """Keep a heartbeat as the latest one."""
        self.last_heartbeat = beat
        self._lag.add(beat.lag_ms / 1000, trio.current_time())

    @property
    def blocked(self) -> messages.LoopBlocked | None:
        """Where its event loop is blocked, and for how long by now; None: it is not, or the worker could not say so."""
        if self._blocked is None:
            return None
        since = trio.current_time() - self._blocked_at
        return messages.LoopBlocked(seconds=round(self._blocked.seconds + since, 3), at=self._blocked.at)

    def aborted_at(self) -> str:
        """The place of the main thread at SIGABRT, such as ``app.py:17 in handler``; empty if unknown."""
        found = _BLOCKED.findall(self.stderr_tail.decode("utf-8", "replace"))
        return "{}:{} in {}".format(*found[-1]) if found else ""

    def statistics(self) -> WorkerStatistics:
        """A snapshot of the worker."""
        now = trio.current_time()
        state = "draining" if self.draining else "starting" if self.ready_at is None else "serving"
        if self.is_silent:
            state = "silent"
        return WorkerStatistics(
            self.pid,
            self.generation,
            state,
            now - self.spawned_at,
            self.ready_for,
            self.last_heartbeat,
            None if self._heartbeat_at is None else now - self._heartbeat_at,
            self.blocked,
        )

    # Tasks.

    async def _read_messages(
        self, channel: Channel, on_message: Callable[[messages.WorkerMessage], None], read_to_end: trio.Event
    ) -> None:
        """Handle the worker's messages until the channel ends; a message that cannot be decoded kills the worker."""
        async for line in channel.lines():
            try:
                message = messages.decode_worker_message(line)
            except msgspec.DecodeError as error:
                text = f"worker {self.slot} ({self.pid}) sent an invalid message and is killed: {error}"
                self._console.report("error", "worker.garbled", text)
                self.kill()
                break
            if isinstance(message, messages.LoopBlocked):  # A thread has sent it, so the event loop may hang.
                self._blocked, self._blocked_at = message, trio.current_time()
                continue
            self._heartbeat_at = trio.current_time()
            self._blocked = None
            if isinstance(message, messages.Heartbeat):
                self.take_heartbeat(message)
                continue
            if isinstance(message, messages.Ready):
                self.ready_at = self._heartbeat_at
                self._changed.set()
            elif isinstance(message, messages.Failed):
                self.failure = message
            elif isinstance(message, messages.Ended):
                self.draining = True
            on_message(message)
        read_to_end.set()

    async def _relay_stderr(self, stderr: trio.abc.ReceiveStream, read_to_end: trio.Event) -> None:
        """Write the worker's stderr to the console, and keep its last ``STDERR_TAIL_BYTES``."""
        try:
            async with stderr:
                while piece := await stderr.receive_some(64 * 1024):
                    self.stderr_tail += piece
                    del self.stderr_tail[:-STDERR_TAIL_BYTES]
                    self._console.write(bytes(piece))
        except trio.BrokenResourceError:
            pass
        read_to_end.set()

    async def _enforce_limits(self) -> None:
        """Terminate the worker when it exceeds ``start_timeout``, ``hang_timeout`` or the time of its drain."""
        while True:
            self._changed = trio.Event()
            due, _ = self._next_limit()
            with trio.move_on_at(due) as scope:
                await self._changed.wait()
            if not scope.cancelled_caught:
                continue
            # If the master itself was stopped or had no CPU, heartbeats may still be unread: let them be read first.
            await trio.sleep(min(0.1, self._options.heartbeat_every))
            due, why = self._next_limit()
            if trio.current_time() >= due:
                self._terminate(why)

    def _next_limit(self) -> tuple[float, ExitClass]:
        """Return the time of the next limit, and the class of a worker that exceeds it."""
        if self._forced_end is not None:
            return self._kill_at, self._forced_end
        if self.ready_at is None:
            limit = self.spawned_at + self._options.start_timeout, ExitClass.LATE
        else:
            limit = (self._heartbeat_at or self.ready_at) + self._options.hang_timeout, ExitClass.HANG
        return min(limit, (self._kill_at, ExitClass.OVERDUE))

    def _terminate(self, why: ExitClass) -> None:
        """Send SIGABRT, at which the worker writes its stacks; SIGKILL at the second call or if no time is left."""
        now = trio.current_time()
        if self._forced_end is not None or now >= self._kill_at:
            self._forced_end = self._forced_end or why
            self._kill_at = math.inf
            self.signal(signal.SIGKILL)
            return
        self._forced_end = why
        self._kill_at = min(self._kill_at, now + ABORT_S)
        self.signal(signal.SIGABRT)


async def spawn(descriptors: Iterable[int], title: str) -> Spawned:
    """Start a worker by exec of a new interpreter, which then waits for ``start`` on its channel.

    The child inherits only ``descriptors`` (the listening sockets) and one end of a socketpair. ``title`` is an
    argument of its command line, until the worker sets its process title.

    Raises:
        OSError: the process cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", _WORKER_MODULE, str(theirs.fileno()), title],
            env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
            pass_fds=(theirs.fileno(), *descriptors),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    assert process.stderr is not None  # Because stderr is PIPE.
    return Spawned(process, ours, process.stderr)


async def _kill_and_reap(spawned: Spawned) -> None:
    """Kill the process if it runs, and reap it. Shielded, for at most ``QUICK_S``."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + QUICK_S):
        if spawned.process.returncode is None:
            spawned.process.kill()
            await spawned.process.wait()
        await trio.aclose_forcefully(spawned.stderr)


def _oom_kills() -> int:
    """Return the number of processes that the OOM killer has killed since boot; 0 if ``/proc/vmstat`` has none."""
    try:
        text = _VMSTAT.read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
