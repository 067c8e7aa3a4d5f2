"""Rolling replacement of workers: reloads of all slots, and the recycling of single workers.

Replacements run in a task of their own, one slot at a time, so that the master handles signals, deaths and hangs
meanwhile. A worker drains only after its successor is ready, so no replacement reduces the number of ready workers.

A successor whose keys of ``[auth]`` have not come, while the old worker has its own, does not get ready. That aborts a
reload as any failure does. A recycle is put off instead, and tried again after the delays of ``Backoff`` until it
succeeds, fails otherwise, or the worker has ended. Meanwhile the worker may exceed its limit: a worker that is too
large or too old answers, and one without keys refuses every token.

Reloads that are requested during a reload are merged into one further reload. That one begins after the requests, so it
reads every change that was made before them. While the master stops, a requested reload fails at once and does nothing,
and one that is under way ends. An unexpected exception aborts a reload, as a wrong configuration does, and never ends
the master.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from time import time
from typing import Protocol

import trio

from ...core.diagnostics.exception_fields import safe_traceback
from ...core.errors import ConfigError
from .backoff import Backoff
from .console_output import ConsoleOutput
from .exit_status import ExitClass
from .options import Options
from .process import Worker
from .slot import Slot

_STOPPING = "the master is stopping and cannot reload; start it again"


class ReloadTarget(Protocol):
    """The part of the master that a reload needs."""

    console: ConsoleOutput
    options: Options
    random: Random
    generation: int
    stopping: bool

    def slots_in_order(self) -> Sequence[Slot]:
        """Return the present slots."""

    def reload_began(self) -> None:
        """Handle the beginning of a reload."""

    def reload_ended(self) -> None:
        """Handle the end of a reload, whether it succeeded or not."""


@dataclass(slots=True)
class _PutOff:
    """A recycle that is tried again."""

    worker: Worker | None
    """The worker to be replaced."""
    reason: str
    due: float = 0.0
    """The time of the next try; in the past if a reload has come first."""
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class LastReload:
    """A reload that has ended."""

    at: float
    """Its end, in seconds since the epoch."""
    failure: str
    """Why it failed; empty: it did not."""
    read: bool
    """Whether the configuration was read; new workers use it, also if the reload failed later."""


class Reloader:
    """The requested reloads and recycles, and the task that carries them out."""

    def __init__(self, master: ReloadTarget, reread: Callable[[bool], Awaitable[None]]) -> None:
        """Initialize.

        Args:
            master: the owner of the slots.
            reread: reads the configuration anew and gives it to ``master``, or raises ``ConfigError``. Its argument
                says whether the configuration may have lost its routes.
        """
        self._master = master
        self._reread = reread
        self._allow_empty = False
        """The argument of ``reread`` for the next reload."""
        self.ended: Counter[str] = Counter(ok=0, failed=0)
        """The number of reloads that have ended, by result. A reload that a stop has ended has none."""
        self.last: LastReload | None = None
        """The last reload that has ended; None: there was none."""
        self._requested = 0
        self._finished = 0
        self._results: dict[int, str] = {}
        self._recycle: dict[Slot, str] = {}
        self._put_off: dict[Slot, _PutOff] = {}
        self._changed = trio.Event()
        self._ended = trio.Event()

    def request(self, *, allow_empty: bool = False) -> int:
        """Request a reload; return its number, for ``wait_for``.

        Requests during a reload share one further reload and its number. ``allow_empty`` accepts a configuration that
        has lost its routes; it then holds for all requests that share the reload.
        """
        self._allow_empty |= allow_empty
        self._requested = self._finished + (2 if self._running else 1)
        self._changed.set()
        return self._requested

    def recycle(self, slot: Slot, reason: str) -> None:
        """Request the replacement of one slot's worker; ``reason`` is for the record.

        A request for a slot that waits already, or whose replacement is put off, changes nothing. A reload makes all
        waiting requests void.
        """
        if (put_off := self._put_off.get(slot)) is not None and put_off.worker is slot.worker:
            return
        self._recycle.setdefault(slot, reason)
        self._changed.set()

    async def wait_for(self, number: int) -> str:
        """Wait for the end of the reload with this number; return why it failed, or an empty text.

        A cancel ends the wait and not the reload.
        """
        while self._finished < number:
            await self._ended.wait()
        return self._results.get(number, "")

    _running = False
    _read = False
    """Whether the present reload has read the configuration."""

    async def run(self) -> None:
        """Carry out requests until cancelled. A reload comes first: it also replaces the workers to be recycled."""
        while True:
            with trio.move_on_at(min((each.due for each in self._put_off.values()), default=inf)):
                await self._changed.wait()
            self._changed = trio.Event()
            self._try_again()
            while self._requested > self._finished or self._recycle:
                if self._requested > self._finished:
                    await self._reload()
                else:
                    slot, reason = next(iter(self._recycle.items()))
                    del self._recycle[slot]
                    await self._renew_one(slot, reason)

    async def _reload(self) -> None:
        self._recycle.clear()
        if self._master.stopping:
            self._finish(self._refused())
            return
        self._running, self._read = True, False
        self._master.reload_began()
        failure = ""
        try:
            try:
                failure = await self._renew_all()
            except Exception as error:  # noqa: BLE001 - a defect in a reload must not end the master and its workers
                failure = self._crashed(error)
            if failure != _STOPPING:
                self.last = LastReload(time(), failure, self._read)
                self.ended["failed" if failure else "ok"] += 1
        finally:
            self._running = False
            self._master.reload_ended()
            self._finish(failure)

    def _finish(self, failure: str) -> None:
        """Give the result to the tasks that wait for the reload."""
        previous = self._results.get(self._finished, "")
        self._finished += 1
        # Two results: during a stop the next reload may fail before those who wait for this one have run.
        self._results = {self._finished - 1: previous, self._finished: failure}
        self._ended.set()
        self._ended = trio.Event()

    def _refused(self) -> str:
        """Report that the master is stopping; return the reason for those who wait for the reload."""
        self._master.console.report("warning", "reload.aborted", _STOPPING, reason=_STOPPING)
        return _STOPPING

    def _crashed(self, error: Exception) -> str:
        """Report an unexpected exception of a reload; return the reason for those who wait for the reload."""
        reason = f"an internal error, {type(error).__name__}; the master's stderr has its traceback"
        text = f"{reason}\nthe present workers serve on\n{safe_traceback(error)}".rstrip()
        self._master.console.report("error", "reload.aborted", text, reason=reason)
        return reason

    async def _renew_all(self) -> str:
        """Read the configuration and replace all workers; return why the reload was aborted, or an empty text."""
        master, console = self._master, self._master.console
        began = trio.current_time()
        console.report("info", "reload.started", "the reload replaces each worker by a new one, slot by slot")
        allow_empty, self._allow_empty = self._allow_empty, False
        try:
            await self._reread(allow_empty)
        except ConfigError as error:
            reason = f"the configuration cannot be used: {error}"
            console.report("error", "reload.aborted", f"{reason}\nthe present workers serve on", reason=str(error))
            return reason
        self._read = True
        master.generation += 1
        slots = master.slots_in_order()
        for done, slot in enumerate(slots):
            renewed = await slot.renew(ExitClass.DRAINED)
            if master.stopping:  # Whatever ``renew`` says of a slot that was stopped meanwhile.
                return self._refused()
            if not renewed.succeeded:
                reason = f"the new worker {slot.number} did not get ready"
                if renewed.missing_keys:
                    reason += f", because {renewed.missing_keys}"
                console.report(
                    "error",
                    "reload.aborted",
                    f"{reason}; {len(slots) - done} old workers serve on, {done} were replaced",
                    reason=reason,
                    renewed=done,
                )
                return reason
        took = trio.current_time() - began
        console.report("info", "reload.done", f"{len(slots)} workers replaced in {took:.2f} s", seconds=round(took, 3))
        return ""

    async def _renew_one(self, slot: Slot, reason: str) -> None:
        console = self._master.console
        put_off = self._put_off.get(slot)
        worker = slot.worker
        if put_off is None:
            console.report("info", "worker.recycle", f"worker {slot.number} will be replaced: {reason}", reason=reason)
        renewed = await slot.renew(ExitClass.RECYCLE)
        if renewed.missing_keys and slot.worker is worker:
            self._put_off_recycle(slot, put_off or _PutOff(worker, reason), renewed.missing_keys)
            return
        self._put_off.pop(slot, None)
        if not renewed.succeeded:
            text = f"the new worker {slot.number} did not get ready; the old one serves on"
            console.report("error", "worker.recycle_failed", text)

    def _put_off_recycle(self, slot: Slot, put_off: _PutOff, missing_keys: str) -> None:
        master = self._master
        delay = put_off.backoff.after_death(None, master.options.restart_max_delay, master.random)
        put_off.due = trio.current_time() + delay
        self._put_off[slot] = put_off
        self._recycle.pop(slot, None)  # The worker has asked again meanwhile.
        text = f"worker {slot.number} serves on and will be replaced later ({put_off.reason}), because {missing_keys}"
        master.console.report("warning", "worker.recycle_put_off", text, reason=put_off.reason, seconds=round(delay, 3))

    def _try_again(self) -> None:
        """Request the recycles that were put off and are due; forget those whose worker has ended."""
        now = trio.current_time()
        for slot, put_off in list(self._put_off.items()):
            if put_off.worker is not slot.worker:
                del self._put_off[slot]
            elif put_off.due <= now:
                self._recycle.setdefault(slot, put_off.reason)
