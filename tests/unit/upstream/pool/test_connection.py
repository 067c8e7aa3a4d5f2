"""A connection: its states, sending and receiving, timeouts, failures and cancels, over memory streams."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.memory_dial import MemoryStream, ServerEnd
from umbel.core.call import StepTimeouts
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.http1.response_head import Head
from umbel.http1.response_reader import INFORMATIONAL_MAX, Limits, ResponseReader
from umbel.upstream.errors import (
    BadRequest,
    ConnectionReset,
    Malformed,
    ReadTimedOut,
    TlsFailed,
    WriteTimedOut,
)
from umbel.upstream.pool.connection import INLINE_MAX, TRANSITIONS, Connection, Event, State
from umbel.upstream.pool.request_head import encode_httpx_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = b"x" * (INLINE_MAX * 4)


@asynccontextmanager
async def connected(*, bounded: bool = False) -> AsyncIterator[tuple[Connection, ServerEnd, trio.Nursery]]:
    async with trio.open_nursery() as nursery:
        # A lockstep stream accepts only bytes that are being read; a memory stream accepts everything.
        ours, theirs = (trio.testing.lockstep_stream_pair if bounded else trio.testing.memory_stream_pair)()
        yield Connection(MemoryStream(ours), nursery, "there"), theirs, nursery
        nursery.cancel_scope.cancel(reason="the test is over")


async def start(
    connection: Connection, method: str = "POST", *, timeouts: StepTimeouts | None = None, **options
) -> Head:
    request = httpx.Request(method, "http://x/", **options)
    return await connection.start(encode_httpx_request(request), Limits(), timeouts or StepTimeouts())


async def read_all(connection: Connection) -> bytes:
    body = connection.take()
    while not connection.ended:
        body += await connection.read()
    await connection.settle()
    connection.raise_failure()
    return body


async def read_until(end: ServerEnd, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = await end.receive_some(100_000)
        assert piece, "the client closed"
        data += piece
    return data


async def listen(end: ServerEnd) -> None:
    """Receive everything and send nothing."""
    while await end.receive_some(100_000):
        pass


def play(nursery: trio.Nursery, act: Callable[[], Awaitable[object]]) -> None:
    async def run() -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await act()

    nursery.start_soon(run)


def test_every_path_through_the_table_ends_in_idle_or_closed() -> None:
    def walk(state: State, seen: tuple[State, ...]) -> None:
        assert state not in seen, "a circle that does not pass IDLE"
        nexts = {event: TRANSITIONS[state, event] for event in Event if (state, event) in TRANSITIONS}
        assert nexts.pop(Event.CLOSE) is State.CLOSED
        assert state in (State.IDLE, State.CLOSED) or nexts, "no way on"
        for following in nexts.values():
            if following not in (State.IDLE, State.CLOSED):
                walk(following, (*seen, state))

    walk(State.IDLE, ())


def test_only_a_sent_request_and_a_persistent_response_lead_back_to_idle() -> None:
    back = [key for key, following in TRANSITIONS.items() if following is State.IDLE]
    assert back == [(State.RECEIVING, Event.END)]


def test_no_event_leads_out_of_closed() -> None:
    assert {key: to for key, to in TRANSITIONS.items() if key[0] is State.CLOSED} == {
        (State.CLOSED, Event.CLOSE): State.CLOSED
    }


async def test_a_small_request_is_sent_in_one_piece_and_the_connection_is_reused() -> None:
    async with connected() as (connection, end, nursery):
        seen: list[bytes] = []

        async def serve() -> None:
            for _ in range(2):
                seen.append(await end.receive_some(100_000))
                await end.send_all(OK)

        play(nursery, serve)
        for _ in range(2):
            assert (await start(connection, content=b"body")).status == 200
            assert await read_all(connection) == b"ok"
            assert connection.state is State.IDLE
        assert [each.endswith(b"\r\n\r\nbody") for each in seen] == [True, True]
        assert connection.served == 2


async def test_a_large_body_and_its_response_overlap_and_the_connection_is_reused() -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"END")
            await end.send_all(OK)

        play(nursery, serve)
        await start(connection, content=LARGE + b"END")
        assert await read_all(connection) == b"ok"
        assert connection.state is State.IDLE


class Numbers(httpx.AsyncByteStream):
    """A body that keeps how it ended. (What httpx makes of a bare generator closes itself, but not the generator.)"""

    def __init__(self, count: int, done: list[str]) -> None:
        self._count = count
        self._done = done

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for number in range(self._count):
                yield b"%d," % number
                yield b""
            self._done.append("exhausted")
        finally:
            self._done.append("closed")


async def test_a_stream_is_sent_in_chunks_and_an_empty_piece_does_not_end_the_body() -> None:
    async with connected() as (connection, end, nursery):
        seen = b""

        async def serve() -> None:
            nonlocal seen
            seen = await read_until(end, b"0\r\n\r\n")
            await end.send_all(OK)

        play(nursery, serve)
        done: list[str] = []
        await start(connection, stream=Numbers(3, done))
        assert await read_all(connection) == b"ok"
        assert seen.partition(b"\r\n\r\n")[2] == b"2\r\n0,\r\n2\r\n1,\r\n2\r\n2,\r\n0\r\n\r\n"
        assert connection.state is State.IDLE


@pytest.mark.parametrize("length", ["5", "7"])
async def test_a_stream_that_differs_from_its_length_is_a_bad_request_and_closes(length: str) -> None:
    async with connected() as (connection, end, nursery):
        play(nursery, lambda: listen(end))
        done: list[str] = []
        with pytest.raises(BadRequest) as caught:
            await start(connection, stream=Numbers(3, done), headers={"content-length": length})
        assert caught.value.kind is Kind.BAD_REQUEST
        assert (connection.state, done[-1]) == (State.CLOSED, "closed")


async def test_an_early_response_stops_the_body_and_closes_the_connection() -> None:
    async with connected(bounded=True) as (connection, end, nursery):
        done: list[str] = []

        async def serve() -> None:
            await read_until(end, b"5,\r\n")
            await end.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

        play(nursery, serve)
        head = await start(connection, stream=Numbers(10**9, done))
        assert head.status == 413
        assert await read_all(connection) == b"no"
        assert connection.state is State.CLOSED
        assert done == ["closed"], "the body is closed before the request is over"


async def test_a_response_is_received_while_the_body_is_still_being_sent() -> None:
    """Each piece of the body is answered before the next piece is sent."""
    async with connected() as (connection, end, nursery):
        heard = trio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await heard.wait()
            yield b"two"

        async def serve() -> None:
            await read_until(end, b"one\r\n")
            await end.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n")
            await read_until(end, b"0\r\n\r\n")
            await end.send_all(b"3\r\nTWO\r\n0\r\n\r\n")

        play(nursery, serve)
        await start(connection, content=body())
        assert connection.state is State.EARLY
        assert connection.take() or await connection.read() == b"ONE"
        heard.set()
        assert await connection.read() == b"TWO"
        assert connection.state is State.IDLE


async def test_an_exception_of_the_body_is_raised_without_a_group_and_closes() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("mine")

    async with connected() as (connection, end, nursery):
        play(nursery, lambda: listen(end))
        with pytest.raises(KeyError, match="mine"):
            await start(connection, content=body())
        assert connection.state is State.CLOSED


async def test_an_exception_of_the_body_while_it_is_cancelled_is_raised() -> None:
    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"one\r\n")
            await end.send_all(OK)

        play(nursery, serve)
        await start(connection, content=body())
        with pytest.raises(KeyError, match="mine"):
            await read_all(connection)


class _DeafStream(MemoryStream):
    """All sends but ``heard`` fail; received bytes can still be read."""

    heard = 0

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.heard -= 1
        if self.heard < 0:
            raise trio.BrokenResourceError from BrokenPipeError()


@pytest.mark.parametrize("content", [b"small", LARGE])
async def test_a_response_of_a_peer_that_stopped_reading_is_received(content: bytes) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        connection = Connection(_DeafStream(ours), nursery, "there")
        await theirs.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        assert (await start(connection, content=content)).status == 413
        assert await read_all(connection) == b"no"
        assert connection.state is State.CLOSED


@pytest.mark.parametrize("content", [b"small", LARGE])
async def test_a_peer_that_stops_reading_and_closes_is_an_untouched_reset(content: bytes) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        connection = Connection(_DeafStream(ours), nursery, "there")
        theirs.send_stream.close()
        with pytest.raises(ConnectionReset) as caught:
            await start(connection, content=content)
        assert (caught.value.untouched, connection.state) == (True, State.CLOSED)


async def test_an_endless_body_to_a_peer_that_stops_reading_ends() -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        stream = _DeafStream(ours)
        stream.heard = 5
        connection = Connection(stream, nursery, "there")
        done: list[str] = []
        with trio.fail_after(5):
            nursery.start_soon(_answer_later, theirs)
            await start(connection, stream=Numbers(10**12, done))
        assert await read_all(connection) == b"ok"
        assert done == ["closed"]


async def _answer_later(theirs: ServerEnd) -> None:
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    await theirs.send_all(OK)


async def test_a_response_followed_by_the_peers_end_is_complete() -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await end.receive_some(100_000)
            await end.send_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            end.send_stream.close()

        play(nursery, serve)
        await start(connection, "GET")
        assert await read_all(connection) == b"until the end"
        assert connection.state is State.CLOSED


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b""])
async def test_excess_bytes_and_connection_close_end_the_connection(fields: bytes) -> None:
    async with connected() as (connection, end, nursery):
        excess = b"" if fields else b"x"

        async def serve() -> None:
            await end.receive_some(100_000)
            await end.send_all(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok" + excess)

        play(nursery, serve)
        await start(connection, "GET")
        assert await read_all(connection) == b"ok"
        assert (connection.state, connection.excess) == (State.CLOSED, bool(excess))


async def test_a_request_with_connection_close_is_the_connections_last() -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await end.receive_some(100_000)
            await end.send_all(OK)

        play(nursery, serve)
        await start(connection, "GET", headers={"connection": "close"})
        assert await read_all(connection) == b"ok"
        assert connection.state is State.CLOSED


@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "large"])
async def test_the_read_timeout_limits_the_whole_head(size: bytes | int, autojump_clock) -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"\r\n\r\n" + (size or b""))
            for byte in OK:
                await trio.sleep(0.3)
                await end.send_all(bytes([byte]))

        play(nursery, serve)
        began = trio.current_time()
        with pytest.raises(ReadTimedOut) as caught:
            await start(connection, timeouts=StepTimeouts(read=1.0), content=size or b"")
        assert trio.current_time() - began == pytest.approx(1.0)
        assert (caught.value.kind, connection.state) == (Kind.TIMEOUT, State.CLOSED)


async def test_interim_responses_restart_the_read_timeout_and_their_number_is_bounded(autojump_clock) -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"\r\n\r\n")
            while True:
                await trio.sleep(0.9)
                await end.send_all(b"HTTP/1.1 102 Processing\r\n\r\n")

        play(nursery, serve)
        began = trio.current_time()
        with pytest.raises(Malformed):
            await start(connection, "GET", timeouts=StepTimeouts(read=1.0))
        assert trio.current_time() - began == pytest.approx(0.9 * (INFORMATIONAL_MAX + 1))


@pytest.mark.parametrize(
    ("before", "drip"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n1;", b"e" * 900),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 15),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ", b"t" * 900),
    ],
    ids=["chunk extension", "chunk size", "trailer"],
)
async def test_framing_that_drips_does_not_extend_the_read_timeout(before: bytes, drip: bytes, autojump_clock) -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"\r\n\r\n")
            await end.send_all(b"HTTP/1.1 200 OK\r\n" + before)
            for byte in drip:
                await trio.sleep(0.9)
                await end.send_all(bytes([byte]))

        play(nursery, serve)
        await start(connection, "GET", timeouts=StepTimeouts(read=1.0))
        began = trio.current_time()
        with pytest.raises(ReadTimedOut):
            await read_all(connection)
        assert trio.current_time() - began == pytest.approx(1.0)


async def test_the_read_timeout_limits_each_piece_of_the_body(autojump_clock) -> None:
    async with connected() as (connection, end, nursery):

        async def serve() -> None:
            await read_until(end, b"\r\n\r\n")
            await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                await trio.sleep(0.9)
                await end.send_all(b"x")

        play(nursery, serve)
        await start(connection, "GET", timeouts=StepTimeouts(read=1.0))
        assert await read_all(connection) == b"x" * 20


async def test_the_read_timeout_begins_when_the_request_was_sent(autojump_clock) -> None:
    """The upload may take longer than the read timeout."""

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(5):
                await trio.sleep(1)
                yield b"piece"

    async with connected() as (connection, end, nursery):
        play(nursery, lambda: listen(end))
        with pytest.raises(ReadTimedOut):
            await start(connection, stream=Slow(), timeouts=StepTimeouts(read=2.0))
        assert trio.current_time() == pytest.approx(7.0)


@pytest.mark.parametrize("content", [b"small", LARGE])
async def test_the_write_timeout_limits_each_write(content: bytes, autojump_clock) -> None:
    async with connected(bounded=True) as (connection, _, _):
        with pytest.raises(WriteTimedOut) as caught:
            await start(connection, content=content, timeouts=StepTimeouts(write=2.0))
        assert trio.current_time() == pytest.approx(2.0)
        assert (caught.value.kind, connection.state) == (Kind.TIMEOUT, State.CLOSED)


async def slow_to_unwind(seconds: float, done: list[str]) -> AsyncIterator[bytes]:
    """A body that never ends, and takes this long to be closed."""
    try:
        yield b"one"
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        done.append("closed")


async def test_a_cancel_closes_the_connection_and_then_waits_for_the_body(autojump_clock) -> None:
    async with connected() as (connection, end, nursery):
        play(nursery, lambda: listen(end))
        done: list[str] = []
        with trio.move_on_after(1) as scope:
            await start(connection, content=slow_to_unwind(0.5, done))
        assert scope.cancelled_caught
        assert (connection.state, done, trio.current_time()) == (State.CLOSED, ["closed"], 1.5)


async def test_a_body_that_does_not_end_delays_a_cancel_for_a_bounded_time(autojump_clock) -> None:
    async with connected() as (connection, end, nursery):
        play(nursery, lambda: listen(end))
        with trio.move_on_after(1):
            await start(connection, content=slow_to_unwind(100, []))
        assert trio.current_time() == pytest.approx(2.0)


async def test_a_close_by_the_pool_during_a_request_is_a_reset() -> None:
    async with connected() as (connection, end, nursery):

        async def close_later() -> None:
            await end.receive_some(100_000)
            connection.close_now()

        nursery.start_soon(close_later)
        with pytest.raises(UpstreamError) as caught:
            await start(connection, "GET")
        assert caught.value.kind is Kind.RESET


@pytest.mark.parametrize("content", [b"small", LARGE])
async def test_a_close_by_the_pool_in_the_turn_of_the_response_is_a_reset(content: bytes) -> None:
    class ClosedMeanwhile(MemoryStream):
        async def receive_some(self) -> bytes:
            data = await super().receive_some()
            connection.close_now()
            return data

    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        connection = Connection(ClosedMeanwhile(ours), nursery, "there")
        await theirs.send_all(OK)
        with pytest.raises(ConnectionReset):
            await start(connection, content=content)


@pytest.mark.parametrize("content", [b"small", LARGE])
async def test_a_close_by_the_pool_while_sending_is_a_reset(content: bytes) -> None:
    class ClosedMeanwhile(MemoryStream):
        async def send_all(self, data: bytes) -> None:
            await super().send_all(data)
            connection.close_now()

    async with trio.open_nursery() as nursery:
        ours, _theirs = trio.testing.memory_stream_pair()
        connection = Connection(ClosedMeanwhile(ours), nursery, "there")
        with pytest.raises(ConnectionReset):
            await start(connection, content=content)


# Requests that the caller sends by itself


async def test_no_second_request_begins_on_a_connection_in_use() -> None:
    async with connected() as (connection, end, _):
        stream = connection.begin_whole()
        assert (connection.state, connection.served, connection.unsettled) == (State.AWAITING, 1, False)
        await stream.send_all(b"request")
        assert await end.receive_some(100) == b"request"
        with pytest.raises(KeyError):
            connection.begin_whole()


def broken(cause: Exception | None) -> trio.BrokenResourceError:
    error = trio.BrokenResourceError("broken")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "came", "kind", "untouched"),
    [
        (broken(OSError("reset")), b"", ConnectionReset, True),
        (broken(OSError("reset")), b"H", ConnectionReset, False),
        (broken(OSError("reset")), OK[:-1], ConnectionReset, False),
        (broken(ssl.SSLEOFError()), b"", ConnectionReset, True),
        (broken(ssl.SSLEOFError()), OK[:-1], Malformed, False),
        (broken(ssl.SSLError("alert")), b"", TlsFailed, False),
        (trio.ClosedResourceError(), b"", ConnectionReset, False),
        (KeyError("bug"), b"", KeyError, False),
    ],
    ids=repr,
)
async def test_the_error_of_a_broken_stream_depends_on_its_cause_and_the_response(
    error: Exception, came: bytes, kind: type[Exception], untouched: bool
) -> None:
    reader = ResponseReader("GET", Limits())
    reader.feed(came)
    async with connected() as (connection, _, _):
        for known in (reader, None) if not came else (reader,):
            found = connection.broken(error, known)
            assert type(found) is kind
            assert getattr(found, "untouched", False) is untouched
