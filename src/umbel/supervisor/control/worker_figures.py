"""The latest figures of each worker, and the totals of ended workers. Pure.

A worker sends its figures once a second while they change, when it is asked, and as one of its last messages. So the
sums over all workers never fall. A worker that is killed (SIGKILL) has not sent what it counted since its last figures,
at most one second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from ...observe.figures import ProcessFigures, Totals
from ..master.exit_status import Exit, ExitClass
from ..master.process import Worker
from . import messages


class WorkerFigures:
    """The figures that the master keeps of its workers."""

    def __init__(self) -> None:
        self.totals = Totals()
        """What ended workers have counted."""
        self.ends = Counter({str(kind): 0 for kind in ExitClass if kind is not ExitClass.DRAINED})
        """The number of workers that ended, by the class of their end; those that the master had drained are left out.

        Each class is there from the start: ``increase()`` does not see the first event of a series that begins with it.
        """
        self._latest: dict[Worker, ProcessFigures] = {}

    def on_message(self, worker: Worker, message: messages.WorkerMessage) -> None:
        """Keep the figures in a message, if it has any."""
        if isinstance(message, messages.Figures):
            self._latest[worker] = message.figures

    def on_worker_exit(self, worker: Worker, end: Exit) -> None:
        """Move the figures of a worker into the totals, and count its end."""
        if end.kind is not ExitClass.DRAINED:
            self.ends[str(end.kind)] += 1
        latest = self._latest.pop(worker, None)
        if latest is not None:
            self.totals.add(latest)

    def latest(self) -> Collection[ProcessFigures]:
        """The latest figures of all workers that have not ended, and have sent some."""
        return self._latest.values()
