"""The recorder that files the events: which stream takes what, and the life of the writer behind it.

Opened by the gateway around its lifespan, and by anybody who wants records of a composition or an upstream. It never
holds up or fails what it records.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..errors import ConfigError, ConfigProblem
from ..events import AttemptEnded, CallEnded, Event, Noted, RequestEnded
from .encode import Encoder, printable
from .lines import Line
from .record import SEVERITY, call_line, note_line, request_line
from .sink import FileSink, Sink
from .stream import Stream, StreamStatistics
from .writer import Outlet, Writer

if TYPE_CHECKING:
    from ..config.schema import Logs

QUEUE_BYTES_MAX = 8 * 2**20
"""The bytes that may wait in one stream's queue, whatever the number of its records."""


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of a recorder's counters."""

    streams: Mapping[str, StreamStatistics]
    """By name: access, calls, app."""
    unrecordable: int
    """Events that no line could be made of: a defect, and counted as dropped."""

    @property
    def written(self) -> int:
        """Records in the files."""
        return sum(stream.written for stream in self.streams.values())

    @property
    def dropped(self) -> int:
        """Records lost: for want of room, for want of a disk at the end, or unrecordable."""
        return self.unrecordable + sum(stream.dropped for stream in self.streams.values())


class FileRecorder:
    """Takes events and files them as JSON lines: requests, calls, and everything else.

    Attempts stand inside their call's line and have none of their own. Made by ``open_recorder``.
    """

    def __init__(
        self, sinks: Mapping[str, Sink], *, max_records: int, flush_every: float, now: Callable[[], datetime]
    ) -> None:
        self._now = now
        self._seq = count(1)
        self._encoder = Encoder("umbel")
        self._outlets = {
            name: Outlet(Stream(self._gap, now, max_records=max_records, max_bytes=QUEUE_BYTES_MAX), sink)
            for name, sink in sinks.items()
        }
        self._unrecordable = 0
        self.writer = Writer(tuple(self._outlets.values()), flush_every=flush_every)

    def record(self, event: Event) -> None:
        """Queue the event's line; drop and count it if there is no room. Never awaits, raises or blocks.

        To be called in the thread that runs trio.
        """
        if isinstance(event, AttemptEnded):
            return
        outlet = self._outlets[_stream_of(event)]
        outlet.stream.report_gap()
        try:
            line = self._line(event)
            data = self._encoder.encode(line)
        except Exception:  # noqa: BLE001 - whatever is wrong with a record, the request goes on
            self._unrecordable += 1
            return
        self.writer.put(outlet, data, urgent=line.severity >= SEVERITY["warning"])

    def statistics(self) -> RecorderStatistics:
        """A snapshot of the counters."""
        streams = {name: outlet.stream.statistics() for name, outlet in self._outlets.items()}
        return RecorderStatistics(streams, self._unrecordable)

    def farewell(self) -> None:
        """Queue the last record, ``log.closed``, when everything else is written."""
        statistics = self.statistics()
        fields = {"written": statistics.written, "dropped": statistics.dropped}
        self.record(Noted("info", "log.closed", "", fields=fields))

    def _line(self, event: RequestEnded | CallEnded | Noted) -> Line:
        now, seq = self._now(), next(self._seq)
        if isinstance(event, RequestEnded):
            return request_line(event, now, seq)
        if isinstance(event, CallEnded):
            return call_line(event, now, seq)
        return note_line(event, now, seq)

    def _gap(self, dropped: int, since: datetime) -> bytes:
        note = Noted("warning", "log.dropped", "the queue was full", fields={"count": dropped, "since": since})
        return self._encoder.encode(note_line(note, self._now(), next(self._seq)))


def _stream_of(event: RequestEnded | CallEnded | Noted) -> str:
    if isinstance(event, RequestEnded):
        return "access"
    return "calls" if isinstance(event, CallEnded) else "app"


@asynccontextmanager
async def open_recorder(logs: Logs) -> AsyncGenerator[FileRecorder, None]:
    """Open the files of ``logs`` and record until the block ends.

    At the end what is queued is written, shielded from any cancel, for at most two seconds; the last line of the
    stream ``app`` is ``log.closed``. A disk that fails meanwhile costs records, never the block.

    Raises:
        ConfigError: a file cannot be opened at the start.
    """
    sinks = _files(logs)
    async with record_to(sinks, max_records=logs.max_queue_records, flush_every=logs.flush_every) as recorder:
        yield recorder


async def ensure_writable(logs: Logs) -> None:
    """Find out whether ``open_recorder`` can open the files, before anything else is started; they are made if need be.

    Raises:
        ConfigError: as from ``open_recorder``.
    """
    for sink in _files(logs).values():
        try:
            await _make_ready(sink)
        finally:
            sink.close()


def _files(logs: Logs) -> dict[str, FileSink]:
    directory = Path(logs.dir)
    files = {"access": logs.access.file, "calls": logs.calls.file, "app": logs.app.file}
    return {name: FileSink(directory / file) for name, file in files.items()}


async def _make_ready(sink: Sink) -> None:
    try:
        await sink.ready()
    except OSError as error:
        reason = f"{printable(error.filename)} cannot be written: {error.strerror}"
        raise ConfigError([ConfigProblem("", None, "logs.dir", reason)]) from error


def _utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def record_to(
    sinks: Mapping[str, Sink],
    *,
    max_records: int,
    flush_every: float,
    now: Callable[[], datetime] = _utc_now,
) -> AsyncGenerator[FileRecorder, None]:
    """``open_recorder`` over any sinks, by the names ``access``, ``calls`` and ``app``."""
    recorder = FileRecorder(sinks, max_records=max_records, flush_every=flush_every, now=now)
    try:
        for sink in sinks.values():
            await _make_ready(sink)
    except BaseException:
        for sink in sinks.values():
            sink.close()
        raise
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.writer.run, recorder.farewell)
        try:
            yield recorder
        except BaseException as error:  # noqa: BLE001 - raised again below, as it is and not in the nursery's group
            failure = error
        # A cancel from outside must not take the failure's place; close() has given the writer its deadline.
        nursery.cancel_scope.shield = True
        recorder.writer.close()
    if failure is not None:
        raise failure
