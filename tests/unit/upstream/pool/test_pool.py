"""The connection pool: reuse, expiry, limits, replacement of ended connections, and closing, over memory streams."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.calls import Caller
from tests.support.upstream.memory_dial import MemoryDial, ServerEnd, echo_server
from umbel.core.call import StepTimeouts
from umbel.core.errors import NotRunningError
from umbel.core.failure_kinds import Kind
from umbel.upstream import Transport
from umbel.upstream.errors import BadRequest, ConnectionReset, Overflow
from umbel.upstream.pool.connection import Connection
from umbel.upstream.pool.connection_state import State
from umbel.upstream.pool.pool import Pool, PoolStatistics
from umbel.upstream.pool.request_head import encode_request
from umbel.upstream.replicas.origin import Origin


def get(host: str = "x", method: str = "GET", **options) -> httpx.Request:
    return httpx.Request(method, f"http://{host}/", **options)


async def fetch(pool: Pool, request: httpx.Request | None = None) -> bytes:
    response = await pool.handle_async_request(request or get())
    return await response.aread()


async def test_one_connection_serves_one_request_after_another(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        for _ in range(5):
            assert await fetch(pool) == b"ok"
        statistics = pool.statistics()
    assert (len(dial.streams), statistics.opened, statistics.reused, statistics.idle) == (1, 1, 4, 1)
    assert dial.open == 0


async def test_a_connection_serves_only_its_origin(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        for url in ("http://x/", "http://x:81/", "https://x/", "http://y/", "http://x:80/"):
            await fetch(pool, httpx.Request("GET", url))
        await fetch(pool, httpx.Request("GET", "https://x/", extensions={"sni_hostname": "z"}))
    assert dial.origins == [
        Origin("http", "x", 80),
        Origin("http", "x", 81),
        Origin("https", "x", 443),
        Origin("http", "y", 80),
        Origin("https", "x", 443, sni="z"),
    ]


async def test_the_last_used_connection_is_taken_first(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        first = await pool.handle_async_request(get(method="GET", headers={"x": "1"}))
        async with trio.open_nursery() as both:
            both.start_soon(fetch, pool)
            both.start_soon(fetch, pool)
        assert first.status_code == 200
        assert pool.statistics().idle == 2
        for _ in range(3):
            await fetch(pool)
        assert pool.statistics().idle == 2
    assert len(dial.streams) == 2


async def test_an_idle_connection_is_closed_when_it_expires_and_not_before(
    nursery: trio.Nursery, autojump_clock
) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, keepalive_expiry=10) as pool:
        await fetch(pool, get("x"))
        await trio.sleep(4)
        await fetch(pool, get("y"))
        await trio.sleep(5.999)
        assert (pool.statistics().idle, dial.open) == (2, 2)
        await trio.sleep(0.002)
        assert (pool.statistics().idle, dial.open) == (1, 1)
        await trio.sleep(4)
        assert (pool.statistics().idle, dial.open) == (0, 0)
        await fetch(pool, get("x"))
        await trio.sleep(10.001)
        assert dial.open == 0


async def test_use_renews_the_expiry(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, keepalive_expiry=10) as pool:
        for _ in range(5):
            await fetch(pool)
            await trio.sleep(8)
        assert len(dial.streams) == 1


async def test_an_idle_connection_that_is_not_quiet_is_closed(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        await fetch(pool)
        dial.streams[0].noisy = True
        assert await fetch(pool, get(method="POST")) == b"ok"
        assert pool.statistics().stale == 1
    assert [stream.closed for stream in dial.streams] == [True, True]
    assert len(dial.streams) == 2


async def test_too_many_idle_connections_close_the_oldest(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, max_idle=2) as pool:
        for host in ("a", "b", "c"):
            await fetch(pool, get(host))
        assert [stream.closed for stream in dial.streams] == [True, False, False]
        assert pool.statistics().idle == 2


async def test_with_max_idle_of_zero_no_connection_is_kept(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, max_idle=0) as pool:
        for _ in range(2):
            assert await fetch(pool) == b"ok"
            assert (pool.statistics().idle, dial.open) == (0, 0)


async def test_at_the_limit_idle_connections_of_other_origins_are_closed(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, max_connections=2) as pool:
        for host in ("a", "b", "c", "d"):
            await fetch(pool, get(host))
            assert dial.open <= 2
        assert [stream.closed for stream in dial.streams] == [True, True, False, False]


async def hang(end: ServerEnd) -> None:
    while await end.receive_some():
        pass


async def test_at_the_limit_requests_wait_and_a_full_queue_overflows(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, hang)
    async with Pool(dial=dial, max_connections=1, max_waiting=1) as pool, trio.open_nursery() as inner:
        inner.start_soon(fetch, pool)
        await trio.testing.wait_all_tasks_blocked()
        inner.start_soon(fetch, pool)
        await trio.testing.wait_all_tasks_blocked()
        slots = pool.statistics().slots
        assert slots is not None
        assert (slots.in_use, slots.waiting) == (1, 1)
        with pytest.raises(Overflow):
            await fetch(pool)
        inner.cancel_scope.cancel(reason="enough")
    slots = pool.statistics().slots
    assert slots is not None
    assert (slots.in_use, slots.waiting, slots.overflowed) == (0, 0, 1)


async def test_httpxs_pool_timeout_ends_the_wait_for_a_place(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, hang)
    async with Pool(dial=dial, max_connections=1) as pool, trio.open_nursery() as inner:
        inner.start_soon(fetch, pool)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(httpx.PoolTimeout) as caught:
            await fetch(pool, get(extensions={"timeout": {"pool": 3.0}}))
        assert trio.current_time() == pytest.approx(3.0)
        assert caught.value.kind is Kind.OVERFLOW
        inner.cancel_scope.cancel(reason="enough")


def dies_on_reuse(served: list[bytes]):
    """Answers the first request of a connection, and closes on the second without a byte."""

    async def handler(end: ServerEnd) -> None:
        head = await end.receive_some()
        served.append(head)
        await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await end.receive_some()
        await end.aclose()

    return handler


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("OPTIONS", {}),
        ("PUT", {"content": b"x"}),
        ("DELETE", {}),
        ("POST", {"content": b"x", "headers": {"Idempotency-Key": "1"}}),
    ],
)
async def test_an_ended_kept_connection_is_replaced_for_an_idempotent_request(
    method: str, options: dict, nursery: trio.Nursery
) -> None:
    served: list[bytes] = []
    dial = MemoryDial(nursery, dies_on_reuse(served))
    async with Pool(dial=dial) as pool:
        await fetch(pool)
        response = await pool.handle_async_request(get(method=method, **options))
        assert response.status_code == 200
        await response.aclose()
        assert (pool.statistics().replaced, len(dial.streams), len(served)) == (1, 2, 2)


async def body() -> AsyncIterator[bytes]:
    yield b"x"


@pytest.mark.parametrize(
    ("method", "options"),
    [("POST", {"content": b"x"}), ("PATCH", {"content": b"x"}), ("PUT", {"content": body()})],
)
async def test_an_ended_kept_connection_is_not_replaced_for_other_requests(
    method: str, options: dict, nursery: trio.Nursery
) -> None:
    served: list[bytes] = []
    dial = MemoryDial(nursery, dies_on_reuse(served))
    async with Pool(dial=dial) as pool:
        await fetch(pool)
        with pytest.raises(ConnectionReset):
            await fetch(pool, get(method=method, **options))
        assert (pool.statistics().replaced, len(dial.streams), pool.statistics().active) == (0, 1, 0)


async def test_a_new_connection_that_ends_is_not_replaced(nursery: trio.Nursery) -> None:
    async def die(end: ServerEnd) -> None:
        await end.receive_some()

    dial = MemoryDial(nursery, die)
    async with Pool(dial=dial) as pool:
        with pytest.raises(ConnectionReset):
            await fetch(pool)
    assert len(dial.streams) == 1


async def test_a_kept_connection_that_ends_after_a_byte_is_not_replaced(nursery: trio.Nursery) -> None:
    async def die(end: ServerEnd) -> None:
        await end.receive_some()
        await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await end.receive_some()
        await end.send_all(b"H")

    dial = MemoryDial(nursery, die)
    async with Pool(dial=dial) as pool:
        await fetch(pool)
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(pool)
    assert len(dial.streams) == 1


async def test_a_request_that_cannot_be_written_takes_no_connection(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        with pytest.raises(BadRequest):
            await fetch(pool, get(extensions={"target": b"/a b"}))
        statistics = pool.statistics()
    assert (dial.streams, statistics.active, statistics.slots and statistics.slots.in_use) == ([], 0, 0)


async def test_a_request_outside_of_the_pools_block_is_refused(nursery: trio.Nursery) -> None:
    pool = Pool(dial=MemoryDial(nursery, echo_server()))
    with pytest.raises(NotRunningError):
        await fetch(pool)
    async with pool:
        await fetch(pool)
    with pytest.raises(NotRunningError):
        await fetch(pool)
    async with pool:
        assert await fetch(pool) == b"ok"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_request_whose_pool_is_left_while_it_connects_gets_not_running(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects, connected = trio.Event(), trio.Event()
    ours, theirs = trio.socket.socketpair()

    async def resolve(*_: object, **__: object) -> list[object]:
        return []

    async def connect(_: object) -> trio.SocketStream:
        connects.set()
        await connected.wait()
        return trio.SocketStream(ours)

    monkeypatch.setattr("umbel.upstream.pool.dial.resolve", resolve)
    monkeypatch.setattr("umbel.upstream.pool.dial.connect", connect)
    pool = Pool()
    with theirs:
        async with trio.open_nursery() as nursery:

            async def request() -> None:
                with pytest.raises(NotRunningError, match="closed while this connection was made"):
                    await pool.handle_async_request(httpx.Request("GET", f"{scheme}://x/"))

            async with pool:
                nursery.start_soon(request)
                await connects.wait()
            connected.set()
        assert await theirs.recv(1) == b""  # The socket was closed, not leaked.
    assert pool.statistics().connecting == 0


async def test_httpx_may_enter_an_entered_pool(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        async with httpx.AsyncClient(transport=pool) as client:
            assert (await client.get("http://x/")).text == "ok"
        assert await fetch(pool) == b"ok"
    assert dial.open == 0


async def test_an_exception_of_the_pools_block_is_raised_without_a_group(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    with pytest.raises(KeyError, match="mine"):
        async with Pool(dial=dial) as pool:
            await fetch(pool)
            raise KeyError("mine")
    assert dial.open == 0


async def test_a_cancel_of_the_pools_block_ends_as_cancelled(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, hang)
    with trio.move_on_after(1) as scope:
        async with Pool(dial=dial) as pool:
            await fetch(pool)
    assert scope.cancelled_caught
    assert dial.open == 0


async def half_a_response(end: ServerEnd) -> None:
    await end.receive_some()
    await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
    await hang(end)


async def test_closing_the_pool_closes_active_connections_and_readers_get_an_error(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, half_a_response)
    async with Pool(dial=dial) as pool:
        response = await pool.handle_async_request(get())
    assert dial.open == 0
    with pytest.raises(ConnectionReset):
        await response.aread()
    await response.aclose()
    statistics = pool.statistics()
    assert (statistics.active, statistics.slots and statistics.slots.in_use) == (0, 0)


async def test_closing_the_pool_ends_a_request_that_has_just_taken_a_kept_connection(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    errors: list[Exception] = []

    async def late() -> None:
        try:
            await fetch(pool)
        except (NotRunningError, ConnectionReset) as error:
            errors.append(error)

    async with trio.open_nursery() as outside, Pool(dial=dial) as pool:
        await fetch(pool)
        outside.start_soon(late)
        # After a turn or two the request has taken the kept connection; trio decides at random whether it was sent.
        while pool.statistics().active == 0:
            await trio.lowlevel.checkpoint()
    assert len(errors) == 1
    assert (dial.open, len(dial.streams)) == (0, 1)


async def test_a_response_closed_before_its_end_closes_its_connection(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, half_a_response)
    async with Pool(dial=dial) as pool:
        response = await pool.handle_async_request(get())
        await response.aclose()
        statistics = pool.statistics()
        assert (dial.open, statistics.active, statistics.idle) == (0, 0, 0)


async def test_closing_a_response_after_its_end_does_not_touch_its_connection(nursery: trio.Nursery) -> None:
    async def slowly(end: ServerEnd) -> None:
        while await end.receive_some():
            await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            await end.send_all(b"body")

    dial = MemoryDial(nursery, slowly)
    async with Pool(dial=dial) as pool:
        first = await pool.handle_async_request(get())
        assert await first.aread() == b"body"
        second = await pool.handle_async_request(get())
        stream = first.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        assert [piece async for piece in stream if piece != b"body"] == []
        await stream.aclose()
        assert await second.aread() == b"body"
    assert len(dial.streams) == 1


async def test_a_response_has_http_version_and_reason_phrase(nursery: trio.Nursery) -> None:
    async def answer(end: ServerEnd) -> None:
        await end.receive_some()
        await end.send_all(b"HTTP/1.0 200 Fine\r\nX-A: 1\r\nX-A: 2\r\n\r\nbody")

    async with Pool(dial=MemoryDial(nursery, answer)) as pool:
        response = await pool.handle_async_request(get())
        assert (response.http_version, response.reason_phrase) == ("HTTP/1.0", "Fine")
        assert response.headers.get_list("x-a") == ["1", "2"]
        assert await response.aread() == b"body"


async def test_a_pool_without_a_descriptor_for_its_reader_may_be_entered_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    pool = Pool()
    with monkeypatch.context() as patch:
        patch.setattr("umbel.upstream.pool.pool.new_reader", none_left)
        with pytest.raises(OSError, match="too many open files"):
            await pool.__aenter__()
    with pytest.raises(NotRunningError):
        await pool.handle_async_request(get())
    async with pool:
        pass


async def test_a_second_task_cannot_enter_the_pool() -> None:
    async with Pool() as pool, trio.open_nursery() as nursery:

        async def another() -> None:
            with pytest.raises(RuntimeError, match="entered by another task"):
                await pool.__aenter__()

        nursery.start_soon(another)


async def test_the_default_of_max_idle_is_max_connections(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, max_connections=150) as pool:
        for _ in range(3):
            async with trio.open_nursery() as wave:
                for _ in range(150):
                    wave.start_soon(fetch, pool)
        assert (pool.statistics().opened, pool.statistics().idle) == (150, 150)


# Connections for callers that send and receive by themselves

X = Origin("http", "x", 80)


async def opened(pool: Pool) -> Connection:
    """A connection with a request under way."""
    connection = await pool.open(X, None)
    connection.begin_whole()
    return connection


def end(pool: Pool, connection: Connection, *, usable: bool = True, excess: bool = False) -> None:
    """Its request is over."""
    pool.give_back(X, connection, trio.current_time(), usable, excess)


def taken(pool: Pool, *, once: bool = False) -> Connection | None:
    return pool.take(X, trio.current_time(), once=once)


def counts(statistics: PoolStatistics) -> tuple[int, int, int]:
    return statistics.connecting, statistics.active, statistics.idle


async def test_a_connection_is_active_from_open_until_give_back(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        assert taken(pool) is None
        connection = await opened(pool)
        assert counts(pool.statistics()) == (0, 1, 0)
        assert taken(pool) is None, "it is in use"
        end(pool, connection)
        assert counts(pool.statistics()) == (0, 0, 1)
        assert taken(pool) is connection
        assert (counts(pool.statistics()), pool.statistics().reused) == ((0, 1, 0), 1)
        connection.begin_whole()
        connection.close_now()
        pool.connection_lost(X, connection, replaced=True)
        assert (counts(pool.statistics()), pool.statistics().replaced) == ((0, 0, 0), 1)


async def test_a_connection_that_is_not_usable_is_closed_when_given_back(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial) as pool:
        connection = await opened(pool)
        end(pool, connection, usable=False, excess=True)
        assert (connection.state, dial.open, counts(pool.statistics())) == (State.CLOSED, 0, (0, 0, 0))
        assert pool.statistics().excess == 1


async def test_a_kept_connection_that_is_expired_or_not_quiet_is_closed_instead_of_taken(
    nursery: trio.Nursery, autojump_clock
) -> None:
    dial = MemoryDial(nursery, echo_server())
    async with Pool(dial=dial, keepalive_expiry=10) as pool:
        connections = [await opened(pool) for _ in range(2)]
        for connection in connections:
            end(pool, connection)
        dial.streams[1].noisy = True
        assert taken(pool) is connections[0]
        end(pool, connections[0])
        assert pool.take(X, trio.current_time() + 10, once=False) is None
        assert (dial.open, pool.statistics().stale) == (0, 2)


async def test_a_request_sent_once_takes_no_connection_idle_as_long_as_a_closed_one(
    nursery: trio.Nursery, autojump_clock
) -> None:
    async with Pool(dial=MemoryDial(nursery, echo_server()), keepalive_expiry=60) as pool:
        connections = [await opened(pool) for _ in range(2)]
        for connection in connections:
            end(pool, connection)
        await trio.sleep(0.3)
        lost = taken(pool, once=True)
        assert lost is connections[1]
        lost.close_now()
        pool.connection_lost(X, lost, crossed=True)
        assert taken(pool, once=True) is None, "0.3 s is over 0.8 of the 0.3 s after which one was closed"
        assert taken(pool) is connections[0]


async def test_a_request_with_an_ended_kept_connection_is_sent_on_a_new_connection(nursery: trio.Nursery) -> None:
    dial = MemoryDial(nursery, dies_on_reuse([]))
    async with Pool(dial=dial) as pool:
        await fetch(pool, get())
        kept, new = taken(pool), []
        request = encode_request("GET", b"/", [], b"x")
        connection, head = await pool.start_request(
            X, request, StepTimeouts(), kept, lambda used, kept: new.append((kept, len(dial.streams)))
        )
        assert (head.status, connection.take(), new) == (200, b"ok", [(True, 1), (False, 2)])
        assert connection is not kept
        assert (counts(pool.statistics()), pool.statistics().replaced) == ((0, 1, 0), 1)
        end(pool, connection)
        response = await pool.send(X, encode_request("GET", b"/", [], b"x"))
        assert response.status_code == 200
        assert (pool.statistics().reused, pool.statistics().replaced) == (2, 2)


async def test_a_cancel_while_connecting_leaves_no_connection(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, echo_server(), delay=5.0)
    async with Pool(dial=dial) as pool, trio.open_nursery() as inner:
        inner.start_soon(pool.open, X, None)
        await trio.sleep(1)
        assert counts(pool.statistics()) == (1, 0, 0)
        inner.cancel_scope.cancel(reason="enough")
    assert counts(pool.statistics()) == (0, 0, 0)
    assert dial.streams == []


async def test_a_pool_closed_during_a_request_keeps_no_connection(nursery: trio.Nursery, autojump_clock) -> None:
    dial = MemoryDial(nursery, echo_server(), delay=5.0)
    pool = Pool(dial=dial)
    with pytest.raises(NotRunningError):
        taken(pool)

    async def open_late() -> None:
        with pytest.raises(NotRunningError):
            await pool.open(X, None)

    async with trio.open_nursery() as outside:
        async with pool:
            connection = await opened(pool)
            outside.start_soon(open_late)
            await trio.sleep(1)
        end(pool, connection)
    assert (len(dial.streams), dial.open, counts(pool.statistics())) == (2, 0, (0, 0, 0))


@pytest.mark.parametrize(
    ("answer", "asked", "idle", "excess"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", {}, 1, 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", {}, 1, 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", {}, 0, 0),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", {}, 0, 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 evil", {}, 0, 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", {"connection": "close"}, 0, 0),
    ],
    ids=["length", "chunked", "close", "HTTP/1.0", "excess", "asked to close"],
)
async def test_a_calls_connection_is_kept_only_if_persistent_and_without_a_rest(
    answer: bytes, asked: dict[str, str], idle: int, excess: int, nursery: trio.Nursery
) -> None:
    async def handler(end: ServerEnd) -> None:
        while await end.receive_some():
            await end.send_all(answer)

    dial = MemoryDial(nursery, handler)
    async with Transport(["http://x"], dial=dial) as transport:
        for number in range(2):
            assert (await Caller(transport.client).call(headers=asked)).content == b"ok"
            statistics = transport.statistics().pool
            assert (counts(statistics), statistics.excess) == ((0, 0, idle), excess * (number + 1))
        assert len(dial.streams) == 2 - idle
