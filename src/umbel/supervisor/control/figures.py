"""The figures of a master and all of its workers, for the metrics."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from ...observe import catalogue
from ...observe.figures import Labels, ProcessFigures, Value
from ..master.master import Master
from ..master.process import Worker
from . import messages

ANSWER_S = 0.5
"""The time in seconds for which a worker is waited for; after it, its last figures are used."""


async def all_figures(master: Master) -> Sequence[ProcessFigures]:
    """Return the figures of the master, of each worker, and the totals of ended workers.

    A worker that does not answer within ``ANSWER_S``, because its event loop is blocked or the process is stopped,
    counts with its last figures, and ``umbel_worker_stale`` is 1 for it.
    """
    asked = master.workers
    answers = await master.queries.ask(asked, messages.FiguresQuery(), messages.Figures, ANSWER_S)
    stale = [worker for worker in asked if worker not in answers]
    own = ProcessFigures(process="master", pid=os.getpid(), values=_master_values(master, asked, stale))
    ended = ProcessFigures(process="ended", pid=0, values=master.figures.totals.figures())
    return [own, ended, *master.figures.latest()]


def _master_values(
    master: Master, asked: Sequence[Worker], stale: Sequence[Worker]
) -> dict[str, list[tuple[Labels, Value]]]:
    """Return what the master itself has counted, and what the heartbeats of the workers say."""
    every = [worker for slot in master.slots_in_order() for worker in slot.all_workers]
    beats = [(str(worker.slot), worker.lag, worker.last_heartbeat) for worker in every]
    states = Counter({"starting": 0, "serving": 0, "draining": 0, "silent": 0})
    states.update(worker.statistics().state for worker in every)
    figures = master.figures
    return {
        catalogue.WORKERS.name: [((state,), count) for state, count in states.items()],
        catalogue.WORKER_STALE.name: [((str(worker.slot),), float(worker in stale)) for worker in asked],
        catalogue.LOOP_LAG.name: [((slot,), lag) for slot, lag, beat in beats if beat is not None],
        catalogue.WORKER_MEMORY.name: [((slot,), beat.rss) for slot, _, beat in beats if beat is not None],
        catalogue.WORKER_RESTARTS.name: [((why,), count) for why, count in figures.ends.items()],
        catalogue.RELOADS.name: [((result,), count) for result, count in master.reloader.ended.items()],
        catalogue.LIMIT_EVICTIONS.name: [
            ((name,), float(limit["evicted"])) for name, limit in master.limits.statistics().items()
        ],
        catalogue.SERIES_DROPPED.name: [((), figures.totals.dropped)],
    }
