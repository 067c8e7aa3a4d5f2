"""The output of the master: each event as a line on stderr and as a log record, and the stderr of the workers.

A write never waits for the reader of stderr: bytes that it does not take at once are dropped and counted.
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
    """The number of events that were reported."""
    dropped: int
    """The number of bytes that stderr did not take."""


class ConsoleOutput:
    """The output of events to ``descriptor`` (stderr) and to ``recorder``, which may be replaced at any time."""

    def __init__(self, descriptor: int = 2, recorder: Recorder = NULL) -> None:
        self.recorder = recorder
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines = 0
        self._dropped = 0
        self._unsaid = 0
        """Dropped bytes that no line has stated yet."""

    def report(self, level: Level, event: str, message: str, **fields: Any) -> None:
        """Write an event as a line, and record it with ``fields``. Never waits, never raises.

        Further lines of ``message`` are indented below the first. ``fields`` are only in the record.
        """
        self._lines += 1
        at = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        printable = message.replace("\n", "\n    ")
        self.write(f"{at} [{os.getpid()}] {_MARKS[level]} {event}: {printable}\n".encode("utf-8", "backslashreplace"))
        self.recorder.record(LogMessage(level, event, message, fields=fields))

    def write(self, data: bytes) -> None:
        """Write the bytes that stderr takes at once; drop and count the others. Never raises.

        The next write that stderr takes begins with a line that states the number of dropped bytes.
        """
        if self._unsaid and not self._rest_of(b"\n%d bytes of output were dropped here\n" % self._unsaid):
            self._unsaid = 0
        rest = self._rest_of(data)
        self._dropped += len(rest)
        self._unsaid += len(rest)

    def _rest_of(self, data: bytes) -> bytes:
        """Write the bytes that stderr takes at once; return the others."""
        while data:
            try:
                if not self._poll.poll(0):
                    break
                data = data[os.write(self._descriptor, data[:_PIECE]) :]
            except OSError:
                # The reader of stderr is gone, or takes no more now. The records are still written.
                break
        return data

    def statistics(self) -> ConsoleStatistics:
        """A snapshot of the counters."""
        return ConsoleStatistics(self._lines, self._dropped)
