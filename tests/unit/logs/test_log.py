"""A log over a sink in memory, on the autojump clock: recording, flush, audit, reopening, rotation, sampling."""

from __future__ import annotations

import datetime
import errno
import signal
import threading
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.logs.sinks import MemorySink, memory_log
from umbel.logs import NotWrittenError, bind, bound
from umbel.logs.options import QUEUE_BYTES_MIN, LogOptions
from umbel.logs.writer import Writer

AT_NS = 1_772_600_767_890_123_456
FULL = OSError(errno.ENOSPC, "No space left on device")


class Colour(Enum):
    RED = "red"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


async def test_a_record_has_time_event_fields_and_process(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink, clock_ns=AT_NS, worker="3") as log:
        log.info("call.end", "it went well", status=200)

    first = sink.records[0]
    assert {name: first[name] for name in ("ts", "level", "severity", "event", "msg", "status", "seq", "worker")} == {
        "ts": "2026-03-04T05:06:07.890123Z",
        "level": "info",
        "severity": 9,
        "event": "call.end",
        "msg": "it went well",
        "status": 200,
        "seq": 1,
        "worker": "3",
    }
    assert first["service.name"] == "test"
    assert {"host.name", "process.pid"} <= first.keys()


async def test_each_level_has_a_function_and_those_below_the_threshold_make_no_record(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:
        log.debug("unheard")
        log.level = "debug"
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)(level)
        log.level = "error"
        log.warning("unheard")
        assert log.level == "error"
        assert not log.wants("warning")
        with pytest.raises(ValueError, match="level must be one of"):
            log.level = "loud"  # type: ignore[assignment]  # the test is about just that

    assert [record["level"] for record in sink.records[:-1]] == ["debug", "info", "warning", "error", "critical"]
    assert [record["seq"] for record in sink.records] == [1, 2, 3, 4, 5, 6]


async def test_bound_fields_reach_child_tasks_and_threads_and_end_with_the_block(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    async with memory_log(sink) as log:

        async def child() -> None:
            log.info("in.child", route="/mine")
            bind(more=1)
            await trio.to_thread.run_sync(lambda: log.info("in.thread"))

        with bound(request_id="r-1", trace_id="t-1", route="/x"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
            log.info("in.parent")
        log.info("outside")

    seen = {record["event"]: record for record in sink.records}
    assert (seen["in.child"]["request_id"], seen["in.child"]["trace_id"]) == ("r-1", "t-1")
    assert seen["in.child"]["route"] == "/mine"
    assert (seen["in.thread"]["request_id"], seen["in.thread"]["more"]) == ("r-1", 1)
    assert seen["in.parent"]["route"] == "/x"
    assert "more" not in seen["in.parent"]
    assert "request_id" not in seen["outside"]


async def test_each_line_has_the_path_of_its_task(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log, trio.open_nursery() as nursery:

        async def inner() -> None:
            log.info("inner")
            log.info("inner")

        nursery.start_soon(inner, name="the call of x")

    first, second, _ = sink.records
    assert first["task"] == second["task"]
    assert first["task"].endswith("/the call of x")
    assert first["task"].count("/") >= 1


async def test_a_field_with_a_name_of_the_encoder_is_renamed(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log:
        for _ in range(2):
            log.info("e", level="loud", seq=99, ts=0)

    for number, record in enumerate(sink.records[:2], 1):
        assert (record["level"], record["seq"]) == ("info", number)
        assert (record["field.level"], record["field.seq"], record["field.ts"]) == ("loud", 99, 0)


async def test_a_field_named_worker_is_renamed_in_a_worker_only(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink, worker="3") as log:
        log.info("e", worker=7)
    other = MemorySink()
    async with memory_log(other) as log:
        log.info("e", worker=7)

    assert (sink.records[0]["worker"], sink.records[0]["field.worker"]) == ("3", 7)
    assert other.records[0]["worker"] == 7


@pytest.mark.parametrize(
    "value",
    [datetime.datetime(2026, 3, 4, 5, 6), datetime.timedelta(minutes=5), Decimal("1.50"), UUID(int=7), Colour.RED],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_is_written_alike_beside_a_secret(
    value: Any, sink: MemorySink, autojump_clock: MockClock
) -> None:
    """A date beside a secret was its ``repr``."""
    async with memory_log(sink) as log:
        log.info("e", at=value, token="x")
        for _ in range(2):
            log.info("e", at=value)

    assert [record["at"] for record in sink.records[:3]] == [msgspec.to_builtins(value)] * 3


async def test_flush_waits_for_earlier_records_and_not_for_later_ones(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    sink.seconds_per_write = 3
    async with memory_log(sink, flush_every=60) as log:
        start = trio.current_time()
        log.info("one")
        await log.flush()
        assert trio.current_time() - start == pytest.approx(3)
        assert sink.events == ["one"]
        await log.flush()
        assert trio.current_time() - start == pytest.approx(3)


async def test_flush_waits_while_the_disk_fails(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log, trio.open_nursery() as nursery:
        sink.error = FULL
        log.info("one")

        async def mend() -> None:
            await trio.sleep(20)
            sink.error = None

        nursery.start_soon(mend)
        await log.flush()
        assert trio.current_time() >= 20
        assert sink.events == ["one"]
        assert log.statistics().last_error is None


async def test_audit_returns_after_a_sync_which_concurrent_calls_share(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    sink.seconds_per_write = 1
    async with memory_log(sink, flush_every=60) as log:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(lambda number=number: log.audit("paid", amount=number))
        assert sink.events == ["paid"] * 50
        assert 1 <= sink.did.count("sync") <= 2
        await log.audit("paid")
        assert sink.did.count("sync") <= 3


async def test_audit_with_fsync_off_waits_only_for_the_write(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink, fsync="off") as log:
        await log.audit("paid")
        assert sink.events == ["paid"]
        assert "sync" not in sink.did


async def test_audit_fails_if_the_sync_fails(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log:
        sink.sync_error = OSError(errno.EIO, "Input/output error")
        with pytest.raises(NotWrittenError, match="Input/output error"):
            await log.audit("paid")
        sink.sync_error = None
        await log.audit("paid again")


async def test_a_failing_sync_is_shown_also_while_lines_are_written(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    """Each batch that was written cleared the error, although no sync had succeeded."""
    sink.sync_error = OSError(errno.EIO, "Input/output error")
    sink.seconds_per_write = 0.3
    async with memory_log(sink, fsync="1s") as log:
        for _ in range(20):
            log.error("written")
            await trio.sleep(0.2)
        shown = set()
        for _ in range(20):
            log.error("written")
            await trio.sleep(0.2)
            shown.add(log.statistics().last_error)
        assert shown == {"Input/output error"}
        sink.sync_error = None
        await log.audit("paid")
        assert log.statistics().last_error is None


async def test_audit_fails_if_the_queue_is_full_or_the_log_closed(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink, max_queue_records=1) as log:
        sink.hang = True
        log.error("fills the queue")
        await wait_all_tasks_blocked()
        with pytest.raises(NotWrittenError, match="full"):
            await log.audit("paid")
        sink.hang = False
    with pytest.raises(NotWrittenError, match="closed"):
        await log.audit("paid")


async def test_a_waiting_audit_fails_when_the_log_ends_without_a_sync(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    failed = trio.Event()

    async with trio.open_nursery() as nursery:
        async with memory_log(sink) as log:
            sink.hang = True

            async def pay() -> None:
                with pytest.raises(NotWrittenError):
                    await log.audit("paid")
                failed.set()

            nursery.start_soon(pay)
            await wait_all_tasks_blocked()
        await failed.wait()


async def test_fsync_1s_syncs_once_a_second_while_there_are_unsynced_records(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    async with memory_log(sink, fsync="1s", flush_every=0.01) as log:
        await trio.sleep(10)
        assert "sync" not in sink.did
        log.info("one")
        await trio.sleep(2)
        assert sink.did.count("sync") == 1
        await trio.sleep(10)
        assert sink.did.count("sync") == 1


async def test_fsync_1s_syncs_under_steady_load_too(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink, fsync="1s", flush_every=0.01) as log:
        for _ in range(1000):
            log.info("one")
            await trio.sleep(0.01)
        assert 8 <= sink.did.count("sync") <= 12


async def test_records_of_other_threads_wake_the_writer(sink: MemorySink) -> None:
    async with memory_log(sink, flush_every=0.001, max_queue_records=100_000) as log:

        def work(name: int) -> None:
            for number in range(200):
                log.info("from.thread", worker_thread=name, number=number)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        await log.flush()

    records = sink.records
    assert [record["seq"] for record in records] == list(range(1, 1602))
    for name in range(8):
        mine = [record["number"] for record in records if record.get("worker_thread") == name]
        assert mine == list(range(200))
    assert all(record["task"].startswith("thread ") for record in records[:-1])


async def test_flush_waits_for_reopening_and_for_rotation(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log:
        await trio.sleep(0.1)
        log.reopen()
        await log.flush()
        assert sink.did == ["apply_retention", "reopen"]
        log.rotate()
        log.info("after")
        await log.flush()
        await wait_all_tasks_blocked()
        assert sink.did == ["apply_retention", "reopen", "rotate", "apply_retention"]


@pytest.mark.parametrize("flag", ["_reopen_requested", "_rotate_requested"])
async def test_a_request_of_a_thread_between_two_bytecodes_of_the_writer_is_kept(
    sink: MemorySink, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    other_thread_requests = False

    def read(writer: Writer) -> bool:
        nonlocal other_thread_requests
        requested = vars(writer).get(flag, False)
        if other_thread_requests:
            other_thread_requests = False
            vars(writer)[flag] = True
            writer.write_now()
        return requested

    monkeypatch.setattr(Writer, flag, property(read, lambda writer, to: vars(writer).update({flag: to})), raising=False)
    async with memory_log(sink) as log:
        log.info("one")
        await log.flush()
        other_thread_requests = True  # Right behind the next time at which anything reads the flag.
        log.rotate() if flag == "_reopen_requested" else log.reopen()
        await log.flush()
    assert not other_thread_requests
    assert (sink.did.count("reopen"), sink.did.count("rotate")) == (1, 1)


async def test_reopen_may_be_called_by_a_signal_handler(sink: MemorySink) -> None:
    async with memory_log(sink) as log:
        before = signal.signal(signal.SIGUSR1, lambda *_: log.reopen())
        try:
            signal.raise_signal(signal.SIGUSR1)
            with trio.fail_after(10):
                await log.flush()
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert "reopen" in sink.did


async def test_sampling_keeps_a_share_and_all_errors_and_slow_records(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    async with memory_log(sink, sample=0.1, slow=0.5) as log:
        for number in range(2000):
            log.info("fast", duration_ms=10, trace_id=f"{number:032x}")
        for _ in range(20):
            log.info("slow", duration_ms=500)
            log.warning("bad")
        left_out = log.statistics().sampled

    events = sink.events
    assert 120 < events.count("fast") < 280
    assert events.count("slow") == events.count("bad") == 20
    assert left_out == 2000 - events.count("fast")
    assert sink.records[0]["sample"] == 0.1
    assert [record["seq"] for record in sink.records] == list(range(1, len(events) + 1))
    assert sink.records[-1]["sampled"] == left_out


async def test_the_records_of_a_trace_are_sampled_together(autojump_clock: MockClock) -> None:
    kept = []
    for _ in range(2):
        sink = MemorySink()
        async with memory_log(sink, sample=0.5) as log:
            for number in range(100):
                with bound(trace_id=f"{number:032x}"):
                    log.info("one")
        kept.append([record.get("trace_id") for record in sink.records[:-1]])

    assert kept[0] == kept[1]
    assert 20 < len(kept[0]) < 80


async def test_an_exception_is_recorded_with_traceback_and_the_leaves_of_a_group(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    leaves: list[Exception] = [ValueError(f"leaf {number}") for number in range(100)]
    async with memory_log(sink) as log:
        try:
            raise KeyError("inner")
        except KeyError:
            log.exception("lookup.failed", "no such thing", key="inner")
        log.error("many", error=ExceptionGroup("all", [ExceptionGroup("deep", leaves), OSError("last")]))
        log.info("text", error="only a text")

    one, many, text, _ = sink.records
    assert (one["exception.type"], one["exception.message"], one["key"]) == ("builtins.KeyError", "'inner'", "inner")
    assert "test_log.py" in one["exception.stacktrace"]
    assert many["leaves"] == [
        *(f"builtins.ValueError: leaf {number}" for number in range(100)),
        "builtins.OSError: last",
    ]
    assert text["error"] == "only a text"


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


async def test_no_recorded_value_raises_or_damages_the_next_record(sink: MemorySink, autojump_clock: MockClock) -> None:
    ring: list[Any] = []
    ring.append(ring)
    odd: list[Any] = [Rude(), ring, "\udcff", 10**5000, {Rude: 1}, object(), float("nan"), b"\xff", lambda: 0]
    async with memory_log(sink) as log:
        for value in odd:
            log.info("odd", value=value)
            log.info("odd.nested", value={"a": [value]})
            log.info(value)
            log.info("odd.msg", value)
        log.info("fine")

    assert sink.events[-2:] == ["fine", "log.closed"]
    assert log.statistics().dropped + len(sink.records) == 4 * len(odd) + 2


async def test_a_stalled_disk_delays_no_caller_and_is_in_the_statistics(
    sink: MemorySink, autojump_clock: MockClock
) -> None:
    sink.seconds_per_write = 2
    async with memory_log(sink) as log:
        log.error("one")
        await trio.sleep(1)
        before = trio.current_time()
        for _ in range(1000):
            log.info("meanwhile")
        assert trio.current_time() == before
        assert log.statistics().busy_for == pytest.approx(1)
        await log.flush()
        assert len(sink.records) == 1001


async def test_records_after_the_block_are_dropped_and_counted(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink) as log:
        pass
    log.info("too late")
    log.reopen()

    assert log.statistics().dropped == 1
    assert sink.events == ["log.closed"]


async def test_retention_is_applied_every_hour(sink: MemorySink, autojump_clock: MockClock) -> None:
    async with memory_log(sink):
        await trio.sleep(2 * 3600 + 1)
        assert sink.did == ["apply_retention"] * 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"level": "loud"}, "level must be one of"),
        ({"sample": 0}, "sample"),
        ({"overflow": "block"}, "drop_new, drop_oldest"),
        ({"max_queue_bytes": QUEUE_BYTES_MIN - 1}, "max_queue_bytes"),
        ({"flush_every": 0}, "flush_every"),
        ({"rotate_size": -1}, "rotate_size"),
        ({"keep": -1}, "keep"),
        ({"compress": "lzma"}, "compress"),
        ({"fsync": "always"}, "fsync"),
    ],
)
def test_wrong_options_raise_a_value_error(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LogOptions(**options)
