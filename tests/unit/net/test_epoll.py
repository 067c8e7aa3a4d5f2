"""Socket readers: calls of handlers, closing of sockets, and that unread events do not keep the loop busy."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import pytest
import trio

from tests.support.scheduler_turns import counting_turns
from tests.support.socket_streams import READERS, RecordingListener, plain_pair
from tests.support.upstream.memory_dial import running_reader
from umbel.net.epoll import HAS_EPOLL, READABLE, AnyReader, EpollReader
from umbel.net.stream import PlainStream

pytestmark = pytest.mark.parametrize("make", READERS)
needs_epoll = pytest.mark.skipif(not HAS_EPOLL, reason="this system has no epoll")


async def quiet_turns() -> int:
    """Number of scheduler turns in 0.2 s in which no event comes."""
    with counting_turns() as turns, trio.move_on_after(0.2):
        await trio.sleep_forever()
    return turns.count


async def test_many_streams_are_read_each_by_its_own_task(make: type[AnyReader]) -> None:
    async with running_reader(make) as reader:
        pairs = [socket.socketpair() for _ in range(200)]
        streams = [PlainStream(ours, reader) for ours, _ in pairs]
        got: dict[int, bytes] = {}

        async def receive(index: int) -> None:
            got[index] = await streams[index].receive_some()

        async with trio.open_nursery() as nursery:
            for index in range(200):
                nursery.start_soon(receive, index)
            await trio.testing.wait_all_tasks_blocked()
            for index, (_, theirs) in enumerate(pairs):
                theirs.send(b"%d" % index)
        assert got == {index: b"%d" % index for index in range(200)}
        for stream, (_, theirs) in zip(streams, pairs, strict=True):
            stream.close_now()
            theirs.close()
        assert len(reader) == 0


async def test_unread_bytes_do_not_keep_the_loop_busy(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.send_all(b"x" * 100)
        assert await quiet_turns() < 10
        assert not stream.is_quiet()
        assert await stream.receive_some() == b"x" * 100


async def test_an_unread_end_does_not_keep_the_loop_busy_and_is_read_again(make: type[AnyReader]) -> None:
    async with plain_pair(make) as (stream, peer):
        await peer.aclose()
        assert await quiet_turns() < 10
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_an_unread_reset_does_not_keep_the_loop_busy_and_breaks_the_next_read(make: type[AnyReader]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with running_reader(make) as reader:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        stream = PlainStream(ours, reader)
        theirs.send(b"first")
        assert await stream.receive_some() == b"first"
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert await quiet_turns() < 10
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        stream.close_now()
    listener.close()


async def test_the_handler_of_a_socket_closed_earlier_in_the_batch_is_not_called(make: type[AnyReader]) -> None:
    """The number of the closed socket is not used again before the batch is over."""
    async with running_reader(make) as reader:
        pairs = [socket.socketpair() for _ in range(20)]
        streams = [PlainStream(ours, reader) for ours, _ in pairs]
        numbers = {ours.fileno() for ours, _ in pairs}
        called: list[int] = []
        made: list[socket.socket] = []

        class ClosesAllOthers(RecordingListener):
            def __init__(self, index: int) -> None:
                super().__init__()
                self.index = index

            def on_data(self, data: bytes) -> bool:
                called.append(self.index)
                for other in range(20):
                    if other != self.index:
                        streams[other].unlisten()
                        streams[other].close_now()
                made.append(socket.socket())
                return True

        for index, stream in enumerate(streams):
            stream.listen(ClosesAllOthers(index))
        await trio.testing.wait_all_tasks_blocked()
        for _, theirs in pairs:
            theirs.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert len(called) == 1
        if make is EpollReader:
            assert made[0].fileno() not in numbers
        streams[called[0]].close_now()
        for each in (*made, *(theirs for _, theirs in pairs)):
            each.close()


async def test_call_again_calls_a_handler_without_a_change_of_the_socket(make: type[AnyReader]) -> None:
    async with running_reader(make) as reader:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        calls: list[int] = []
        reader.register(ours, calls.append)
        await trio.testing.wait_all_tasks_blocked()
        calls.clear()
        reader.call_again(ours)
        await trio.testing.wait_all_tasks_blocked()
        assert len(calls) == 1
        theirs.send(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert calls[-1] & READABLE
        reader.close(ours)
        theirs.close()


async def test_a_stream_can_be_made_before_its_reader_runs_and_closed_afterwards(make: type[AnyReader]) -> None:
    reader = make()
    ours, theirs = socket.socketpair()
    with theirs:
        stream = PlainStream(ours, reader)
        theirs.send(b"early")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.run)
                assert await stream.receive_some() == b"early"
                scope.cancel(reason="the test is over")
        stream.close_now()
        assert theirs.recv(1) == b""
        reader.discard()
        reader.discard()


async def test_two_runs_of_trio_share_nothing(make: type[AnyReader]) -> None:
    async def once() -> bytes:
        async with plain_pair(make) as (stream, peer):
            await peer.send_all(b"mine")
            return await stream.receive_some()

    def run() -> bytes:
        return trio.run(once)

    assert await trio.to_thread.run_sync(run) == b"mine"
    assert await once() == b"mine"


@needs_epoll
async def test_a_stream_is_closed_although_a_fork_removed_its_registration(make: type[AnyReader]) -> None:
    if make is not EpollReader:
        return
    async with plain_pair(make) as (stream, peer):
        # A forked process that closes its inherited sockets removes the registration in the shared epoll.
        stream._reader._epoll.unregister(stream._socket)
        stream.close_now()
        assert await peer.receive_some() == b""


@needs_epoll
async def test_a_deferred_function_runs_once_after_all_handlers_of_the_batch(make: type[AnyReader]) -> None:
    if make is not EpollReader:
        return
    async with running_reader(make) as reader:
        pairs, happened = [socket.socketpair() for _ in range(3)], []

        def handler(events: int) -> None:
            happened.append("handler")
            if len(happened) == 1:
                reader.after_batch(lambda: happened.append("after"))

        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.send(b"x")
            reader.register(ours, handler)
        await trio.testing.wait_all_tasks_blocked()
        assert happened == ["handler", "handler", "handler", "after"]
        for ours, theirs in pairs:
            reader.close(ours)
            theirs.close()


async def test_a_function_deferred_outside_of_a_batch_runs_at_once(make: type[AnyReader]) -> None:
    async with running_reader(make) as reader:
        happened: list[str] = []
        reader.after_batch(lambda: happened.append("after"))
        assert happened == ["after"]


# The end of a turn.


async def test_what_waits_for_the_end_of_a_turn_runs_when_its_tasks_have_run(make: type[AnyReader]) -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        seen.append(f"work {name}")
        reader.at_turn_end(lambda: seen.append(f"send {name}"))

    async with running_reader(make) as reader:
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(work, name)
    if make is EpollReader:
        assert [each[:4] for each in seen] == ["work"] * 3 + ["send"] * 3
        assert [each[-1] for each in seen[:3]] == [each[-1] for each in seen[3:]]
    else:
        assert [each[:4] for each in seen] == ["work", "send"] * 3


async def test_a_long_turn_does_not_put_off_what_waits_for_its_end(
    make: type[AnyReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.net.epoll.LATE_SECONDS", -1.0)
    called: list[int] = []
    async with running_reader(make) as reader:
        await trio.testing.wait_all_tasks_blocked()
        reader.at_turn_end(lambda: called.append(1))
        assert called == [1]


async def test_without_a_running_reader_nothing_waits_for_the_end_of_a_turn(make: type[AnyReader]) -> None:
    called: list[str] = []
    reader = make()
    reader.at_turn_end(lambda: called.append("before"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        await trio.testing.wait_all_tasks_blocked()
        reader.at_turn_end(lambda: called.append("within"))
        nursery.cancel_scope.cancel(reason="the end of the test")
    reader.at_turn_end(lambda: called.append("after"))
    assert called == ["before", "within", "after"]


async def test_after_an_error_at_the_end_of_a_turn_nothing_waits_for_the_next_one(
    make: type[AnyReader], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []

    def fail() -> None:
        raise RuntimeError("against the contract")

    async with running_reader(make) as reader:
        await trio.testing.wait_all_tasks_blocked()
        with suppress(RuntimeError):  # Without epoll, the function is called at once.
            reader.at_turn_end(fail)
        reader.at_turn_end(lambda: called.append(1))
        await trio.testing.wait_all_tasks_blocked()
        reader.at_turn_end(lambda: called.append(2))
        assert called == [1, 2]
    if make is EpollReader:
        assert "against the contract" in caplog.text
