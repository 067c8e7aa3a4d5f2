"""TLS towards upstreams over sockets: trust, failures, sessions, and the end of connections."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from tests.support.upstream.calls import calling, url
from tests.support.upstream.memory_dial import running_reader
from tests.support.upstream.raw_server import Peer, answering, raw_server, response, silent
from umbel.config.schema.sections import Upstream
from umbel.core.failure_kinds import Kind
from umbel.upstream import Pool, build, client_context
from umbel.upstream.pool.dial import Dialer
from umbel.upstream.replicas.origin import Origin

OK = response(b"ok")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def context(ca: trustme.CA, name: str = "127.0.0.1", **options) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name, **options).configure_cert(made)
    made.set_alpn_protocols(["h2", "http/1.1"])
    return made


async def test_a_configured_ca_is_trusted_and_the_connection_is_kept(ca: trustme.CA, ca_file: str) -> None:
    async with raw_server(answering(OK), tls=context(ca)) as server:
        async with calling(url(server, "https"), tls={"ca": ca_file}) as caller:
            for _ in range(5):
                assert (await caller.call()).content == b"ok"
            pool = caller.client.statistics().pool
            assert (pool.opened, pool.reused, pool.stale) == (1, 4, 0)
        stream = server.connections[0].stream
        assert isinstance(stream, trio.SSLStream)
        assert stream.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes_the_session(ca: trustme.CA, ca_file: str, version: ssl.TLSVersion) -> None:
    made = context(ca)
    made.minimum_version = made.maximum_version = version
    async with raw_server(answering(OK, close=True), tls=made) as server:
        async with calling(url(server, "https"), tls={"ca": ca_file}) as caller:
            for _ in range(3):
                assert (await caller.call()).content == b"ok"
        resumed = [bool(peer.stream.session_reused) for peer in server.connections]
    assert resumed == [False, True, True]


async def test_a_session_is_never_offered_to_another_origin(ca: trustme.CA, ca_file: str) -> None:
    made = context(ca)
    async with (
        raw_server(answering(OK, close=True), tls=made) as one,
        raw_server(answering(OK, close=True), tls=made) as other,
        Pool(ssl_context=client_context(ca=ca_file)) as pool,
        httpx.AsyncClient(transport=pool) as client,
    ):
        for server in (one, other):
            assert (await client.get(url(server, "https"))).content == b"ok"
        assert not other.connections[0].stream.session_reused


async def test_an_unknown_ca_is_a_certificate_error(ca: trustme.CA) -> None:
    async with raw_server(answering(OK), tls=context(ca)) as server, calling(url(server, "https")) as caller:
        await caller.fails(Kind.TLS, "tls_certificate_error")


async def test_no_environment_variable_makes_an_unknown_ca_trusted(
    ca: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(ca_file).parent))
    async with raw_server(answering(OK), tls=context(ca)) as server, calling(url(server, "https")) as caller:
        await caller.fails(Kind.TLS, "tls_certificate_error")


BAD_CERTIFICATES: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "expired": lambda ca: context(ca, not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
    "of another host": lambda ca: context(ca, "other.example"),
    "self-signed": lambda ca: context(trustme.CA()),
}


@pytest.mark.parametrize("make", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
async def test_a_bad_certificate_is_refused(
    make: Callable[[trustme.CA], ssl.SSLContext], ca: trustme.CA, ca_file: str
) -> None:
    async with (
        raw_server(answering(OK), tls=make(ca)) as server,
        calling(url(server, "https"), tls={"ca": ca_file}) as caller,
    ):
        await caller.fails(Kind.TLS, "tls_certificate_error")
        await server.all_closed()


async def test_the_configured_server_name_is_sent_and_verified_instead_of_the_host(
    ca: trustme.CA, ca_file: str
) -> None:
    made = context(ca, "users.example")
    asked: list[str | None] = []
    made.sni_callback = lambda _, name, __: asked.append(name)
    async with raw_server(answering(OK), tls=made) as server:
        async with calling(url(server, "https"), tls={"ca": ca_file, "server_name": "users.example"}) as caller:
            assert (await caller.call()).content == b"ok"
        async with calling(url(server, "https"), tls={"ca": ca_file}, host="users.example:443") as caller:
            assert (await caller.call()).content == b"ok"
        async with Pool(ssl_context=client_context(ca=ca_file)) as pool, httpx.AsyncClient(transport=pool) as client:
            got = await client.get(url(server, "https"), extensions={"sni_hostname": "users.example"})
            assert got.text == "ok"
    assert asked == ["users.example"] * 3


@pytest.fixture
def client_files(ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    identity = ca.issue_cert("client.example")
    identity.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    identity.private_key_pem.write_to_path(tmp_path / "key.pem")
    return {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}


async def serve_by_hand(peer: Peer, made: ssl.SSLContext) -> None:
    """TLS as most servers do it: an alert says why a handshake failed. (trio's own end closes without one.)"""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = made.wrap_bio(incoming, outgoing, server_side=True)

    async def run(step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await peer.send(outgoing.read())
                incoming.write(bytes(await peer.stream.receive_some()))
            else:
                await peer.send(outgoing.read())
                return

    try:
        await run(tls.do_handshake)
        await run(lambda: tls.read(10_000))
        await run(lambda: tls.write(OK))
    except ssl.SSLError:
        await peer.send(outgoing.read())
    await peer.closed()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_sent_and_without_one_the_alert_is_a_tls_failure(
    version: ssl.TLSVersion, ca: trustme.CA, ca_file: str, client_files: dict[str, str]
) -> None:
    made = context(ca)
    made.maximum_version = version
    made.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(made)
    async with raw_server(partial(serve_by_hand, made=made)) as server:
        async with calling(url(server, "https"), tls={"ca": ca_file, **client_files}) as caller:
            assert (await caller.call()).content == b"ok"
        async with calling(url(server, "https"), tls={"ca": ca_file}) as caller:
            # With TLS 1.3 the handshake is over for us by then: the alert comes instead of the response.
            await caller.fails(Kind.TLS, "tls_alert_received")


async def test_relative_files_are_relative_to_the_base_directory(
    ca: trustme.CA, ca_file: str, client_files: dict[str, str]
) -> None:
    config = Upstream(urls=("https://127.0.0.1",), tls={"ca": Path(ca_file).name})
    build("users", config, base_dir=Path(ca_file).parent)
    with pytest.raises(ValueError, match=r"^tls\.ca: .* cannot be read"):
        build("users", config, base_dir=Path(client_files["cert"]).parent)


async def test_a_handshake_that_stalls_fails_within_the_connect_timeout(ca_file: str) -> None:
    async with (
        raw_server(silent) as server,
        calling(url(server, "https"), tls={"ca": ca_file}, connect_timeout="50ms") as caller,
    ):
        await caller.fails(Kind.TLS, "tls_protocol_error")
        await server.all_closed()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_without_tls_is_a_tls_failure(answer: bytes, ca_file: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.stream.receive_some()
        if answer:
            await peer.send(answer)

    async with raw_server(handler) as server, calling(url(server, "https"), tls={"ca": ca_file}) as caller:
        await caller.fails(Kind.TLS, "tls_protocol_error")


async def test_old_versions_of_tls_are_refused(ca: trustme.CA, ca_file: str) -> None:
    made = context(ca)
    with pytest.warns(DeprecationWarning):
        made.minimum_version = ssl.TLSVersion.TLSv1
        made.maximum_version = ssl.TLSVersion.TLSv1_1
    async with (
        raw_server(answering(OK), tls=made) as server,
        calling(url(server, "https"), tls={"ca": ca_file}) as caller,
    ):
        await caller.fails(Kind.TLS)


@pytest.mark.parametrize("separate", [False, True], ids=["in the same record", "in a record of its own"])
async def test_excess_bytes_within_the_tls_layer_are_found(separate: bool, ca: trustme.CA, ca_file: str) -> None:
    """Both records arrive in one TCP segment, so the socket has nothing to read when the connection is used again."""

    async def handler(peer: Peer) -> None:
        while head := await peer.read_head():
            body = head.split(b" ")[1]
            secret = response(b"SECRET")
            if separate:
                assert isinstance(peer.stream, trio.SSLStream)
                transport = peer.stream.transport_stream
                held: list[bytes] = []
                real, transport.send_all = transport.send_all, _holding(held)
                await peer.send(response(body))
                await peer.send(secret)
                transport.send_all = real
                await transport.send_all(b"".join(held))
            else:
                await peer.send(response(body) + secret)

    async with (
        raw_server(handler, tls=context(ca)) as server,
        calling(url(server, "https"), tls={"ca": ca_file}) as caller,
    ):
        for number in range(50):
            target = b"/%d" % number
            assert (await caller.call(target)).content == target
        pool = caller.client.statistics().pool
        assert pool.excess + pool.stale >= 49


def _holding(held: list[bytes]):
    async def send_all(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        held.append(bytes(data))

    return send_all


async def test_without_close_notify_a_body_without_a_length_is_incomplete(ca: trustme.CA, ca_file: str) -> None:
    async def cut(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")

    async def finish(peer: Peer) -> None:
        await cut(peer)
        await peer.stream.aclose()

    async with raw_server(cut, tls=context(ca)) as server, calling(url(server, "https"), tls={"ca": ca_file}) as caller:
        await caller.fails(Kind.MALFORMED, "http_response_incomplete")
    async with (
        raw_server(finish, tls=context(ca)) as server,
        calling(url(server, "https"), tls={"ca": ca_file}) as caller,
    ):
        assert (await caller.call()).content == b"half"


async def test_an_idle_connection_is_closed_with_close_notify_and_a_cancelled_one_at_once(
    ca: trustme.CA, ca_file: str
) -> None:
    ends: list[str] = []

    async def handler(peer: Peer) -> None:
        while True:
            try:
                head = await peer.stream.receive_some()
            except trio.BrokenResourceError:
                ends.append("cut")
                return
            if not head:
                ends.append("goodbye")
                return
            if b"/answer" in head:
                await peer.send(OK)

    async with raw_server(handler, tls=context(ca)) as server:
        async with calling(url(server, "https"), tls={"ca": ca_file}) as caller:
            await caller.call(b"/answer")
        await server.all_closed()
        async with calling(url(server, "https"), tls={"ca": ca_file}) as caller:
            with trio.move_on_after(0.1) as scope:
                await caller.call(b"/hang")
            assert scope.cancelled_caught
            await server.all_closed()
    assert ends == ["goodbye", "cut"]


async def test_an_early_response_is_read_though_the_rest_cannot_be_sent(ca: trustme.CA, ca_file: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"too large", status=b"413 Too Large"))

    secure = {"ca": ca_file}
    async with raw_server(handler, tls=context(ca)) as server, calling(url(server, "https"), tls=secure) as caller:
        for _ in range(4):
            got = await caller.call(method="POST", content=bytes(24 * 2**20))
            assert (got.status_code, got.content) == (413, b"too large")


async def test_a_response_before_a_failed_send_can_be_read(ca: trustme.CA, ca_file: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.stream.receive_some(1)
        await peer.send(b"enough")
        # Closing with bytes unread is a reset.

    async with raw_server(handler, tls=context(ca)) as server, running_reader() as reader:
        dial = Dialer(ssl_context=client_context(ca=ca_file))
        dial.reader = reader
        stream = await dial(Origin("https", "127.0.0.1", int(server)), 5.0)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(2**20))
        assert await stream.receive_some() == b"enough"
        stream.close_now()


class _Reread(trio.abc.Stream):
    """A stream whose first bytes have been looked at already."""

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        first, self._first = self._first, b""
        return first or await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_peer_that_fails_on_a_session_gets_a_handshake_without_the_session(
    ca: trustme.CA, ca_file: str
) -> None:
    made = context(ca)
    refused = 0

    async def wary(peer: Peer) -> None:
        nonlocal refused
        hello = bytes(await peer.stream.receive_some())
        # The extension pre_shared_key is the last of a ClientHello that offers a session (RFC 8446 section 4.2.11).
        if b"\x00\x29" in hello[-400:]:
            refused += 1
            await peer.send(b"\x15\x03\x03\x00\x02\x02\x28")
            return
        tls = trio.SSLStream(_Reread(peer.stream, hello), made, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await tls.do_handshake()
            await tls.receive_some()
            await tls.send_all(response(b"ok", b"Connection: close"))
            await tls.unwrap()

    async with raw_server(wary) as server, calling(url(server, "https"), tls={"ca": ca_file}) as caller:
        for _ in range(3):
            assert (await caller.call()).content == b"ok"
    assert refused == 2, "offered once a call, and never stuck with it"
