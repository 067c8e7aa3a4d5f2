"""The queue of one stream: bounds, and the line that tells of what was lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from umbel.logs.stream import Stream

START = datetime(2026, 1, 1, tzinfo=UTC)


class Wall:
    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def gap_line(count: int, since: datetime) -> bytes:
    return f"-{count}@{(since - START).seconds}\n".encode()


def stream(max_records: int = 3, max_bytes: int = 1000, wall: Wall | None = None) -> Stream:
    return Stream(gap_line, wall or Wall(), max_records=max_records, max_bytes=max_bytes)


def test_lines_leave_in_order_and_whole() -> None:
    queue = stream()
    for line in (b"a\n", b"bb\n", b"c\n"):
        assert queue.put(line)

    assert queue.take(5).data == b"a\nbb\n"
    assert queue.take(5).data == b"c\n"
    assert queue.take(5) == (b"", 0)


def test_a_line_longer_than_a_batch_goes_alone() -> None:
    queue = stream()
    queue.put(b"a" * 50 + b"\n")
    queue.put(b"b\n")

    assert queue.take(10).records == 1
    assert queue.take(10).data == b"b\n"


def test_a_batch_holds_its_room_until_it_is_written() -> None:
    queue = stream(max_records=2)
    queue.put(b"a\n")
    queue.put(b"b\n")
    batch = queue.take(100)

    assert not queue.put(b"c\n")
    queue.wrote(batch)
    assert queue.put(b"d\n")


def test_the_bytes_are_bounded_too() -> None:
    queue = stream(max_records=100, max_bytes=10)

    assert queue.put(b"12345678\n")
    assert not queue.put(b"12\n")
    assert queue.statistics().queued_bytes == 9


def test_the_gap_is_told_where_it_is_and_since_when() -> None:
    wall = Wall()
    queue = stream(max_records=2, wall=wall)
    queue.put(b"a\n")
    queue.put(b"b\n")
    wall.seconds = 5
    queue.put(b"lost\n")
    wall.seconds = 9
    queue.put(b"lost too\n")
    queue.wrote(queue.take(100))

    queue.put(b"c\n")

    assert queue.take(100).data == b"-2@5\nc\n"
    assert queue.statistics().dropped == 2


def test_each_gap_is_told_once() -> None:
    queue = stream(max_records=1)
    queue.put(b"a\n")
    queue.put(b"lost\n")
    queue.wrote(queue.take(100))

    assert queue.report_gap()
    assert not queue.report_gap()
    queue.wrote(queue.take(100))
    assert not queue.report_gap()


def test_what_is_given_up_counts_as_dropped_and_nothing_is_taken_after_the_end() -> None:
    queue = stream()
    queue.put(b"a\n")
    queue.put(b"b\n")
    queue.gave_up(queue.take(2))
    queue.close()

    assert not queue.put(b"c\n")
    numbers = queue.statistics()
    assert (numbers.queued, numbers.queued_bytes, numbers.written, numbers.dropped) == (0, 0, 0, 3)


def test_an_error_is_remembered_until_writing_works_again() -> None:
    queue = stream()
    queue.put(b"a\n")
    batch = queue.take(100)
    queue.failed(OSError(28, "No space left on device"))

    assert (queue.statistics().errors, queue.statistics().last_error) == (1, "No space left on device")
    queue.wrote(batch)
    assert (queue.statistics().errors, queue.statistics().last_error) == (1, None)
