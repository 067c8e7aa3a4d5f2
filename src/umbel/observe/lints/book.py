"""The findings of a process, summed up by kind and place. For any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

from .lint import Kind, Lint

LINTS_MAX = 100
"""The bound on lints that are kept; a further one replaces the one that was found least recently."""
FORGOTTEN_S = 900.0
"""Seconds after its latest finding until a lint is forgotten."""


class _Entry:
    """What was found of one kind at one place."""

    __slots__ = ("count", "detail", "first", "last", "worst")

    def __init__(self, now: float) -> None:
        self.first = now
        self.last = now
        self.count = 0
        self.worst = 0.0
        self.detail = ""


class LintBook:
    """The findings of one process.

    Args:
        process: the name of the process.
        clock: gives the time in seconds.
    """

    def __init__(self, process: str, clock: Callable[[], float] = perf_counter) -> None:
        self.process = process
        self.dropped = 0
        """How many lints were replaced because there were too many."""
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[tuple[Kind, str], _Entry] = {}

    def add(self, kind: Kind, where: str, size: float, detail: str, *, again: bool = True) -> None:
        """Add a finding.

        Args:
            kind: the kind of lint.
            where: the place.
            size: how bad it is; the detail of the worst finding is kept.
            detail: the finding in words.
            again: whether it counts; if not, it is the last finding that goes on.
        """
        now = self._clock()
        with self._lock:
            entry = self._entries.pop((kind, where), None)
            if entry is None:
                if len(self._entries) >= LINTS_MAX:
                    del self._entries[next(iter(self._entries))]
                    self.dropped += 1
                entry = _Entry(now)
            self._entries[kind, where] = entry  # The last one, so that the first one was found least recently.
            entry.last = now
            entry.count += again or not entry.count
            if size >= entry.worst:
                entry.worst, entry.detail = size, detail

    def lints(self) -> list[Lint]:
        """The lints, the latest finding first."""
        now = self._clock()
        with self._lock:
            for key in [key for key, entry in self._entries.items() if now - entry.last > FORGOTTEN_S]:
                del self._entries[key]
            return [
                Lint(
                    process=self.process,
                    name=kind.name,
                    title=kind.title,
                    advice=kind.advice,
                    where=where,
                    detail=entry.detail,
                    count=entry.count,
                    first=round(now - entry.first, 3),
                    last=round(now - entry.last, 3),
                )
                for (kind, where), entry in reversed(self._entries.items())
            ]
