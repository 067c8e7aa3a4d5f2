"""Probes of a full server get their response, over each protocol and under both launchers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from h2.settings import SettingCodes, Settings
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.h2_client import H2Client, h2_client
from tests.support.server.serving import RawClient, connected, fetch
from tests.support.upstream.raw_server import raw_server, silent

TEST_TIMEOUT_S = 5.0
"""Seconds: longer than a response takes, and shorter than any timeout that would free capacity."""


@asynccontextmanager
async def busy(directory: Path, *, stock: bool, keys: str = "", **settings: object) -> AsyncIterator[Program]:
    """A server at its ``max_in_flight`` of two, by two requests that never end."""
    async with raw_server(silent) as upstream:
        config = f"[server]\nmax_in_flight = 2\n{keys}\n" + up(upstream) + route(keys='deadline = "1h"')
        async with running(directory, config, stock=stock, **settings) as program, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(program.port)) for _ in range(2)]
            for client in clients:
                await client.send("GET", "/r")
            with trio.fail_after(TEST_TIMEOUT_S):
                while program.app.statistics().requests_in_flight < 2:
                    await wait_all_tasks_blocked(0.002)
            yield program


@SERVERS
async def test_probes_are_answered_at_max_in_flight(stock: bool, tmp_path: Path) -> None:
    async with busy(tmp_path, stock=stock) as program:
        with trio.fail_after(TEST_TIMEOUT_S):
            async with connected(program.port) as client:
                assert (await client.request("GET", "/r")).status == 503
                for path, status in (("/livez", "live"), ("/readyz", "ready")):
                    reply = await client.request("GET", path)
                    assert (reply.status, reply.json) == (200, {"status": status})
                    assert (await client.request("HEAD", path)).status == 200
                assert (await client.request("POST", "/livez")).status == 503


@SERVERS
async def test_probes_are_answered_at_max_connections(stock: bool, tmp_path: Path) -> None:
    async with (
        busy(tmp_path, stock=stock, keys="max_connections = 4", keep_alive_timeout=60) as program,
        AsyncExitStack() as stack,
    ):
        for _ in range(2):
            client = await stack.enter_async_context(connected(program.port))
            assert (await client.request("GET", "/nowhere")).status == 503
        with trio.fail_after(TEST_TIMEOUT_S):
            for path in ("/livez", "/readyz") * 3:
                async with connected(program.port) as one_more:
                    reply = await one_more.request("GET", path)
                    assert (reply.status, reply["connection"]) == (200, "close")
                    assert await one_more.closed_by_server()
            async with connected(program.port) as one_more:
                assert (await one_more.request("GET", "/r")).status == 503
                assert await one_more.closed_by_server()
            async with connected(program.port) as one_more:
                upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
                key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                assert (await one_more.request("GET", "/livez", [*upgrade, key])).status == 503


@SERVERS
async def test_a_configured_probe_path_is_answered_beyond_the_limits(stock: bool, tmp_path: Path) -> None:
    async with busy(tmp_path, stock=stock, keys='probes = ["/healthz"]') as program:
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (
                await fetch(program.port, "GET", "/healthz")
            ).status == 404  # It was admitted, and not refused with 503.
            assert (await fetch(program.port, "GET", "/livez")).status == 503


async def test_a_probe_over_http2_is_answered_at_max_in_flight(tmp_path: Path) -> None:
    async with busy(tmp_path, stock=False) as program, h2_client(program.port) as client:
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (await client.fetch("GET", "/r")).status == 503
            assert (await client.fetch("GET", "/livez")).status == 200
            assert (await client.fetch("POST", "/livez")).status == 503


async def test_a_probe_over_http2_is_answered_at_max_connections(tmp_path: Path) -> None:
    async with busy(tmp_path, stock=False, keys="max_connections = 2") as program:
        with trio.fail_after(TEST_TIMEOUT_S):
            async with h2_client(program.port) as client:
                answer = await client.fetch("GET", "/livez")
                assert (answer.status, answer.body) == (200, b'{"status":"live"}')
                await client.ended()
                assert set(client.goaway) == {0}
            async with h2_client(program.port) as client:
                assert (await client.fetch("GET", "/r")).status == 503


async def test_a_probe_over_http2_is_answered_beyond_max_concurrent_streams(tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        config = up(upstream) + route(keys='deadline = "1h"')
        async with (
            running(tmp_path, config, h2_max_concurrent_streams=2) as program,
            h2_client(program.port) as client,
        ):
            with trio.fail_after(TEST_TIMEOUT_S):
                waiting = [await client.request("GET", "/r") for _ in range(2)]
                while program.app.statistics().requests_in_flight < 2:
                    await wait_all_tasks_blocked(0.002)
                while not client.settled:
                    await client.receive()
                # A client that respects MAX_CONCURRENT_STREAMS would wait. This one does not.
                client.h2.remote_settings = Settings(
                    client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 100}
                )
                assert (await client.fetch("GET", "/livez")).status == 200
                refused = await client.fetch("GET", "/r")
                assert (refused.status, refused.reset) == (0, 7)  # REFUSED_STREAM; the connection stays open.
                assert (await client.fetch("GET", "/readyz")).status == 200
                assert not any(client.answers[stream].ended for stream in waiting)


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
async def test_a_probe_over_tls_is_answered_at_max_connections(alpn: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols([alpn])
    tls = {"certfile": str(cert), "keyfile": str(key)}
    async with raw_server(silent) as upstream:
        config = "[server]\nmax_connections = 1\n" + up(upstream) + route()
        async with running(tmp_path, config, **tls) as program, connected(program.port):
            with trio.fail_after(TEST_TIMEOUT_S):
                stream = await trio.open_ssl_over_tcp_stream(
                    "localhost", program.port, ssl_context=context, https_compatible=True
                )
                await stream.do_handshake()
                assert stream.selected_alpn_protocol() == alpn
                if alpn == "h2":
                    h2 = H2Client(stream)
                    await h2.begin()
                    assert (await h2.fetch("GET", "/livez")).status == 200
                else:
                    assert (await RawClient(stream).request("GET", "/livez")).status == 200  # type: ignore[arg-type]
                await trio.aclose_forcefully(stream)


@SERVERS
async def test_a_full_server_in_drain_delay_is_live_and_not_ready(stock: bool, tmp_path: Path) -> None:
    async with busy(tmp_path, stock=stock) as program:
        program.app.begin_drain()
        with trio.fail_after(TEST_TIMEOUT_S):
            assert (await fetch(program.port, "GET", "/livez")).status == 200
            reply = await fetch(program.port, "GET", "/readyz")
            assert (reply.status, reply.json["type"]) == (503, "urn:umbel:problem:not-ready")
