"""What the master tells: a line on stderr for people, a record in the logs for programs.

Also passes on what the workers write to stderr. The one place where the master writes; it never waits for a reader.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..events import NULL, Level, Noted, Recorder

_PIECE = select.PIPE_BUF
"""A pipe that polls as writable takes so many bytes without blocking."""
_MARKS: Mapping[Level, str] = {"debug": "debug", "info": "info ", "warning": "WARN ", "error": "ERROR"}


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """A snapshot of the counters."""

    lines: int
    dropped: int
    """Bytes that stderr did not take."""


class Journal:
    """Tells what happens. ``recorder`` may be set once the logs are open."""

    def __init__(self, descriptor: int = 2, recorder: Recorder = NULL) -> None:
        self.recorder = recorder
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines = 0
        self._dropped = 0

    def tell(self, level: Level, event: str, message: str, **fields: Any) -> None:
        """One line, and one record with ``fields``. Never waits, never raises."""
        self._lines += 1
        at = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        printable = message.replace("\n", "\n    ")
        self.write(f"{at} [{os.getpid()}] {_MARKS[level]} {event}: {printable}\n".encode("utf-8", "backslashreplace"))
        self.recorder.record(Noted(level, event, message, fields=fields))

    def write(self, data: bytes) -> None:
        """Pass bytes on to stderr, as far as it takes them now; the rest is dropped and counted."""
        while data:
            piece, data = data[:_PIECE], data[_PIECE:]
            try:
                if not self._poll.poll(0):
                    self._dropped += len(piece)
                    continue
                os.write(self._descriptor, piece)
            except OSError:
                # Nobody listens any more. The records go on.
                self._dropped += len(piece)

    def statistics(self) -> JournalStatistics:
        """A snapshot of the counters."""
        return JournalStatistics(self._lines, self._dropped)
