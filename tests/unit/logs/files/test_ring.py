"""The ring in shared memory, and the recovery of its lines after the death of its process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.logs import LogOptions, open_log, recover
from umbel.logs.files.reading import log_files
from umbel.logs.files.retention import compress
from umbel.logs.files.ring import SUFFIX, Ring, directory_of, lines_in_ring, prefix_of
from umbel.logs.options import QUEUE_BYTES_MIN


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "app.jsonl"
    yield path
    left = list(directory_of(path).glob(f"{prefix_of(path)}*"))
    for ring in left:
        ring.unlink()
    assert left == []


def line(number: int, filling: int = 20) -> bytes:
    return b'{"ts":"2026-03-04T05:06:07.890123Z","seq":%d,"x":"%b"}\n' % (number, b"x" * filling)


def dead(ring: Ring) -> bytes:
    """The lines that recovery finds if the owner of the ring dies now."""
    data = ring.path.read_bytes()
    os.close(ring._fd)
    return data


def dispose(ring: Ring) -> None:
    ring.path.unlink()
    ring.close()


def killed(log: Path, lines: list[bytes], written: int = 0) -> None:
    """The ring of a killed process that had queued the lines and released some of them."""
    ring = Ring(log, 100_000)
    marks = [ring.append(each) for each in lines]
    if written:
        mark = marks[written - 1]
        assert mark is not None
        ring.release(mark)
    dead(ring)


def test_lines_that_were_not_released_are_found(log: Path) -> None:
    ring = Ring(log, 10_000)
    marks = [ring.append(line(number)) for number in range(5)]
    assert marks[1] is not None
    ring.release(marks[1])

    assert list(lines_in_ring(ring.path.read_bytes())) == [line(2), line(3), line(4)]
    assert ring.path.stat().st_mode & 0o077 == 0
    dispose(ring)


def test_a_full_ring_refuses_lines_until_others_are_released(log: Path) -> None:
    ring = Ring(log, 1000)
    marks = []
    while (mark := ring.append(line(1, 100))) is not None:
        marks.append(mark)
    assert 4 <= len(marks) <= 7

    ring.release(marks[0])
    assert ring.append(line(2, 50)) is not None
    dispose(ring)


@given(data=st.data())
@settings(max_examples=50)
def test_after_any_number_of_rounds_the_found_lines_are_the_unreleased_ones(data: st.DataObject) -> None:
    ring = Ring(Path("/tmp/umbel-test-of-the-ring.jsonl"), 2000)
    kept: list[tuple[int, bytes]] = []
    try:
        for number in range(data.draw(st.integers(0, 60))):
            new = line(number, data.draw(st.integers(0, 300)))
            has_room = ring.has_room(len(new))
            mark = ring.append(new)
            assert (mark is not None) == has_room
            if mark is not None:
                kept.append((mark, new))
            elif kept:
                count = data.draw(st.integers(1, len(kept)))
                ring.release(kept[count - 1][0])
                del kept[:count]
        assert list(lines_in_ring(ring.path.read_bytes())) == [each for _, each in kept]
    finally:
        dispose(ring)


@pytest.mark.parametrize("torn_at", range(0, 60, 7))
def test_a_line_whose_header_was_not_written_is_not_found(log: Path, torn_at: int) -> None:
    ring = Ring(log, 10_000)
    ring.append(line(1))
    before = ring.path.read_bytes()
    ring.append(line(2))
    after = ring.path.read_bytes()
    dispose(ring)
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]

    # A part of the second line's bytes was stored, in the order of writing or in any other.
    for half in (changed[:torn_at], changed[torn_at + 1 :]):
        torn = bytearray(before)
        for at in half:
            torn[at] = after[at]
        found = list(lines_in_ring(bytes(torn)))
        assert found[:1] == [line(1)]
        assert found in ([line(1)], [line(1), line(2)])
        assert bytes(torn) == after or found == [line(1)]


def test_bytes_that_are_not_a_ring_have_no_lines() -> None:
    assert list(lines_in_ring(b"")) == []
    assert list(lines_in_ring(b"\0" * 100_000)) == []
    assert list(lines_in_ring(os.urandom(100_000))) == []


def test_the_lines_of_a_dead_process_are_appended_once(log: Path) -> None:
    log.write_bytes(line(1))
    killed(log, [line(1), line(2), line(3)], written=1)

    assert recover(log) == 2
    assert recover(log) == 0
    assert log.read_bytes() == line(1) + line(2) + line(3)


def test_lines_that_were_written_but_not_released_are_not_appended_again(log: Path) -> None:
    log.write_bytes(line(1) + line(2) + line(3)[:10])
    killed(log, [line(1), line(2), line(3), line(4)])

    assert recover(log) == 2
    assert log.read_bytes() == line(1) + line(2) + line(3) + line(4)


def test_lines_in_renamed_and_compressed_files_are_not_appended_again(log: Path) -> None:
    moved = log.with_name(log.name + ".20260304T050608.000000Z")
    moved.write_bytes(line(1) + line(2))
    compress(moved, "gzip")
    log.write_bytes(line(3))
    killed(log, [line(1), line(2), line(3), line(4)])

    assert recover(log) == 1
    assert log.read_bytes() == line(3) + line(4)


def compressed(log: Path) -> None:
    compress(log.with_name(log.name + ".20260304T050608.000000Z"), "gzip")


def renamed(log: Path) -> None:
    log.rename(log.with_name(log.name + ".20260304T050609.000000Z"))
    log.write_bytes(line(5))


def renamed_and_compressed(log: Path) -> None:
    renamed(log)
    compress(log.with_name(log.name + ".20260304T050609.000000Z"), "gzip")


@pytest.mark.parametrize("during_listing", [False, True])
@pytest.mark.parametrize("change", [compressed, renamed, renamed_and_compressed])
def test_lines_of_a_file_renamed_during_recovery_are_not_appended_again(
    change: Callable[[Path], None], during_listing: bool, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.with_name(log.name + ".20260304T050608.000000Z").write_bytes(line(1))
    log.write_bytes(line(2))
    killed(log, [line(1), line(2), line(3)])
    listings = []

    def listing(path: Path) -> list[Path]:
        before = log_files(path)
        if not listings:
            change(path)
        # A listing during a rename may show neither the old name nor the new one.
        listings.append([each for each in before if each in log_files(path)] if during_listing else before)
        return listings[-1]

    monkeypatch.setattr("umbel.logs.files.recover.log_files", listing)

    assert recover(log) == 1
    assert log.read_bytes().endswith(line(3))
    assert len(listings) == 3


def test_recovery_ends_although_files_are_renamed_all_the_time(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_bytes(line(1))
    killed(log, [line(1), line(2)])
    numbers = count()

    def listing(path: Path) -> list[Path]:
        moving = path.with_name(f"{path.name}.{next(numbers)}")
        moving.write_bytes(b"")
        return [*log_files(path), moving]

    monkeypatch.setattr("umbel.logs.files.recover.log_files", listing)

    assert recover(log) == 1
    assert log.read_bytes() == line(1) + line(2)
    assert next(numbers) == 20


def test_the_ring_of_a_living_process_is_left_alone(log: Path) -> None:
    ring = Ring(log, 10_000)
    ring.append(line(1))

    assert recover(log) == 0
    assert ring.path.exists()
    dispose(ring)


def test_a_ring_of_another_log_is_left_alone(log: Path) -> None:
    other = log.with_name("other.jsonl")
    killed(other, [line(1)])

    assert recover(log) == 0
    assert recover(other) == 1


async def test_a_log_with_a_ring_recovers_lines_at_its_start_and_records_their_number(log: Path) -> None:
    killed(log, [line(1), line(2)])

    async with open_log(log, LogOptions(ring=True, max_queue_bytes=QUEUE_BYTES_MIN, service="test")) as opened:
        opened.info("mine")

    records = [json.loads(each) for each in (await trio.Path(log).read_bytes()).splitlines()]
    assert [record.get("event") for record in records] == [None, None, "log.recovered", "mine", "log.closed"]
    assert records[2]["count"] == 2
    assert records[-1]["written"] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is what a full disk looks like on Linux only")
async def test_lines_that_a_full_disk_did_not_take_are_appended_at_the_next_start(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.logs.writer.DRAIN_S_MAX", 0.05)
    options = LogOptions(ring=True, max_queue_bytes=QUEUE_BYTES_MIN, service="test")
    await trio.Path(log).symlink_to("/dev/full")
    async with open_log(log, options) as opened:
        opened.info("given up")
    assert opened.statistics().dropped == 1
    await trio.Path(log).unlink()

    async with open_log(log, options):
        pass

    text = await trio.Path(log).read_text()
    assert [json.loads(each)["event"] for each in text.splitlines()] == ["given up", "log.recovered", "log.closed"]


async def test_a_ring_that_cannot_be_created_is_an_error_at_the_start(log: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        async with open_log(log, LogOptions(ring=True, max_queue_bytes=2**50, service="test")):
            pytest.fail("it must not come this far")


async def test_a_pipe_among_the_rings_is_left_alone(tmp_path: Path) -> None:
    """Any user can create files in /dev/shm."""
    log = tmp_path / "app.jsonl"
    planted = directory_of(log) / f"{prefix_of(log)}1-planted{SUFFIX}"
    os.mkfifo(planted)
    try:
        assert recover(log) == 0
    finally:
        planted.unlink()


def test_the_release_mark_is_written_at_once_and_not_through_zero(log: Path) -> None:
    """``struct.pack_into`` fills its place with zeros before it writes: a kill in between lost all waiting lines."""
    ring = Ring(log, 1000)
    mark = ring.append(b"a line\n")
    assert mark is not None
    writes: list[tuple[slice, bytes]] = []
    mapped = ring._map

    class Recorded:
        """Takes whole slices only; ``pack_into`` would raise TypeError."""

        def __setitem__(self, place: slice, data: bytes) -> None:
            writes.append((place, data))
            mapped[place] = data

    ring._map = Recorded()  # type: ignore[assignment]
    ring.release(mark)
    ring._map = mapped
    ring.close()
    assert [data for _, data in writes] == [mark.to_bytes(8, "little")]
