"""Replacing workers on purpose: reloads of all slots, and single workers that asked for it. One at a time.

A task of the master's, so that signals, deaths and hangs are dealt with meanwhile. A worker is replaced only by one
that is ready, so the capacity never falls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from ...core.errors import ConfigError
from .console_output import ConsoleOutput
from .exit_status import ExitClass
from .slot import Slot


class Reloadable(Protocol):
    """What a reload needs of the master."""

    console: ConsoleOutput
    generation: int

    def slots_in_order(self) -> Sequence[Slot]:
        """The slots at the moment."""

    def reload_began(self) -> None:
        """Hear of it."""

    def reload_ended(self) -> None:
        """Hear of it, whatever came of it."""


class Reloader:
    """The queue of wishes, and the task that fulfils them."""

    def __init__(self, master: Reloadable, reread: Callable[[bool], Awaitable[None]]) -> None:
        """``reread`` reads the configuration anew and gives it to the master; it raises ``ConfigError``.

        It is told whether the configuration may have lost its routes.
        """
        self._master = master
        self._reread = reread
        self._allow_empty = False
        """Of the next reload."""
        self._requested = 0
        self._finished = 0
        self._results: dict[int, str] = {}
        self._recycle: dict[Slot, str] = {}
        self._changed = trio.Event()
        self._ended = trio.Event()

    def request(self, *, allow_empty: bool = False) -> int:
        """Ask for a reload; while one runs, any number of further requests are one. Gives its number."""
        self._allow_empty |= allow_empty
        self._requested = self._finished + (2 if self._running else 1)
        self._changed.set()
        return self._requested

    def recycle(self, slot: Slot, reason: str) -> None:
        """Ask for a fresh worker in this slot."""
        self._recycle.setdefault(slot, reason)
        self._changed.set()

    async def wait_for(self, number: int) -> str:
        """Wait for the end of a requested reload; gives why it failed, or nothing."""
        while self._finished < number:
            await self._ended.wait()
        return self._results.get(number, "")

    _running = False

    async def run(self) -> None:
        """Fulfil wishes until cancelled; a reload comes before single workers, which it replaces too."""
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
        self._running = True
        self._recycle.clear()
        self._master.reload_began()
        failure = ""
        try:
            failure = await self._renew_all()
        finally:
            self._running = False
            self._finished += 1
            self._results = {self._finished: failure}
            self._master.reload_ended()
            self._ended.set()
            self._ended = trio.Event()

    async def _renew_all(self) -> str:
        """Why it was given up; empty if every slot has a fresh worker."""
        master, console = self._master, self._master.console
        began = trio.current_time()
        console.report("info", "reload.started", "a reload: each worker is replaced by a fresh one, slot by slot")
        allow_empty, self._allow_empty = self._allow_empty, False
        try:
            await self._reread(allow_empty)
        except ConfigError as error:
            reason = f"the configuration cannot be used: {error}"
            console.report(
                "error", "reload.aborted", f"{reason}\nthe workers that were there serve on", reason=str(error)
            )
            return reason
        master.generation += 1
        slots = master.slots_in_order()
        for done, slot in enumerate(slots):
            if not await slot.renew(ExitClass.DRAINED):
                reason = f"the new worker {slot.number} did not get ready"
                console.report(
                    "error",
                    "reload.aborted",
                    f"{reason}; the old one and {len(slots) - done - 1} further ones serve on, {done} are new",
                    reason=reason,
                    renewed=done,
                )
                return reason
        took = trio.current_time() - began
        console.report("info", "reload.done", f"{len(slots)} workers replaced in {took:.2f} s", seconds=round(took, 3))
        return ""

    async def _renew_one(self, slot: Slot, reason: str) -> None:
        console = self._master.console
        console.report("info", "worker.recycle", f"worker {slot.number} is to be replaced: {reason}", reason=reason)
        if not await slot.renew(ExitClass.RECYCLE):
            console.report(
                "error", "worker.recycle_failed", f"the old worker {slot.number} serves on, the new one failed"
            )
