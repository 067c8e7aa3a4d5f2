"""The recorder over sinks in memory, on the autojump clock: routing, batching, overflow, failures, and the end."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.logs.event_factories import attempt, call_ended, log_message, request_ended
from tests.support.logs.sinks import MemoryLog
from umbel.core.events import AttemptEnded, LogMessage
from umbel.logs.queue import BATCH_BYTES
from umbel.logs.recorder import CLOSE_WAIT_S_MAX
from umbel.logs.writer import DRAIN_S_MAX

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


async def test_each_event_goes_to_its_stream(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open() as recorder:
        recorder.record(request_ended())
        recorder.record(call_ended())
        recorder.record(log_message())

    assert log.access.events == ["request.end"]
    assert log.calls.events == ["call.end"]
    assert log.app.events == ["test.note", "log.closed"]


async def test_an_attempt_has_no_line_of_its_own(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open() as recorder:
        recorder.record(AttemptEnded(None, "profile", "users", attempt(status=200)))

    assert log.access.events == log.calls.events == []
    assert log.app.events == ["log.closed"]


async def test_nothing_is_written_while_nothing_is_recorded(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open():
        await trio.sleep(3600)
        assert log.app.writes == []


async def test_a_record_waits_at_most_flush_every(log: MemoryLog, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    async with log.open(flush_every=0.25) as recorder:
        recorder.record(request_ended())
        await trio.sleep(0.1)
        recorder.record(request_ended())
        await trio.sleep(1)

        [(at, _)] = log.access.writes
    assert at - start == pytest.approx(0.25)
    assert len(log.access.records) == 2


async def test_a_full_batch_is_written_at_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open(flush_every=60) as recorder:
        start = trio.current_time()
        while recorder.statistics().streams["access"].queued_bytes < BATCH_BYTES:
            recorder.record(request_ended())
        await wait_all_tasks_blocked()

        assert trio.current_time() == start
        assert recorder.statistics().streams["access"].queued == 0
        assert [size for _, size in log.access.writes] == [len(log.access.data)]


@pytest.mark.parametrize("level", ["warning", "error"])
async def test_a_warning_is_written_at_once_with_all_waiting_records(
    log: MemoryLog, autojump_clock: MockClock, level: str
) -> None:
    async with log.open(flush_every=60) as recorder:
        recorder.record(log_message("before"))
        recorder.record(log_message("trouble", level=level))
        await wait_all_tasks_blocked()

        assert [record["msg"] for record in log.app.records] == ["before", "trouble"]


async def test_the_records_of_each_stream_are_numbered_in_order(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open() as recorder:
        for _ in range(3):
            recorder.record(request_ended())
            recorder.record(call_ended())

    assert [record["seq"] for record in log.access.records] == [1, 2, 3]
    assert [record["seq"] for record in log.calls.records] == [1, 2, 3]
    assert log.app.records[-1]["seq"] == 1


async def test_overflow_drops_new_records_and_reports_them_in_their_place(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with log.open(max_records=3, flush_every=1) as recorder:
        for number in range(5):
            recorder.record(log_message(str(number)))
        assert recorder.statistics().dropped == 2
        await trio.sleep(2)
        recorder.record(log_message("after"))

    reported = [(record["event"], record.get("msg")) for record in log.app.records]
    assert reported[:3] == [("test.note", "0"), ("test.note", "1"), ("test.note", "2")]
    assert reported[3:5] == [("log.dropped", "the queue was full"), ("test.note", "after")]
    assert log.app.records[3]["count"] == 2
    assert (log.app.records[-1]["written"], log.app.records[-1]["dropped"]) == (6, 2)


async def test_dropped_records_are_reported_even_without_later_records(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with log.open(max_records=1) as recorder:
        recorder.record(request_ended())
        recorder.record(request_ended())
        await trio.sleep(1)

        assert log.access.events == ["request.end", "log.dropped"]


async def test_a_full_disk_delays_records_and_loses_none(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open() as recorder:
        log.access.error = FULL
        recorder.record(request_ended())
        recorder.record(log_message("goes on"))
        await trio.sleep(60)
        statistics = recorder.statistics()
        assert statistics.streams["access"].last_error == "No space left on device"
        assert log.app.events == ["test.note"]

        # Backoff from 0.1 s, doubling up to 5 s: some 17 tries in a minute, not thousands.
        assert 15 <= statistics.streams["access"].errors <= 20
        log.access.error = None
        await trio.sleep(6)
        assert log.access.events == ["request.end"]

    assert recorder.statistics().dropped == 0


async def test_warnings_do_not_shorten_the_back_off_of_a_failing_disk(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with log.open() as recorder:
        log.app.error = FULL
        for _ in range(100):
            recorder.record(log_message(level="error"))
            await trio.sleep(0.01)

        assert recorder.statistics().streams["app"].errors <= 5
        log.app.error = None


async def test_a_cancel_around_the_recorder_loses_no_record(log: MemoryLog, autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with log.open(flush_every=60) as recorder:
            recorder.record(request_ended())
            scope.cancel(reason="shutdown")
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert log.access.events == ["request.end"]
    assert log.app.events == ["log.closed"]


async def test_an_exception_of_the_block_is_raised_without_a_group(log: MemoryLog, autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError), trio.CancelScope() as scope:
        async with log.open() as recorder:
            recorder.record(request_ended())
            scope.cancel(reason="must not hide the failure")
            raise ZeroDivisionError

    assert log.access.events == ["request.end"]


async def test_a_hanging_disk_delays_the_end_by_two_seconds_at_most(log: MemoryLog, autojump_clock: MockClock) -> None:
    log.access.hang = True
    async with log.open() as recorder:
        recorder.record(request_ended())
        recorder.record(call_ended())
        await trio.sleep(1)
        closing_at = trio.current_time()

    assert trio.current_time() - closing_at == pytest.approx(CLOSE_WAIT_S_MAX)
    assert log.access.closed
    # Each stream has its own writer: the others lose nothing, and the last line reports the loss.
    assert log.calls.events == ["call.end"]
    assert recorder.statistics().dropped == 1
    last = log.app.records[-1]
    assert (last["event"], last["dropped"], last["streams"]["access"]) == (
        "log.closed",
        1,
        {"written": 0, "dropped": 1},
    )


async def test_records_that_a_full_disk_did_not_take_are_counted_in_the_last_line(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with log.open(flush_every=0.01) as recorder:
        log.access.error = log.calls.error = FULL
        for _ in range(3):
            recorder.record(request_ended())
        recorder.record(call_ended())
        await trio.sleep(1)
        closing_at = trio.current_time()

    assert trio.current_time() - closing_at <= DRAIN_S_MAX
    last = log.app.records[-1]
    assert (last["event"], last["written"], last["dropped"]) == ("log.closed", 1, 4)
    assert {name: stream["dropped"] for name, stream in last["streams"].items()} == {"access": 3, "calls": 1}


async def test_an_app_stream_that_hangs_delays_the_end_by_two_seconds(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    log.app.hang = True
    async with log.open() as recorder:
        recorder.record(log_message())
        closing_at = trio.current_time()

    assert trio.current_time() - closing_at == pytest.approx(DRAIN_S_MAX)


async def test_a_disk_that_recovers_within_the_drain_gets_all_records(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def recover() -> None:
        await trio.sleep(60 + DRAIN_S_MAX / 2)
        log.access.error = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recover)
        async with log.open() as recorder:
            log.access.error = FULL
            recorder.record(request_ended())
            await trio.sleep(60)

    assert log.access.events == ["request.end"]
    assert (log.app.records[-1]["written"], log.app.records[-1]["dropped"]) == (2, 0)


async def test_records_after_the_end_are_dropped_and_counted(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open() as recorder:
        pass
    recorder.record(request_ended())

    assert recorder.statistics().dropped == 1
    assert log.access.events == []


async def test_an_event_that_cannot_be_encoded_is_counted_and_raises_nothing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    nonsense: Any = LogMessage("no such level", "odd", "")  # type: ignore[arg-type]  # the test is about just that

    async with log.open() as recorder:
        recorder.record(nonsense)
        recorder.record(log_message())

    assert recorder.statistics().dropped == 1
    assert log.app.events == ["test.note", "log.closed"]


async def test_a_flood_into_one_stream_does_not_delay_another(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with log.open(max_records=10) as recorder, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                for _ in range(20):
                    recorder.record(request_ended(500))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(flood)
        recorder.record(log_message("quiet", level="error"))
        for _ in range(200):
            await trio.lowlevel.checkpoint()

        assert log.app.events == ["test.note"]
        nursery.cancel_scope.cancel(reason="seen enough")
