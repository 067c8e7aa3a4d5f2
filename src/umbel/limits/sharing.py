"""One limit for the workers of a machine: each decides alone, and the master adds up what they have spent.

Theory
------
*Aim.* N workers must not admit N times the limit, and no request waits for another process. So each worker decides by
its own TAT of a key (``policy/gcra.py``) and reports what it has spent. The master keeps the *common* TAT of each key
and sends it to all workers, also to those that do not know the key yet. What the workers have spent beyond the limit
meanwhile is a debt in the common TAT, which all of them pay off.

*Units.* What was spent is a time here: the seconds by which it moves a TAT, ``cost / rate``. So the master needs not
know rates and costs. All TATs are times of one clock, which is the same in all processes of a machine
(CLOCK_MONOTONIC); trio's clock has another offset in each process, so a worker converts.

*Messages.* A channel keeps the order, and repeats nothing. It refuses a message while too many wait; what was refused
stays with its sender and is part of a later message. So a message is lost only with the process at one of its ends.

- ``Report``, from a worker: for each key what it has spent since the last report, and its own TAT. The master moves its
  TAT by what was spent, even beyond the limit, and at least to the TAT of the worker: only a worker knows when its
  spending began, so the master could not tell a key that was idle from one with a debt.
- ``CommonTats``, from the master: the common TATs that have changed, and ``counted``, the number of the receiver's last
  report that they hold. The worker's TAT becomes the common one plus its own spending that is not counted, if that is
  later than its own.

*Bound.* Let ``delay`` be the age of what a worker knows about the others: a spending waits at most ``sync / 2`` in the
worker and ``sync / 2`` in the master, so ``delay`` is ``sync`` plus the two ways of the messages. In any window of
``t`` seconds::

    admitted <= burst + rate * t + (processes - 1) * (burst + rate * delay)

because the last request is admitted by a TAT that holds everything but the spending of the other processes within
``delay``, and each process alone admits at most ``burst + rate * delay`` in that time. A process that has ended within
the window counts like one that lives. In the long run the rate is exact: the common TAT moves by one increment for each
unit that is admitted, and by nothing else while there is demand.

*Identity.* What was spent under another key, rate, burst or cost cannot be compared, so a limit has an identity
(``Limiter.identity``) in messages: a section that a reload has changed begins with nothing spent. The master keeps a
limit as long as a worker has it.

*Ends.* A worker that is killed takes with it what it has not reported, at most what it spent in ``sync / 2``; one that
ends reports before. A new worker gets all keys that have something spent. A master that ends takes its workers with it
(they drain), so the next one begins with nothing spent, and all of its processes count as further processes above.

*Memory.* The master has a ``KeyTable`` for each limit, with the greatest bound of its workers, and for each worker the
keys that it is still to get, at most twice as many. A worker has what it has spent and not reported, at most
``keys_max`` keys, and its reports that are not counted: no further one is made while they have ``UNCOUNTED_MIN`` keys,
or ``keys_max`` if that is more. A master that does not answer gets no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import NamedTuple

from ..policy.gcra import NEVER, Key
from .key_table import KeyTable

KEYS_PER_MESSAGE = 1000
"""The bound on the keys of a message: both sides handle so many in about a millisecond."""
UNCOUNTED_MIN = 16_000
"""Keys of a worker's reports that need not be counted before it makes another one, whatever ``keys_max`` is."""

RETRY_S = 0.05
"""Seconds after which a side tries again to send what the channel has refused, or half of ``sync`` if that is less."""


class Spent(NamedTuple):
    """What a worker has spent of a key since its last report."""

    seconds: float
    tat: float
    """The worker's own TAT."""


class Report(NamedTuple):
    """What a worker has spent since its last report."""

    number: int
    """From 1 on, without gaps."""
    spent: Mapping[Key, Spent]


class CommonTats(NamedTuple):
    """The TATs of the master that a worker is to know."""

    counted: int
    """The number of the receiver's last report that ``tats`` hold; 0: none."""
    tats: Sequence[tuple[Key, float]]


class WorkerShare:
    """What one worker spends of a limit, until the common TATs hold it.

    Args:
        table: the TATs by which the worker decides.
        keys_max: the bound on the keys that wait to be reported. What is spent of further ones is not reported.
    """

    __slots__ = ("_keys_max", "_number", "_reported", "_reported_keys", "_spent", "_table", "_uncounted", "unreported")

    def __init__(self, table: KeyTable, keys_max: int) -> None:
        self._table = table
        self._keys_max = keys_max
        self._number = 0
        self._spent: dict[Key, Spent] = {}
        self._reported: deque[Report] = deque()
        """The reports that are not counted."""
        self._reported_keys = 0
        """The keys of all of them; one that several have counts several times."""
        self._uncounted: dict[Key, tuple[float, int]] = {}
        """For each key of ``_reported`` the seconds of all these reports, and the number of reports that have it."""
        self.unreported = 0
        """How often something was spent that no report has, because ``keys_max`` was reached."""

    def spend(self, key: Key, seconds: float, tat: float) -> bool:
        """Note that an admitted request has moved the TAT of a key by ``seconds`` to ``tat``.

        Returns:
            Whether it is the first since the last report.
        """
        spent = self._spent
        before = spent.get(key)
        if before is not None:
            seconds += before.seconds
        elif len(spent) >= self._keys_max:
            self.unreported += 1
            return False
        spent[key] = Spent(seconds, tat)
        return len(spent) == 1 and before is None

    @property
    def reports_due(self) -> int:
        """The number of reports that hold all that was spent until now."""
        return ceil(len(self._spent) / KEYS_PER_MESSAGE)

    def report(self) -> Report | None:
        """The next report; None if nothing was spent, or the master must count others first.

        It stays the next one until ``sent`` was called.
        """
        if not self._spent or self._reported_keys >= max(self._keys_max, UNCOUNTED_MIN):
            return None
        return Report(self._number + 1, dict(islice(self._spent.items(), KEYS_PER_MESSAGE)))

    def sent(self, report: Report) -> None:
        """Note that the report was sent. Must follow ``report`` before anything else is spent."""
        self._number = report.number
        self._reported.append(report)
        self._reported_keys += len(report.spent)
        for key, spent in report.spent.items():
            seconds, count = self._uncounted.get(key, (0.0, 0))
            self._uncounted[key] = seconds + spent.seconds, count + 1
        if len(report.spent) == len(self._spent):
            self._spent = {}
        else:
            for key in report.spent:
                del self._spent[key]

    def adopt(self, common: CommonTats, now: float) -> None:
        """Merge common TATs into the table."""
        reported, table = self._reported, self._table
        while reported and reported[0].number <= common.counted:
            self._forget(reported.popleft())
        for key, tat in common.tats:
            if (uncounted := self._uncounted.get(key)) is not None:
                tat += uncounted[0]
            if (spent := self._spent.get(key)) is not None:
                tat += spent.seconds
            if tat > max(now, table.get(key)):
                table.set(key, tat, now)

    def _forget(self, report: Report) -> None:
        """Forget a report that is counted."""
        self._reported_keys -= len(report.spent)
        for key, spent in report.spent.items():
            seconds, count = self._uncounted[key]
            if count == 1:  # So the rounding errors of the sums do not add up.
                del self._uncounted[key]
            else:
                self._uncounted[key] = seconds - spent.seconds, count - 1


class _Receiver:
    """What the master knows of a worker."""

    __slots__ = ("counted", "to_get")

    def __init__(self, to_get: Iterable[Key]) -> None:
        self.counted = 0
        self.to_get = dict.fromkeys(to_get)
        """The keys whose TATs it is still to get, in the order in which they changed first."""


class MasterShare:
    """The common TATs of one limit, in the master.

    Args:
        keys_max: the maximum number of keys.
        width: as of ``KeyTable``.
    """

    def __init__(self, keys_max: int, width: float) -> None:
        self._table = KeyTable(keys_max, width)
        self._receivers: dict[Hashable, _Receiver] = {}

    def __len__(self) -> int:
        """The number of keys, idle ones included."""
        return len(self._table)

    @property
    def evicted(self) -> int:
        """Live keys that were evicted because the table was full."""
        return self._table.evicted

    def grow(self, keys_max: int) -> None:
        """Raise the maximum number of keys. No effect if it is not greater than the present one."""
        self._table.keys_max = max(self._table.keys_max, keys_max)

    def add(self, worker: Hashable, now: float) -> None:
        """Add a worker: it is to get all keys that have something spent. No effect if it was added before."""
        if worker not in self._receivers:
            self._receivers[worker] = _Receiver(self._table.live(now))

    def forget(self, worker: Hashable) -> None:
        """Forget a worker that has ended. What it reported stays spent."""
        self._receivers.pop(worker, None)

    def count(self, worker: Hashable, report: Report, now: float) -> None:
        """Merge the report of a worker. All workers, this one too, are then to get the keys in it."""
        self.add(worker, now)
        table = self._table
        for key, spent in report.spent.items():
            tat = max(table.get(key) + spent.seconds, spent.tat)
            table.set(key, tat, now)
        self._receivers[worker].counted = report.number
        for receiver in self._receivers.values():
            receiver.to_get |= dict.fromkeys(report.spent)
            if len(receiver.to_get) > 2 * table.keys_max:  # The table has evicted at least half of them.
                receiver.to_get = {key: None for key in receiver.to_get if table.get(key) > NEVER}

    def messages_due(self, worker: Hashable) -> int:
        """The number of messages that hold all that a worker is to get now."""
        receiver = self._receivers.get(worker)
        return 0 if receiver is None else ceil(len(receiver.to_get) / KEYS_PER_MESSAGE)

    def tats_for(self, worker: Hashable) -> CommonTats | None:
        """The next message for a worker; None if it has everything. It stays the next one until ``sent`` was called."""
        receiver = self._receivers.get(worker)
        if receiver is None or not receiver.to_get:
            return None
        tats = [(key, self._table.get(key)) for key in islice(receiver.to_get, KEYS_PER_MESSAGE)]
        return CommonTats(receiver.counted, tats)

    def sent(self, worker: Hashable, tats: CommonTats) -> None:
        """Note that a message was sent. Must follow ``tats_for`` before anything else is counted."""
        to_get = self._receivers[worker].to_get
        for key, _ in tats.tats:
            del to_get[key]


def wire_key(key: Key) -> str | None:
    """A key as a text of a message."""
    if key is None:
        return None
    return f"t{key}" if isinstance(key, str) else f"b{key.hex()}"


def key_of_wire(text: str | None) -> Key:
    """The key of a text that ``wire_key`` has made."""
    if text is None:
        return None
    return text[1:] if text[0] == "t" else bytes.fromhex(text[1:])
