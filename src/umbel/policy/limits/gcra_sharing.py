"""One GCRA limit for several processes: each decides alone, and a master adds up what they have spent.

Theory
------
*Aim.* N workers must not admit N times the limit, and no request waits for another process. So each worker decides by
its own TAT of the key (``gcra.py``), reports what it has spent every ``sync`` seconds, and the master sends the common
TAT to all workers that have the key. What the workers have spent beyond the limit meanwhile is a debt in the common
TAT, which all of them pay off. All TATs are times of one clock, which is the same in all processes of a machine.

*Messages.* Every number in them only grows, and both sides merge by maximum and by difference to what they know. So a
message that is repeated, late or overtaken changes nothing, and one that is lost is made good by the next:

- ``Report``, from a worker: ``spent`` is the sum of all costs since the worker has the key, ``counted`` the part of it
  that a master has confirmed, ``tat`` the worker's own TAT. The master moves its TAT by what is new in ``spent``, even
  beyond the limit, and at least to ``tat``.
- ``Answer``, from the master: ``tat``, and the ``counted`` of the receiver. The worker's TAT becomes the master's plus
  its own spending that is not counted, if that is later than its own.

``tat`` of a report stands for the time that passed unused: only the worker knows when its spending began, so the master
cannot tell a key that was idle from one with a debt. It also is the memory of a master that restarts: the first report
brings the common TAT back, those of the other workers what was not confirmed. (What the old master had counted, but not
yet confirmed, then counts twice: too few are admitted for once, never too many.)

*Epochs.* A worker that evicts a key and meets it again counts from 0. The higher ``epoch`` tells that from a late
report. A worker that is restarted is another worker.

*Bound.* Let ``delay`` be the age of what a worker knows about the others: ``sync``, plus the way of a message through
the master to another worker; plus the repetitions, if messages are lost. In any window of ``t`` seconds

    admitted <= burst + rate * t + (processes - 1) * (burst + rate * delay)

because the last request is admitted by a TAT that holds everything but the spending of the other processes within
``delay``, and each process alone admits at most ``burst + rate * delay`` in that time. A process that has died within
the window counts like one that lives. In the long run the rate is exact: the common TAT moves by one increment for each
unit that is admitted, and by nothing else while there is demand.
"""

from __future__ import annotations

from typing import NamedTuple

from .gcra import NEVER


class Report(NamedTuple):
    """What a worker has spent of one key."""

    epoch: int
    spent: float
    """The sum of the costs in this epoch, in units."""
    counted: float
    """The part of ``spent`` that a master has confirmed."""
    tat: float


class Answer(NamedTuple):
    """The common TAT of one key, for one worker."""

    epoch: int
    """The epoch of ``counted``."""
    counted: float
    """The part of the worker's spending that ``tat`` holds."""
    tat: float


class WorkerKey:
    """A key in a worker.

    Args:
        epoch: a number higher than that of any earlier ``WorkerKey`` of this worker.
    """

    __slots__ = ("_counted", "_epoch", "_spent", "tat")

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._spent = 0.0
        self._counted = 0.0
        self.tat = NEVER
        """The TAT by which the worker decides."""

    def spend(self, tat: float, cost: float) -> None:
        """Note an admitted request: the TAT of the decision, and its cost."""
        self.tat = tat
        self._spent += cost

    @property
    def is_counted(self) -> bool:
        """Whether a master has confirmed all spending, so that there is nothing to report."""
        return self._counted >= self._spent

    def report(self) -> Report:
        """The report of all spending until now."""
        return Report(self._epoch, self._spent, self._counted, self.tat)

    def adopt(self, answer: Answer, increment: float) -> None:
        """Merge the common TAT. ``increment``: the seconds of one unit."""
        counted = answer.counted if answer.epoch == self._epoch else 0.0
        self._counted = max(self._counted, counted)
        self.tat = max(self.tat, answer.tat + (self._spent - counted) * increment)


class MasterKey:
    """A key in the master."""

    __slots__ = ("_counted", "tat")

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, float]] = {}
        self.tat = NEVER
        """The common TAT."""

    @property
    def workers(self) -> tuple[int, ...]:
        """The workers that have reported the key."""
        return tuple(self._counted)

    def count(self, worker: int, report: Report, increment: float) -> None:
        """Merge a report. ``worker``: a number that no other process ever has; ``increment``: seconds of one unit."""
        epoch, counted = self._counted.get(worker, (report.epoch, report.counted))
        if report.epoch < epoch:
            return
        if report.epoch > epoch:
            epoch, counted = report.epoch, 0.0
        new = max(0.0, report.spent - counted)
        self._counted[worker] = (epoch, counted + new)
        self.tat = max(self.tat + new * increment, report.tat)

    def answer(self, worker: int) -> Answer:
        """The answer for a worker. One that has not reported the key gets the TAT alone."""
        epoch, counted = self._counted.get(worker, (0, 0.0))
        return Answer(epoch, counted, self.tat)

    def forget(self, worker: int) -> None:
        """Forget a worker that has ended. What it reported stays spent."""
        self._counted.pop(worker, None)
