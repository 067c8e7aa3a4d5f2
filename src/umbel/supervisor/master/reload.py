"""Rolling replacement of workers: reloads of all slots, and the recycling of single workers.

Replacements run in a task of their own, one slot at a time, so that the master handles signals, deaths and hangs
meanwhile. A worker drains only after its successor is ready, so no replacement reduces the number of ready workers.

Reloads that are requested during a reload are merged into one further reload. That one begins after the requests, so it
reads every change that was made before them. While the master stops, a requested reload fails at once and does nothing,
and one that is under way ends. An unexpected exception aborts a reload, as a wrong configuration does, and never ends
the master.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from ...core.diagnostics.exception_fields import safe_traceback
from ...core.errors import ConfigError
from .console_output import ConsoleOutput
from .exit_status import ExitClass
from .slot import Slot

_STOPPING = "the master is stopping and cannot reload; start it again"


class ReloadTarget(Protocol):
    """The part of the master that a reload needs."""

    console: ConsoleOutput
    generation: int
    stopping: bool

    def slots_in_order(self) -> Sequence[Slot]:
        """Return the present slots."""

    def reload_began(self) -> None:
        """Handle the beginning of a reload."""

    def reload_ended(self) -> None:
        """Handle the end of a reload, whether it succeeded or not."""


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
        self._requested = 0
        self._finished = 0
        self._results: dict[int, str] = {}
        self._recycle: dict[Slot, str] = {}
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

        A request for a slot that waits already changes nothing. A reload makes all waiting requests void.
        """
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

    async def run(self) -> None:
        """Carry out requests until cancelled. A reload comes first: it also replaces the workers to be recycled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
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
        self._running = True
        self._master.reload_began()
        failure = ""
        try:
            try:
                failure = await self._renew_all()
            except Exception as error:  # noqa: BLE001 - a defect in a reload must not end the master and its workers
                failure = self._crashed(error)
            if failure != _STOPPING:
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
        master.generation += 1
        slots = master.slots_in_order()
        for done, slot in enumerate(slots):
            renewed = await slot.renew(ExitClass.DRAINED)
            if master.stopping:  # Whatever ``renew`` says of a slot that was stopped meanwhile.
                return self._refused()
            if not renewed:
                reason = f"the new worker {slot.number} did not get ready"
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
        console.report("info", "worker.recycle", f"worker {slot.number} will be replaced: {reason}", reason=reason)
        if not await slot.renew(ExitClass.RECYCLE):
            text = f"the new worker {slot.number} did not get ready; the old one serves on"
            console.report("error", "worker.recycle_failed", text)
