"""The small parts below an HTTP/2 connection: frames, allowances, the inbox of a body."""

from __future__ import annotations

import pytest
import trio
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

from umbel.server import h2frames
from umbel.server.allowance import Allowance
from umbel.server.h2frames import FrameCutter, goaway
from umbel.server.inbox import Inbox

MockClock = trio.testing.MockClock

FRAMES: list[Frame] = [
    DataFrame(1, data=b"x" * 100, flags=["END_STREAM"]),
    PingFrame(opaque_data=b"8 bytes."),
    HeadersFrame(3, data=b"\x82", flags=["END_HEADERS"]),
    DataFrame(5),
]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_frames_are_the_same_however_their_bytes_arrive(sizes: list[int]) -> None:
    data = b"".join(frame.serialize() for frame in FRAMES)
    cutter, cut, at = FrameCutter(16384), [], 0
    for size in sizes:
        cut += cutter.cut(data[at : at + size])
        at += size
    cut += cutter.cut(data[at:])
    assert [frame.data for frame in cut] == [frame.serialize() for frame in FRAMES]
    assert [(frame.kind, frame.stream_id) for frame in cut] == [(frame.type, frame.stream_id) for frame in FRAMES]
    assert not cutter.begun


def test_a_frame_that_says_it_is_too_long_comes_as_its_head_and_nothing_is_kept_for_it() -> None:
    cutter = FrameCutter(16384)
    (frame,) = cutter.cut(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01")
    assert (frame.length, len(frame.data), frame.is_too_long) == (16385, 9, True)
    (frame,) = FrameCutter(16385).cut(frame.data + bytes(16385))
    assert not frame.is_too_long


def test_a_header_block_lasts_until_its_last_piece() -> None:
    cutter = FrameCutter(16384)
    list(cutter.cut(HeadersFrame(1, data=b"\x82").serialize()))
    assert cutter.in_head
    list(cutter.cut(b"\0\0\0" + bytes([h2frames.CONTINUATION, h2frames.END_HEADERS]) + b"\0\0\0\1"))
    assert not cutter.in_head


@pytest.mark.parametrize(("last", "code"), [(0, 0), (h2frames.NO_LAST_STREAM, 11)])
def test_our_goaway_is_the_librarys(last: int, code: int) -> None:
    assert goaway(last, code) == GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()


def test_an_allowance_is_spent_at_once_or_over_time_and_never_saved_beyond_its_size() -> None:
    allowance = Allowance(3, 2)
    assert [allowance.spend(0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.spend(0.5) for _ in range(2)] == [True, False]
    assert [allowance.spend(1000) for _ in range(4)] == [True, True, True, False]
    allowance.grant(2)
    assert [allowance.spend(1000) for _ in range(3)] == [True, True, False]


async def test_an_inbox_gives_what_came_once_and_tells_the_client_what_was_taken(autojump_clock: MockClock) -> None:
    taken: list[int] = []
    inbox = Inbox(taken.append)
    inbox.put(b"one", 10)
    inbox.put(b"two", 3)
    assert not inbox.awaited
    assert inbox.take() == (b"onetwo", True)
    assert (taken, inbox.awaited) == ([13], True)
    inbox.end()
    assert inbox.take() == (b"", False)
    with trio.move_on_after(1) as scope:
        await inbox.changed()
    assert scope.cancelled_caught, "the end was told, and is no news"


async def test_an_inbox_that_is_left_gives_the_window_back_and_swallows_the_rest(autojump_clock: MockClock) -> None:
    taken: list[int] = []
    inbox = Inbox(taken.append)
    inbox.put(b"unread", 6)
    async with trio.open_nursery() as nursery:
        inbox.take()
        nursery.start_soon(inbox.changed)
        await trio.testing.wait_all_tasks_blocked()
        inbox.leave()
    inbox.put(b"late", 4)
    assert taken == [6, 4]
    assert inbox.take() == (b"", True)
