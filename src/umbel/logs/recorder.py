"""The recorder of the gateway's events: three logs (access, calls, app), and the choice of the log for each event.

Recording never waits and never raises. Each log has its own queue, writer and file, so that a disk that hangs under one
does not delay the others.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..core.diagnostics.crash_console import show_crash
from ..core.diagnostics.exception_fields import printable
from ..core.diagnostics.request_console import shown_requests
from ..core.errors import ConfigError, ConfigProblem
from ..core.events import AttemptEnded, CallEnded, Event, LogMessage, RequestEnded
from .files.file import LogFile
from .files.recover import recover
from .files.retention import Retention
from .files.ring import RingError
from .files.rotation import Rotation
from .files.sink import FileSink, Sink
from .files.stdout import STDOUT
from .log import RECOVERED, Log, LogStatistics, encoder_of, open_file, open_stdout, run_writers
from .options import LogOptions
from .records.call_line_template import CallLineTemplates
from .records.combined import CombinedLines
from .records.level import LevelName
from .records.record import StreamName, request_level, request_record, to_record

if TYPE_CHECKING:
    from ..config.schema.sections import Logs, LogStream

STREAMS: tuple[StreamName, ...] = ("access", "calls", "app")
WORKER_VARIABLE = "UMBEL_WORKER"
"""The environment variable with the worker's number, which becomes the field ``worker`` of each record."""

CLOSE_WAIT_S_MAX = 1.8
"""Seconds that ``app`` waits for the end of the other streams before its last line; less than ``DRAIN_S_MAX``, so that
this line is written even if another stream hangs."""

STALLED_S_MIN = 5.0
"""Seconds after which an unfinished write makes its stream count as failing."""


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of a recorder's counters."""

    streams: Mapping[str, LogStatistics]
    """The statistics of each log, by the stream's name."""
    unrecordable: int
    """Events that could not be converted to a record: a defect, counted as dropped."""

    @property
    def written(self) -> int:
        """Records that were written, of all streams."""
        return sum(stream.written for stream in self.streams.values())

    @property
    def dropped(self) -> int:
        """Records that were lost, of all streams, with the unrecordable events."""
        return self.unrecordable + sum(stream.dropped for stream in self.streams.values())

    @property
    def failing(self) -> tuple[str, ...]:
        """The names of the streams whose latest write has failed, or lasts longer than ``STALLED_S_MIN``."""
        return tuple(
            name
            for name, stream in self.streams.items()
            if stream.last_error is not None or stream.busy_for > STALLED_S_MIN
        )


class FileRecorder:
    """A recorder that writes events as lines to three logs: requests, calls, and everything else.

    The line of a request is JSON and lists its calls, or has the combined format. All other lines are JSON. Attempts
    are members of their call's line and have no line of their own. ``open_recorder`` creates it.

    Args:
        logs: the log of each stream.
        slow_call: the seconds from which on a call that succeeded with one attempt has a line of its own. Other calls
            have one at any duration. 0: every call has one; None: no call has one.
        probes: paths. A GET or HEAD request for one of them that succeeds is not recorded.
        lasting_after: the seconds after which a stream has a line ``request.start``; None: no stream has one.
        combined: makes the lines of requests in the combined format, for an access log that is not ``numbered``. None:
            they are JSON.
    """

    takes_attempts = False

    def __init__(
        self,
        logs: Mapping[StreamName, Log],
        slow_call: float | None = 0.0,
        *,
        probes: Collection[str] = (),
        lasting_after: float | None = None,
        combined: CombinedLines | None = None,
    ) -> None:
        self.logs = logs
        self.lasting_after = None if combined is not None else lasting_after
        self.takes_heads = combined is not None
        self._combined = combined
        self._probes = frozenset(probes)
        self._console = shown_requests()
        self.shows_requests = self._console is not None
        """Whether requests are shown on a terminal."""
        self.slow_call = math.inf if slow_call is None else slow_call
        self.on_stdout = any(log.on_stdout for log in logs.values())
        """Whether a log writes to stdout, so that nothing else may write there."""
        self._takes_calls = slow_call is not None
        self._access = logs["access"]
        self._calls = logs["calls"]
        encode = self._calls.encode_members
        self._call_lines = None if encode is None else CallLineTemplates(encode)
        self._unrecordable = 0
        if combined is not None:
            # A file of that format holds requests only: app gets the records about the access log itself.
            self._access.losses_to = lambda lost: self.app.record("warning", "log.dropped", {"log": "access", **lost})
            if self._access.recovered:
                self.app.warning("log.recovered", RECOVERED, log="access", count=self._access.recovered)

    @property
    def app(self) -> Log:
        """The log of everything that is neither a request nor a call, and of the application's own records."""
        return self.logs["app"]

    def record(self, event: Event) -> None:
        """Queue the record of an event, if its level and ``slow_call`` admit it. May be called from any thread.

        Never waits and never raises; a record that is lost is counted. An error with an exception is also shown on the
        crash console, if that is active.
        """
        try:
            if type(event) is RequestEnded:
                if event.request.path in self._probes and _is_passed_probe(event):
                    return
                if self._console is not None:
                    self._console.show(event, self.app.redactor)
                level = request_level(event)
                if self._combined is not None:
                    line, request = partial(self._combined.line, event), event.request
                    took_ms = (event.ended_at - request.started_at) * 1000
                    self._access.put_line(level, line, request.trace.trace_id, took_ms)
                elif self._access.wants(level):
                    access = request_record(event)
                    self._access.put(level, "request.end", access, access.duration_ms, True)
                return
            if isinstance(event, AttemptEnded):
                return
            if isinstance(event, CallEnded):
                if not self._takes_calls:
                    return
                members = None if self._call_lines is None else self._call_lines.render(event)
                if members is not None:
                    self._calls.put_encoded("call.end", [members])
                    return
            stream, level, name, record, duration_ms = to_record(event)
        except Exception:  # noqa: BLE001 - recording must not raise; the loss is counted
            self._unrecordable += 1
            return
        self.logs[stream].put(level, name, record, duration_ms, stream != "app")
        if isinstance(event, LogMessage) and event.error is not None and event.level == "error":
            show_crash(event.event, _crash_subject(event), event.error, self.app.redactor, self.app.path)

    def show(self, event: RequestEnded) -> None:
        """Show a request on the terminal, if requests are shown there, unless it is a probe that has succeeded."""
        if self._console is not None and not (event.request.path in self._probes and _is_passed_probe(event)):
            self._console.show(event, self.app.redactor)

    def reopen(self) -> None:
        """Request ``Log.reopen`` of all logs."""
        for log in self.logs.values():
            log.reopen()

    def rotate(self) -> None:
        """Request ``Log.rotate`` of all logs."""
        for log in self.logs.values():
            log.rotate()

    async def flush(self) -> None:
        """Await ``Log.flush`` of all logs."""
        async with trio.open_nursery() as nursery:
            for log in self.logs.values():
                nursery.start_soon(log.flush)

    def statistics(self) -> RecorderStatistics:
        """A snapshot of the counters. Must be called in the trio thread."""
        return RecorderStatistics({name: log.statistics() for name, log in self.logs.items()}, self._unrecordable)


def _is_passed_probe(event: RequestEnded) -> bool:
    """Whether a request for the path of a probe is a probe that has succeeded."""
    succeeded = event.status < 400 and event.kind is None and event.completed is not False
    return succeeded and event.request.method in ("GET", "HEAD")


def failing_logs(recorder: object) -> tuple[str, ...]:
    """Return ``RecorderStatistics.failing`` of a ``FileRecorder``; of any other recorder an empty tuple.

    A recorder may wrap the ``FileRecorder`` as its attribute ``inner``.
    """
    recorder = getattr(recorder, "inner", recorder)
    return recorder.statistics().failing if isinstance(recorder, FileRecorder) else ()


def set_app_level(recorder: object, level: LevelName) -> bool:
    """Set the level of the log ``app`` of a ``FileRecorder``, which another one may wrap as its attribute ``inner``.

    Returns:
        False, and nothing is done, for any other recorder.
    """
    recorder = getattr(recorder, "inner", recorder)
    if not isinstance(recorder, FileRecorder):
        return False
    recorder.app.level = level
    return True


def _crash_subject(event: LogMessage) -> str:
    """Return one line that says where a crash happened: the request, or the event's message."""
    request = event.request
    if request is None:
        return event.message.partition("\n")[0]
    return f"{request.method} {request.path} (request_id {request.request_id})"


def options_of(logs: Logs, stream: LogStream) -> LogOptions:
    """Return the options of one stream's log from ``[logs]`` and the stream's own table."""
    return LogOptions(
        level=stream.level,
        sample=stream.sample,
        slow=stream.slow,
        overflow=stream.overflow,
        max_queue_bytes=logs.max_queue_bytes,
        max_queue_records=logs.max_queue_records,
        flush_every=logs.flush_every,
        rotate_size=None if logs.rotate_size == "off" else logs.rotate_size,
        rotate_every=logs.rotate_every,
        keep=logs.keep,
        keep_bytes=logs.keep_bytes,
        keep_days=logs.keep_days,
        compress=logs.compress,
        fsync=logs.fsync,
        ring=logs.ring,
        redact=logs.redact,
        service="umbel",
        worker=os.environ.get(WORKER_VARIABLE),
    )


def slow_call_of(logs: Logs) -> float | None:
    """Return the argument ``slow_call`` of ``FileRecorder`` for the key ``which`` of ``[logs.calls]``."""
    return {"all": 0.0, "notable": logs.calls.slow, "off": None}[logs.calls.which]


@asynccontextmanager
async def open_recorder(logs: Logs, probes: Collection[str] = ()) -> AsyncGenerator[FileRecorder, None]:
    """Open the three logs of ``[logs]`` until the block ends.

    ``probes``: the paths of probes, which are recorded only if they fail, unless ``[logs.access] probes`` is set.

    At the end the queued records are written, shielded from cancels; those that are not written within two seconds are
    dropped. The last line of ``app`` is ``log.closed``, with the counts of all streams. A disk that fails within the
    block loses records and raises nothing.

    Raises:
        ConfigError: an option is wrong, or at the start a file or a ring cannot be opened.
    """
    with _as_config_error(logs):
        options = {name: options_of(logs, getattr(logs, name)) for name in STREAMS}
    encoder = encoder_of(options["app"])
    combined = CombinedLines(encoder.redactor) if is_combined(logs) else None
    async with AsyncExitStack() as stack:
        opened: dict[StreamName, Log] = {}
        for name in STREAMS:
            with _as_config_error(logs):
                path, numbered = path_of(logs, name), name != "access" or combined is None
                if path is None:
                    log = open_stdout(options[name], encoder, numbered=numbered)
                else:
                    log = open_file(path, options[name], encoder, numbered=numbered)
                opened[name] = await stack.enter_async_context(log)
        left_out = () if logs.access.probes else probes
        slow, slow_call = logs.access.slow, slow_call_of(logs)
        recorder = FileRecorder(opened, slow_call, probes=left_out, lasting_after=slow, combined=combined)
        async with _recording(recorder):
            yield recorder


def recover_all(logs: Logs) -> int:
    """Append to the logs of all streams the records in the rings of dead processes, as ``recover`` does. Blocking.

    Returns the number of appended records. Does nothing unless ``[logs] ring`` is set.

    Raises:
        OSError: a log cannot be read or written; its rings are kept.
    """
    paths = [path_of(logs, name) for name in STREAMS] if logs.ring else []
    return sum(recover(path) for path in paths if path is not None)


async def ensure_writable(logs: Logs) -> None:
    """Check that ``open_recorder`` can open the files of ``[logs]``; missing ones are created.

    Raises:
        ConfigError: an option is wrong, or a file cannot be opened.
    """
    for name in STREAMS:
        with _as_config_error(logs):
            options_of(logs, getattr(logs, name))
        if (path := path_of(logs, name)) is None:
            continue
        sink = FileSink(LogFile(path, Rotation()), Retention())
        try:
            with _as_config_error(logs):
                await sink.open()
        finally:
            sink.close()


@asynccontextmanager
async def record_to(
    sinks: Mapping[StreamName, Sink],
    options: LogOptions,
    *,
    clock: Callable[[], int] = time.time_ns,
    probes: Collection[str] = (),
    combined: bool = False,
) -> AsyncGenerator[FileRecorder, None]:
    """Open a recorder over one sink for each stream, as ``open_recorder`` does over files.

    ``clock`` gives the time in ns since 1970. ``combined``: whether the access log has the combined format, not JSON.

    Raises:
        ConfigError: a sink cannot be opened at the start.
    """
    encoder = encoder_of(options, clock)
    try:
        for sink in sinks.values():
            with _as_config_error():
                await sink.open()
        logs = {
            name: Log(sink, options, encoder=encoder, numbered=name != "access" or not combined, clock=clock)
            for name, sink in sinks.items()
        }
        lines = CombinedLines(encoder.redactor, clock) if combined else None
        recorder = FileRecorder(logs, probes=probes, combined=lines)
        async with _recording(recorder):
            yield recorder
    finally:
        for sink in sinks.values():
            sink.close()


@asynccontextmanager
async def _recording(recorder: FileRecorder) -> AsyncGenerator[None, None]:
    """Run the writers until the block ends; the last line of ``app`` states the counts of all streams."""
    others = {name: log for name, log in recorder.logs.items() if name != "app"}

    async def nothing() -> None:
        """Queue no last record: ``access`` and ``calls`` hold only requests and calls."""

    async def put_closed_record() -> None:
        with trio.move_on_after(CLOSE_WAIT_S_MAX) as scope:
            for log in others.values():
                await log.writer.wait_ended()
        if scope.cancelled_caught:
            # The counts below must be final, so the writers end before they are read.
            for log in others.values():
                log.writer.abandon()
            for log in others.values():
                await log.writer.wait_ended()
        streams = {
            name: {"written": s.written, "dropped": s.dropped} for name, s in recorder.statistics().streams.items()
        }
        del streams["app"]
        await recorder.app.put_closed_record(
            more={"streams": streams},
            written=sum(stream["written"] for stream in streams.values()),
            dropped=sum(stream["dropped"] for stream in streams.values()) + recorder.statistics().unrecordable,
        )

    async with run_writers({**dict.fromkeys(others.values(), nothing), recorder.app: put_closed_record}):
        yield


def path_of(logs: Logs, name: str) -> Path | None:
    """Return the path of a stream's file; None if the stream is written to stdout."""
    stream: LogStream = getattr(logs, name)
    if stream.file == STDOUT:
        return None
    suffix = "log" if name == "access" and is_combined(logs) else "jsonl"
    return Path(logs.dir).absolute() / (stream.file or f"{name}.{suffix}")


def is_combined(logs: Logs) -> bool:
    """Whether the access log has the combined format."""
    return logs.access.format == "combined"


@contextmanager
def _as_config_error(logs: Logs | None = None) -> Iterator[None]:
    """Raise an error of the block as a ``ConfigError``. One that names no file is reported for the directory."""
    try:
        yield
    except OSError as error:
        key = "logs.ring" if isinstance(error, RingError) else "logs.dir"
        file = error.filename or ("a log" if logs is None else Path(logs.dir).absolute())
        reason = f"{printable(file)} cannot be written: {error.strerror or printable(error)}"
        raise ConfigError([ConfigProblem("", None, key, reason)]) from error
    except ValueError as error:
        raise ConfigError([ConfigProblem("", None, "logs", str(error))]) from error
