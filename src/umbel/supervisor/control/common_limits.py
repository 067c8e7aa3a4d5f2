"""The master's side of limits that its workers share (``limits/sharing.py`` has the theory)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic

import trio

from ...limits.limiter import name_of_identity
from ...limits.sharing import RETRY_S, CommonTats, MasterShare, Report, Spent, key_of_wire, wire_key
from ...policy.gcra import NEVER
from ..master.process import Worker
from . import messages


class CommonLimits:
    """The common TATs of all limits, which the workers report and get.

    A limit is kept as long as a worker has it, and also while no worker is ready: the next one gets what was spent.

    Args:
        clock: CLOCK_MONOTONIC, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._shares: dict[str, MasterShare] = {}
        """By the identity of the limit."""
        self._syncs: dict[str, float] = {}
        self._workers: dict[Worker, set[str]] = {}
        """The identities of the limits that each worker has."""
        self._evicted: Counter[str] = Counter()
        """Live keys that were evicted from limits which are not kept any more, by the name of the limit."""
        self._changed = trio.Event()

    def on_message(self, worker: Worker, message: messages.WorkerMessage) -> None:
        """Merge a report of a worker; a worker that is ready is to get everything that is spent of its limits."""
        now = self._clock()
        if isinstance(message, messages.Ready):
            for identity in message.limits:
                self._add(worker, identity, now)
            self._workers.setdefault(worker, set())
            self._drop_unused()
        elif isinstance(message, messages.LimitSpent):
            share = self._share(message)
            self._add(worker, message.limit, now)
            share.count(worker, _report(message), now)
        else:
            return
        self._changed.set()

    def on_worker_exit(self, worker: Worker) -> None:
        """Forget a worker. What it reported stays spent."""
        self._workers.pop(worker, None)
        for share in self._shares.values():
            share.forget(worker)
        self._drop_unused()

    def statistics(self) -> dict[str, dict[str, int]]:
        """The keys of each limit, and how many live ones were evicted since the start, by the name of the limit."""
        found = {name: {"keys": 0, "evicted": evicted} for name, evicted in self._evicted.items()}
        for identity, share in self._shares.items():
            each = found.setdefault(name_of_identity(identity), {"keys": 0, "evicted": 0})
            each["keys"] += len(share)
            each["evicted"] += share.evicted
        return found

    async def run(self) -> None:
        """Send the workers what they are to get, until a cancel."""
        while True:
            await self._changed.wait()
            pause = min(self._syncs.values(), default=0.0) / 2
            await trio.sleep(pause)
            self._changed = trio.Event()
            whole = await self._send()
            while not whole:
                await trio.sleep(min(pause, RETRY_S))
                whole = await self._send()

    def _add(self, worker: Worker, identity: str, now: float) -> None:
        """Note that a worker has a limit: it is to get what is spent of it. No effect if that is known."""
        identities = self._workers.setdefault(worker, set())
        if identity not in identities:
            identities.add(identity)
            if (share := self._shares.get(identity)) is not None:
                share.add(worker, now)

    def _share(self, message: messages.LimitSpent) -> MasterShare:
        share = self._shares.get(message.limit)
        if share is None:
            share = self._shares[message.limit] = MasterShare(message.keys_max, message.width)
            for worker, identities in self._workers.items():
                if message.limit in identities:
                    share.add(worker, self._clock())
        share.grow(message.keys_max)
        self._syncs[message.limit] = message.sync
        return share

    def _drop_unused(self) -> None:
        """Drop the limits that no worker has, such as those that a reload has changed."""
        if not self._workers:
            return
        used = set[str]().union(*self._workers.values())
        for identity in self._shares.keys() - used:
            self._evicted[name_of_identity(identity)] += self._shares[identity].evicted
            del self._shares[identity], self._syncs[identity]

    async def _send(self) -> bool:
        """Send what the workers are to get now. Return whether they have taken it."""
        whole = True
        for identity, share in [*self._shares.items()]:
            for worker in [*self._workers]:
                for _ in range(share.messages_due(worker)):  # What is counted meanwhile waits for the next time.
                    if not _send_to(worker, identity, share):
                        whole = False
                        break
                    await trio.lowlevel.checkpoint()  # Each message takes about a millisecond.
        return whole


def _send_to(worker: Worker, identity: str, share: MasterShare) -> bool:
    """Send a message. Return whether there was nothing to send, or the channel has taken it."""
    if not worker.has_room:
        return False
    tats = share.tats_for(worker)
    if tats is None:
        return True
    if not worker.send(_message(identity, tats)):
        return False
    share.sent(worker, tats)
    return True


def _report(message: messages.LimitSpent) -> Report:
    spent = {key_of_wire(text): Spent(seconds, tat) for text, seconds, tat in message.spent}
    return Report(message.number, spent)


def _message(identity: str, common: CommonTats) -> messages.LimitTats:
    # A key that the full table has evicted meanwhile has no TAT to send.
    tats = tuple((wire_key(key), tat) for key, tat in common.tats if tat > NEVER)
    return messages.LimitTats(limit=identity, counted=common.counted, tats=tats)
