"""A log: plain functions that record from any task or thread, and the task that writes the records.

A record is encoded within the call, queued, and written later by the writer task (``queue.py``, ``writer.py``).
Recording never waits and never raises; what cannot be kept is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from random import Random

import msgspec
import trio

from ..core.diagnostics.exception_fields import exception_fields, mark_recorded
from ..core.diagnostics.redact import Redactor
from ..core.errors import UmbelError
from . import context
from .files.file import LogFile
from .files.recover import recover
from .files.retention import Retention
from .files.ring import Ring
from .files.rotation import Rotation
from .files.sink import FileSink, Sink
from .files.stdout import StdoutSink
from .options import LogOptions
from .queue import CrashBuffer, Queue
from .records.encode import Encoder
from .records.level import SEVERITY, WARNING, LevelName
from .records.sampling import Sampler
from .records.schema import Record
from .writer import Writer

_DEBUG, _INFO, _ERROR, _CRITICAL = SEVERITY["debug"], SEVERITY["info"], SEVERITY["error"], SEVERITY["critical"]
_RING_RECORD_BYTES = 32
RECOVERED = "records of a killed process were recovered"
"""The message of ``log.recovered``."""


class NotWrittenError(UmbelError):
    """A record of ``audit`` is not confirmed: the queue was full, the disk refused the sync, or the log ended."""


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A snapshot of one log's counters."""

    queued: int
    """Records that wait or are being written."""
    queued_bytes: int
    """Their bytes."""
    written: int
    """Records that were written, including the log's own ``log.dropped`` and ``log.closed``."""
    dropped: int
    """Records that were lost: the queue was full, the log ended first, or the record could not be encoded."""
    sampled: int
    """Records that sampling has left out."""
    errors: int
    """Failures of the sink since the start: to open, write, sync or rename."""
    last_error: str | None
    """The reason of the latest failure; None after a success."""
    busy_for: float
    """Seconds since the writer's present step began; 0.0 between steps."""
    retention_error: str | None
    """The reason why the latest compression or removal of files failed; None after a success."""


class Log:
    """A log of JSON lines, created by ``open_log``. After the end of its block, records are dropped and counted.

    ``debug`` to ``critical``, ``exception`` and ``record`` are plain functions for any task or thread; they never wait
    and never raise. Their keyword arguments are the fields of the record, with values of any type. A field ``error``
    with an exception becomes its type, message, traceback and, of a group, leaves.

    Args:
        sink: the destination; nothing else may use it.
        options: filters and bounds. The options of files and of the ring have no effect here.
        encoder: the encoder of the records; None: one made from ``options``.
        crash_buffer: keeps a copy of the waiting lines (``Queue``); None: there is none.
        numbered: whether the lines are JSON with sequence numbers; otherwise only ``put_line`` gives lines, and
            ``losses_to`` gets the log's own records.
        clock: the time in ns since 1970.
        random: the source of the decisions of sampling; None: a new one.
    """

    def __init__(
        self,
        sink: Sink,
        options: LogOptions,
        *,
        encoder: Encoder | None = None,
        crash_buffer: CrashBuffer | None = None,
        numbered: bool = True,
        clock: Callable[[], int] = time.time_ns,
        random: Random | None = None,
    ) -> None:
        self._options = options
        self._encoder = encoder or encoder_of(options, clock)
        self.redactor = self._encoder.redactor
        self.path = str(getattr(sink, "path", ""))
        """The path of the file, for messages; empty if the sink is not a file."""
        self.on_stdout = isinstance(sink, StdoutSink)
        """Whether the sink is stdout."""
        self._threshold = SEVERITY[options.level]
        self._sampler = (
            None if options.sample >= 1 else Sampler(options.sample, options.slow * 1000, random or Random())
        )
        self._unrecordable = 0
        self._token = trio.lowlevel.current_trio_token()
        self._queue = Queue(
            self._encode_gap,
            self._wake,
            clock,
            max_records=options.max_queue_records,
            max_bytes=options.max_queue_bytes,
            overflow=options.overflow,
            crash_buffer=crash_buffer,
            numbered=numbered,
        )
        self._numbered = numbered
        self.losses_to: Callable[[dict[str, object]], None] | None = None
        """Takes the fields of ``log.dropped`` of a log whose lines are not numbered; None: nobody does."""
        self.recovered = 0
        """Records of a killed process that were appended to the file at the start."""
        # Looked up once, because they are called for every record.
        self._encode, self._put = self._encoder.fields, self._queue.put
        self.writer = Writer(
            self._queue, sink, flush_every=options.flush_every, sync_every_second=options.fsync == "1s"
        )

    def debug(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record a detail that helps to find a fault."""
        if self._threshold <= _DEBUG:
            self._record("debug", _DEBUG, event, msg, fields)

    def info(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record normal operation. ``event`` is a stable dotted name, ``msg`` a text for people."""
        if self._threshold <= _INFO:
            if msg or "error" in fields or self._sampler is not None:
                self._record("info", _INFO, event, msg, fields)
                return
            try:
                line = self._encode("info", event, fields)
            except Exception:  # noqa: BLE001 - as in _record, of which this is the short form
                self._unrecordable += 1
            else:
                self._put(line, _INFO)

    def warning(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record something that needs attention. Wakes the writer at once, as do all higher levels."""
        if self._threshold <= WARNING:
            self._record("warning", WARNING, event, msg, fields)

    def error(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record a failure; ``error=`` takes an exception, here as in the other methods."""
        self._record("error", _ERROR, event, msg, fields)

    def critical(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record a failure after which the program cannot go on."""
        self._record("critical", _CRITICAL, event, msg, fields)

    def exception(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record a failure with the exception that is being handled."""
        self._record("error", _ERROR, event, msg, {"error": sys.exception(), **fields})

    def record(self, level: LevelName, event: str, fields: dict[str, object]) -> None:
        """Record at a level, with fields of any names. Do not use ``fields`` afterwards: the call may change it."""
        severity = SEVERITY.get(level, 0)
        if severity == 0 or severity >= self._threshold:
            self._record(level, severity, event, "", fields)

    def wants(self, level: LevelName) -> bool:
        """Whether records of this level are recorded, so that an expensive record need not be made in vain."""
        return SEVERITY[level] >= self._threshold

    def put(self, level: LevelName, event: str, record: Record, duration_ms: float | None, trusted: bool) -> None:
        """Queue a record of the schema, if level and sampling admit it. Never waits, never raises.

        Args:
            level: the record's level.
            event: the record's event name.
            record: the fields.
            duration_ms: the duration for sampling, in milliseconds; None: none.
            trusted: as for ``Encoder.struct``.
        """
        severity = SEVERITY.get(level, WARNING)
        if severity < self._threshold:
            return
        try:
            if self._sampler is not None and severity < WARNING:
                if not self._sampler.keeps(record.trace_id, duration_ms):
                    return
                record = msgspec.structs.replace(record, sample=self._sampler.share)
            data = self._encoder.struct(level, event, record, trusted)
        except Exception:  # noqa: BLE001 - recording must not raise; the loss is counted
            self._unrecordable += 1
            return
        self._put(data, severity)

    def put_line(self, level: LevelName, line: Callable[[], bytes], trace_id: str, duration_ms: float) -> None:
        """Queue the line that ``line()`` makes, if level and sampling admit it. Never waits, never raises.

        For a log that is not ``numbered``. The line has no line end. Trace id and duration are for sampling.
        """
        severity = SEVERITY.get(level, WARNING)
        if severity < self._threshold:
            return
        if self._sampler is not None and severity < WARNING and not self._sampler.keeps(trace_id, duration_ms):
            return
        try:
            data = line()
        except Exception:  # noqa: BLE001 - as in put
            self._unrecordable += 1
            return
        self._put(data, severity)

    def put_encoded(self, event: str, members: Sequence[bytes]) -> None:
        """Queue one or more records of level info, each given as its encoded members. Never waits, never raises.

        The members are those of ``encode_members``, or equally free of secrets and line ends.
        """
        if self._threshold > _INFO:
            return
        try:
            lines = self._encoder.complete("info", event, members)
        except Exception:  # noqa: BLE001 - as in put
            self._unrecordable += len(members)
            return
        self._queue.put_all(lines)

    @property
    def encode_members(self) -> Callable[[Record], bytes | None] | None:
        """The encoder of members for ``put_encoded``; None if records are sampled, which needs their values."""
        return self._encoder.members if self._sampler is None else None

    async def audit(self, event: str, msg: str = "", /, **fields: object) -> None:
        """Record at level info, and wait until the disk has confirmed the record (``fdatasync``).

        The record is kept whatever ``level`` and ``sample`` say. With ``fsync = "off"`` the call waits until the record
        is written. On stdout nothing confirms more than that. Concurrent calls share one sync. A cancel ends the wait;
        the record stays queued.

        Raises:
            NotWrittenError: the queue was full, the disk did not confirm the record, or the log ended first.
        """
        if msg:
            fields["msg"] = msg
        seq = self._queue.put_watched(self._encoder.fields("info", event, fields), WARNING)
        if seq == 0:
            await trio.lowlevel.checkpoint()
            raise NotWrittenError(f"{event}: the log's queue is full, or the log is closed")
        writer, off = self.writer, self._options.fsync == "off"
        try:
            if not off:
                writer.request_sync(seq)
            writer.write_now()
            await writer.wait_until(
                lambda: (
                    self._queue.is_lost(seq)
                    or max(writer.synced, writer.unsynced, self._queue.settled if off else 0) >= seq
                )
            )
            if self._queue.is_lost(seq) or (not off and writer.synced < seq):
                reason = writer.last_error or "the log was closed"
                raise NotWrittenError(f"{event}: the disk has not confirmed the record: {reason}")
        finally:
            self._queue.unwatch(seq)

    async def flush(self) -> None:
        """Wait until all earlier records are written or dropped, and earlier requests to reopen or rotate are done.

        It waits as long as writing fails. A cancel ends the wait and nothing else.
        """
        upto = self._queue.last
        self.writer.write_now()
        await trio.lowlevel.checkpoint()
        await self.writer.wait_until(lambda: self._queue.settled >= upto and self.writer.idle)

    def reopen(self) -> None:
        """Request that the file is closed and the file at its path is opened; ``await flush()`` waits for it.

        A plain function for any thread and for signal handlers.
        """
        self.writer.request_reopen()
        self._call_in_trio(self.writer.write_now)

    def rotate(self) -> None:
        """Request a rotation after all earlier records are written; ``await flush()`` waits for it.

        A plain function for any thread and for signal handlers.
        """
        self.writer.request_rotate()
        self._call_in_trio(self.writer.write_now)

    @property
    def level(self) -> LevelName:
        """The lowest level that is recorded; may be set at any time.

        The methods ``error``, ``critical``, ``exception`` and ``audit`` record at any level.

        Raises:
            ValueError: at an assignment of something that is no level.
        """
        return next(name for name, severity in SEVERITY.items() if severity == self._threshold)

    @level.setter
    def level(self, level: LevelName) -> None:
        if level not in SEVERITY:
            raise ValueError(f"level must be one of {', '.join(SEVERITY)}, not {level!r}")
        self._threshold = SEVERITY[level]

    def statistics(self) -> LogStatistics:
        """A snapshot of the counters. Must be called in the trio thread."""
        queue, writer = self._queue.statistics(), self.writer
        return LogStatistics(
            queued=queue.queued,
            queued_bytes=queue.queued_bytes,
            written=queue.written,
            dropped=queue.dropped + self._unrecordable,
            sampled=0 if self._sampler is None else self._sampler.left_out,
            errors=writer.errors,
            last_error=writer.last_error,
            busy_for=0.0 if writer.busy_since is None else trio.current_time() - writer.busy_since,
            retention_error=writer.retention_error,
        )

    async def put_closed_record(
        self, *, written: int = 0, dropped: int = 0, more: Mapping[str, object] | None = None
    ) -> None:
        """Queue the last record, ``log.closed``; later records are dropped.

        It states the counts of this log plus ``written`` and ``dropped``, and the fields ``more``.
        """

        def line(own_written: int, own_dropped: int) -> bytes:
            counts: dict[str, object] = {
                "written": own_written + written,
                "dropped": own_dropped + self._unrecordable + dropped,
            }
            if self._sampler is not None:
                counts["sampled"] = self._sampler.left_out
            return self._encoder.fields("info", "log.closed", {**counts, **(more or {})})

        self._queue.put_last(line)

    def _record(self, level: LevelName, severity: int, event: str, msg: str, fields: dict[str, object]) -> None:
        """Encode and queue a record with bound fields, exception fields and sampling."""
        try:
            if msg:
                fields = {"msg": msg, **fields}
            error = fields.get("error")
            if isinstance(error, BaseException):
                del fields["error"]
                fields.update(exception_fields(error))
                mark_recorded(error)
            if self._sampler is not None and severity < WARNING:
                trace = fields.get("trace_id") or context.current().fields.get("trace_id")
                if not self._sampler.keeps(trace, fields.get("duration_ms")):
                    return
                fields["sample"] = self._sampler.share
            line = self._encode(level, event, fields)
        except Exception:  # noqa: BLE001 - recording must not raise; the loss is counted
            self._unrecordable += 1
            return
        self._put(line, severity)

    def _encode_gap(self, count: int, since_ns: int) -> bytes | None:
        since = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(since_ns // 10**9))}.{since_ns // 1000 % 10**6:06d}Z"
        fields: dict[str, object] = {"msg": "the queue was full", "count": count, "since": since}
        if self._numbered:
            return self._encoder.fields("warning", "log.dropped", fields)
        if self.losses_to is not None:
            self.losses_to(fields)
        return None

    def _wake(self, urgent: bool) -> None:
        self._call_in_trio(self.writer.on_wake, urgent)

    def _call_in_trio(self, work: Callable[..., None], *args: object) -> None:
        # Never a direct call: the caller may be another thread, or a signal handler or finalizer in the middle of trio.
        # After the end of trio.run nothing is written any more; the queue is closed and counts the lines as dropped.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work, *args)


def encoder_of(options: LogOptions, clock: Callable[[], int] = time.time_ns) -> Encoder:
    """Return the encoder that the options describe. ``clock`` gives the time in ns since 1970."""
    service = options.service or Path(sys.argv[0] if sys.argv else "").stem or "python"
    return Encoder(Redactor(options.redact), service=service, worker=options.worker, clock=clock)


def open_log(
    path: str | PathLike[str], options: LogOptions | None = None
) -> AbstractAsyncContextManager[Log, bool | None]:
    """Open a log over the file at ``path`` until the block ends: ``async with open_log("app.jsonl") as log``.

    An exception that ends the block is recorded, unless it was recorded before. Then the queued records and, as the
    last line, ``log.closed`` are written, shielded from cancels. Records that are not written within two seconds are
    dropped. A disk that fails within the block loses records and raises nothing.

    Raises:
        OSError: at the start, the file or the ring cannot be opened, or the records of an earlier ring cannot be
            recovered.
    """
    return _open_file(Path(path).absolute(), options or LogOptions())


@asynccontextmanager
async def _open_file(path: Path, options: LogOptions) -> AsyncGenerator[Log, None]:
    async with open_file(path, options, encoder_of(options)) as log, run_writers({log: log.put_closed_record}):
        try:
            yield log
        except Exception as error:
            if not mark_recorded(error):
                log.critical("log.block_failed", "the block of the log ended with an exception", error=error)
            raise


@asynccontextmanager
async def open_file(
    path: Path, options: LogOptions, encoder: Encoder, *, numbered: bool = True
) -> AsyncGenerator[Log, None]:
    """Open a log over a file, with a ring if the options say so; ``run_writers`` must run within the block.

    ``numbered``: as for ``Log``; the caller records ``Log.recovered`` of a log that is not.

    Raises:
        OSError: the file or the ring cannot be opened, or the recovery of an earlier ring has failed.
    """
    sink = FileSink(
        LogFile(path, Rotation(options.rotate_size, options.rotate_every)),
        Retention(options.keep, options.keep_bytes, options.keep_days, options.compress),
    )
    ring: Ring | None = None
    try:
        await sink.open()
        recovered = 0
        if options.ring:
            recovered = await trio.to_thread.run_sync(recover, path)
            ring = Ring(path, options.max_queue_bytes + options.max_queue_records * _RING_RECORD_BYTES)
        log = Log(sink, options, encoder=encoder, crash_buffer=ring, numbered=numbered)
        log.recovered = recovered
        if recovered and numbered:
            log.warning("log.recovered", RECOVERED, count=recovered)
        yield log
    finally:
        sink.close()
        if ring is not None:
            ring.close()


@asynccontextmanager
async def open_stdout(options: LogOptions, encoder: Encoder, *, numbered: bool = True) -> AsyncGenerator[Log, None]:
    """Open a log over stdout; ``run_writers`` must run within the block. The options of files and rings are ignored."""
    yield Log(StdoutSink(), options, encoder=encoder, numbered=numbered)


@asynccontextmanager
async def run_writers(logs: Mapping[Log, Callable[[], Awaitable[None]]]) -> AsyncGenerator[None, None]:
    """Run the writers of the logs until the block ends.

    Args:
        logs: each log with a function, which is awaited after the log's other lines were written, and which may queue
            the last line.

    A cancel from outside does not end the writers; the end of the block does, within ``DRAIN_S_MAX``.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for log, put_closed_record in logs.items():
            nursery.start_soon(log.writer.run, put_closed_record)
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised below as it is, not within the nursery's group
            failure = error
        # Without the shield, a cancel from outside would be raised here instead of the failure. It is bounded by the
        # deadline that close() gives each writer.
        nursery.cancel_scope.shield = True
        for log in logs:
            log.writer.close()
    if failure is not None:
        raise failure
