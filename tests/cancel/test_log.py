"""Cancels of a log at each checkpoint: every record is written or counted, and the last line has the counts."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.sinks import MemorySink, memory_log
from umbel.logs import NotWrittenError


async def test_a_cancel_loses_no_record_and_the_last_line_counts_all(autojump_clock: MockClock) -> None:
    sink = MemorySink()
    recorded = 0

    async def operation() -> None:
        nonlocal sink, recorded
        sink, recorded = MemorySink(), 0
        sink.seconds_per_write = 0.01
        async with memory_log(sink, flush_every=0.02, fsync="1s") as log:
            for number in range(4):
                log.info("one", number=number)
                recorded += 1
                await trio.sleep(0.01)
                log.reopen()
                log.error("two", number=number)
                recorded += 1
                await log.flush()
                with suppress(NotWrittenError):
                    recorded += 1
                    await log.audit("three", number=number)

    def check() -> None:
        if recorded:
            assert sink.events[-1] == "log.closed"
            assert sink.records[-1]["written"] == len(sink.records)
            assert sink.records[-1]["dropped"] == 0
            assert len(sink.records) >= recorded
            assert [record["seq"] for record in sink.records] == list(range(1, len(sink.records) + 1))

    assert await for_every_checkpoint(operation, check) > 20


async def test_a_cancelled_audit_leaves_its_record_in_the_log(autojump_clock: MockClock) -> None:
    sink = MemorySink()
    sink.seconds_per_write = 1.2
    async with memory_log(sink) as log:
        with trio.move_on_after(1) as scope:
            await log.audit("paid")
        assert scope.cancelled_caught
    assert sink.events == ["paid", "log.closed"]


async def test_a_cancel_at_the_end_with_a_broken_disk_ends_within_the_drain(autojump_clock: MockClock) -> None:
    sink = MemorySink()
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with memory_log(sink) as log:
            sink.error = OSError(errno.EIO, "Input/output error")
            for _ in range(10):
                log.info("lost")
            scope.cancel(reason="shutdown")
            await trio.sleep_forever()

    assert trio.current_time() - start == pytest.approx(2, abs=0.01)
    assert log.statistics().dropped == 10
    assert log.statistics().written == 0
