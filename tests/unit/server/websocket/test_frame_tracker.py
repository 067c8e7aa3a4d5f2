"""``server/websocket/frame_tracker.py``: the ends of frames in pieces of any size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway.proxy.test_tunnel import frame
from umbel.server.websocket.frame_tracker import FrameTracker

sizes = st.sampled_from([0, 1, 125, 126, 300])
heads = st.tuples(sizes, st.sampled_from([0, 1, 2, 9, 10]), st.booleans(), st.sampled_from([b"", b"abcd"]))


@given(st.lists(heads, max_size=4), st.integers(1, 400))
def test_feed_frame_stops_at_each_end_of_a_frame(made: list[tuple[int, int, bool, bytes]], size: int) -> None:
    sent = [frame(bytes(length), opcode=opcode, fin=fin, key=key) for length, opcode, fin, key in made]
    tracker, data = FrameTracker(), b"".join(sent)
    ends, at = [], 0
    while at < len(data):
        at += tracker.feed_frame(data[at : at + size])
        if not tracker.inside:
            ends.append(at)

    assert ends == [sum(map(len, sent[: place + 1])) for place in range(len(sent))]
    assert not tracker.closed


def test_the_end_of_a_frame_with_a_length_of_eight_bytes_is_found() -> None:
    tracker, sent = FrameTracker(), frame(bytes(65_536), key=b"abcd")

    assert tracker.feed_frame(sent[:-1]) == len(sent) - 1
    assert tracker.inside
    assert tracker.feed_frame(sent[-1:] + b"next") == 1
    assert not tracker.inside


def test_only_a_whole_close_frame_counts_as_a_close() -> None:
    tracker = FrameTracker()
    tracker.feed(frame(b"\x03\xe8", opcode=8)[:-1])
    assert not tracker.closed
    tracker.feed(b"\xe8")
    assert tracker.closed and not tracker.inside
