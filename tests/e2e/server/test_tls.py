"""HTTP/1.1 over TLS on real sockets: the time of the handshake, and the same behaviour as without TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypercorn.trio.tcp_server import TCPServer

from tests.support.server.http1 import App, answer
from tests.support.server.serving import RawClient, connected, serving
from umbel.server import hypercorn as umbel_in_hypercorn
from umbel.server.limits.server_limits import Limits

AUTHORITY = trustme.CA()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Hypercorn's settings for TLS."""
    certificate = AUTHORITY.issue_cert("localhost")
    files = {"certfile": tmp_path / "cert.pem", "keyfile": tmp_path / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(files["certfile"])
    certificate.private_key_pem.write_to_path(files["keyfile"])
    return {name: str(path) for name, path in files.items()}


@asynccontextmanager
async def over_tls(port: int) -> AsyncIterator[RawClient]:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context, https_compatible=True)
    async with stream:
        yield RawClient(stream)  # type: ignore[arg-type]  # It has the same methods.


async def echoes(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await answer(send, f"{scope['scheme']} {scope['client'][0]} ".encode() + body)


async def test_requests_share_a_tls_connection(settings: dict[str, str]) -> None:
    async with serving(App(echoes), **settings) as port, over_tls(port) as client:
        for body in (b"", b"abc", bytes(1_000_000)):
            reply = await client.request("POST", "/", body=body)
            assert (reply.status, reply.body) == (200, b"https 127.0.0.1 " + body)


async def test_a_tls_client_that_leaves_cancels_its_application(settings: dict[str, str]) -> None:
    began, ended = trio.Event(), trio.Event()
    reasons: list[str | None] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        began.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(error.reason)
            ended.set()
            raise

    async with serving(App(waits), **settings) as port:
        async with over_tls(port) as client:
            await client.send("GET", "/")
            await began.wait()
        with trio.fail_after(2):
            await ended.wait()
    assert reasons == ["client-gone"]


async def test_an_incomplete_head_over_tls_gets_408(settings: dict[str, str]) -> None:
    app: Any = App(echoes)
    app.limits = Limits(head_timeout=0.2)
    async with serving(app, **settings) as port, over_tls(port) as client:
        await client.stream.send_all(b"GET / HTTP/1.1\r\n")
        reply = await client.reply()
        assert (reply.status, reply["connection"]) == (408, "close")
        assert await client.closed_by_server()
    assert [record.scheme for record in app.recorder.requests] == ["https"]


async def test_a_missing_handshake_ends_only_its_connection(settings: dict[str, str]) -> None:
    app = App(echoes)
    async with serving(app, ssl_handshake_timeout=0.2, **settings) as port:
        async with connected(port) as silent, connected(port) as plain:
            await plain.stream.send_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            with trio.fail_after(2):
                await plain.closed_by_server()
                assert await silent.closed_by_server()
        async with over_tls(port) as client:
            assert (await client.request("GET", "/")).status == 200
    assert app.recorder.events == []


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "hypercorn"])
async def test_a_handshake_must_end_within_the_head_timeout(
    stock: bool, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TCPServer, "run", umbel_in_hypercorn._run)
    app: Any = App(echoes)
    app.limits = Limits(head_timeout=0.2)

    async def drip(stream: trio.SocketStream) -> None:
        # A record of 16,384 bytes, which would take an hour at this rate.
        for byte in b"\x16\x03\x01\x40\x00" + bytes(1000):
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)

    async with serving(app, stock=stock, **settings) as port, connected(port) as silent, connected(port) as drips:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, drips.stream)
                assert await silent.closed_by_server()
                assert await drips.closed_by_server()
                nursery.cancel_scope.cancel(reason="closed")


async def test_idle_tls_connections_do_not_delay_a_stop(settings: dict[str, str]) -> None:
    app: Any = App(echoes)
    app.limits = Limits(drain_idle=0.1)
    async with AsyncExitStack() as clients:
        with trio.fail_after(5):
            async with serving(app, graceful_timeout=30, keep_alive_timeout=60, **settings) as port:
                client = await clients.enter_async_context(over_tls(port))
                assert (await client.request("GET", "/")).status == 200
