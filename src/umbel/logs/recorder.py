"""The recorder of the gateway's events: three logs (access, calls, app), and the choice of the log for each event.

Recording never waits and never raises.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..core.diagnostics.crash_console import show_crash
from ..core.diagnostics.exception_fields import printable
from ..core.errors import ConfigError, ConfigProblem
from ..core.events import AttemptEnded, CallEnded, Event, LogMessage, RequestEnded
from .files.file import LogFile
from .files.recover import recover
from .files.retention import Retention
from .files.rotation import Rotation
from .files.sink import FileSink, Sink
from .files.stdout import STDOUT
from .log import Log, LogStatistics, encoder_of, open_file, open_stdout, run_writers
from .options import LogOptions
from .records.call_line_template import CallLineTemplates
from .records.record import StreamName, request_level, request_record, to_record

if TYPE_CHECKING:
    from ..config.schema.sections import Logs, LogStream

STREAMS: tuple[StreamName, ...] = ("access", "calls", "app")
WORKER_VARIABLE = "UMBEL_WORKER"
"""The variable of the environment in which the supervisor passes a worker its number, for ``worker`` of each record."""

CLOSE_WAIT_S_MAX = 1.8
"""How long the last line of ``app`` waits for the other streams: less than they may take, so that it is written."""


STALLED_S_MIN = 5.0
"""A write that takes longer than this counts as failing."""


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of a recorder's counters."""

    streams: Mapping[str, LogStatistics]
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

    @property
    def failing(self) -> tuple[str, ...]:
        """The streams that cannot be written just now."""
        return tuple(
            name
            for name, stream in self.streams.items()
            if stream.last_error is not None or stream.busy_for > STALLED_S_MIN
        )


class FileRecorder:
    """A recorder that writes events as JSON lines: requests, calls, and everything else. Made by ``open_recorder``.

    The line of a request lists its calls. An attempt is a part of its call's line and has no line of its own.

    Args:
        slow_call: seconds from which on a call has a line of its own though it says nothing else (``events.Recorder``);
            0: each has one, None: none has, whatever became of it.
    """

    takes_attempts = False

    def __init__(self, logs: Mapping[StreamName, Log], slow_call: float | None = 0.0) -> None:
        self.logs = logs
        self.slow_call = math.inf if slow_call is None else slow_call
        self.on_stdout = any(log.on_stdout for log in logs.values())
        """Whether stdout holds records, so that nothing else belongs there."""
        self._takes_calls = slow_call is not None
        self._access = logs["access"]
        self._calls = logs["calls"]
        encode = self._calls.encode_members
        self._call_lines = None if encode is None else CallLineTemplates(encode)
        self._unrecordable = 0

    @property
    def app(self) -> Log:
        """The log of everything that is neither a request nor a call; for the application's own records too."""
        return self.logs["app"]

    def record(self, event: Event) -> None:
        """Queue the event's line; drop and count it if there is no room. Never awaits, raises or blocks.

        May be called from any thread.
        """
        try:
            if type(event) is RequestEnded:
                level = request_level(event)
                if self._access.wants(level):
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
        except Exception:  # noqa: BLE001 - whatever is wrong with an event, the request goes on
            self._unrecordable += 1
            return
        self.logs[stream].put(level, name, record, duration_ms, stream != "app")
        if isinstance(event, LogMessage) and event.error is not None and event.level == "error":
            show_crash(event.event, _crash_subject(event), event.error, self.app.redactor, self.app.path)

    def reopen(self) -> None:
        """Reopen the files, as ``Log.reopen``."""
        for log in self.logs.values():
            log.reopen()

    def rotate(self) -> None:
        """Rename the files, as ``Log.rotate``."""
        for log in self.logs.values():
            log.rotate()

    async def flush(self) -> None:
        """Wait for the files, as ``Log.flush``."""
        async with trio.open_nursery() as nursery:
            for log in self.logs.values():
                nursery.start_soon(log.flush)

    def statistics(self) -> RecorderStatistics:
        """A snapshot of the counters. To be called in the trio thread."""
        return RecorderStatistics({name: log.statistics() for name, log in self.logs.items()}, self._unrecordable)


def _crash_subject(event: LogMessage) -> str:
    """Describe in one line what a crash was about: the request, or the text of the event."""
    request = event.request
    if request is None:
        return event.message.partition("\n")[0]
    return f"{request.method} {request.path} (request_id {request.request_id})"


def options_of(logs: Logs, stream: LogStream) -> LogOptions:
    """Return the options of a log from ``[logs]`` and one of its streams."""
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
    """Return ``slow_call`` of ``FileRecorder`` as ``[logs.calls]`` says it."""
    return {"all": 0.0, "notable": logs.calls.slow, "off": None}[logs.calls.which]


@asynccontextmanager
async def open_recorder(logs: Logs) -> AsyncGenerator[FileRecorder, None]:
    """Open the files of ``logs`` and record until the block ends.

    At the end what is queued is written, shielded from any cancel, for at most two seconds; the last line of the
    stream ``app`` is ``log.closed``. A disk that fails meanwhile costs records, never the block.

    Raises:
        ConfigError: a file cannot be opened at the start.
    """
    with _as_config_error():
        options = {name: options_of(logs, getattr(logs, name)) for name in STREAMS}
    encoder = encoder_of(options["app"])
    async with AsyncExitStack() as stack:
        opened: dict[StreamName, Log] = {}
        for name in STREAMS:
            with _as_config_error():
                path = path_of(logs, name)
                log = open_stdout(options[name], encoder) if path is None else open_file(path, options[name], encoder)
                opened[name] = await stack.enter_async_context(log)
        recorder = FileRecorder(opened, slow_call_of(logs))
        async with _recording(recorder):
            yield recorder


def recover_all(logs: Logs) -> int:
    """Call ``recover`` for every stream that has a ring; return how many records were appended. Blocking.

    Raises:
        OSError: as ``recover``.
    """
    paths = [path_of(logs, name) for name in STREAMS] if logs.ring else []
    return sum(recover(path) for path in paths if path is not None)


async def ensure_writable(logs: Logs) -> None:
    """Check before anything is started that ``open_recorder`` can open the files, which are made if need be.

    Raises:
        ConfigError: as from ``open_recorder``.
    """
    for name in STREAMS:
        with _as_config_error():
            options_of(logs, getattr(logs, name))
        if (path := path_of(logs, name)) is None:
            continue
        sink = FileSink(LogFile(path, Rotation()), Retention())
        try:
            with _as_config_error():
                await sink.open()
        finally:
            sink.close()


@asynccontextmanager
async def record_to(
    sinks: Mapping[StreamName, Sink], options: LogOptions, *, clock: Callable[[], int] = time.time_ns
) -> AsyncGenerator[FileRecorder, None]:
    """Open a recorder as ``open_recorder`` does, over any sinks."""
    encoder = encoder_of(options, clock)
    try:
        for sink in sinks.values():
            with _as_config_error():
                await sink.open()
        recorder = FileRecorder(
            {name: Log(sink, options, encoder=encoder, clock=clock) for name, sink in sinks.items()}
        )
        async with _recording(recorder):
            yield recorder
    finally:
        for sink in sinks.values():
            sink.close()


@asynccontextmanager
async def _recording(recorder: FileRecorder) -> AsyncGenerator[None, None]:
    """Write the logs until the block ends; the last line of ``app`` counts the lines of all three."""
    others = {name: log for name, log in recorder.logs.items() if name != "app"}

    async def nothing() -> None:
        """Put no last record: these streams hold requests and calls alone."""

    async def put_closed_record() -> None:
        with trio.move_on_after(CLOSE_WAIT_S_MAX) as scope:
            for log in others.values():
                await log.writer.wait_ended()
        if scope.cancelled_caught:
            # What is written later would be missing from the counts.
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
    """Return the file of the stream ``access``, ``calls`` or ``app``; None where it goes to stdout."""
    stream: LogStream = getattr(logs, name)
    if stream.file == STDOUT:
        return None
    return Path(logs.dir).absolute() / (stream.file or f"{name}.jsonl")


@contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{printable(error.filename)} cannot be written: {error.strerror}"
        raise ConfigError([ConfigProblem("", None, "logs.dir", reason)]) from error
    except ValueError as error:
        raise ConfigError([ConfigProblem("", None, "logs", str(error))]) from error
