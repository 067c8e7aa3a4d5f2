"""Output of the master: each event as a line on stderr and as a log record, and the stderr of the workers.

Writing never waits for a reader: what stderr does not take at once is dropped and counted.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...core.events import NULL, Level, LogMessage, Recorder

_PIECE = select.PIPE_BUF
"""A pipe that polls as writable takes this many bytes without blocking."""
_MARKS: Mapping[Level, str] = {"debug": "debug", "info": "info ", "warning": "WARN ", "error": "ERROR"}


@dataclass(frozen=True, slots=True)
class ConsoleStatistics:
    """A snapshot of the counters."""

    lines: int
    dropped: int
    """Bytes."""


class ConsoleOutput:
    """Reports events on stderr and to ``recorder``, which may be replaced at any time.

    ``descriptor`` is where stderr goes.
    """

    def __init__(self, descriptor: int = 2, recorder: Recorder = NULL) -> None:
        self.recorder = recorder
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines = 0
        self._dropped = 0

    def report(self, level: Level, event: str, message: str, **fields: Any) -> None:
        """Write one line, and file one record with ``fields``. Never waits, never raises."""
        self._lines += 1
        at = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        printable = message.replace("\n", "\n    ")
        self.write(f"{at} [{os.getpid()}] {_MARKS[level]} {event}: {printable}\n".encode("utf-8", "backslashreplace"))
        self.recorder.record(LogMessage(level, event, message, fields=fields))

    def write(self, data: bytes) -> None:
        """Write to stderr what it takes at once; the rest is dropped and counted."""
        while data:
            piece, data = data[:_PIECE], data[_PIECE:]
            try:
                if not self._poll.poll(0):
                    self._dropped += len(piece)
                    continue
                os.write(self._descriptor, piece)
            except OSError:
                # Nobody reads stderr any more. The records are still written.
                self._dropped += len(piece)

    def statistics(self) -> ConsoleStatistics:
        """A snapshot of the counters."""
        return ConsoleStatistics(self._lines, self._dropped)
