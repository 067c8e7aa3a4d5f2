"""The parts of an HTTP/2 connection without I/O: frames, HPACK, and the receive buffer."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from hpack import Decoder, Encoder
from hpack.exceptions import OversizedHeaderListError
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

import umbel.server.http2.connection  # It quiets hpack.
from umbel.server.http2 import frames
from umbel.server.http2.encoder import LinearEncoder
from umbel.server.http2.frames import FrameSplitter, goaway
from umbel.server.http2.receive_buffer import ReceiveBuffer
from umbel.server.http2.request_head import CapturingDecoder, CompressionError

MockClock = trio.testing.MockClock

FRAMES: list[Frame] = [
    DataFrame(1, data=b"x" * 100, flags=["END_STREAM"]),
    PingFrame(opaque_data=b"8 bytes."),
    HeadersFrame(3, data=b"\x82", flags=["END_HEADERS"]),
    DataFrame(5),
]


def test_hpack_logs_no_header_block_when_all_loggers_log_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    assert umbel.server.http2.connection
    with caplog.at_level(logging.DEBUG):
        block = Encoder().encode([(b"authorization", b"Bearer hunter2hunter2")])
        Decoder().decode(block)
    assert caplog.records == []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_frames_are_the_same_however_their_bytes_are_split(sizes: list[int]) -> None:
    data = b"".join(frame.serialize() for frame in FRAMES)
    cutter, cut, at = FrameSplitter(16384), [], 0
    for size in sizes:
        cut += cutter.cut(data[at : at + size])
        at += size
    cut += cutter.cut(data[at:])
    assert [frame.data for frame in cut] == [frame.serialize() for frame in FRAMES]
    assert [(frame.kind, frame.stream_id) for frame in cut] == [(frame.type, frame.stream_id) for frame in FRAMES]
    assert not cutter.begun


def test_a_frame_that_is_too_long_is_yielded_as_its_head_alone() -> None:
    cutter = FrameSplitter(16384)
    (frame,) = cutter.cut(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01")
    assert (frame.length, len(frame.data), frame.is_too_long) == (16385, 9, True)
    (frame,) = FrameSplitter(16385).cut(frame.data + bytes(16385))
    assert not frame.is_too_long


def test_a_header_block_lasts_until_end_headers() -> None:
    cutter = FrameSplitter(16384)
    list(cutter.cut(HeadersFrame(1, data=b"\x82").serialize()))
    assert cutter.in_head
    list(cutter.cut(b"\0\0\0" + bytes([frames.CONTINUATION, frames.END_HEADERS]) + b"\0\0\0\1"))
    assert not cutter.in_head


@pytest.mark.parametrize(("last", "code"), [(0, 0), (frames.NO_LAST_STREAM, 11)])
def test_our_goaway_frame_equals_the_librarys(last: int, code: int) -> None:
    assert goaway(last, code) == GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b":status", b"vary", b"x-a", b"x-request-id", b"set-cookie", b"content-length"]),
        st.sampled_from([b"", b"200", b"1", b"x" * 100, b"y" * 300]),
    ),
    min_size=1,
    max_size=6,
)
BLOCKS = st.lists(st.tuples(st.sampled_from([None, None, None, 0, 64, 300, 4096]), FIELDS), min_size=1, max_size=30)
"""Sequences of header lists, and of table sizes that are set between them."""


@given(BLOCKS)
def test_the_library_decodes_what_the_encoder_encodes(blocks: list[tuple[int | None, Any]]) -> None:
    encoder, decoder = LinearEncoder(), Decoder()
    for size, fields in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields), raw=True) == fields


@given(BLOCKS)
def test_the_decoder_decodes_what_the_library_encodes(blocks: list[tuple[int | None, Any]]) -> None:
    encoder, decoder = Encoder(), CapturingDecoder()
    for size, fields in blocks:
        if size is not None:
            encoder.header_table_size = size
        decoder.decode(encoder.encode(fields))
        assert decoder.fields == fields


def test_secrets_and_values_of_one_response_are_never_indexed() -> None:
    encoder = LinearEncoder()
    encoder.header_table_size = 2000
    encoder.encode([(b":status", b"200"), (b"set-cookie", b"id=1"), (b"x-request-id", b"a"), (b"x-kept", b"1")])
    assert list(encoder.header_table.dynamic_entries) == [(b"x-kept", b"1")]


def test_a_large_table_allowed_by_the_client_is_not_used() -> None:
    encoder, decoder = LinearEncoder(), Decoder()
    decoder.max_allowed_table_size = 2**30
    for size in (2**30, 0, 2**30, 2**29):
        encoder.header_table_size = size
    for number in range(300):
        fields = [(b"x-n", b"%d" % number)]
        assert decoder.decode(encoder.encode(fields), raw=True) == fields
        assert encoder.encode(fields) == b"\xbe"  # The newest entry of the table.
        assert encoder.encode(fields) == b"\xbe"
    assert decoder.header_table_size == encoder.header_table_size == 4096
    assert len(encoder.header_table.dynamic_entries) <= 4096 // 32
    assert len(encoder._known) == 1


@pytest.mark.parametrize("block", [b"\x82\x20", b"\x82\x84\x3f\x01", b"\x80", b"\xbe", b"\x82\xbf"])
def test_a_late_table_size_change_or_a_wrong_index_is_refused(block: bytes) -> None:
    with pytest.raises(CompressionError):
        CapturingDecoder().decode(block)


def test_a_list_of_indices_over_the_size_limit_is_refused() -> None:
    decoder = CapturingDecoder()
    decoder.max_header_list_size = 100
    decoder.decode(b"\x82\x84")  # Sizes 42 and 38.
    for block in (b"\x82\x84\x86", b"\x82\x84\x0f\x00\x00"):
        with pytest.raises(OversizedHeaderListError):
            decoder.decode(block)


async def test_a_receive_buffer_gives_bytes_once_and_reports_them(
    autojump_clock: MockClock,
) -> None:
    taken: list[int] = []
    buffer = ReceiveBuffer(taken.append)
    buffer.put(b"one", 10)
    buffer.put(b"two", 3)
    assert not buffer.awaited
    assert buffer.take() == b"onetwo"
    assert (taken, buffer.awaited) == ([13], True)
    buffer.put(b"end", 3)
    buffer.end()
    assert not buffer.exhausted
    assert buffer.take() == b"end"
    assert buffer.exhausted


async def test_leaving_a_receive_buffer_reopens_the_window(
    autojump_clock: MockClock,
) -> None:
    taken: list[int] = []
    buffer = ReceiveBuffer(taken.append)
    buffer.put(b"unread", 6)
    async with trio.open_nursery() as nursery:
        buffer.take()
        nursery.start_soon(buffer.changed)
        await trio.testing.wait_all_tasks_blocked()
        buffer.leave()
    buffer.put(b"late", 4)
    assert taken == [6, 4]
    assert buffer.take() == b""


async def test_all_tasks_that_wait_for_a_receive_buffer_are_woken(autojump_clock: MockClock) -> None:
    buffer = ReceiveBuffer(lambda _: None)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(buffer.completed)
            nursery.start_soon(buffer.changed)
            nursery.start_soon(buffer.changed)
            await trio.testing.wait_all_tasks_blocked()
            buffer.put(b"x", 1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            buffer.end()
