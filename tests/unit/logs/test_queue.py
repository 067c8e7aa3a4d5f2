"""The queue of one log: order, bounds, the reserve for warnings, reports of losses, and interrupted updates."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.logs.queue import BATCH_BYTES, Batch, Queue
from umbel.logs.records.level import SEVERITY

INFO, WARNING = SEVERITY["info"], SEVERITY["warning"]


class Filled:
    """A queue with a manual clock, and its calls of ``gap`` and ``wake``."""

    def __init__(self, max_records: int = 30, max_bytes: int = 10_000, **options: Any) -> None:
        self.now = 0
        self.wakes: list[bool] = []
        self.queue = Queue(
            lambda count, since: b"-%d@%d " % (count, since),
            self.wakes.append,
            lambda: self.now,
            max_records=max_records,
            max_bytes=max_bytes,
            **options,
        )

    def put(self, *lines: bytes, severity: int = INFO) -> list[int]:
        return [self.queue.put(line + b" ", severity) for line in lines]

    def take(self) -> Batch:
        batch = self.queue.take()
        assert batch is not None
        return batch

    def lines(self) -> list[bytes]:
        """Take the next batch, mark it as written, and return its lines."""
        batch = self.take()
        self.queue.mark_written(batch)
        return batch.data.splitlines()


def test_lines_are_taken_in_order_numbered_and_whole() -> None:
    log = Filled()
    assert log.put(b"a", b"b") == [1, 2]
    log.put(b"c", severity=WARNING)
    log.put(b"d")

    assert log.lines() == [b"a 1}", b"b 2}", b"c 3}", b"d 4}"]
    assert log.queue.take() is None


def test_a_batch_is_a_bounded_part_of_a_full_queue() -> None:
    log = Filled(max_records=100_000, max_bytes=8 * 2**20)
    while all(log.put(b"x" * 1000)):
        pass

    sizes = []
    while (batch := log.queue.take()) is not None:
        sizes.append(len(batch.data))
        log.queue.mark_written(batch)

    assert max(sizes) <= 2 * 2**20
    assert sum(sizes) > 0.89 * 8 * 2**20


def test_a_line_longer_than_a_batch_is_a_batch_of_its_own() -> None:
    log = Filled(max_bytes=1_000_000)
    log.put(b"a" * (BATCH_BYTES + 1), b"b")

    assert log.take().records == 1
    assert log.take().records == 1


def test_a_batch_occupies_its_room_until_it_is_marked() -> None:
    log = Filled(max_records=2)
    log.put(b"a", b"b")
    batch = log.take()

    assert log.put(b"c") == [0]
    log.queue.mark_written(batch)
    assert log.put(b"d") != [0]


def test_the_bytes_are_bounded_too() -> None:
    log = Filled(max_bytes=100)

    assert log.put(b"x" * 50, b"y" * 50) == [1, 0]
    assert log.queue.statistics().queued_bytes == 54


def test_the_last_tenth_of_the_room_is_reserved_for_warnings() -> None:
    log = Filled(max_records=20)
    assert log.put(*[b"i"] * 19)[-2:] == [18, 0]

    assert log.put(b"w", b"w", severity=WARNING) == [20, 21]
    assert log.queue.statistics().queued == 20


def test_a_warning_displaces_the_oldest_ordinary_lines_then_severe_ones() -> None:
    log = Filled(max_records=3)
    log.put(b"w1", severity=WARNING)
    log.put(b"i1", b"i2")

    log.put(b"w2", b"w3", b"w4", severity=WARNING)

    assert [line.split()[0] for line in log.lines()[:3]] == [b"w2", b"w3", b"w4"]
    assert log.queue.statistics().dropped == 3


def test_drop_oldest_keeps_the_newest_lines_and_all_warnings() -> None:
    log = Filled(max_records=10, overflow="drop_oldest")
    log.put(b"w", severity=WARNING)

    log.put(*[b"i%d" % number for number in range(50)])

    lines = log.lines()
    assert lines[0] == b"w 1}"
    assert [line.split()[0] for line in lines[1:9]] == [b"i%d" % number for number in range(42, 50)]
    assert log.queue.statistics().dropped == 42


def test_a_gap_is_reported_with_its_place_count_and_start() -> None:
    log = Filled(max_records=2)
    log.put(b"a", b"b")
    log.now = 5
    log.put(b"lost")
    log.now = 9
    log.put(b"lost too")
    assert log.lines() == [b"a 1}", b"b 2}"]

    log.put(b"c")

    assert log.lines() == [b"-2@5 5}", b"c 6}"]
    assert log.queue.statistics().dropped == 2


def test_a_gap_is_reported_without_waiting_for_the_next_line_and_once() -> None:
    log = Filled(max_records=1)
    log.put(b"a", b"lost")

    assert log.lines() == [b"a 1}"]
    assert log.lines() == [b"-1@0 3}"]
    assert log.queue.take() is None


def test_the_report_of_a_gap_never_uses_the_reserve() -> None:
    log = Filled(max_records=10)
    log.put(*[b"i"] * 30)

    assert log.queue.statistics().queued == 9
    assert log.queue.statistics().dropped == 21


def test_the_queue_wakes_the_writer_once_and_once_more_if_urgent() -> None:
    log = Filled(max_records=1000, max_bytes=10**6)
    log.put(b"a", b"b")
    assert log.wakes == [False]
    log.put(b"c", b"d", severity=WARNING)
    assert log.wakes == [False, True]

    log.lines()
    log.put(b"x" * BATCH_BYTES)
    assert log.wakes == [False, True, True]


def test_a_small_queue_wakes_the_writer_when_a_quarter_is_full() -> None:
    log = Filled(max_records=1000, max_bytes=40_000)
    log.put(b"x" * 5_000)
    assert log.wakes == [False]
    log.put(b"x" * 5_000)
    assert log.wakes == [False, True]


def test_a_closed_queue_counts_its_lines_as_dropped_and_takes_no_more() -> None:
    log = Filled()
    log.put(b"a", b"b")
    log.queue.mark_dropped(log.take())
    log.queue.close()

    assert log.put(b"c") == [0]
    assert log.put(b"d", severity=WARNING) == [0]
    numbers = log.queue.statistics()
    assert (numbers.queued, numbers.queued_bytes, numbers.written, numbers.dropped) == (0, 0, 0, 4)


def test_the_last_line_counts_itself_and_the_report_of_a_gap_before() -> None:
    log = Filled(max_records=2)
    log.put(b"a", b"b", b"lost")
    log.queue.mark_written(log.take())

    log.queue.put_last(lambda written, dropped: b"end %d %d " % (written, dropped))

    assert log.put(b"too late", severity=WARNING) == [0]
    assert log.lines() == [b"-1@0 4}", b"end 4 1 5}"]
    assert log.queue.statistics().written == 4


def test_records_are_settled_once_they_are_written_or_dropped() -> None:
    log = Filled()
    assert log.queue.settled == 0
    log.put(b"a", b"b")
    assert log.queue.settled == 0
    batch = log.take()
    log.put(b"c")

    log.queue.mark_written(batch)
    assert log.queue.settled == 2

    log.queue.mark_dropped(log.take())
    assert log.queue.settled == 3


def test_a_line_is_unwatched_only_between_updates() -> None:
    waits: list[bool] = []

    def wake(_: bool) -> None:
        if not waits:
            thread.start()
            thread.join(0.02)
            waits.append(thread.is_alive())

    queue = Queue(lambda *_: b"", wake, lambda: 0, max_records=10, max_bytes=1000)
    thread = threading.Thread(target=queue.unwatch, args=(1,))
    assert queue.put_watched(b"a ", INFO) == 1
    thread.join()
    assert waits == [True]
    assert queue.is_lost(1)


def test_a_watched_line_that_is_dropped_is_reported_as_lost() -> None:
    log = Filled(max_records=2)
    kept, lost = log.queue.put_watched(b"a ", INFO), log.queue.put_watched(b"b ", INFO)
    batch = log.take()
    assert not log.queue.is_lost(kept)

    log.queue.mark_dropped(batch)

    assert log.queue.is_lost(lost)
    assert log.queue.is_lost(kept)
    assert log.queue.put_watched(b"c ", INFO) == 3


class Interrupting:
    """A crash buffer during whose work a finalizer records."""

    def __init__(self) -> None:
        self.interrupt: Any = None

    def append(self, line: bytes) -> int | None:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        return 0

    def has_room(self, size: int) -> bool:
        return True

    def release(self, mark: int) -> None:
        self.append(b"")


class FullBuffer(Interrupting):
    """A crash buffer that has room for a number of lines, and is never released."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def append(self, line: bytes) -> int | None:
        if not self.room:
            return None
        self.room -= 1
        return 1

    def has_room(self, size: int) -> bool:
        return self.room > 0


def test_a_line_displaces_none_if_warnings_or_taken_lines_leave_it_no_room() -> None:
    log = Filled(max_bytes=1000, overflow="drop_oldest")
    log.put(b"kept")
    log.put(*[b"x" * 150] * 5, severity=WARNING)
    assert log.put(b"y" * 200) == [0]  # It may have 900 bytes, of which warnings have most.
    assert log.queue.statistics().dropped == 1

    log = Filled(max_records=10)
    log.put(*[b"taken"] * 9)
    log.take()
    log.put(b"taken", severity=WARNING)
    log.take()
    assert log.put(b"new", severity=WARNING) == [0]
    assert log.queue.statistics().queued == 10


@pytest.mark.parametrize(("severity", "overflow"), [(WARNING, "drop_new"), (INFO, "drop_oldest")])
def test_a_line_displaces_none_if_the_crash_buffer_is_full(severity: int, overflow: str) -> None:
    log = Filled(max_records=10, crash_buffer=FullBuffer(10), overflow=overflow)
    log.put(*[b"kept"] * 9)
    log.put(b"kept", severity=WARNING)

    assert log.put(b"new", severity=severity) == [0]  # The queue is full, and so is the buffer.

    statistics = log.queue.statistics()
    assert (statistics.queued, statistics.dropped) == (10, 1)


def test_a_line_put_by_a_finalizer_during_a_put_follows_it() -> None:
    crash_buffer = Interrupting()
    log = Filled(crash_buffer=crash_buffer)

    crash_buffer.interrupt = lambda: log.put(b"from the finalizer")
    log.put(b"first")
    crash_buffer.interrupt = lambda: log.put(b"from another one")
    log.queue.mark_written(log.take())

    assert log.lines() == [b"from another one 3}"]
    assert log.queue.statistics().written == 3


@pytest.mark.parametrize("overflow", ["drop_new", "drop_oldest"])
def test_concurrent_threads_leave_no_sequence_number_unaccounted(overflow: str) -> None:
    log = Filled(max_records=3000, max_bytes=10**7, overflow=overflow)
    written: list[bytes] = []

    def fill(name: int) -> None:
        for number in range(1000):
            log.put(b"%d-%d" % (name, number), severity=WARNING if number % 10 == 0 else INFO)

    threads = [threading.Thread(target=fill, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or log.queue.waiting:
        if (batch := log.queue.take()) is not None:
            written += batch.data.splitlines()
            log.queue.mark_written(batch)
    for thread in threads:
        thread.join()

    numbers = [int(line.split()[-1][:-1]) for line in written]
    assert numbers == sorted(numbers)
    statistics = log.queue.statistics()
    assert len(written) == statistics.written
    gaps = sum(line.startswith(b"-") for line in written)
    assert statistics.written - gaps + statistics.dropped == 8000
    for name in range(8):
        mine = [int(line.split(b"-")[1].split()[0]) for line in written if line.startswith(b"%d-" % name)]
        assert mine == sorted(mine)


@pytest.mark.parametrize("options", [{}, {"overflow": "drop_oldest"}])
@pytest.mark.parametrize("sizes", [[5], [3, 4], [40], [20, 20, 1], [1, 26, 1, 1], [2, 0, 2]])
@pytest.mark.parametrize("bytes_max", [10_000, 130])
def test_put_all_has_the_effect_of_several_puts(sizes: list[int], bytes_max: int, options: dict[str, Any]) -> None:
    together, apart = Filled(max_bytes=bytes_max, **options), Filled(max_bytes=bytes_max, **options)
    for log in (together, apart):
        log.put(b"first", severity=WARNING)
    for number, size in enumerate(sizes):
        lines = [b"%d-%d" % (number, place) for place in range(size)]
        together.queue.put_all([line + b" " for line in lines])
        apart.put(*lines)
        assert together.queue.statistics() == apart.queue.statistics()
        # Lines that fill a batch together need no wake that is not urgent before the urgent one.
        assert together.wakes[-1] == apart.wakes[-1]
        assert together.wakes.count(True) == apart.wakes.count(True)
        assert len(together.wakes) <= len(apart.wakes)
        if number == 1:
            assert together.queue.take() == apart.queue.take()
    assert together.queue.take() == apart.queue.take()
    assert together.queue.last == apart.queue.last


def test_a_line_put_by_a_finalizer_during_put_all_follows_its_lines() -> None:
    log = Filled()

    class Line(bytes):
        """A line that puts another line while its number is appended, as a finalizer could."""

        def __add__(self, other: Any) -> bytes:
            log.put(b"late")
            return bytes(self) + other

    log.queue.put_all([Line(b"a "), b"b "])
    assert log.lines() == [b"a 1}", b"b 2}", b"late 3}"]


@given(st.lists(st.tuples(st.sampled_from([INFO, WARNING, 0]), st.integers(1, 300)), max_size=60))
def test_the_counts_of_bytes_are_those_of_the_lines(steps: list[tuple[int, int]]) -> None:
    """A step puts a line of a severity and size, or (severity 0) takes a batch or marks the taken one."""
    queue, taken = Filled(max_records=20, max_bytes=2000, overflow="drop_oldest").queue, None
    for severity, size in steps:
        if severity:
            queue.put(b"x" * size, severity)
        elif taken is None:
            taken = queue.take()
        else:
            queue.mark_written(taken)
            taken = None
        assert queue._severe_bytes == sum(len(line) for _, line, _ in queue._severe)
        assert queue._taken_bytes == (0 if taken is None else len(taken.data))
        ordinary = sum(len(line) for _, line, _ in queue._ordinary)
        assert queue.queued_bytes == queue._severe_bytes + queue._taken_bytes + ordinary <= 2000
