"""Clients of TLS connections: their certificate, and their leaving behind unread bytes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from tests.support.server.http1 import GET, App, answer, served
from tests.support.socket_streams import TlsPeer
from umbel.core.inbound import AnyHead, Field, InboundApplication, InboundRequest
from umbel.server.serve_socket import serve_socket

MockClock = trio.testing.MockClock


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of a server and of its client."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("gateway.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class ShowsCertificate(InboundApplication):
    """Respond with the client's certificate."""

    async def handle(self, request: InboundRequest) -> None:
        request.respond(200, [], request.client_certificate or b"none")

    def error_response_fields(self, head: AnyHead, fields: Sequence[Field]) -> Sequence[Field]:
        return fields


@asynccontextmanager
async def over_tls(app: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[TlsPeer]:
    """A TLS client, after its handshake with a server of ``app``."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    async with served(app) as server:
        server.nursery.start_soon(serve_socket, server.state, theirs, contexts[0])
        peer = TlsPeer(ours, contexts[1], "gateway.test")
        await peer.handshake()
        yield peer
        await trio.aclose_forcefully(peer.stream)


@pytest.mark.parametrize("behind", [b"", GET * 3, bytes(100_000)], ids=["nothing", "requests", "bytes"])
@pytest.mark.parametrize("goodbye", [False, True])
async def test_an_application_whose_tls_client_leaves_is_cancelled(
    behind: bytes, goodbye: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    began, reasons = trio.Event(), []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(error.reason)
            raise

    async with over_tls(App(waits), contexts) as peer:
        await peer.send(GET)
        await began.wait()
        if behind:
            await peer.send(behind)
        if goodbye:
            await peer.say_goodbye()
        await trio.aclose_forcefully(peer.stream)
    assert reasons == ["client-gone"]
    assert trio.current_time() == 0


async def test_a_half_closed_tls_client_gets_its_response(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(5)
        await answer(send, b"late")

    async with over_tls(App(slow), contexts) as peer:
        raw = peer.stream.socket  # type: ignore[attr-defined]  # A SocketStream.
        # No other task runs between the two statements.
        socket.socket.send(raw._sock, peer.records(GET))
        raw._sock.shutdown(socket.SHUT_WR)
        received = b""
        while not received.endswith(b"late") and (data := await peer.receive()):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize("shown", [True, False])
async def test_the_application_sees_the_clients_certificate(shown: bool, autojump_clock: MockClock) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("gateway.test").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.create_default_context()
    authority.configure_trust(client)
    certificate = authority.issue_cert("client.test")
    if shown:
        certificate.configure_cert(client)
    async with over_tls(ShowsCertificate(), (server, client)) as peer:
        await peer.send(GET)
        received = await peer.receive()
    expected = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode()) if shown else b"none"
    assert received.endswith(b"\r\n\r\n" + expected)
