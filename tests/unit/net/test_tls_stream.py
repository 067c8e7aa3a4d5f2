"""TLS streams: records of any size, session tickets, KeyUpdate, all kinds of ends, a cancel at each step."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import Counter
from pathlib import Path

import pytest
import trio
import trustme

from tests.support.scheduler_turns import counting_turns
from tests.support.socket_streams import (
    READERS,
    RecordingListener,
    TlsPeer,
    check_that_closing_wakes,
    key_update,
    tls_pair,
)
from tests.support.upstream.memory_dial import running_reader
from umbel.net.epoll import AnyReader
from umbel.net.stream import RECEIVE_MAX, TURN_BYTES_MAX
from umbel.net.tls_stream import LARGE_RECORD, RECORD_BYTES, RECORD_COST, RECORDS_BYTES, TlsStream

pytestmark = pytest.mark.parametrize("make", READERS)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("peer.example").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def contexts(client: ssl.SSLContext, server: ssl.SSLContext) -> Contexts:
    return client, server


async def test_sent_bytes_arrive_in_both_directions(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        await stream.send_all(b"ping")
        assert await peer.receive() == b"ping"
        await peer.send(b"pong")
        assert await stream.receive_some() == b"pong"


async def test_records_of_one_byte_that_come_together_are_all_read(make: type[AnyReader], contexts: Contexts) -> None:
    """From the second record on the data is in the BIO, for which the reader reports no event."""
    async with tls_pair(make, *contexts) as (stream, peer):
        data = bytes(range(200))
        await peer.send(*(bytes([byte]) for byte in data))
        received = bytearray()
        while len(received) < len(data):
            received += await stream.receive_some()
        assert received == data
        heard = RecordingListener()
        stream.listen(heard)
        await peer.send(*(bytes([byte]) for byte in data))
        await heard.until_has(len(data))
        assert heard.data == data


async def test_one_turn_pushes_a_bounded_number_of_records(make: type[AnyReader], contexts: Contexts) -> None:
    count = 3 * TURN_BYTES_MAX // RECORD_COST
    async with tls_pair(make, *contexts) as (stream, peer):
        by_turn: Counter[int] = Counter()
        with counting_turns() as turns:

            class Turned(RecordingListener):
                def on_data(self, data: bytes) -> bool:
                    by_turn[turns.count] += 1
                    return super().on_data(data)

            heard = Turned()
            await peer.send(*(b"x" for _ in range(count)))
            await trio.testing.wait_all_tasks_blocked()
            stream.listen(heard)
            await heard.until_has(count)
        assert max(by_turn.values()) <= TURN_BYTES_MAX // RECORD_COST


async def test_large_records_that_have_come_are_received_together(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        full, large = b"f" * RECORD_BYTES, b"l" * LARGE_RECORD
        await peer.send(full, large, b"small", b"next")
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.receive_some() == full + large + b"small"
        assert await stream.receive_some() == b"next"
        await peer.send(full, full, full)
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.receive_some(2 * RECORD_BYTES + 1) == full + full
        assert await stream.receive_some(RECORD_BYTES + 1) == full
        await peer.send(*(full for _ in range(5)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await stream.receive_some(5 * RECORD_BYTES)) <= RECEIVE_MAX


@pytest.mark.parametrize("end", ["garbage", "eof", "close_notify"])
async def test_the_end_behind_large_records_is_reported_after_their_data(
    make: type[AnyReader], contexts: Contexts, end: str
) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        large = b"l" * LARGE_RECORD
        await peer.send(large, large)
        if end == "garbage":
            await peer.stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        elif end == "eof":
            await peer.stream.aclose()
        else:
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.ssl.unwrap()
            await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.receive_some() == large + large
        for _ in range(2):
            if end == "close_notify":
                assert await stream.receive_some() == b""
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()


async def test_records_that_come_one_byte_at_a_time_are_read(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        heard = RecordingListener()
        stream.listen(heard)
        for byte in peer.records(b"slowly", b" but whole"):
            await peer.stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await heard.until_has(16)
        assert heard.data == b"slowly but whole"


async def test_listen_pushes_data_that_was_decrypted_before(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):

        class Once(RecordingListener):
            def on_data(self, data: bytes) -> bool:
                super().on_data(data)
                stream.unlisten()
                return True

        first, rest = Once(), RecordingListener()
        stream.listen(first)
        await peer.send(b"one", b"two", b"three")
        await first.until_has(3)
        await trio.testing.wait_all_tasks_blocked()
        assert first.data == b"one"
        stream.listen(rest)
        await rest.until_has(8)
        assert rest.data == b"twothree"


async def test_large_messages_are_sent_in_both_directions_at_once(make: type[AnyReader], contexts: Contexts) -> None:
    data = bytes(range(256)) * 8192
    async with tls_pair(make, *contexts) as (stream, peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        echoed, heard = bytearray(), RecordingListener()
        stream.listen(heard)
        while len(echoed) < len(data):
            piece = await peer.receive()
            echoed += piece
            await peer.send(piece)
        await heard.until_has(len(data))
        assert heard.data == echoed == data


async def test_send_part_encrypts_no_more_than_a_piece_beyond_what_is_sent(
    make: type[AnyReader], contexts: Contexts
) -> None:
    data = b"0123456789" * 500_000
    async with tls_pair(make, *contexts) as (stream, peer):
        taken = stream.send_part(data)
        assert RECORDS_BYTES <= taken < len(data)
        assert 0 < len(stream.unsent) < 2 * RECORDS_BYTES
        received = bytearray()
        while len(received) < taken:
            received += await peer.receive()
        assert received == data[:taken]
        assert stream.send_part(b"small") == 5


async def test_session_tickets_of_an_idle_connection_are_no_data(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        assert stream.ssl_object.version() == "TLSv1.3"
        # The server has sent two session tickets at the end of the handshake.
        await trio.testing.wait_all_tasks_blocked()
        assert stream.is_quiet()
        await peer.send(b"nobody asked")
        assert not stream.is_quiet()


@pytest.mark.parametrize("end", ["close_notify", "cut off", "alert"])
async def test_an_idle_connection_is_not_quiet_after_any_end(
    make: type[AnyReader], contexts: Contexts, end: str
) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        if end == "close_notify":
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.ssl.unwrap()
            await peer.flush()
        elif end == "alert":
            # A record that cannot be decrypted; from the peer itself only the end of the connection.
            await peer.stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        else:
            await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not stream.is_quiet()


async def test_close_notify_is_the_end_of_the_stream(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        peer.ssl.write(b"last")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.unwrap()
        await peer.flush()
        heard = RecordingListener()
        stream.listen(heard)
        assert await heard.until_ended() == "eof"
        assert heard.data == b"last"


async def test_an_end_without_close_notify_is_an_error(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        heard = RecordingListener()
        stream.listen(heard)
        await peer.send(b"cut")
        await peer.stream.aclose()
        error = await heard.until_ended()
        assert isinstance(error, trio.BrokenResourceError)
        assert isinstance(error.__cause__, ssl.SSLEOFError)
        assert heard.data == b"cut"


@pytest.mark.parametrize("listening", [True, False])
async def test_after_a_key_update_the_peer_understands_what_is_sent(
    make: type[AnyReader], ca: trustme.CA, client: ssl.SSLContext, tmp_path: Path, listening: bool
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("peer.example").configure_cert(server)
    server.num_tickets = 0
    server.keylog_filename = str(tmp_path / "keys")
    async with tls_pair(make, client, server) as (stream, peer):
        assert stream.ssl_object.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        if listening:
            stream.listen(RecordingListener())
        await peer.stream.send_all(key_update(tmp_path / "keys", 0))
        await trio.testing.wait_all_tasks_blocked()
        if not listening:
            assert stream.is_quiet(), "it is no data"
        await stream.send_all(b"with the new key")
        assert await peer.receive() == b"with the new key"


async def test_a_close_sends_close_notify_and_keeps_the_session(make: type[AnyReader], contexts: Contexts) -> None:
    kept: list[ssl.SSLSession | None] = []
    async with tls_pair(make, *contexts, keep_session=kept.append) as (stream, peer):
        await peer.send(b"x")
        assert await stream.receive_some() == b"x"
        stream.close()
        stream.close()
        assert await peer.receive() == b""
        assert len(kept) == 1
        session = kept[0]
        assert session is not None
        assert session.has_ticket
    async with tls_pair(make, *contexts, session=session) as (stream, peer):
        assert stream.ssl_object.session_reused


async def test_a_peer_that_does_not_speak_tls_fails_the_handshake(
    make: type[AnyReader], client: ssl.SSLContext
) -> None:
    async with running_reader(make) as reader:
        ours, theirs = socket.socketpair()
        with theirs:
            stream = TlsStream(ours, reader, client, "peer.example")
            theirs.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLError)
            stream.close_now()


async def test_a_handshake_cancelled_at_each_byte_leaves_a_stream_that_can_be_closed(
    make: type[AnyReader], contexts: Contexts
) -> None:
    client, server = contexts
    for count in (0, 1, 5, 50, 500, 1000):
        async with running_reader(make) as reader:
            ours, theirs = socket.socketpair()
            stream = TlsStream(ours, reader, client, "peer.example")
            peer = TlsPeer(theirs, server)
            async with peer.stream:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stream.handshake)
                        await peer.feed()
                        with contextlib.suppress(ssl.SSLWantReadError):
                            peer.ssl.do_handshake()
                        await peer.stream.send_all(peer.outgoing.read()[:count])
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel(reason="the client has gone")
                stream.close_now()
                with trio.fail_after(5):
                    while await peer.stream.receive_some():
                        pass
            assert len(reader) == 0


async def test_a_gone_peer_breaks_sending_but_its_bytes_can_be_received(
    make: type[AnyReader], contexts: Contexts
) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        await peer.send(b"no more")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.unwrap()
        await peer.flush()
        await peer.stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 100_000)
        assert await stream.receive_some() == b"no more"
        assert await stream.receive_some() == b""


async def test_closing_wakes_the_receiving_and_the_sending_task(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, _):
        await check_that_closing_wakes(stream)


# Bytes that are sent at the end of the turn.


def unexpected() -> None:
    raise AssertionError("the socket has taken everything")


@pytest.mark.parametrize("then", ["nothing", "send_now", "send_eof", "close"])
async def test_data_for_the_end_of_the_turn_comes_first(make: type[AnyReader], contexts: Contexts, then: str) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        if then == "send_now":
            assert stream.send_now(b"cd")
        elif then != "nothing":
            getattr(stream, then)()
        assert await peer.receive() == b"ab"
        if then == "send_now":
            assert await peer.receive() == b"cd"
        elif then != "nothing":
            assert await peer.receive() == b""


async def test_more_than_a_record_is_not_sent_at_the_end_of_the_turn(make: type[AnyReader], contexts: Contexts) -> None:
    async with tls_pair(make, *contexts) as (stream, _):
        assert not stream.send_soon(bytes(RECORD_BYTES + 1), unexpected)


async def test_records_that_the_socket_does_not_take_at_the_end_of_the_turn_are_kept(
    make: type[AnyReader], contexts: Contexts
) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        sent, reported = 0, trio.Event()
        while not stream.unsent:
            await trio.testing.wait_all_tasks_blocked()
            sent += RECORD_BYTES
            assert stream.send_soon(bytes(RECORD_BYTES), reported.set)
            await trio.testing.wait_all_tasks_blocked()
        assert reported.is_set()
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.drained)
            while received < sent:
                received += len(await peer.receive())


async def test_a_reply_of_tls_goes_behind_data_for_the_end_of_the_turn(
    make: type[AnyReader], contexts: Contexts
) -> None:
    async with tls_pair(make, *contexts) as (stream, peer):
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_soon(b"ab", unexpected)
        stream._reply()
        assert stream.send_now(b"cd")
        assert await peer.receive() == b"ab"
        assert await peer.receive() == b"cd"
