"""Upstreams to which no connection can or may be made, through the whole program."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from tests.support.gateway.failing_call import Fault, assert_fails, assert_recorded, steadily, two_routes
from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.upstream.bad_upstreams import full, nobody
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import (
    Handler,
    Peer,
    RawServer,
    answering,
    open_sockets,
    raw_server,
    response,
    silent,
)
from umbel.core.failure_kinds import Kind

PROHIBITED = Fault(Kind.CONNECT, "destination_ip_prohibited")
UNTRUSTED = Fault(Kind.TLS, "tls_certificate_error")
NO_TLS = Fault(Kind.TLS, "tls_protocol_error")
MINE = response(b'"mine"')


async def assert_cannot_connect(
    directory: Path, upstream: str, fault: Fault, keys: str = "", *secrets: str, stock: bool = False
) -> None:
    """Check that both routes of a program with this upstream fail with ``fault``, are recorded, and leave no socket."""
    sockets = open_sockets()
    async with raw_server(steadily) as steady:
        config = two_routes(steady, upstream, keys)
        async with running(directory, config, stock=stock) as program:
            replies = await assert_fails(program, fault)
            await program.settled()
            pool = program.client("hidden-name").statistics().pool
            assert (pool.active, pool.connecting, pool.idle) == (0, 0, 0)
    # Neither the host nor the digits of the port may be shown.
    host, _, port = upstream.partition("://")[2].rpartition(":")
    assert_recorded(program, fault, replies, *filter(None, (host, port if port.isdigit() else "", *secrets)))
    assert open_sockets() == sockets


@SERVERS
async def test_a_port_without_a_listener_is_connection_refused(stock: bool, tmp_path: Path) -> None:
    with nobody() as port:
        fault = Fault(Kind.CONNECT, "connection_refused")
        await assert_cannot_connect(tmp_path, f"http://127.0.0.1:{port}", fault, stock=stock)


async def test_a_listener_that_does_not_accept_is_a_connect_timeout(tmp_path: Path) -> None:
    with full() as port:
        fault = Fault(Kind.CONNECT, "connection_timeout")
        await assert_cannot_connect(tmp_path, f"http://127.0.0.1:{port}", fault, 'connect_timeout = "100ms"')


@pytest.mark.parametrize("host", ["169.254.169.254", "224.0.0.1", "[fe80::1]", "[::ffff:169.254.169.254]"])
async def test_link_local_and_multicast_addresses_are_never_connected_to(host: str, tmp_path: Path) -> None:
    await assert_cannot_connect(tmp_path, f"http://{host}:80", PROHIBITED)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_with_public_only_loopback_addresses_are_never_connected_to(host: str, tmp_path: Path) -> None:
    async with raw_server(answering(MINE)) as server:
        await assert_cannot_connect(tmp_path, url(server, host=host), PROHIBITED, "public_only = true")
        assert server.connections == []


class Names(trio.abc.HostnameResolver):
    """A resolver with one answer: an address, an error, or none at all."""

    def __init__(self, answer: str | OSError | None) -> None:
        self.answer = answer
        self.asked: list[object] = []

    async def getaddrinfo(self, host: bytes | None, port: object, *args: object) -> list:
        self.asked.append(host)
        await trio.lowlevel.checkpoint()
        if self.answer is None:
            await trio.sleep_forever()
        if isinstance(self.answer, OSError):
            raise self.answer
        assert isinstance(self.answer, str)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.answer, port))]

    async def getnameinfo(self, *args: object) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (socket.gaierror(socket.EAI_NONAME, "hidden reason"), Fault(Kind.DNS, "dns_error")),
        (None, Fault(Kind.DNS, "dns_timeout")),
        ("169.254.169.254", PROHIBITED),
        ("10.0.0.1", PROHIBITED),
    ],
    ids=["unknown", "silent", "link-local", "private, with public_only"],
)
async def test_an_unknown_name_or_one_with_a_prohibited_address_is_a_failure(
    answer: str | OSError | None, fault: Fault, tmp_path: Path
) -> None:
    names = Names(answer)
    trio.socket.set_custom_hostname_resolver(names)
    keys = 'connect_timeout = "50ms"\npublic_only = true'
    await assert_cannot_connect(tmp_path, "http://users.example", fault, keys, "users.example")
    assert names.asked == [b"users.example"] * 2


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path) -> str:
    """The key of the configuration that makes ``ca`` trusted."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return 'tls = { ca = "ca.pem" }'


def context(ca: trustme.CA, name: str = "127.0.0.1", **options: datetime.datetime) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name, **options).configure_cert(made)
    return made


def by_itself(_: trustme.CA) -> ssl.SSLContext:
    """A context with a self-signed certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = trustme.CA()
    with own.cert_pem.tempfile() as certificate, own.private_key_pem.tempfile() as key:
        made.load_cert_chain(certificate, key)
    return made


BAD_CERTIFICATES: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "expired": lambda ca: context(ca, not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
    "of another host": lambda ca: context(ca, "hidden.example"),
    "of another address": lambda ca: context(ca, "127.0.0.2"),
    "of an authority that nobody knows": lambda _: context(trustme.CA()),
    "self-signed": by_itself,
}


@pytest.mark.parametrize("make", BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
async def test_a_bad_certificate_is_refused_before_the_request_is_sent(
    make: Callable[[trustme.CA], ssl.SSLContext], ca: trustme.CA, trusted: str, tmp_path: Path
) -> None:
    heads: list[bytes] = []

    async def handler(peer: Peer) -> None:
        heads.append(await peer.read_head())

    async with raw_server(handler, tls=make(ca)) as server:
        await assert_cannot_connect(tmp_path, url(server, "https"), UNTRUSTED, trusted)
        await server.all_closed()
    assert not any(heads)


async def plainly(peer: Peer) -> None:
    await peer.stream.receive_some()
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def leaves(peer: Peer) -> None:
    await peer.stream.receive_some()


@pytest.mark.parametrize("script", [silent, plainly, leaves], ids=["stalls", "speaks plain HTTP", "leaves"])
async def test_a_failed_handshake_is_a_tls_failure_within_connect_timeout(
    script: Handler, trusted: str, tmp_path: Path
) -> None:
    async with raw_server(script) as server:
        keys = f'{trusted}\nconnect_timeout = "{"500ms" if script is silent else "5s"}"'
        await assert_cannot_connect(tmp_path, url(server, "https"), NO_TLS, keys)
        await server.all_closed()


@asynccontextmanager
async def elsewhere() -> AsyncIterator[RawServer]:
    """A server that must get no connection."""
    async with raw_server(answering(response(b'"stolen"'))) as server:
        yield server
        assert server.connections == []


@SERVERS
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_environment_variables_change_neither_proxy_nor_trust(
    scheme: str, stock: bool, ca: trustme.CA, trusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = context(ca) if scheme == "https" else None
    (tmp_path / "empty.pem").touch()
    async with raw_server(answering(MINE), tls=tls) as upstream, elsewhere() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, url(proxy))
            monkeypatch.setenv(name.lower(), url(proxy))
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(tmp_path / "empty.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
        config = up(upstream, trusted).replace("http:", f"{scheme}:") + route()
        async with running(tmp_path, config, stock=stock) as program:
            reply, _ = await program.ask("/r")
            assert (reply.status, reply.json) == (200, {"part": "mine"})
    assert not (tmp_path / "keys.log").exists()


async def test_environment_variables_add_no_trusted_authority(
    ca: trustme.CA, trusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with raw_server(answering(MINE), tls=context(ca)) as server:
        await assert_cannot_connect(tmp_path, url(server, "https"), UNTRUSTED)
