"""One worker as the master sees it: from its spawn to its end, with every limit of time that holds for it.

A task per worker. It decides nothing about the slot; it tells what happened, and sees to it that a worker that is
late, hung or overdue ends.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from ..control import messages
from ..control.channel import Channel
from .console_output import ConsoleOutput
from .exit_status import Exit, ExitClass, classify
from .options import ABORT_S, QUICK_S, Options
from .spawn import Spawned, spawn

TAIL_BYTES = 8 * 1024
"""The end of a worker's stderr that its last record holds."""
_FAREWELL_S = 1.0
"""How long a dead worker's pipes are read: a process that it had started may hold them open."""
_VMSTAT = Path("/proc/vmstat")
_BLOCKED = re.compile(r'most recent call first\):\n  File "([^\n"]+)", line (\d+) in ([^\n]+)')
"""The innermost frame of the thread that got SIGABRT, as faulthandler writes it."""


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
class Job:
    """What a worker is started with."""

    start: messages.Start
    title: str

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The listening sockets that it inherits."""
        return (*self.start.secure, *self.start.insecure)


class Worker:
    """One process. ``run`` is its whole life."""

    def __init__(self, job: Job, options: Options, console: ConsoleOutput) -> None:
        self.slot = job.start.slot
        self.generation = job.start.generation
        self.pid = 0
        """0 until there is a process."""
        self.spawned_at = trio.current_time()
        self.ready_at: float | None = None
        self.draining = False
        self.beat: messages.Heartbeat | None = None
        self.failure: messages.Failed | None = None
        self.tail = bytearray()
        self._job = job
        self._beat_at: float | None = None
        self._process: trio.Process | None = None
        self._channel: Channel | None = None
        self._options = options
        self._console = console
        self._asked: ExitClass | None = None
        self._forced: ExitClass | None = None
        self._kill_at = math.inf
        self._changed = trio.Event()

    async def run(self, on_message: Callable[[messages.Up], None]) -> Exit:
        """Start the process and listen to it until it has ended; ``on_message`` gets all but its heartbeats.

        Cancelled, it kills the process and reaps it.

        Raises:
            OSError: the process cannot be started.
        """
        if self._asked is not None:
            return Exit(self._asked, 0)  # Nobody wants it any more; the sockets may be closed already.
        ooms = _oom_kills()
        spawned = await spawn(self._job.descriptors, self._job.title)
        self._process, self.pid = spawned.process, spawned.process.pid
        self._channel = channel = Channel(spawned.channel)
        channel.send(self._job.start)
        if self._asked is not None:
            self.signal(signal.SIGTERM)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.run)
                nursery.start_soon(self._watch)
                heard = [trio.Event(), trio.Event()]
                nursery.start_soon(self._listen, channel, on_message, heard[0])
                nursery.start_soon(self._relay, spawned.stderr, heard[1])
                status = await spawned.process.wait()
                with trio.move_on_after(_FAREWELL_S):
                    for event in heard:
                        await event.wait()
                nursery.cancel_scope.cancel(reason="the worker has ended")
        finally:
            channel.close()
            await _reap(spawned)
        return classify(status, self._forced, asked=self._asked, oom=_oom_kills() > ooms)

    def send(self, message: messages.Down) -> None:
        """Tell the worker something, if there is one to hear it."""
        if self._channel is not None:
            self._channel.send(message)

    # What the master wants of it.

    def drain(
        self, grace: float, delay: float = 0.0, *, quick: bool = False, why: ExitClass = ExitClass.DRAINED
    ) -> None:
        """Ask it to end, and kill it when its time is over; a second call can only shorten that.

        ``quick``: its time is ``QUICK_S``.
        """
        now = trio.current_time()
        self._asked = self._asked or why
        self.draining = True
        self.send(messages.Drain(grace=grace, delay=delay, quick=quick))
        if self.ready_at is None:
            # It has no loop yet, or one that only starts up; nothing is in flight in it.
            self.signal(signal.SIGTERM)
            limit = QUICK_S
        else:
            limit = QUICK_S if quick else delay + grace + self._options.cancel_timeout
        self._kill_at = min(self._kill_at, now + limit)
        self._changed.set()

    def kill(self) -> None:
        """End it now, as a test of what happens then; it is not told as asked for."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still there to get it."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    # What the log and the status need.

    @property
    def is_ready(self) -> bool:
        """Whether it serves and is to go on."""
        return self.ready_at is not None and not self.draining

    @property
    def is_fresh(self) -> bool:
        """Whether it has given a sign of life lately."""
        return self._beat_at is not None and trio.current_time() - self._beat_at < self._options.hang_timeout

    @property
    def ready_for(self) -> float | None:
        """Seconds since it became ready; None if it is not."""
        return None if self.ready_at is None else trio.current_time() - self.ready_at

    @property
    def requests(self) -> int:
        """Requests that it had taken by its last heartbeat."""
        return 0 if self.beat is None else self.beat.requests

    def blocked_at(self) -> str:
        """Where its main thread stood when it was aborted, such as ``app.py:17 in handler``; empty if unknown."""
        found = _BLOCKED.findall(self.tail.decode("utf-8", "replace"))
        return "{}:{} in {}".format(*found[-1]) if found else ""

    def statistics(self) -> WorkerStatistics:
        """A snapshot."""
        now = trio.current_time()
        state = "draining" if self.draining else "starting" if self.ready_at is None else "serving"
        if state == "serving" and not self.is_fresh:
            state = "silent"
        return WorkerStatistics(
            self.pid,
            self.generation,
            state,
            now - self.spawned_at,
            self.ready_for,
            self.beat,
            None if self._beat_at is None else now - self._beat_at,
        )

    # Its tasks.

    async def _listen(self, channel: Channel, on_message: Callable[[messages.Up], None], heard: trio.Event) -> None:
        async for line in channel.lines():
            try:
                message = messages.decode_up(line)
            except msgspec.DecodeError as error:
                text = f"worker {self.slot} ({self.pid}) sent what is no message: {error}"
                self._console.report("error", "worker.garbled", text)
                self.kill()
                break
            self._beat_at = trio.current_time()
            if isinstance(message, messages.Heartbeat):
                self.beat = message
                continue
            if isinstance(message, messages.Ready):
                self.ready_at = self._beat_at
                self._changed.set()
            elif isinstance(message, messages.Failed):
                self.failure = message
            elif isinstance(message, messages.Bye):
                self.draining = True
            on_message(message)
        heard.set()

    async def _relay(self, stderr: trio.abc.ReceiveStream, heard: trio.Event) -> None:
        """Pass its stderr on, and keep the end of it."""
        try:
            async with stderr:
                while piece := await stderr.receive_some(64 * 1024):
                    self.tail += piece
                    del self.tail[:-TAIL_BYTES]
                    self._console.write(bytes(piece))
        except trio.BrokenResourceError:
            pass
        heard.set()

    async def _watch(self) -> None:
        """End it when one of its times is over: to start, to give a sign of life, to drain."""
        while True:
            self._changed = trio.Event()
            due, _ = self._next_limit()
            with trio.move_on_at(due) as scope:
                await self._changed.wait()
            if not scope.cancelled_caught:
                continue
            # If it was us who slept (a stopped master, a busy machine), what it has said meanwhile is still unread.
            await trio.sleep(min(0.1, self._options.heartbeat_every))
            due, why = self._next_limit()
            if trio.current_time() >= due:
                self._end(why)

    def _next_limit(self) -> tuple[float, ExitClass]:
        if self._forced is not None:
            return self._kill_at, self._forced
        if self.ready_at is None:
            life = self.spawned_at + self._options.start_timeout, ExitClass.LATE
        else:
            life = (self._beat_at or self.ready_at) + self._options.hang_timeout, ExitClass.HANG
        return min(life, (self._kill_at, ExitClass.OVERDUE))

    def _end(self, why: ExitClass) -> None:
        """First a signal that has the stack written, then one that nobody survives."""
        now = trio.current_time()
        if self._forced is not None or now >= self._kill_at:
            self._forced = self._forced or why
            self._kill_at = math.inf
            self.signal(signal.SIGKILL)
            return
        self._forced = why
        self._kill_at = min(self._kill_at, now + ABORT_S)
        self.signal(signal.SIGABRT)


async def _reap(spawned: Spawned) -> None:
    """Whatever happens, no process of ours is left, and no zombie."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + QUICK_S):
        if spawned.process.returncode is None:
            spawned.process.kill()
            await spawned.process.wait()
        await trio.aclose_forcefully(spawned.stderr)


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not tell."""
    try:
        text = _VMSTAT.read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
