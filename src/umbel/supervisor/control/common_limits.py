"""The master's side of limits that its workers share (``limits/sharing.py`` has the theory)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import trio

from ...limits.sharing import CommonTats, MasterShare, Report, Spent, key_of_wire, wire_key
from ...policy.gcra import NEVER
from ..master.process import Worker
from . import messages

_MESSAGES_AT_ONCE = 4
"""The bound on the messages about a limit to one worker in one step: further ones follow in the next step."""


class CommonLimits:
    """The common TATs of all limits, which the workers report and get.

    Args:
        clock: CLOCK_MONOTONIC, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._shares: dict[str, MasterShare] = {}
        self._syncs: dict[str, float] = {}
        self._workers: set[Worker] = set()
        self._changed = trio.Event()

    def on_message(self, worker: Worker, message: messages.WorkerMessage) -> None:
        """Merge a report of a worker; a worker that is ready is to get everything that is spent."""
        now = self._clock()
        if isinstance(message, messages.Ready):
            self._workers.add(worker)
            for share in self._shares.values():
                share.add(worker, now)
        elif isinstance(message, messages.LimitSpent):
            self._share(message, now).count(worker, _report(message), now)
        else:
            return
        self._changed.set()

    def on_worker_exit(self, worker: Worker) -> None:
        """Forget a worker. What it reported stays spent."""
        self._workers.discard(worker)
        for share in self._shares.values():
            share.forget(worker)

    def statistics(self) -> dict[str, Any]:
        """The keys of each limit, by its name."""
        return {name: {"keys": len(share), "evicted": share.evicted} for name, share in self._shares.items()}

    async def run(self) -> None:
        """Send the workers what they are to get, until a cancel."""
        while True:
            await self._changed.wait()
            await trio.sleep(min(self._syncs.values(), default=0.0) / 2)
            self._changed = trio.Event()
            if self._send():
                self._changed.set()

    def _share(self, message: messages.LimitSpent, now: float) -> MasterShare:
        share = self._shares.get(message.limit)
        if share is None:
            share = self._shares[message.limit] = MasterShare(message.keys_max, message.width)
            for worker in self._workers:
                share.add(worker, now)
        self._syncs[message.limit] = message.sync
        return share

    def _send(self) -> bool:
        """Send what the workers are to get. Return whether something is left, because it is much or was refused."""
        left = False
        for name, share in [*self._shares.items()]:
            for worker in self._workers:
                left |= self._send_to(worker, name, share)
            if share.is_idle(self._clock()):  # No configuration that is in use may have this limit any more.
                del self._shares[name], self._syncs[name]
        return left

    def _send_to(self, worker: Worker, name: str, share: MasterShare) -> bool:
        for _ in range(_MESSAGES_AT_ONCE):
            tats = share.tats_for(worker)
            if tats is None:
                return False
            if not worker.send(_message(name, tats)):
                return True
            share.sent(worker, tats)
        return True


def _report(message: messages.LimitSpent) -> Report:
    spent = {key_of_wire(text): Spent(seconds, tat) for text, seconds, tat in message.spent}
    return Report(message.number, spent)


def _message(name: str, common: CommonTats) -> messages.LimitTats:
    # A key that the full table has evicted meanwhile has no TAT to send.
    tats = tuple((wire_key(key), tat) for key, tat in common.tats if tat > NEVER)
    return messages.LimitTats(limit=name, counted=common.counted, tats=tats)
