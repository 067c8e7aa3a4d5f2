"""Counts of the attempts at one upstream: by cause, and their durations by replica and status."""

from __future__ import annotations

from ...core.statistics.histogram import DURATIONS, Cells, new_cells

REPLICAS_MAX = 64
"""The bound on replicas that are counted by name; further ones are counted together as ``OTHER``."""
OTHER = "other"


class AttemptCounts:
    """Counts of the attempts that have ended, since the client was created. Attempts write to it directly.

    An attempt that found no replica is not counted.
    """

    __slots__ = ("_replicas", "causes", "durations")

    def __init__(self) -> None:
        self.causes = {"first": 0, "retry": 0, "hedge": 0, "redirect": 0, "mirror": 0}
        """Attempts by cause, including those that the gateway itself cancelled."""
        self.durations: dict[tuple[str, int | None], Cells] = {}
        """Histograms over ``core.histogram.DURATIONS``, by replica and status (None: no response came). Attempts that
        the gateway itself cancelled are left out."""
        self._replicas: set[str] = set()

    def new_durations(self, replica: str, status: int | None) -> Cells:
        """Return the histogram for a replica and a status that are not a key of ``durations``.

        The histogram is added to ``durations``, unless REPLICAS_MAX other replicas are in it: then it is that of OTHER.
        """
        if replica not in self._replicas:
            if len(self._replicas) >= REPLICAS_MAX:
                replica = OTHER
            else:
                self._replicas.add(replica)
        key = replica, status
        found = self.durations.get(key)
        if found is None:
            found = self.durations[key] = new_cells(DURATIONS)
        return found
