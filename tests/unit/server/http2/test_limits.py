"""Limits on HTTP/2 clients: what they send, how slowly, and how little they read. On the autojump clock."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.settings
import pytest
import trio
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, PingFrame

from tests.support.server.h2_connections import answer, h2_connected, hello, read_all
from umbel.server.limits.server_limits import Limits

MockClock = trio.testing.MockClock
Codes = h2.errors.ErrorCodes


async def never(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


# Heads.


@pytest.mark.parametrize(
    ("pseudo", "headers", "status"),
    [
        ({":path": b"/\xff"}, [], 400),
        ({":path": b"/a#b"}, [], 400),
        ({":path": b"x"}, [], 400),
        ({":path": b"*"}, [], 400),
        ({":path": b"/" + b"a" * 8192}, [], 414),
        ({":method": b"G\xff"}, [], 400),
        ({":method": "CONNECT", ":path": None, ":scheme": None}, [], 501),
        ({":method": "CONNECT", ":path": "/", ":scheme": "http", ":protocol": "connect-udp"}, [], 501),
        ({":scheme": "ftp"}, [], 400),
        ({":authority": "two words"}, [], 400),
        ({":authority": b"\xff"}, [], 400),
        ({":authority": "a/b"}, [], 400),
        ({}, [("x_under", "score")], 400),
        ({}, [(f"x-{number}", "") for number in range(101)], 431),
        ({}, [("x-long", "v" * 16384)], 431),
        ({}, [("expect", "magic")], 417),
        ({}, [("content-length", str(16 * 2**20 + 1))], 413),
    ],
)
async def test_a_refused_head_keeps_the_connection(
    autojump_clock: MockClock, pseudo: Any, headers: Any, status: int
) -> None:
    async with h2_connected(hello) as here:
        stream = await here.client.request("POST" if status == 413 else "GET", headers=headers, end=False, **pseudo)
        refused = await here.client.answer(stream)
        assert (refused.status, refused["content-type"]) == (status, "application/problem+json")
        assert (refused["cache-control"], "x-request-id" in dict(refused.headers)) == ("no-store", True)
        assert (await here.client.fetch()).body == b"hello"
    assert [(record.status, bool(record.detail)) for record in here.records.requests] == [(status, True)]
    assert here.records.logged == []


async def test_a_host_that_is_not_served_gets_421(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(hosts=("here.test",))) as here:
        assert (await here.client.fetch(**{":authority": "HERE.test:81"})).status == 200
        assert (await here.client.fetch(**{":authority": "there.test"})).status == 421


async def test_a_wrong_preface_ends_the_connection_with_one_record(autojump_clock: MockClock) -> None:
    async with h2_connected(hello) as here:
        here.client.h2.clear_outbound_data_buffer()
        await here.client.stream.send_all(b"\0\0\0\4\1\0\0\0\0" + b"\0" * 9 + b"\xff" * 99)
        await here.client.ended()
    assert [record.status for record in here.records.requests] == [400]
    assert here.records.logged == []


# Time.


async def test_an_idle_connection_ends_with_goaway_at_the_keep_alive_timeout(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, keep_alive_timeout=15) as here:
        await here.client.ended()
        assert trio.current_time() == pytest.approx(15)
        assert here.client.goaway == [0]


async def test_an_idle_connection_is_kept_for_75_seconds_by_default(autojump_clock: MockClock) -> None:
    async with h2_connected(hello) as here:
        await here.client.ended()
        assert trio.current_time() == pytest.approx(75)


async def test_the_idle_timeout_restarts_with_responses_and_not_with_pings(
    autojump_clock: MockClock,
) -> None:
    async def ping() -> None:
        while True:
            await trio.sleep(1)
            await here.client.frames(PingFrame(opaque_data=b"8 bytes."))

    async with h2_connected(hello, keep_alive_timeout=15) as here, trio.open_nursery() as nursery:
        await trio.sleep(10)
        assert (await here.client.fetch()).status == 200
        nursery.start_soon(ping)
        await here.client.ended()
        assert trio.current_time() == pytest.approx(25)
        nursery.cancel_scope.cancel()


async def test_a_connection_is_not_idle_while_an_application_runs(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(100)
        await answer(send, b"late")

    async with h2_connected(serve, keep_alive_timeout=15) as here:
        assert (await here.client.fetch()).body == b"late"


@pytest.mark.parametrize(
    "begun",
    [
        HeadersFrame(1, data=b"\x82"),  # Without END_HEADERS.
        b"\0\0\x40\1\4\0\0\0\1half a frame",
        b"\0\0",
    ],
)
async def test_a_begun_head_must_end_within_the_head_timeout(autojump_clock: MockClock, begun: Any) -> None:
    async with h2_connected(hello, Limits(head_timeout=5), keep_alive_timeout=60) as here:
        await trio.sleep(7)
        await here.client.stream.send_all(begun.serialize() if isinstance(begun, Frame) else begun)
        await here.client.ended()
        assert trio.current_time() == pytest.approx(12)


async def test_a_preface_must_come_within_the_head_timeout(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(head_timeout=5), silent=True, keep_alive_timeout=60) as here:
        await here.over.wait()
        assert trio.current_time() == pytest.approx(5)


@pytest.mark.parametrize(("seconds", "rate", "status", "at"), [(4, 10, 408, 5), (4, 0, 408, 5), (10, 10, 200, 10)])
async def test_a_body_must_be_complete_within_the_time_for_its_length(
    autojump_clock: MockClock, seconds: float, rate: int, status: int, at: float
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        await answer(send, b"read")

    async def drip() -> None:
        for second in range(10):
            await trio.sleep(1)
            if rate and not (answered := here.client.answers[stream]).ended and answered.reset is None:
                await here.client.data(stream, b"x" * rate, end=second == 9)

    limits = Limits(body_timeout=seconds, min_body_rate=10_000, max_body=10_000)
    async with h2_connected(serve, limits) as here, trio.open_nursery() as nursery:
        stream = await here.client.request("POST", end=False)
        nursery.start_soon(drip)
        reply = await here.client.answer(stream)
        assert (reply.status, trio.current_time()) == (status, pytest.approx(at))
        nursery.cancel_scope.cancel()


async def test_only_waits_of_the_application_count_for_a_body(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(60)
        await answer(send, await read_all(receive))

    async with h2_connected(serve) as here:
        stream = await here.client.request("POST", end=False)
        await here.client.data(stream, b"early")
        await trio.sleep(61)
        await here.client.data(stream, b" and late", end=True)
        assert (await here.client.answer(stream)).body == b"early and late"


async def test_a_refused_body_gives_a_disconnect_with_the_error_response(
    autojump_clock: MockClock,
) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())

    async with h2_connected(serve) as here:
        reply = await here.client.answer(await here.client.request("POST", end=False))
        assert reply.status == 408
    ((error_response, request_id),) = [message["umbel.error_response"] for message in heard]
    assert (error_response.status, request_id) == (408, reply["x-request-id"])
    # The application was notified, so it writes the record.
    assert here.records.requests == []
    assert here.state.statistics().refused == {408: 1}


# Sizes.


async def test_a_body_of_unknown_length_gets_413_at_the_limit(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)

    async with h2_connected(serve, Limits(max_body=1000)) as here:
        stream = await here.client.request("POST", end=False)
        await here.client.data(stream, b"x" * 1001)
        reply = await here.client.answer(stream)
        assert reply.status == 413
        exact = await here.client.request("POST", end=False)
        await here.client.data(exact, b"x" * 1000, end=True)
        assert (
            await here.client.answer(exact)
        ).status == 500  # The body is read, and the application gives no response.


async def test_unread_uploads_stop_at_their_windows(autojump_clock: MockClock) -> None:
    async with h2_connected(never) as here:
        sent = 0
        for _ in range(20):
            stream = await here.client.request("POST", end=False)
            await trio.testing.wait_all_tasks_blocked()
            while (window := here.client.h2.local_flow_control_window(stream)) > 0:
                size = min(window, 16384)
                await here.client.data(stream, bytes(size))
                sent += size
                await trio.testing.wait_all_tasks_blocked()
        assert 2**20 - 65535 <= sent <= 2**20


async def test_a_large_upload_is_received_as_it_is_read(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, str(len(await read_all(receive))).encode())

    async with h2_connected(serve) as here:
        stream = await here.client.request("POST", end=False)
        await trio.testing.wait_all_tasks_blocked()
        left = 3 * 2**20
        while left:
            size = min(left, 16384, here.client.h2.local_flow_control_window(stream))
            if size:
                await here.client.data(stream, bytes(size))
                left -= size
            else:
                assert await here.client.receive()
        await here.client.data(stream, b"", end=True)
        assert (await here.client.answer(stream)).body == str(3 * 2**20).encode()


async def test_a_closed_window_ends_only_its_stream_at_the_write_timeout(
    autojump_clock: MockClock,
) -> None:
    sent: dict[str, int] = {}

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sent[scope["path"]] = 0
        for _ in range(10 if scope["path"] == "/stuck" else 1):
            await send({"type": "http.response.body", "body": bytes(40_000), "more_body": True})
            sent[scope["path"]] += 40_000
        await send({"type": "http.response.body", "body": b""})

    async with h2_connected(serve, Limits(write_timeout=30)) as here:
        here.client.acknowledges = False
        stuck = await here.client.request(path="/stuck")
        reply = await here.client.answer(stuck)
        assert trio.current_time() == pytest.approx(30)
        assert (len(reply.body), reply.reset) == (65535, Codes.CANCEL)
        assert sent == {"/stuck": 40_000}
        here.client.h2.increment_flow_control_window(10**6)
        await here.client.flush()
        assert len((await here.client.fetch(path="/fine")).body) == 40_000


async def test_a_window_that_opens_in_time_continues_the_response(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(300_000))

    async with h2_connected(serve, Limits(write_timeout=30)) as here:
        here.client.acknowledges = False
        stream = await here.client.request()

        async def open_slowly() -> None:
            for _ in range(6):
                await trio.sleep(10)
                here.client.h2.increment_flow_control_window(40_000)
                here.client.h2.increment_flow_control_window(40_000, stream)
                await here.client.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_slowly)
            reply = await here.client.answer(stream)
            assert (len(reply.body), reply.ended) == (300_000, True)
            assert trio.current_time() == pytest.approx(60)


async def test_a_socket_that_takes_nothing_ends_the_connection_at_the_write_timeout(autojump_clock: MockClock) -> None:
    ends: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        try:
            await answer(send, bytes(int(scope["query_string"])))
        except OSError as error:
            ends.append(str(error))
        except trio.Cancelled as cancelled:
            ends.append(cancelled.reason)
            raise

    async with h2_connected(serve, Limits(write_timeout=30)) as here:
        here.stream.send_stream.send_all_hook = trio.sleep_forever
        await here.client.request(path="/?10")
        await here.client.request(path="/?1000000")
        await here.over.wait()
        assert trio.current_time() == pytest.approx(30)
    # The waiting send raises in both: in the one with a complete response, and in the one in the middle of it.
    assert ends == ["the client has gone, or does not read"] * 2


async def test_a_header_block_in_many_frames_ends_the_connection(autojump_clock: MockClock) -> None:
    async with h2_connected(hello) as here:
        await here.client.frames(HeadersFrame(1, data=b"\x82" * 16000))
        for _ in range(20):
            if here.over.is_set():
                break
            await here.client.frames(ContinuationFrame(1, data=b"\x82" * 16000))
            await trio.testing.wait_all_tasks_blocked()
        await here.client.ended()
        assert here.client.goaway == [Codes.ENHANCE_YOUR_CALM]
    assert [record.status for record in here.records.requests] == [400]


async def test_a_header_list_of_megabytes_ends_the_connection(autojump_clock: MockClock) -> None:
    async with h2_connected(hello) as here:
        # One field of 4,000 bytes is put into the table, and then used 4,000 times: 16 MB from 8 KB.
        bomb = b"\x82\x84\x86\x40\x01x\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 4000
        await here.client.frames(HeadersFrame(1, data=bomb, flags=["END_HEADERS"]))
        await here.client.ended()
        assert here.client.goaway == [Codes.ENHANCE_YOUR_CALM]
