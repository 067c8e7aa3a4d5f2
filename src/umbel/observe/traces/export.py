"""Export of spans to an OpenTelemetry collector, by the SDK's own processor and exporter.

Theory
------
*Threads.* ``SpanExport.take`` runs in the trio thread, after a request has ended, and never waits: it makes the spans
and appends them to the queue of the SDK's ``BatchSpanProcessor``. A thread of the processor sends them in batches. So a
collector that is down, slow or fails delays no request.

*Queue.* The processor drops its oldest span when its queue is full, with a warning for each. So ``take`` looks before:
if the spans of a request do not fit as a whole, none of them is made, and all are counted as dropped. How many are in
the queue follows from what was appended and what the exporter has taken.

*Warnings.* The SDK's loggers report failures to ``LimitedWarnings``: one record in ``WARNING_S`` seconds, with the
number of those that were left out.

*End.* The processor's ``shutdown`` sends what is in the queue, and may wait for the collector for 30 s. It runs in a
thread, for at most ``SHUTDOWN_S`` seconds; then the exporter refuses further batches, and what is left is counted as
dropped. The thread ends by itself, at the latest with the exporter's own time limit.

*Processes.* The processor has a thread, so the export is opened in the process that uses it, never before a fork.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import trio

from ...core.events import LogMessage, Recorder
from ...core.product import PRODUCT
from ..timeline import Timeline

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from .spans import SpanMaker

SHUTDOWN_S = 2.0
"""The time limit in seconds for sending the last spans."""
WARNING_S = 60.0
"""The time in seconds from one warning to the next."""
QUEUE_MAX = 2048
"""The default of OTEL_BSP_MAX_QUEUE_SIZE."""
BATCH_MAX = 64
"""The default of OTEL_BSP_MAX_EXPORT_BATCH_SIZE here. Encoding a batch is Python code in the processor's thread, which
holds the event loop up meanwhile: some 2 ms for 64 spans, 20 ms for the SDK's default of 512."""
_LOGGER = "opentelemetry"
_VERSION = PRODUCT.partition("/")[2]


@dataclass(frozen=True, slots=True)
class SpanStatistics:
    """A snapshot of the counters of spans."""

    exported: int
    """Spans that the collector has taken."""
    failed: int
    """Spans that could not be sent, after the exporter's own retries."""
    dropped: int
    """Spans that were not sent, because the queue was full, too many requests were notable, or the process ended."""
    queued: int
    """Spans that wait."""


class CountedExporter:
    """A ``SpanExporter`` that counts what another one exports. Its methods run in threads of the processor."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._closing = threading.Lock()
        self._closed = False
        self.taken = 0
        """Spans that were taken out of the queue."""
        self.exported = 0
        self.failed = 0
        self.refused = False
        """Whether further batches are not sent any more."""
        self.unsent = 0
        """Spans that were refused."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; see ``SpanExporter``. Waits for the collector."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        self.taken += len(spans)
        if self.refused:
            self.unsent += len(spans)
            return SpanExportResult.FAILURE
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            # A batch that was under way when the export ended has been counted as failed; counters never fall.
            if result is SpanExportResult.SUCCESS and not self.refused:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """End the exporter, once; see ``SpanExporter``."""
        with self._closing:
            closed, self._closed = self._closed, True
        if not closed:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """See ``SpanExporter``."""
        return self._exporter.force_flush(timeout_millis)


class SpanExport:
    """Makes the spans of requests and hands them to a processor: a ``sampling.SpanSink``.

    Args:
        processor: gets the spans; its exporter is ``exporter``.
        maker: makes the spans.
        queue_max: the bound on the spans in the processor's queue.
        recorder: takes a record if spans cannot be made, which is a bug.
    """

    def __init__(
        self,
        processor: BatchSpanProcessor,
        exporter: CountedExporter,
        maker: SpanMaker,
        queue_max: int,
        recorder: Recorder,
    ) -> None:
        from .spans import span_count

        self._processor = processor
        self._exporter = exporter
        self._maker = maker
        self._queue_max = queue_max
        self._recorder = recorder
        self._span_count = span_count
        self._given = 0
        self._dropped = 0

    def take(self, timeline: Timeline) -> None:
        """Export the spans of a request, or count them as dropped. Takes some 20 µs for each span."""
        count = self._span_count(timeline)
        if self._exporter.refused or self._given - self._exporter.taken + count > self._queue_max:
            self._dropped += count
            return
        try:
            spans = self._maker.spans_of(timeline)
        except Exception as error:  # noqa: BLE001 - recording must not raise; the loss is counted and recorded
            self._dropped += count
            text = "the spans of a request could not be made"
            fields = {"request_id": timeline.request_id}
            self._recorder.record(LogMessage("error", "traces.failed", text, None, fields, error))
            return
        self._given += count
        for span in spans:
            self._processor.on_end(span)

    def drop(self, spans: int) -> None:
        """Count spans that were dropped before they were made."""
        self._dropped += spans

    def statistics(self) -> SpanStatistics:
        """A snapshot of the counters."""
        exporter = self._exporter
        queued = max(self._given - exporter.taken, 0)
        if exporter.refused:
            failed = exporter.taken - exporter.exported - exporter.unsent  # With a batch that is under way.
            return SpanStatistics(exporter.exported, failed, self._dropped + exporter.unsent + queued, 0)
        return SpanStatistics(exporter.exported, exporter.failed, self._dropped, queued)

    async def close(self) -> None:
        """Send the last spans, for at most ``SHUTDOWN_S`` seconds, also if cancelled. Then refuse all others."""
        with trio.move_on_after(SHUTDOWN_S, shield=True):
            # A limiter of its own: the threads of the default one may all be busy.
            await trio.to_thread.run_sync(
                self._processor.shutdown, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )
        self._exporter.refused = True
        # Ends the exporter's pauses between retries, if the thread was left; it does not wait.
        self._exporter.shutdown()
        statistics = self.statistics()
        if lost := statistics.failed + statistics.dropped:
            text = f"{lost} of {lost + statistics.exported} spans were not exported"
            self._recorder.record(LogMessage("warning", "traces.lost", text, None, {"spans": lost}))


class LimitedWarnings(logging.Handler):
    """Records what the SDK's loggers report, at most once in ``WARNING_S`` seconds. For any thread."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(logging.WARNING)
        self._recorder = recorder
        self._clock = clock
        self._from = float("-inf")
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Record one report, or count it."""
        now = self._clock()
        if now < self._from:
            self._left_out += 1
            return
        self._from = now + WARNING_S
        left_out, self._left_out = self._left_out, 0
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the message
            text = str(record.msg)
        more = f" ({left_out} more such reports since the last one)" if left_out else ""
        fields = {"logger": record.name, "left_out": left_out}
        error = record.exc_info[1] if record.exc_info else None
        self._recorder.record(LogMessage("warning", "traces.export", f"{text}{more}", None, fields, error))


@contextmanager
def limited_warnings(recorder: Recorder) -> Iterator[None]:
    """Context manager: have the SDK's loggers report to ``LimitedWarnings`` alone."""
    logger, handler = logging.getLogger(_LOGGER), LimitedWarnings(recorder)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


@asynccontextmanager
async def open_export(
    otlp: str | None, recorder: Recorder, *, use_proxy: bool = False
) -> AsyncGenerator[SpanExport, None]:
    """Context manager: export spans to a collector while the block runs.

    Args:
        otlp: the base URL of the collector; None: the SDK takes it from OpenTelemetry's variables.
        recorder: takes the warnings.
        use_proxy: whether the variables for proxies are heeded.

    Raises:
        ImportError: ``umbel[otel]`` is not installed.
        ValueError: a variable of OpenTelemetry has an invalid value.
    """
    with limited_warnings(recorder):
        # In a thread: the libraries are imported, and detectors of resources may read files.
        export = await trio.to_thread.run_sync(partial(_opened, otlp, recorder, use_proxy=use_proxy))
        try:
            yield export
        finally:
            await export.close()


def _opened(otlp: str | None, recorder: Recorder, *, use_proxy: bool) -> SpanExport:
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from .spans import SpanMaker

    session = requests.Session()
    session.trust_env = use_proxy
    endpoint = None if otlp is None else f"{otlp.rstrip('/')}/v1/traces"
    exporter = CountedExporter(OTLPSpanExporter(endpoint, session=session))
    queue_max = _queue_max()
    batch_max = None if os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else min(BATCH_MAX, queue_max)
    processor = BatchSpanProcessor(
        exporter,  # type: ignore[arg-type]  # It has the methods of one.
        queue_max,
        max_export_batch_size=batch_max,
    )
    return SpanExport(processor, exporter, SpanMaker(_resource(), _VERSION), queue_max, recorder)


def _queue_max() -> int:
    """OTEL_BSP_MAX_QUEUE_SIZE, as the SDK reads it."""
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX))
    except ValueError:
        return QUEUE_MAX


def _resource() -> Resource:
    """The SDK's resource, which reads OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME; the default name is ``umbel``."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create({"service.version": _VERSION, "process.pid": os.getpid()})
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "umbel"}))
    return found
