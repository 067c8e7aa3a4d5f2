"""The server under the ``hypercorn`` command: settings, ``max_requests``, graceful stop, and TLS with ALPN."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import hypercorn.trio
import pytest
import trio
import trustme
from hypercorn.config import Config

from tests.support.logs.records import Records
from tests.support.server.h2_client import H2Client, h2_client
from tests.support.server.serving import add_waiting_handler, app_with_records, fetch, serving
from umbel import Umbel
from umbel.config.schema.sections import Config as UmbelConfig


async def test_invalid_hypercorn_settings_are_logged_at_the_first_connection() -> None:
    app, records = app_with_records()
    async with serving(app, stock=True, graceful_timout=3, keep_alive_timeout=5) as port:
        assert (await fetch(port, "GET", "/hello")).status == 200
    (note,) = (note for note in records.logged if note.event == "hypercorn.setting")
    assert 'graceful_timout is not one of Hypercorn\'s keys; did you mean "graceful_timeout"?' in note.message


@pytest.mark.filterwarnings("ignore:The config `workers` has no affect")
async def test_limits_that_several_workers_do_not_share_are_logged_at_the_first_connection() -> None:
    records = Records()
    config = UmbelConfig.model_validate({"limits": {"l": {"key": "client.ip", "rate": "1/s", "burst": 5}}})
    app = Umbel(__name__, config, recorder=records, static_folder=None)
    async with serving(app, stock=True, workers=3) as port:
        assert (await fetch(port, "GET", "/hello")).status == 404
    (note,) = (note for note in records.logged if note.event == "hypercorn.limits")
    assert note.message == (
        "each of the 3 workers counts by itself for the limits l; umbel serve -w 3 counts for all of them together"
    )


async def test_max_requests_stops_a_hypercorn_worker_after_its_last_response() -> None:
    app, _ = app_with_records()
    config = Config.from_mapping(bind=["127.0.0.1:0"], loglevel="ERROR", max_requests=3, graceful_timeout=20)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(
                partial(hypercorn.trio.serve, app, config, shutdown_trigger=trio.sleep_forever)
            )
            for _ in range(3):
                assert (await fetch(int(address.rpartition(":")[2]), "GET", "/hello")).body == b"hello"


@pytest.mark.parametrize("stock", [False, True], ids=["umbel serve", "stock hypercorn"])
async def test_a_stop_sends_goaway_and_finishes_requests_in_flight(stock: bool) -> None:
    app, _ = app_with_records()
    began, go = add_waiting_handler(app)
    bodies: list[bytes] = []

    async def ask(port: int) -> None:
        async with h2_client(port) as client:
            stream = await client.request(path="/work")
            while not client.goaway:
                assert await client.receive()
            go.set()
            bodies.append((await client.answer(stream)).body)

    async with trio.open_nursery() as nursery, serving(app, stock=stock, graceful_timeout=10) as port:
        nursery.start_soon(ask, port)
        await began.wait()
    assert bodies == [b"done"]


@asynccontextmanager
async def encrypted(directory: Path, stock: bool, *offered: str) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A TLS connection to a server, after a handshake that offered these protocols."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    pair.private_key_pem.write_to_path(directory / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(list(offered))
    app, _ = app_with_records()
    files = {"certfile": str(directory / "cert.pem"), "keyfile": str(directory / "key.pem")}
    async with serving(app, stock=stock, **files) as port:
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True) as stream:
            await stream.do_handshake()
            yield stream


@pytest.mark.parametrize("stock", [False, True], ids=["umbel serve", "stock hypercorn"])
async def test_tls_selects_http_2_if_the_client_offers_it(tmp_path: Path, stock: bool) -> None:
    async with encrypted(tmp_path, stock, "h2", "http/1.1") as stream:
        assert stream.selected_alpn_protocol() == "h2"
        client = H2Client(stream)
        await client.begin()
        assert (await client.fetch(path="/hello")).body == b"hello"
    async with encrypted(tmp_path, stock, "http/1.1") as stream:
        assert stream.selected_alpn_protocol() == "http/1.1"
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
