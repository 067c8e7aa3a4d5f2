"""Few bytes of an HTTP/2 client that could cost the server much: settings, header blocks, stalled responses."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import h2.errors
import h2.settings
import pytest
import trio
from hpack import Encoder
from hpack.exceptions import HPACKDecodingError
from hyperframe.frame import ContinuationFrame, HeadersFrame, SettingsFrame

from tests.support.server.h2_connections import answer, h2_connected, hello
from umbel.server.http2.frames import FrameSplitter, known_settings
from umbel.server.http2.request_head import HeadDecoder
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
Codes = h2.errors.ErrorCodes
Setting = h2.settings.SettingCodes


async def large(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, bytes(1_000_000))


def settings(said: dict[int, int]) -> bytes:
    """A SETTINGS frame. hyperframe's own keeps only the last eight bits of an identifier."""
    payload = b"".join(struct.pack(">HI", key, value) for key, value in said.items())
    return len(payload).to_bytes(3, "big") + b"\4\0\0\0\0\0" + payload


# SETTINGS.


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, {}),
        ({Setting.INITIAL_WINDOW_SIZE: 7, 0x9: 1}, {Setting.INITIAL_WINDOW_SIZE: 7, 0x9: 1}),
        ({0xFFFF: 1, Setting.MAX_FRAME_SIZE: 2**14, 0x0A0A: 2}, {Setting.MAX_FRAME_SIZE: 2**14}),
        ({0xFFFF: 1}, {}),
    ],
)
def test_the_library_gets_only_known_settings(said: Any, kept: Any) -> None:
    (frame,) = FrameSplitter(2**14).cut(settings(said))
    assert known_settings(frame) == settings(kept)


@pytest.mark.parametrize("frame", [b"\0\0\5\4\0\0\0\0\0" + bytes(5), SettingsFrame(0, flags=["ACK"]).serialize()])
def test_a_malformed_settings_frame_or_an_acknowledgement_is_unchanged(frame: bytes) -> None:
    (cut,) = FrameSplitter(2**14).cut(frame)
    assert known_settings(cut) == frame


async def test_all_65536_settings_take_no_memory(autojump_clock: MockClock) -> None:
    async with h2_connected(hello) as here:
        tracemalloc.start()
        try:
            for first in range(16, 2**16, 2048):
                await here.client.stream.send_all(settings(dict.fromkeys(range(first, min(first + 2048, 2**16)), 1)))
            await trio.testing.wait_all_tasks_blocked()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 5_000_000
        assert (await here.client.fetch()).body == b"hello"


# Header blocks.

RESIZES = [b"\x20", b"\x3e", b"\x3f\x00", b"\x3f\xe1\x1f", b"\x3f\x80\x80\x00"]
HEAD = Encoder().encode([(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")])


@pytest.mark.parametrize("resize", RESIZES)
def test_a_header_block_may_begin_with_two_table_size_changes(resize: bytes) -> None:
    assert len(list(HeadDecoder().decode(resize * 2 + HEAD, raw=True))) == 4
    with pytest.raises(HPACKDecodingError, match="more than two"):
        HeadDecoder().decode(resize * 3 + HEAD, raw=True)


async def test_a_header_block_of_table_size_changes_ends_its_connection(
    autojump_clock: MockClock,
) -> None:
    async with h2_connected(hello) as here:
        await here.client.frames(
            HeadersFrame(1, data=b"\x20" * 16000, flags=["END_STREAM"]),
            ContinuationFrame(1, data=b"\x20" * 16000),
            ContinuationFrame(1, data=HEAD, flags=["END_HEADERS"]),
        )
        await here.client.ended()
        assert here.client.goaway == [Codes.COMPRESSION_ERROR]


# Responses.


async def test_a_data_frame_has_at_most_64_kib(autojump_clock: MockClock) -> None:
    async with h2_connected(large) as here:
        allowed = {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_FRAME_SIZE: 2**24 - 1}
        await here.client.stream.send_all(settings(allowed))
        here.client.h2.increment_flow_control_window(2**30)
        await here.client.request()
        cutter, sizes = FrameSplitter(2**24), []
        while sum(sizes) < 1_000_000:
            data = await here.client.stream.receive_some(2**24)
            sizes += [frame.length for frame in cutter.cut(bytes(data)) if frame.kind == 0]
        assert max(sizes) <= 64 * 1024


@pytest.mark.parametrize("headers", [[], [("x_under", "score")]])
async def test_an_error_response_to_a_head_request_has_no_content(headers: Any, autojump_clock: MockClock) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    async with h2_connected(crashes) as here:
        reply = await here.client.fetch("HEAD", headers=headers)
        assert (reply.status, reply.body, reply.ended) == (400 if headers else 500, b"", True)
        assert int(reply["content-length"]) > 0


@pytest.mark.parametrize("every", [1, 20, 29])
async def test_repeated_resets_of_stalled_streams_end_the_connection(every: float, autojump_clock: MockClock) -> None:
    async with h2_connected(large, Limits(write_timeout=30)) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.client.ended)
        await here.client.stream.send_all(settings({Setting.INITIAL_WINDOW_SIZE: 0}))
        began = trio.current_time()
        with trio.fail_after(1000):
            while not here.over.is_set():
                try:
                    streams = [await here.client.request() for _ in range(15)]
                    await trio.sleep(every)
                    for stream in streams:
                        here.client.h2.reset_stream(stream, Codes.CANCEL)
                    await here.client.flush()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
        # Fifteen stalled streams at a time, for 3000 seconds in sum: 100 write timeouts.
        assert trio.current_time() - began < 3000 / 15 + 2 * every + 10
        await here.over.wait()
        nursery.cancel_scope.cancel()


async def test_resets_of_flowing_responses_do_not_end_the_connection(autojump_clock: MockClock) -> None:
    async def ticks(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await trio.sleep(1)

    async with h2_connected(ticks) as here, trio.open_nursery() as nursery:
        here.client.mute = True
        nursery.start_soon(here.client.ended)
        for _ in range(60):
            stream = await here.client.request()
            await trio.sleep(120)
            here.client.h2.reset_stream(stream, Codes.CANCEL)
            await here.client.flush()
        assert here.client.goaway == []
        nursery.cancel_scope.cancel()
