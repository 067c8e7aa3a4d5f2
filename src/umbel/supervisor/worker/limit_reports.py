"""The worker's side of limits that all workers of a master share (``limits/sharing.py`` has the theory)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

import trio

from ...limits.sharing import CommonTats, key_of_wire, wire_key
from ..control import messages
from ..control.channel import Channel

if TYPE_CHECKING:
    from ...limits.limiter import Limiter

_REPORTS_AT_ONCE = 4
"""The bound on the reports of a limit in one step: further ones follow after another half of ``sync``."""
_OFFSET_TRIES = 5


class LimitReports:
    """Reports what limiters of this process spend, and gives them the common TATs.

    Args:
        limiters: the limiters, which count together with other processes from now on.
        channel: the channel to the master.
        clock: CLOCK_MONOTONIC, in seconds.
    """

    def __init__(self, limiters: Iterable[Limiter], channel: Channel, clock: Callable[[], float] = monotonic) -> None:
        self._limits = {limiter.name: _SharedLimit(limiter) for limiter in limiters}
        self._channel = channel
        # Measured once: if the offset changed with each message, the difference would move every TAT.
        self._offset = _offset(clock)

    async def run(self) -> None:
        """Report what was spent, until a cancel."""
        async with trio.open_nursery() as nursery:
            for limit in self._limits.values():
                nursery.start_soon(self._run, limit)

    async def _run(self, limit: _SharedLimit) -> None:
        while True:
            await limit.spent.wait()
            await trio.sleep(limit.sync / 2)
            limit.spent = trio.Event()
            self._send(limit)
            if limit.share.has_spent:  # ``on_spent`` is not called for what remains.
                limit.spent.set()

    def send_rest(self) -> None:
        """Report what was spent until now, as far as the channel takes it. Never waits."""
        for limit in self._limits.values():
            self._send(limit)

    def on_tats(self, message: messages.LimitTats) -> None:
        """Merge common TATs."""
        limit = self._limits.get(message.limit)
        if limit is not None:
            tats = [(key_of_wire(text), tat - self._offset) for text, tat in message.tats]
            limit.share.adopt(CommonTats(message.counted, tats), trio.current_time())

    def _send(self, limit: _SharedLimit) -> None:
        section = limit.limiter.section
        for _ in range(_REPORTS_AT_ONCE):
            report = limit.share.report()
            if report is None:
                return
            spent = tuple((wire_key(key), each.seconds, each.tat + self._offset) for key, each in report.spent.items())
            message = messages.LimitSpent(
                limit=limit.limiter.name,
                number=report.number,
                spent=spent,
                keys_max=section.max_keys,
                width=limit.limiter.width,
                sync=section.sync,
            )
            if not self._channel.send(message):
                return
            limit.share.sent(report)


class _SharedLimit:
    """A limiter with its share."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.sync = limiter.section.sync
        self.spent = trio.Event()
        """Set while there is something to report."""
        self.share = limiter.share(lambda: self.spent.set())


def _offset(clock: Callable[[], float]) -> float:
    """What must be added to a time of trio's clock to get one of ``clock``, in seconds."""
    measured = []
    for _ in range(_OFFSET_TRIES):
        before, now, after = clock(), trio.current_time(), clock()
        measured.append((after - before, (before + after) / 2 - now))
    return min(measured)[1]  # Of the reading that was interrupted the least.
