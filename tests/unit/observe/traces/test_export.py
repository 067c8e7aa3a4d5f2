from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import trio
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.support.logs.records import Records
from tests.support.observe.timelines import partial_answer
from umbel.core.diagnostics.redact import Redactor
from umbel.observe.timeline import timeline_of
from umbel.observe.traces import export as module
from umbel.observe.traces.export import (
    WARNING_S,
    CountedExporter,
    LimitedWarnings,
    SpanExport,
    SpanStatistics,
    limited_warnings,
)
from umbel.observe.traces.spans import SpanMaker

SPANS = 9
"""Spans of ``partial_answer``."""


class Exporter(SpanExporter):
    def __init__(self) -> None:
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.shutdowns = 0
        self.go: threading.Event | None = None
        self.returned = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        if self.go is not None:
            self.go.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self) -> None:
        self.shutdowns += 1


class Processor:
    """A processor that keeps its queue."""

    def __init__(self, exporter: CountedExporter) -> None:
        self.queue: list[ReadableSpan] = []
        self._exporter = exporter
        self.inner: Any = exporter._exporter

    def on_end(self, span: ReadableSpan) -> None:
        self.queue.append(span)

    def flush(self) -> SpanExportResult:
        queue, self.queue = self.queue, []
        return self._exporter.export(queue)

    def shutdown(self) -> None:
        self.flush()
        self._exporter.shutdown()
        self.inner.returned.set()


class Setup:
    def __init__(self, queue_max: int = 100, maker: Any = None) -> None:
        self.inner, self.records = Exporter(), Records()
        self.exporter = CountedExporter(self.inner)
        self.processor = Processor(self.exporter)
        maker = maker or SpanMaker(Resource({}), "1")
        processor: Any = self.processor
        self.export = SpanExport(processor, self.exporter, maker, queue_max, self.records)

    def take(self, times: int = 1) -> None:
        for _ in range(times):
            self.export.take(timeline_of(partial_answer(), Redactor(), "head"))


def test_spans_are_counted_as_queued_then_as_exported_or_failed() -> None:
    setup = Setup()
    setup.take()
    assert setup.export.statistics() == SpanStatistics(0, 0, 0, SPANS)
    setup.processor.flush()
    setup.inner.result = SpanExportResult.FAILURE
    setup.take(2)
    setup.processor.flush()
    setup.export.drop(3)
    assert setup.export.statistics() == SpanStatistics(SPANS, 2 * SPANS, 3, 0)


def test_an_exporter_that_raises_has_failed() -> None:
    setup = Setup()
    setup.inner.result = ValueError("no")
    setup.take()
    with pytest.raises(ValueError, match="no"):
        setup.processor.flush()
    assert setup.export.statistics() == SpanStatistics(0, SPANS, 0, 0)


def test_a_trace_that_does_not_fit_into_the_queue_is_dropped_as_a_whole() -> None:
    setup = Setup(queue_max=2 * SPANS + 1)
    setup.take(3)
    assert len(setup.processor.queue) == 2 * SPANS
    assert setup.export.statistics() == SpanStatistics(0, 0, SPANS, 2 * SPANS)
    setup.processor.flush()
    setup.take()
    assert len(setup.processor.queue) == SPANS


def test_spans_that_cannot_be_made_are_dropped_and_recorded() -> None:
    class Broken:
        def spans_of(self, timeline: Any) -> Any:
            raise RuntimeError("a bug")

    setup = Setup(maker=Broken())
    setup.take()
    (record,) = setup.records.events
    assert (record.event, str(record.error)) == ("traces.failed", "a bug")
    assert setup.export.statistics().dropped == SPANS


async def test_the_end_sends_the_last_spans_and_refuses_later_ones() -> None:
    setup = Setup()
    setup.take()
    await setup.export.close()
    assert setup.export.statistics() == SpanStatistics(SPANS, 0, 0, 0)
    assert (setup.records.events, setup.inner.shutdowns) == ([], 1)
    setup.take()
    assert setup.export.statistics() == SpanStatistics(SPANS, 0, SPANS, 0)
    assert setup.processor.queue == []


async def test_spans_that_are_lost_at_the_end_are_recorded() -> None:
    setup = Setup()
    setup.inner.result = SpanExportResult.FAILURE
    setup.take()
    await setup.export.close()
    (record,) = setup.records.events
    assert (record.event, record.message) == ("traces.lost", "9 of 9 spans were not exported")


async def test_a_batch_that_is_under_way_at_the_end_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHUTDOWN_S", 0.05)
    setup, go = Setup(), threading.Event()
    setup.inner.go = go
    setup.take()
    await setup.export.close()
    (record,) = setup.records.events
    assert (record.event, record.fields) == ("traces.lost", {"spans": SPANS})
    assert setup.export.statistics() == SpanStatistics(0, SPANS, 0, 0)
    go.set()
    await trio.to_thread.run_sync(setup.inner.returned.wait)
    assert setup.export.statistics() == SpanStatistics(0, SPANS, 0, 0)


def test_warnings_of_the_sdk_are_recorded_once_a_minute_with_the_number_left_out() -> None:
    records, now = Records(), 0.0
    handler = LimitedWarnings(records, lambda: now)
    record = logging.LogRecord("opentelemetry.x", logging.ERROR, "f", 1, "code %s", (500,), None)
    for now in (0.0, 1.0, WARNING_S - 1, WARNING_S):  # noqa: B007 - the clock reads it
        handler.emit(record)
    assert [event.message for event in records.events] == [
        "code 500",
        "code 500 (2 more such reports since the last one)",
    ]
    assert records.events[1].fields == {"logger": "opentelemetry.x", "left_out": 2}


def test_arguments_that_do_not_fit_a_warning_raise_nothing() -> None:
    records = Records()
    LimitedWarnings(records).emit(logging.LogRecord("x", logging.ERROR, "f", 1, "%d", ("a",), None))
    assert records.events[0].message == "%d"


def test_the_loggers_of_the_sdk_report_to_the_recorder_alone(caplog: pytest.LogCaptureFixture) -> None:
    records, logger = Records(), logging.getLogger("opentelemetry.sdk.some")
    with limited_warnings(records):
        logger.warning("one")
        logger.info("not this")
    assert [event.message for event in records.events] == ["one"]
    assert caplog.records == []
    logger.warning("two")
    assert len(records.events) == 1
    assert len(caplog.records) == 1
