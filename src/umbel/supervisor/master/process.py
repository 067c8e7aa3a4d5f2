"""One worker process as the master sees it, from spawn to reap, with every time limit that holds for it.

A task per worker. It reports what the worker sends and how the worker ends; what follows for the slot is decided in
``slot.py``. A worker that is late, hung or overdue is aborted (SIGABRT, at which it writes its stack) and then killed.
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
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from ..control import messages
from ..control.channel import Channel
from .console_output import ConsoleOutput
from .exit_status import Exit, ExitClass, classify
from .options import ABORT_S, QUICK_S, Options

STDERR_TAIL_BYTES = 8 * 1024
"""How much of the end of a worker's stderr is kept for its last record."""
_PIPES_S = 1.0
"""How long the pipes of an ended worker are read: a process that the worker started may keep them open."""
_VMSTAT = Path("/proc/vmstat")
_BLOCKED = re.compile(r'most recent call first\):\n  File "([^\n"]+)", line (\d+) in ([^\n]+)')
"""The innermost frame of the thread that got SIGABRT, as faulthandler writes it."""
_WORKER_MODULE = "umbel.supervisor.worker.worker"
_NOT_FOR_WORKERS = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)
"""Variables by which systemd addresses the master alone."""


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A snapshot of one worker, for ``umbel ctl status``."""

    pid: int
    generation: int
    state: str
    uptime: float
    ready_for: float | None
    beat: messages.Heartbeat | None
    beat_age: float | None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is started: its first message and its process title."""

    start: messages.Start
    title: str

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors of the listening sockets that the worker inherits."""
        return (*self.start.secure, *self.start.insecure)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that has just been started, with the master's ends of the channel and of the stderr pipe."""

    process: trio.Process
    channel: socket.socket
    stderr: trio.abc.ReceiveStream


class Worker:
    """One worker process. ``run`` starts it and returns when it has ended."""

    def __init__(self, spec: WorkerSpec, options: Options, console: ConsoleOutput) -> None:
        self.slot = spec.start.slot
        self.generation = spec.start.generation
        self.pid = 0
        """0 until there is a process."""
        self.spawned_at = trio.current_time()
        self.ready_at: float | None = None
        self.draining = False
        self.last_heartbeat: messages.Heartbeat | None = None
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
        """Start the process and read its messages until it has ended; ``on_message`` gets all but heartbeats.

        Cancelled, it kills and reaps the process.

        Raises:
            OSError: the process cannot be started.
        """
        if self._requested_end is not None:
            return Exit(self._requested_end, 0)  # Drained before it was started; the sockets may be closed already.
        ooms = _oom_kills()
        spawned = await spawn(self._spec.descriptors, self._spec.title)
        self._process, self.pid = spawned.process, spawned.process.pid
        self._channel = channel = Channel(spawned.channel)
        channel.send(self._spec.start)
        if self._requested_end is not None:
            self.signal(signal.SIGTERM)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.run)
                nursery.start_soon(self._enforce_limits)
                read_to_end = [trio.Event(), trio.Event()]
                nursery.start_soon(self._read_messages, channel, on_message, read_to_end[0])
                nursery.start_soon(self._relay_stderr, spawned.stderr, read_to_end[1])
                status = await spawned.process.wait()
                with trio.move_on_after(_PIPES_S):
                    for event in read_to_end:
                        await event.wait()
                nursery.cancel_scope.cancel(reason="the worker has ended")
        finally:
            channel.close()
            await _kill_and_reap(spawned)
        return classify(status, self._forced_end, requested=self._requested_end, oom=_oom_kills() > ooms)

    def send(self, message: messages.MasterMessage) -> None:
        """Send the worker a message, if there is a process."""
        if self._channel is not None:
            self._channel.send(message)

    # Commands.

    def drain(
        self, grace: float, delay: float = 0.0, *, quick: bool = False, why: ExitClass = ExitClass.DRAINED
    ) -> None:
        """Ask the worker to end, and kill it when its time is over. A second call can only shorten the time.

        ``quick``: the time is ``QUICK_S``.
        """
        now = trio.current_time()
        self._requested_end = self._requested_end or why
        self.draining = True
        self.send(messages.Drain(grace=grace, delay=delay, quick=quick))
        if self.ready_at is None:
            # It has no event loop yet, or is starting up: nothing is in flight, and it may not read its messages.
            self.signal(signal.SIGTERM)
            limit = QUICK_S
        else:
            limit = QUICK_S if quick else delay + grace + self._options.cancel_timeout
        self._kill_at = min(self._kill_at, now + limit)
        self._changed.set()

    def kill(self) -> None:
        """Kill the worker as a test of recovery: its end counts as unplanned."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, if the process has not been reaped."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    # State.

    @property
    def is_ready(self) -> bool:
        """Whether the worker is ready and does not drain."""
        return self.ready_at is not None and not self.draining

    @property
    def is_responsive(self) -> bool:
        """Whether the last message came within ``hang_timeout``."""
        return self._heartbeat_at is not None and trio.current_time() - self._heartbeat_at < self._options.hang_timeout

    @property
    def ready_for(self) -> float | None:
        """Seconds since the worker became ready; None if it is not."""
        return None if self.ready_at is None else trio.current_time() - self.ready_at

    @property
    def requests(self) -> int:
        """The number of requests by the last heartbeat."""
        return 0 if self.last_heartbeat is None else self.last_heartbeat.requests

    def blocked_at(self) -> str:
        """Where the main thread was at SIGABRT, such as ``app.py:17 in handler``; empty if unknown."""
        found = _BLOCKED.findall(self.stderr_tail.decode("utf-8", "replace"))
        return "{}:{} in {}".format(*found[-1]) if found else ""

    def statistics(self) -> WorkerStatistics:
        """A snapshot."""
        now = trio.current_time()
        state = "draining" if self.draining else "starting" if self.ready_at is None else "serving"
        if state == "serving" and not self.is_responsive:
            state = "silent"
        return WorkerStatistics(
            self.pid,
            self.generation,
            state,
            now - self.spawned_at,
            self.ready_for,
            self.last_heartbeat,
            None if self._heartbeat_at is None else now - self._heartbeat_at,
        )

    # Tasks.

    async def _read_messages(
        self, channel: Channel, on_message: Callable[[messages.WorkerMessage], None], read_to_end: trio.Event
    ) -> None:
        async for line in channel.lines():
            try:
                message = messages.decode_worker_message(line)
            except msgspec.DecodeError as error:
                text = f"worker {self.slot} ({self.pid}) sent what is no message: {error}"
                self._console.report("error", "worker.garbled", text)
                self.kill()
                break
            self._heartbeat_at = trio.current_time()
            if isinstance(message, messages.Heartbeat):
                self.last_heartbeat = message
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
        """Write the worker's stderr to the console, and keep the end of it."""
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
        """Terminate the worker when a limit is over: ``start_timeout``, ``hang_timeout``, or the time of its drain."""
        while True:
            self._changed = trio.Event()
            due, _ = self._next_limit()
            with trio.move_on_at(due) as scope:
                await self._changed.wait()
            if not scope.cancelled_caught:
                continue
            # If the master was stopped or had no CPU, messages of the worker may be unread: read them first.
            await trio.sleep(min(0.1, self._options.heartbeat_every))
            due, why = self._next_limit()
            if trio.current_time() >= due:
                self._terminate(why)

    def _next_limit(self) -> tuple[float, ExitClass]:
        if self._forced_end is not None:
            return self._kill_at, self._forced_end
        if self.ready_at is None:
            limit = self.spawned_at + self._options.start_timeout, ExitClass.LATE
        else:
            limit = (self._heartbeat_at or self.ready_at) + self._options.hang_timeout, ExitClass.HANG
        return min(limit, (self._kill_at, ExitClass.OVERDUE))

    def _terminate(self, why: ExitClass) -> None:
        """Send SIGABRT, at which the worker writes its stack; ``ABORT_S`` later, SIGKILL."""
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
    """Start a worker by exec of a new interpreter. It then waits for ``start`` on its channel.

    The child inherits ``descriptors`` (the listening sockets) and one end of a socketpair and no others, so that it
    keeps nothing else of the master open. ``title`` is on its command line until the worker sets a process title.

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
    assert process.stderr is not None  # A pipe, as asked for.
    return Spawned(process, ours, process.stderr)


async def _kill_and_reap(spawned: Spawned) -> None:
    """Kill the process if it runs, and reap it, so that neither a process nor a zombie is left."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + QUICK_S):
        if spawned.process.returncode is None:
            spawned.process.kill()
            await spawned.process.wait()
        await trio.aclose_forcefully(spawned.stderr)


def _oom_kills() -> int:
    """Return how many processes the OOM killer has killed since boot; 0 where /proc/vmstat does not say."""
    try:
        text = _VMSTAT.read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
