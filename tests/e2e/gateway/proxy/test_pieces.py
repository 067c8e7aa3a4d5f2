"""Large bodies through a proxy route: the size of the pieces, and the turns of other tasks."""

from __future__ import annotations

import pytest
import trio

from tests.support.gateway.proxies import proxied
from tests.support.server.serving import connected, fetch
from tests.support.upstream.raw_server import Peer, response
from umbel.core.pieces import PIECE, PIECE_MAX, next_piece
from umbel.gateway.proxy import proxy_cycle, upload

SIZE = 10_000_000
MODULES = {"download": proxy_cycle, "upload": upload}


class Seen:
    """The pieces of one direction, each with whether the receiver's socket took it at once."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bool]] = []

    def __call__(self, size: int, *, at_once: bool) -> int:
        self.pieces.append((size, at_once))
        return next_piece(size, at_once=at_once)


async def download(slow: bool) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"x" * SIZE))
        await peer.closed()

    async with proxied(upstream) as it, connected(it.port) as client:
        await client.send("GET", "/large")
        if slow:
            await trio.testing.wait_all_tasks_blocked(0.01)  # The sockets are full.
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + SIZE:
            received += await client.stream.receive_some(PIECE_MAX)
        assert received[end + 4 :] == b"x" * SIZE


async def send_upload(slow: bool) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.read_head()
        if slow:
            await trio.testing.wait_all_tasks_blocked(0.01)  # The sockets are full.
        left = SIZE - len(peer.buffer)
        while left and (data := await peer.stream.receive_some()):
            left -= len(data)
        await peer.send(response(b"%d" % left))

    async with proxied(upstream) as it:
        assert (await fetch(it.port, "POST", "/a", body=b"x" * SIZE)).body == b"0"


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("direction", ["download", "upload"])
async def test_a_piece_is_larger_than_64_kib_only_after_one_that_was_sent_at_once(
    direction: str, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    monkeypatch.setattr(MODULES[direction], "next_piece", seen)
    await (download if direction == "download" else send_upload)(slow)
    sizes = [size for size, _ in seen.pieces]
    assert max(sizes) <= PIECE_MAX
    assert sizes[0] <= PIECE
    for (_, at_once), following in zip(seen.pieces, sizes[1:], strict=False):
        assert at_once or following <= PIECE
    assert not slow or not all(at_once for _, at_once in seen.pieces)


async def test_requests_are_answered_while_endless_downloads_go_on() -> None:
    async def upstream(peer: Peer) -> None:
        while head := await peer.read_head():
            if b"/endless" not in head:
                await peer.send(response(b"small"))
                continue
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
            while True:
                await peer.send(bytes(PIECE_MAX))

    async def endless(port: int) -> None:
        async with connected(port) as client:
            await client.send("GET", "/endless")
            while await client.stream.receive_some():
                pass

    async with proxied(upstream) as it, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(endless, it.port)
        with trio.fail_after(5):
            for _ in range(10):
                assert (await fetch(it.port, "GET", "/small")).body == b"small"
        nursery.cancel_scope.cancel(reason="enough")
