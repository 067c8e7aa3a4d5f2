"""The worker's side of limits that all workers of a master share (``limits/sharing.py`` has the theory)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import trio

from ...limits.sharing import RETRY_S, CommonTats, key_of_wire, wire_key
from ..control import messages
from ..control.channel import Channel

if TYPE_CHECKING:
    from ...limits.limiter import Limiter

_OFFSET_TRIES = 5


class LimitReports:
    """Reports what limiters of this process spend, and gives them the common TATs.

    Two gateways of a process may have limiters with one identity. They count apart, as two sections do: the second one
    in the order in which they were opened is ``IDENTITY#2`` in the messages, and counts together with the second ones
    of the other workers.

    Args:
        channel: the channel to the master.
        clock: CLOCK_MONOTONIC, in seconds.
    """

    def __init__(self, channel: Channel, clock: Callable[[], float] = monotonic) -> None:
        self._limits: dict[str, _SharedLimit] = {}
        self._channel = channel
        # Measured once: if the offset changed with each message, the difference would move every TAT.
        self._offset = _offset(clock)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Report what is spent, until a cancel."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    @property
    def identities(self) -> tuple[str, ...]:
        """The identities of the limiters that share now."""
        return tuple(self._limits)

    @contextmanager
    def share(self, limiters: Iterable[Limiter]) -> Iterator[None]:
        """Context manager: the limiters count together with those of other processes. While ``run`` runs.

        At the end, what they have spent is reported as far as the channel takes it.
        """
        assert self._nursery is not None, "share needs run"
        limits = []
        for limiter in limiters:
            identity = self._free_identity(limiter.identity)
            limit = self._limits[identity] = _SharedLimit(identity, limiter)
            limits.append(limit)
            self._nursery.start_soon(self._run, limit)
        try:
            yield
        finally:
            for limit in limits:
                limit.scope.cancel(reason="the gateway of the limit was closed")
                while self._send(limit):
                    pass
                del self._limits[limit.identity]

    def on_tats(self, message: messages.LimitTats) -> None:
        """Merge common TATs."""
        limit = self._limits.get(message.limit)
        if limit is not None:
            tats = [(key_of_wire(text), tat - self._offset) for text, tat in message.tats]
            limit.share.adopt(CommonTats(message.counted, tats), trio.current_time())

    async def _run(self, limit: _SharedLimit) -> None:
        with limit.scope:
            while True:
                await limit.spent.wait()
                await trio.sleep(limit.sync / 2)
                limit.spent = trio.Event()
                due = limit.share.reports_due  # What is spent meanwhile waits for the next time.
                while due and limit.share.reports_due:
                    if self._send(limit):
                        due -= 1
                        await trio.lowlevel.checkpoint()  # Each report takes about a millisecond.
                    else:
                        await trio.sleep(min(limit.sync / 2, RETRY_S))
                if limit.share.reports_due:  # ``on_spent`` is not called for what remains.
                    limit.spent.set()

    def _send(self, limit: _SharedLimit) -> bool:
        """Send a report. Return whether there was one, and the channel has taken it."""
        report = limit.share.report() if self._channel.has_room else None
        if report is None:
            return False
        spent = tuple((wire_key(key), each.seconds, each.tat + self._offset) for key, each in report.spent.items())
        message = messages.LimitSpent(
            limit=limit.identity,
            number=report.number,
            spent=spent,
            keys_max=limit.limiter.section.max_keys,
            width=limit.limiter.width,
            sync=limit.sync,
        )
        if not self._channel.send(message):
            return False
        limit.share.sent(report)
        return True

    def _free_identity(self, identity: str) -> str:
        free, number = identity, 1
        while free in self._limits:
            number += 1
            free = f"{identity}#{number}"
        return free


class _SharedLimit:
    """A limiter with its share."""

    def __init__(self, identity: str, limiter: Limiter) -> None:
        self.identity = identity
        self.limiter = limiter
        self.sync = limiter.section.sync
        self.spent = trio.Event()
        """Set while there is something to report."""
        self.share = limiter.share(lambda: self.spent.set())
        self.scope = trio.CancelScope()


def _offset(clock: Callable[[], float]) -> float:
    """What must be added to a time of trio's clock to get one of ``clock``, in seconds."""
    measured = []
    for _ in range(_OFFSET_TRIES):
        before, now, after = clock(), trio.current_time(), clock()
        measured.append((after - before, (before + after) / 2 - now))
    return min(measured)[1]  # Of the reading that was interrupted the least.
