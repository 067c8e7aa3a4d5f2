"""Recording over sockets: what is on the cassette, and that the gateway behaves as without it."""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.logs.records import Records
from tests.support.server.serving import fetch, serving
from tests.support.upstream.raw_server import Peer, answering, raw_server, response
from umbel import Umbel
from umbel.config.loading.load import load_given
from umbel.testing.cassettes import record
from umbel.testing.cassettes.exchange import Exchange
from umbel.testing.cassettes.record import Tape, header_of, recorded_network
from umbel.testing.cassettes.replay import read

VARYING = ("traceparent: ", "x-envoy-expected-rq-timeout-ms: ", "x-request-id: ")
"""Fields that differ from one request to the next."""
JSON = b"Content-Type: application/json"


def config(port: int, *, call: str = "", upstream: str = "") -> dict[str, Any]:
    """A route of the call ``it`` at ``/``, and a proxy route at ``/p``, to an upstream on loopback."""
    text = f"""
[upstreams.u]
urls = ["http://127.0.0.1:{port}"]
{upstream}
[[routes]]
path = "/"
calls.it = {{ upstream = "u", path = "/it?token=abc" {call} }}
[[routes]]
path = "/p"
proxy.upstream = "u"
"""
    return tomllib.loads(text)


@dataclass
class Recording:
    """A gateway whose upstream is recorded."""

    port: int
    path: Path
    tape: Tape

    async def exchanges(self, count: int = 1) -> Sequence[Exchange]:
        """Wait until ``count`` exchanges are written, and read the cassette, which has no more of them."""
        with trio.fail_after(5):
            while self.tape.written < count:  # noqa: ASYNC110 - the tape's thread sets no event
                await trio.sleep(0.01)
        found = read(self.path)[1]
        assert len(found) == count
        return found


@asynccontextmanager
async def recording(
    path: Path, data: dict[str, Any], *, bodies: bool = True, lost: int = 0
) -> AsyncIterator[Recording]:
    """Serve a gateway and record its upstreams within the block. ``lost``: how many exchanges the tape must lose."""
    app = Umbel(__name__, load_given(data), recorder=Records(), static_folder=None)
    tape = Tape(path, header_of(app.gateway_config, bodies=bodies))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tape.run)
        async with recorded_network(app.gateway_config, tape) as network:
            app.given_network = network
            async with serving(app) as port:
                yield Recording(port, path, tape)
        tape.close()
    assert tape.lost == lost


async def test_a_response_is_recorded_and_passed_on_unchanged(tmp_path: Path) -> None:
    reply = response(b'{"a": 1}', JSON, b"Set-Cookie: session=1", b"X-Note: token=abc")
    async with raw_server(answering(reply)) as port, recording(tmp_path / "c", config(port)) as gateway:
        for _ in range(2):
            assert (await fetch(gateway.port, "GET", "/")).json == {"it": {"a": 1}}
        proxied = await fetch(gateway.port, "GET", "/p")
        assert (proxied.body, proxied["set-cookie"]) == (b'{"a": 1}', "session=1")
        one, two, three = await gateway.exchanges(3)
    assert (one.upstream, one.method, one.target, one.status, one.failure) == (
        "u", "GET", "/it?token=[redacted]", 200, ""
    )  # fmt: skip
    assert one.fields == (("Content-Type", "application/json"), ("X-Note", "token=[redacted]"))
    assert [part.content for part in one.parts] == [b'{"a": 1}']
    assert one.at < two.at < three.at
    assert three.target == "/p"
    assert "session" not in (tmp_path / "c").read_text()
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600


async def test_without_bodies_only_sizes_are_recorded(tmp_path: Path) -> None:
    async with (
        raw_server(answering(response(b'"secret"', JSON))) as port,
        recording(tmp_path / "c", config(port), bodies=False) as gateway,
    ):
        await fetch(gateway.port, "GET", "/")
        (exchange,) = await gateway.exchanges()
    assert [(part.size, part.content) for part in exchange.parts] == [(8, None)]
    assert "secret" not in (tmp_path / "c").read_text()


async def test_parts_are_passed_on_and_recorded_when_they_come(tmp_path: Path) -> None:
    go = trio.Event()

    async def in_two_parts(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go.wait()
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.closed()

    async with raw_server(in_two_parts) as port, recording(tmp_path / "c", config(port)) as gateway:
        async with (
            httpx.AsyncClient() as client,
            client.stream("GET", f"http://127.0.0.1:{gateway.port}/p") as reply,
        ):
            pieces = aiter(reply.aiter_raw())
            assert await anext(pieces) == b"one"
            await trio.sleep(0.1)
            go.set()
            assert [piece async for piece in pieces] == [b"two"]
        (exchange,) = await gateway.exchanges()
    assert [part.content for part in exchange.parts] == [b"one", b"two"]
    assert exchange.parts[1].at - exchange.parts[0].at >= 0.1


async def test_a_refused_connection_is_recorded_and_is_the_same_failure(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with recording(tmp_path / "c", config(sock.getsockname()[1])) as gateway:
            reply = await fetch(gateway.port, "GET", "/")
            (exchange,) = await gateway.exchanges()
    assert (reply.status, reply.json["calls"][0]["kind"]) == (502, "connect")
    assert (exchange.upstream, exchange.method, exchange.failure) == ("u", "", "connect")


@pytest.mark.parametrize(("said", "kind"), [(b"no HTTP\r\n\r\n", "malformed"), (b"", "reset")])
async def test_a_broken_response_is_recorded_with_its_kind(said: bytes, kind: str, tmp_path: Path) -> None:
    async with raw_server(answering(said, close=True)) as port, recording(tmp_path / "c", config(port)) as gateway:
        assert (await fetch(gateway.port, "GET", "/")).status == 502
        (exchange,) = await gateway.exchanges()
    assert (exchange.failure, exchange.status) == (kind, 0)


async def test_a_call_that_is_given_up_is_recorded_as_a_timeout(tmp_path: Path) -> None:
    async def silent(peer: Peer) -> None:
        await peer.read_head()
        assert await peer.closed(), "the real connection is closed with the gateway's"

    async with raw_server(silent) as port:
        async with recording(tmp_path / "c", config(port, call=', timeout = "100ms"')) as gateway:
            assert (await fetch(gateway.port, "GET", "/")).status == 504
            (exchange,) = await gateway.exchanges()
        await port.all_closed()
    assert exchange.failure == "timeout"
    assert 0.05 < exchange.ended_at < 5


async def test_a_kept_connection_that_the_upstream_closes_is_closed_for_the_gateway(tmp_path: Path) -> None:
    async with (
        raw_server(answering(response(b"1", JSON), close=True)) as port,
        recording(tmp_path / "c", config(port)) as gateway,
    ):
        for _ in range(3):
            assert (await fetch(gateway.port, "GET", "/")).json == {"it": 1}
            await port.all_closed()
        assert [each.status for each in await gateway.exchanges(3)] == [200, 200, 200]


async def test_a_body_of_a_request_and_a_head_without_a_body_are_passed_on(tmp_path: Path) -> None:
    async def echo(peer: Peer) -> None:
        while True:
            head, body = await peer.read_request()
            size = b"5" if head.startswith(b"HEAD") else str(len(body)).encode()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + body)

    data = b"x" * 100_000
    async with raw_server(echo) as port, recording(tmp_path / "c", config(port)) as gateway:
        assert (await fetch(gateway.port, "POST", "/p", body=data)).body == data
        assert (await fetch(gateway.port, "HEAD", "/p"))["content-length"] == "5"
        post, head = await gateway.exchanges(2)
    assert sum(part.size for part in post.parts) == len(data)
    assert (head.method, head.parts) == ("HEAD", ())


async def test_the_upstream_gets_the_same_head_as_without_a_recording(tmp_path: Path) -> None:
    heads: list[list[str]] = []

    async def keep(peer: Peer) -> None:
        while head := (await peer.read_request())[0]:
            heads.append(sorted(line.lower() for line in head.decode().strip().split("\r\n")))
            await peer.send(response(b"1", JSON))

    async with raw_server(keep) as port:
        data = config(port, call=", headers = { x-a = 'b' }", upstream='host = "users.example"')
        async with recording(tmp_path / "c", data) as gateway:
            await fetch(gateway.port, "GET", "/")
        async with serving(Umbel(__name__, load_given(data), recorder=Records(), static_folder=None)) as plain:
            await fetch(plain, "GET", "/")
    recorded, usual = ([line for line in head if not line.startswith(VARYING)] for head in heads)
    assert "host: users.example" in recorded
    assert recorded == usual


async def test_nothing_of_a_request_but_method_and_target_is_on_the_cassette(tmp_path: Path) -> None:
    secrets = (("authorization", "Bearer abcdefgh"), ("cookie", "session=ijkl"), ("x-note", "mnop"))
    async with (
        raw_server(answering(response(b"1", JSON))) as port,
        recording(tmp_path / "c", config(port)) as gateway,
    ):
        await fetch(gateway.port, "POST", "/p", secrets, b"password=qrst")
        (exchange,) = await gateway.exchanges()
    assert (exchange.method, exchange.target) == ("POST", "/p")
    written = (tmp_path / "c").read_text()
    assert [part for part in ("abcdefgh", "ijkl", "mnop", "qrst") if part in written] == []


async def test_an_exchange_beyond_the_bound_is_passed_on_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "EXCHANGE_BYTES_MAX", 5)
    async with (
        raw_server(answering(response(b'"too large"', JSON))) as port,
        recording(tmp_path / "c", config(port), lost=1) as gateway,
    ):
        assert (await fetch(gateway.port, "GET", "/")).json == {"it": "too large"}
    assert read(tmp_path / "c")[1] == []


def test_a_tape_does_not_overwrite_a_file_or_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("c", "link"):
        with pytest.raises(OSError):
            Tape(tmp_path / name, header_of(load_given({}), bodies=False))
    assert (tmp_path / "c").read_text() == "precious"
    assert not os.path.lexists(tmp_path / "elsewhere")
