"""The client's certificate as applications see it: natively and by ASGI, over HTTP/1.1, HTTP/2 and WebSocket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypercorn.trio.tcp_server import TCPServer

from tests.support.server.h2_client import H2Client
from tests.support.server.http1 import App, answer
from tests.support.server.serving import RawClient, serving
from tests.support.server.ws_client import WsClient
from umbel.config.hypercorn_toml.settings import hypercorn_keys
from umbel.core.inbound import Field, InboundApplication, InboundRequest
from umbel.gateway.request.tls_extension import certificate_in
from umbel.server import hypercorn as umbel_in_hypercorn

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("client.example")
DER = ssl.PEM_cert_to_DER_cert(CERTIFICATE.cert_chain_pems[0].bytes().decode())


class Native(InboundApplication):
    """Respond with the client's certificate."""

    async def handle(self, request: InboundRequest) -> None:
        request.respond(200, [], request.client_certificate or b"none")

    def error_response_fields(self, head: Any, fields: Sequence[Field]) -> Sequence[Field]:
        return fields


async def by_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the certificate in the scope; also say it to a WebSocket."""
    shown = certificate_in(scope) or b"none"
    if scope["type"] == "http":
        await answer(send, shown)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": shown})
    await send({"type": "websocket.close"})


def settings(directory: Path, mode: int) -> dict[str, Any]:
    """The settings of a hypercorn.toml that asks clients for certificates."""
    pair = AUTHORITY.issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    pair.private_key_pem.write_to_path(directory / "key.pem")
    AUTHORITY.cert_pem.write_to_path(directory / "ca.pem")
    file = directory / "hypercorn.toml"
    file.write_text(f'certfile = "cert.pem"\nkeyfile = "key.pem"\nca_certs = "ca.pem"\nverify_mode = {mode}\n')
    keys = hypercorn_keys(file)
    return {name: keys[name] for name in ("certfile", "keyfile", "ca_certs", "verify_mode")}


@asynccontextmanager
async def over_tls(port: int, protocol: str, *, shown: bool) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.set_alpn_protocols([protocol])
    if shown:
        CERTIFICATE.configure_cert(context)
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True) as stream:
        await stream.do_handshake()
        yield stream


async def seen_by(app: Any, port: int, protocol: str, *, shown: bool) -> bytes:
    async with over_tls(port, protocol, shown=shown) as stream:
        if protocol == "h2":
            client = H2Client(stream)
            await client.begin()
            return (await client.fetch()).body
        return (await RawClient(stream).request("GET", "/")).body  # type: ignore[arg-type]  # It has the same methods.


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize(
    ("app", "stock"),
    [(Native(), False), (App(by_asgi), False), (App(by_asgi), True)],
    ids=["native", "asgi", "hypercorn"],
)
async def test_a_certificate_that_is_optional_is_seen_if_it_is_presented(
    app: Any, protocol: str, stock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TCPServer, "run", umbel_in_hypercorn._run)
    async with serving(app, stock=stock, **settings(tmp_path, 1)) as port:
        assert await seen_by(app, port, protocol, shown=True) == DER
        assert await seen_by(app, port, protocol, shown=False) == b"none"


async def test_a_websocket_has_the_certificate_too(tmp_path: Path) -> None:
    async with serving(App(by_asgi), **settings(tmp_path, 1)) as port:
        for shown, expected in ((True, DER), (False, b"none")):
            async with over_tls(port, "http/1.1", shown=shown) as stream:
                client = WsClient(stream)
                await client.open()
                assert await client.message() == expected


async def test_a_handshake_without_a_certificate_that_is_required_fails(tmp_path: Path) -> None:
    async with serving(Native(), **settings(tmp_path, 2)) as port:
        assert await seen_by(Native(), port, "http/1.1", shown=True) == DER
        with pytest.raises(trio.BrokenResourceError) as caught:  # TLS 1.3: the alert comes after the handshake.
            await seen_by(Native(), port, "http/1.1", shown=False)
        assert "CERTIFICATE_REQUIRED" in str(caught.value.__cause__)


async def test_the_unreplaced_server_of_hypercorn_shows_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypercorn has no extension tls: with UMBEL_GUARD=off nobody is let in by a certificate."""
    monkeypatch.setattr(TCPServer, "run", umbel_in_hypercorn._stock_run)
    async with serving(App(by_asgi), stock=True, **settings(tmp_path, 1)) as port:
        assert await seen_by(None, port, "http/1.1", shown=True) == b"none"


async def test_a_scope_without_tls_has_no_extension_for_it() -> None:
    scopes: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await answer(send, b"")

    async with serving(App(serve)) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        assert (await RawClient(stream).request("GET", "/")).status == 200
    assert "tls" not in scopes[0]["extensions"]
