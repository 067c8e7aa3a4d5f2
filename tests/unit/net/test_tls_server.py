"""TLS streams of a server: handshakes, records, floods of records without data, and the ends of both directions."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from hypercorn.config import Config

from tests.support.socket_streams import READERS, TlsPeer, TrafficKeys, TrafficKeys12, served_unshaken, tls_served
from tests.support.upstream.memory_dial import running_reader
from umbel.net.epoll import AnyReader, EpollReader
from umbel.net.tls_stream import DATALESS_MAX, FEED_BYTES, TlsStream

pytestmark = pytest.mark.parametrize("make", READERS)
each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Make the TLS context as ``umbel serve`` does."""
    file = str(tmp_path_factory.mktemp("tls") / "cert.pem")
    ca.issue_cert("server.example").private_key_and_cert_chain_pem.write_to_path(file)
    config = Config()
    config.certfile = config.keyfile = file
    context = config.create_ssl_context()
    assert context is not None
    return context


@pytest.fixture
def client(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


@pytest.fixture
def keys(client: ssl.SSLContext, tmp_path: Path) -> Path:
    client.keylog_filename = str(tmp_path / "keys")
    return tmp_path / "keys"


# Handshake.


@each_version
async def test_sent_bytes_arrive_in_both_directions(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client.maximum_version = version
    data = bytes(range(256)) * 2000
    async with tls_served(make, client, server) as (stream, peer), trio.open_nursery() as nursery:
        await peer.send(b"ping")
        assert await stream.receive_some() == b"ping"
        assert (stream.alpn, stream.client_certificate) == (None, None)
        nursery.start_soon(stream.send_all, data)
        received = b""
        while len(received) < len(data):
            received += await peer.receive()
        assert received == data


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["foreign"], None)]
)
async def test_the_server_selects_one_of_the_offered_protocols(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, offered: list[str], chosen: str | None
) -> None:
    client.set_alpn_protocols(offered)
    async with tls_served(make, client, server) as (stream, peer):
        assert stream.alpn == peer.ssl.selected_alpn_protocol() == chosen


@pytest.fixture(scope="module")
def asking(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("server.example").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


@each_version
async def test_a_resumed_session_has_the_client_certificate(
    make: type[AnyReader], ca: trustme.CA, client: ssl.SSLContext, asking: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client.maximum_version = version
    async with tls_served(make, client, asking) as (stream, _):
        assert stream.client_certificate is None
    cert = ca.issue_cert("client.example")
    cert.configure_cert(client)
    der = ssl.PEM_cert_to_DER_cert(cert.cert_chain_pems[0].bytes().decode())
    session = None
    for resumed in (False, True):
        async with tls_served(make, client, asking, session=session) as (stream, peer):
            assert stream.client_certificate == der
            assert stream.ssl_object.session_reused == resumed
            await stream.send_all(b"behind the tickets")
            assert await peer.receive() == b"behind the tickets"
            session = peer.ssl.session


@each_version
async def test_an_untrusted_client_certificate_fails_the_handshake(
    make: type[AnyReader], client: ssl.SSLContext, asking: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client.maximum_version = version
    trustme.CA().issue_cert("client.example").configure_cert(client)
    async with served_unshaken(make, client, asking) as (stream, peer), trio.open_nursery() as nursery:

        async def expect_the_alert() -> None:
            with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
                await peer.handshake()
                await peer.receive()

        nursery.start_soon(expect_the_alert)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", b""]
)
async def test_garbage_in_place_of_a_client_hello_fails_the_handshake(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, garbage: bytes
) -> None:
    async with served_unshaken(make, client, server) as (stream, peer):
        await peer.stream.send_all(garbage)
        await peer.stream.send_eof()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_a_handshake_that_comes_byte_by_byte_succeeds(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with served_unshaken(make, client, server) as (stream, peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.handshake)
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.do_handshake()
        for byte in peer.outgoing.read():
            await peer.stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await peer.handshake()


async def test_a_stalled_handshake_ends_with_its_cancel_scope(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    for count in (0, 1, 5, 100):
        async with served_unshaken(make, client, server) as (stream, peer):
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.ssl.do_handshake()
            await peer.stream.send_all(peer.outgoing.read()[:count])
            with pytest.raises(trio.TooSlowError), trio.fail_after(10):
                await stream.handshake()
            stream.close()
            with pytest.raises(trio.ClosedResourceError):
                await stream.handshake()


async def test_data_in_the_last_segment_of_the_handshake_is_received(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with served_unshaken(make, client, server) as (stream, peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.handshake)
        await peer.handshake(flush=False)
        peer.ssl.write(b"early")
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.receive_some() == b"early"


# Records.


@pytest.mark.parametrize("count", [100, 3000])
async def test_records_of_one_segment_are_received_one_by_one_without_waiting(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, count: int
) -> None:
    """3000 records are more than the SSL object gets in one feed."""
    async with tls_served(make, client, server) as (stream, peer):
        await peer.send(*(b"%04d" % number for number in range(count)))
        await trio.testing.wait_all_tasks_blocked()
        received = [await stream.receive_some()]
        while (data := stream.receive_now()) is not None:
            received.append(data)
        assert received == [b"%04d" % number for number in range(count)]


async def test_the_rest_of_a_record_is_received_next(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        await peer.send(b"0123456789", b"next")
        assert await stream.receive_some(4) == b"0123"
        assert stream.receive_now(4) == b"4567"
        assert await stream.receive_some() == b"89"
        assert await stream.receive_some() == b"next"
        assert stream.receive_now() is None


async def test_stop_receiving_loses_no_bytes(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        stream.stop_receiving()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.TooSlowError):
                    await stream.receive_some()

            nursery.start_soon(receive)
            half = (data := peer.records(b"in two parts"))[:10]
            await peer.stream.send_all(half)
            await trio.testing.wait_all_tasks_blocked()
            stream.stop_receiving()
        await peer.stream.send_all(data[10:])
        assert await stream.receive_some() == b"in two parts"


async def test_a_key_update_of_the_client_gets_a_reply_with_the_next_send(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        records = TrafficKeys(keys, "CLIENT_TRAFFIC_SECRET_0")
        await peer.stream.send_all(records.key_update() + records.record(0x17, b"with the new key"))
        assert await stream.receive_some() == b"with the new key"
        await stream.send_all(b"with our new key")
        assert await peer.receive() == b"with our new key"


async def test_endless_key_updates_break_the_connection(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> None:
    async with tls_served(make, client, server) as (stream, peer), trio.open_nursery() as nursery:
        records = TrafficKeys(keys, "CLIENT_TRAFFIC_SECRET_0")
        flood = b"".join(records.key_update() for _ in range((DATALESS_MAX + 2 * FEED_BYTES) // 27))
        nursery.start_soon(peer.stream.send_all, flood)
        with pytest.raises(trio.BrokenResourceError, match="without data"):
            await stream.receive_some()
        assert not stream.unsent
        nursery.cancel_scope.cancel(reason="the stream is broken")


async def test_key_updates_between_data_are_accepted(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        records = TrafficKeys(keys, "CLIENT_TRAFFIC_SECRET_0")
        for _ in range(5):
            await peer.stream.send_all(b"".join(records.key_update() for _ in range(300)) + records.record(0x17, b"x"))
            assert await stream.receive_some() == b"x"


@asynccontextmanager
async def renegotiating(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> AsyncIterator[tuple[TlsStream, TlsPeer, TrafficKeys12, bytes]]:
    """A TLS 1.2 connection, the keys of its client, and its ClientHello."""
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with served_unshaken(make, client, server) as (stream, peer), trio.open_nursery() as nursery:
        nursery.start_soon(stream.handshake)
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.do_handshake()
        client_hello = peer.outgoing.read()
        await peer.stream.send_all(client_hello)
        server_hello = bytes(await peer.stream.receive_some())
        peer.incoming.write(server_hello)
        await peer.handshake()
        assert peer.ssl.cipher()[0].endswith("AES256-GCM-SHA384")
        yield stream, peer, TrafficKeys12(keys, server_hello[11:43]), client_hello[5:]


async def test_renegotiation_is_refused_with_any_context(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> None:
    server.options &= ~ssl.OP_NO_RENEGOTIATION
    async with renegotiating(make, client, server, keys) as (stream, peer, records, hello):
        assert server.options & ssl.OP_NO_RENEGOTIATION
        await peer.stream.send_all(records.record(0x16, hello) + records.record(0x17, b"under the old keys"))
        assert await stream.receive_some() == b"under the old keys"
        with pytest.raises(ssl.SSLError, match="NO_RENEGOTIATION"):
            await peer.receive()


async def test_endless_renegotiations_break_the_connection(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, keys: Path
) -> None:
    async with renegotiating(make, client, server, keys) as (stream, peer, records, hello):
        count = (DATALESS_MAX + 2 * FEED_BYTES) // len(hello)
        await peer.stream.send_all(b"".join(records.record(0x16, hello) for _ in range(count)))
        with pytest.raises(trio.BrokenResourceError, match="without data"):
            await stream.receive_some()


# Ends.


@each_version
async def test_a_client_that_has_sent_close_notify_still_gets_data(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client.maximum_version = version
    async with tls_served(make, client, server) as (stream, peer):
        peer.ssl.write(b"request")
        await peer.say_goodbye()
        assert await stream.receive_some() == b"request"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b"", "at each call"
        await stream.send_all(b"answer")
        assert await peer.receive() == b"answer"
        stream.close()
        assert await peer.stream.receive_some(), "close_notify"
        assert await peer.stream.receive_some() == b""


@each_version
async def test_a_client_that_has_half_closed_tcp_still_gets_data(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client.maximum_version = version
    async with tls_served(make, client, server) as (stream, peer):
        await peer.send(b"request")
        await peer.stream.send_eof()
        assert await stream.receive_some() == b"request"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
        await stream.send_all(b"answer")
        assert await peer.receive() == b"answer"


@each_version
@pytest.mark.parametrize("received", [False, True])
async def test_data_of_the_client_is_received_after_our_close_notify(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, version: ssl.TLSVersion, received: bool
) -> None:
    """Data in the SSL object, in the BIO and in the socket is not received after the close."""
    client.maximum_version = version
    async with tls_served(make, client, server) as (stream, peer):
        await peer.send(b"0123456789", b"abc")
        if received:
            assert await stream.receive_some(1) == b"0"
        stream.send_eof()
        stream.send_eof()
        assert await peer.receive() == b""
        await peer.send(b"more")
        data = b""
        while not data.endswith(b"more"):
            data += await stream.receive_some(3)
        assert data == b"0123456789abcmore"[received:]
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        await peer.say_goodbye()
        assert await stream.receive_some() == b""
        stream.close()
        assert await peer.stream.receive_some() == b"", "no second close_notify"


async def test_sending_close_notify_neither_waits_nor_raises(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        while stream.send_now(b"x" * 65536):
            pass
        stream.send_eof()
        await peer.stream.aclose()
        stream.send_eof()
        stream.close()
        stream.send_eof()
        stream.reset_on_close()
    async with served_unshaken(make, client, server) as (stream, peer):
        stream.send_eof()
        stream.close()
        assert await peer.stream.receive_some() == b"", "nothing without a handshake"


async def test_a_reset_sends_no_close_notify(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        await stream.send_all(b"half")
        assert await peer.receive() == b"half"
        stream.reset_on_close()
        stream.close()
        assert await peer.stream.receive_some() == b""


async def test_a_reset_by_the_client_is_an_error(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer):
        await stream.send_all(b"never read")
        await peer.stream.aclose()  # A Unix socket that is closed with bytes unread resets the connection.
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_on_end_is_called_behind_unread_records(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    reported = make is EpollReader  # A WaitReader reports no end behind unread bytes.
    async with tls_served(make, client, server) as (stream, peer):
        reports: list[bool] = []
        stream.on_end = reports.append
        await peer.send(b"one", b"two")
        assert await stream.receive_some() == b"one"
        assert stream.peer_end() == 0
        await peer.send(b"three")
        await trio.testing.wait_all_tasks_blocked()
        assert reports == []
        await peer.stream.send_eof()
        assert stream.peer_end() != 0
        await trio.testing.wait_all_tasks_blocked()
        assert reports == ([False] if reported else [])
        assert await stream.receive_some() == b"two"
        assert await stream.receive_some() == b"three"
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert reports == ([False, True] if reported else [True])
        assert stream.peer_end() & select.POLLHUP


async def test_closing_wakes_both_tasks_and_ends_receiving(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with tls_served(make, client, server) as (stream, peer), trio.open_nursery() as nursery:

        async def expect_closed(*, sending: bool) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await (stream.send_all(b"x" * 10_000_000) if sending else stream.receive_some())

        await peer.send(b"one", b"two")
        assert await stream.receive_some() == b"one"
        nursery.start_soon(lambda: expect_closed(sending=True))
        await trio.testing.wait_all_tasks_blocked()
        stream.close()
        await expect_closed(sending=False)
        with pytest.raises(trio.ClosedResourceError):
            stream.receive_now()


async def test_a_connection_keeps_the_context_of_its_handshake(
    make: type[AnyReader], ca: trustme.CA, client: ssl.SSLContext, server: ssl.SSLContext
) -> None:
    async with running_reader(make) as reader:
        shown = []
        for context in (server, renewed := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
            if context is renewed:
                ca.issue_cert("server.example").configure_cert(renewed)
            ours, theirs = socket.socketpair()
            stream, peer = TlsStream.serving(ours, reader, context), TlsPeer(theirs, client, "server.example")
            async with peer.stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.handshake)
                    await stream.handshake()
                shown.append(peer.ssl.getpeercert(binary_form=True))
                stream.close()
        assert len(set(shown)) == 2
