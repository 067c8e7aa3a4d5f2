"""Byte streams over sockets with each reader: pulled by a task, pushed to a listener, closed at any time."""

from __future__ import annotations

import gc
import math
import os
import socket
import struct
from collections import Counter

import pytest
import trio
import trio.testing

import umbel.net.epoll
import umbel.net.stream
from tests.support.scheduler_turns import counting_turns
from tests.support.socket_streams import READERS, RecordingListener, check_that_closing_wakes, plain_pair
from umbel.net.epoll import AnyReader, EpollReader
from umbel.net.stream import PIECES_SECONDS, RECEIVE_MAX, TURN_BYTES_MAX, PlainStream

pytestmark = pytest.mark.parametrize("make", READERS)


async def test_sent_bytes_arrive_and_the_end_is_empty_bytes(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await stream.send_all(b"ping")
        assert await peer.receive_some() == b"ping"
        await peer.send_all(b"pong")
        assert await stream.receive_some() == b"pong"
        await peer.aclose()
        assert await stream.receive_some() == b""


async def test_bytes_that_the_socket_does_not_take_are_sent_as_the_peer_reads(
    make: type[AnyReader], nursery: trio.Nursery
) -> None:
    data = b"0123456789" * 500_000
    async with plain_pair(make) as (stream, peer):
        nursery.start_soon(stream.send_all, data)
        received = bytearray()
        while len(received) < len(data):
            received += await peer.receive_some()
        assert received == data


async def test_nothing_is_sent_in_a_cancelled_scope(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await stream.send_all(b"never")
        assert scope.cancelled_caught
        stream.close_now()
        assert await peer.receive_some() == b""


async def test_receiving_is_a_checkpoint_even_if_bytes_are_there(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.send_all(b"here")
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it began")
            await stream.receive_some()
        assert scope.cancelled_caught
        assert await stream.receive_some() == b"here"


async def test_a_stream_is_quiet_until_the_peer_sends_or_ends(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        assert stream.is_quiet()
        await peer.send_all(b"x")
        assert not stream.is_quiet()
        await stream.receive_some()
        assert stream.is_quiet()
        await peer.aclose()
        assert not stream.is_quiet()


async def test_closing_wakes_the_receiving_and_the_sending_task(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, _):
        await check_that_closing_wakes(stream)
        stream.close_now()


async def test_a_closed_stream_never_uses_a_socket_with_the_same_number(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, _):
        stream.close_now()
        left, right = socket.socketpair()
        with left, right:
            right.send(b"for somebody else")
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"x")
            assert not stream.is_quiet()
            assert left.recv(100) == b"for somebody else"


async def test_a_gone_peer_breaks_sending(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.send_all(b"x")
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_listener_gets_earlier_bytes_then_later_bytes_then_the_end(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.send_all(b"before")
        await trio.testing.wait_all_tasks_blocked()
        heard = RecordingListener()
        stream.listen(heard)
        await heard.until_has(6)
        await peer.send_all(b" after")
        await heard.until_has(12)
        await peer.send_eof()
        assert await heard.until_ended() == "eof"
        assert heard.data == b"before after"


async def test_the_last_bytes_and_the_end_in_one_event_are_both_reported(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        heard = RecordingListener()
        stream.listen(heard)
        await peer.send_all(b"all of it")
        await peer.aclose()
        assert await heard.until_ended() == "eof"
        assert heard.data == b"all of it"


async def test_bytes_stay_in_the_socket_while_there_is_no_listener(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        first, second = RecordingListener(), RecordingListener()
        stream.listen(first)
        await peer.send_all(b"first")
        await first.until_has(5)
        stream.unlisten()
        await peer.send_all(b"second")
        await trio.testing.wait_all_tasks_blocked()
        assert (first.data, second.data) == (b"first", b"")
        stream.listen(second)
        await second.until_has(6)
        assert (first.data, second.data) == (b"first", b"second")


async def test_a_listener_may_call_unlisten(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):

        class Once(RecordingListener):
            def on_data(self, data: bytes) -> bool:
                super().on_data(data)
                stream.unlisten()
                return True

        heard = Once()
        await peer.send_all(b"x" * 100_000)
        stream.listen(heard)
        await heard.until_has(1)
        await trio.testing.wait_all_tasks_blocked()
        assert heard.pieces == [RECEIVE_MAX]
        assert len(await stream.receive_some()) == 100_000 - RECEIVE_MAX


async def test_a_listener_may_close_the_stream(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):

        class Closing(RecordingListener):
            def on_data(self, data: bytes) -> bool:
                super().on_data(data)
                stream.unlisten()
                stream.close_now()
                return True

        heard = Closing()
        stream.listen(heard)
        await peer.send_all(b"x")
        await heard.until_has(1)
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        assert heard.ended == []
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.send_all(b"x" * 100_000)


async def test_closing_calls_on_error_of_the_listener_once(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, _):
        heard = RecordingListener()
        stream.listen(heard)
        stream.close_now()
        stream.close_now()
        assert [type(end) for end in heard.ended] == [trio.ClosedResourceError]


async def test_one_turn_pushes_a_bounded_number_of_bytes(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * TURN_BYTES_MAX)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * TURN_BYTES_MAX)
        by_turn: Counter[int] = Counter()
        data = b"x" * 6 * TURN_BYTES_MAX
        with counting_turns() as turns:

            class Turned(RecordingListener):
                def on_data(self, data: bytes) -> bool:
                    super().on_data(data)
                    by_turn[turns.count] += len(data)
                    return True

            heard = Turned()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.send_all, data)
                await trio.testing.wait_all_tasks_blocked()
                stream.listen(heard)
                await heard.until_has(len(data))
        assert max(by_turn.values()) <= TURN_BYTES_MAX


async def test_send_now_keeps_what_the_socket_does_not_take(make: type[AnyReader], nursery: trio.Nursery) -> None:
    data = b"0123456789" * 200_000
    async with plain_pair(make) as (stream, peer):
        assert stream.send_now(b"small")
        await stream.drained()
        assert not stream.send_now(data)
        drained: list[bool] = []

        async def wait() -> None:
            await stream.drained()
            drained.append(True)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert drained == []
        received = bytearray()
        while len(received) < 5 + len(data):
            received += await peer.receive_some()
        assert received == b"small" + data
        await trio.testing.wait_all_tasks_blocked()
        assert drained == [True]


async def test_send_part_keeps_at_most_one_read_and_says_how_much_it_took(make: type[AnyReader]) -> None:
    data = b"0123456789" * 500_000
    async with plain_pair(make) as (stream, peer):
        assert stream.send_part(b"small") == 5
        assert not stream.unsent
        taken = stream.send_part(data)
        assert RECEIVE_MAX < taken < len(data)
        assert len(stream.unsent) == RECEIVE_MAX
        received = bytearray()
        while len(received) < 5 + taken:
            received += await peer.receive_some()
        assert received == b"small" + data[:taken]
        await stream.drained()


async def test_send_part_raises_as_send_now(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.send_all(b"unread")
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await peer.aclose()
        await trio.testing.wait_all_tasks_blocked(0.001)
        with pytest.raises(trio.BrokenResourceError):
            stream.send_part(bytes(1_000_000))
        stream.close_now()
        with pytest.raises(trio.ClosedResourceError):
            stream.send_part(bytes(1_000_000))


async def test_a_turn_lasts_a_millisecond_and_one_piece_of_each_task(
    make: type[AnyReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten tasks pass pieces on without a wait. Each piece takes 0.3 ms by a clock that only the pieces advance."""
    now, turns = [1.0], []
    for module in (umbel.net.stream, umbel.net.epoll):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])

    async def pass_on(stream: PlainStream) -> None:
        while len(turns) < 50:
            now[0] += 0.0003
            await stream.pass_turn()

    async with plain_pair(make) as (stream, _):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(pass_on, stream)
            while len(turns) < 50:
                # Stands for the reader, which notes the beginning of each turn.
                began = stream._reader.turn_began = now[0]
                await trio.lowlevel.checkpoint()
                turns.append(now[0] - began)
        assert max(turns) <= 2 * (PIECES_SECONDS + 10 * 0.0003)  # The tasks of a turn run in any order.
        assert max(turns) > 10 * 0.0003


async def test_passing_the_turn_raises_a_pending_cancel_at_once(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, _):
        stream._reader.turn_began = math.inf  # This turn is never long.
        with trio.CancelScope() as scope:
            await stream.pass_turn()
            scope.cancel(reason="a test")
            await stream.pass_turn()
        assert scope.cancelled_caught


async def test_bytes_of_a_peer_that_left_during_a_send_are_received(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        assert not stream.send_now(b"x" * 4_000_000)
        await peer.send_all(b"no more")
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.drained()
        with pytest.raises(trio.BrokenResourceError):
            stream.send_now(b"x")
        assert await stream.receive_some() == b"no more"


async def test_a_second_receiver_is_refused(make: type[AnyReader], nursery: trio.Nursery) -> None:
    async with plain_pair(make) as (stream, peer):
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        await peer.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked()
        stream.listen(RecordingListener())
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()


async def test_a_cancelled_receive_loses_nothing(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        with trio.move_on_after(0) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await peer.send_all(b"kept")
        assert await stream.receive_some() == b"kept"


async def test_a_task_may_wait_be_cancelled_and_be_woken_repeatedly(
    make: type[AnyReader], nursery: trio.Nursery
) -> None:
    async with plain_pair(make) as (stream, peer):
        for number in range(5):
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_when_blocked, scope)
                await stream.receive_some()
            assert scope.cancelled_caught
            nursery.start_soon(peer.send_all, b"%d" % number)
            assert await stream.receive_some() == b"%d" % number


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel(reason="test")


async def test_a_closed_stream_is_in_no_reference_cycle(make: type[AnyReader]) -> None:
    gc.collect()
    gc.disable()
    try:
        async with plain_pair(make) as (stream, peer):
            with trio.move_on_after(0.01):
                await stream.receive_some()
        del stream, peer
        assert not [each for each in gc.get_objects() if type(each) is PlainStream]
    finally:
        gc.enable()


async def test_a_stream_of_millions_of_bytes_arrives_in_order(make: type[AnyReader], nursery: trio.Nursery) -> None:
    data = bytes(range(256)) * 8192
    async with plain_pair(make) as (stream, peer):
        nursery.start_soon(peer.send_all, data)
        received = bytearray()
        while len(received) < len(data):
            piece = await stream.receive_some()
            assert 0 < len(piece) <= RECEIVE_MAX
            received += piece
        assert received == data


async def test_a_close_after_all_was_sent_does_not_fail_drained(
    make: type[AnyReader],
) -> None:
    data = b"x" * 2_000_000
    async with plain_pair(make) as (stream, peer), trio.open_nursery() as nursery:

        async def receive_all_and_close() -> None:
            left = len(data)
            while left:
                left -= len(await peer.receive_some())
            stream.close_now()

        nursery.start_soon(receive_all_and_close)
        await stream.send_all(data)


# Bytes that are sent at the end of the turn.


def unexpected() -> None:
    raise AssertionError("the socket has taken everything")


def arrived(peer: trio.SocketStream) -> bytes | None:
    """The bytes that have come to the peer; None: none, and no end."""
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as same:
        try:
            return same.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None


async def test_bytes_are_sent_at_the_end_of_the_turn(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        assert arrived(peer) == (None if make is EpollReader else b"ab")
        await trio.testing.wait_all_tasks_blocked()
        assert arrived(peer) == (b"ab" if make is EpollReader else None)


async def test_a_send_in_the_same_turn_goes_behind_them(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        assert stream.send_now(b"cd")
        assert arrived(peer) == b"abcd"
        await trio.testing.wait_all_tasks_blocked()
        assert arrived(peer) is None


@pytest.mark.parametrize("end", ["send_eof", "close", "close_now"])
async def test_an_end_in_the_same_turn_goes_behind_them(make: type[AnyReader], end: str) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        getattr(stream, end)()
        assert (arrived(peer), arrived(peer)) == (b"ab", b"")


async def test_only_one_message_waits_for_the_end_of_the_turn(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        assert stream.send_soon(b"cd", unexpected) is (make is not EpollReader)
        await trio.testing.wait_all_tasks_blocked()
        assert arrived(peer) == (b"ab" if make is EpollReader else b"abcd")


@pytest.mark.parametrize("more", [b"", b"and more"])
async def test_a_rest_that_the_socket_does_not_take_is_kept_and_reported(make: type[AnyReader], more: bytes) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        data, reported = b"x" * 2_000_000, trio.Event()
        assert stream.send_soon(data, reported.set)
        if stream.unsent:
            more = b""  # Sent at once: ``send_now`` must wait until the rest is sent.
        elif more:
            assert not stream.send_now(more)
        assert not reported.is_set()
        await reported.wait()
        assert stream.unsent
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.drained)
            while len(got) < len(data + more):
                got += await peer.receive_some()
        assert got == data + more


async def test_a_broken_connection_is_found_by_the_receiver(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        await peer.aclose()
        assert stream.send_soon(b"ab", unexpected)
        assert await stream.receive_some() == b""
        stream.close_now()
        with pytest.raises(trio.ClosedResourceError):
            stream.send_soon(b"ab", unexpected)


async def test_a_waiting_receiver_can_be_woken_without_bytes(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, _):

        async def wait() -> None:
            await stream.wait_readable()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            stream.wake_receiver()
        assert stream.receive_now() is None
