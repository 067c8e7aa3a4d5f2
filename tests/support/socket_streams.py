"""Streams of ``umbel.net`` over socket pairs, with either socket reader, and the peers at the other end."""

from __future__ import annotations

import contextlib
import hmac
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support.upstream.memory_dial import running_reader
from umbel.net.epoll import HAS_EPOLL, AnyReader, EpollReader, WaitReader
from umbel.net.stream import PlainStream
from umbel.net.tls_stream import TlsStream

READERS = [EpollReader, WaitReader] if HAS_EPOLL else [WaitReader]


@dataclass
class RecordingListener:
    """A listener that records its calls, and asserts that no data comes after the end."""

    data: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)
    """The number of bytes of each call of ``on_data``."""
    ended: list[str | Exception] = field(default_factory=list)
    """How the stream ended: ``"eof"`` or the error; at most one entry."""
    changed: trio.Event = field(default_factory=trio.Event)

    def on_data(self, data: bytes) -> bool:
        assert data
        assert not self.ended
        self.data += data
        self.pieces.append(len(data))
        self.changed.set()
        return True

    def on_eof(self) -> None:
        self.ended.append("eof")
        self.changed.set()

    def on_error(self, error: Exception) -> None:
        self.ended.append(error)
        self.changed.set()

    async def until_has(self, count: int) -> None:
        while len(self.data) < count:
            await self._change()

    async def until_ended(self) -> str | Exception:
        while not self.ended:
            await self._change()
        assert len(self.ended) == 1
        return self.ended[0]

    async def _change(self) -> None:
        self.changed = trio.Event()
        await self.changed.wait()


@asynccontextmanager
async def plain_pair(make: type[AnyReader]) -> AsyncIterator[tuple[PlainStream, trio.SocketStream]]:
    """A connected plain stream and its peer. After the block the reader must watch no socket."""
    async with running_reader(make) as reader:
        ours, theirs = socket.socketpair()
        stream = PlainStream(ours, reader)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as peer:
            try:
                yield stream, peer
            finally:
                stream.close_now()
        assert len(reader) == 0


class TlsPeer:
    """A TLS server, or with ``server_name`` a client, whose test decides when each record is sent."""

    def __init__(
        self,
        sock: socket.socket | trio.abc.Stream,
        context: ssl.SSLContext,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        if isinstance(sock, socket.socket):
            sock = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.stream = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_name is None, server_name, session)

    async def feed(self) -> None:
        data = await self.stream.receive_some()
        self.incoming.write(data) if data else self.incoming.write_eof()

    async def handshake(self, *, flush: bool = True) -> None:
        """Do the handshake. Without ``flush`` a client's last flight stays in the buffer until the next ``flush``."""
        while True:
            try:
                self.ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            else:
                if flush:
                    await self.flush()
                return

    def records(self, *data: bytes) -> bytes:
        """Return the bytes of one TLS record for each piece of data."""
        for piece in data:
            self.ssl.write(piece)
        return self.outgoing.read()

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await self.stream.send_all(data)

    async def send(self, *data: bytes) -> None:
        await self.stream.send_all(self.records(*data))

    async def say_goodbye(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        await self.flush()

    async def receive(self) -> bytes:
        """Return decrypted bytes, or ``b""`` after the other side's close_notify."""
        while True:
            try:
                return self.ssl.read()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            except ssl.SSLZeroReturnError:
                return b""


class TrafficKeys:
    """Encrypts TLS 1.3 records with AES-256-GCM, under the last secret in a peer's key log (RFC 8446).

    Tests use it to send records that Python's ssl module cannot make.

    Args:
        keys: the key log file (SSLKEYLOGFILE).
        label: the label of the secret in the key log.
        number: the sequence number of the next record under that secret.
    """

    def __init__(self, keys: Path, label: str, number: int = 0) -> None:
        lines = [line for line in keys.read_text().splitlines() if line.startswith(label)]
        self._secret = bytes.fromhex(lines[-1].split()[2])
        self._number = number

    def _expand(self, label: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self._secret)

    def record(self, kind: int, content: bytes) -> bytes:
        nonce = int.from_bytes(self._expand(b"iv", 12), "big") ^ self._number
        self._number += 1
        head = b"\x17\x03\x03" + (len(content) + 1 + 16).to_bytes(2, "big")
        coder = AESGCM(self._expand(b"key", 32))
        return head + coder.encrypt(nonce.to_bytes(12, "big"), content + bytes([kind]), head)

    def key_update(self, *, asks: bool = True) -> bytes:
        """Return a KeyUpdate record and change to the next key. ``asks``: the peer must update its key too."""
        record = self.record(0x16, b"\x18\x00\x00\x01" + bytes([asks]))
        self._secret, self._number = self._expand(b"traffic upd", 48), 0
        return record


class TrafficKeys12:
    """Encrypts a client's TLS 1.2 records after the handshake, with AES-256-GCM (RFC 5246 and 5288)."""

    def __init__(self, keys: Path, server_random: bytes) -> None:
        line = next(line for line in keys.read_text().splitlines() if line.startswith("CLIENT_RANDOM"))
        client_random, master = (bytes.fromhex(text) for text in line.split()[1:])
        seed = b"key expansion" + server_random + client_random
        block, step = b"", seed
        while len(block) < 72:
            step = hmac.digest(master, step, "sha384")
            block += hmac.digest(master, step + seed, "sha384")
        self._coder, self._salt = AESGCM(block[:32]), block[64:68]
        self._number = 1

    def record(self, kind: int, content: bytes) -> bytes:
        number = self._number.to_bytes(8, "big")
        self._number += 1
        head = bytes([kind]) + b"\x03\x03"
        sealed = self._coder.encrypt(self._salt + number, content, number + head + len(content).to_bytes(2, "big"))
        return head + (8 + len(sealed)).to_bytes(2, "big") + number + sealed


def key_update(keys: Path, number: int) -> bytes:
    """Return a server's KeyUpdate record that requests a KeyUpdate from the client."""
    return TrafficKeys(keys, "SERVER_TRAFFIC_SECRET_0", number).key_update()


async def check_that_closing_wakes(stream: PlainStream | TlsStream) -> None:
    """Close the stream while one task receives and another one sends: both must get ClosedResourceError."""

    async def expect_closed(*, sending: bool) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await (stream.send_all(b"x" * 10_000_000) if sending else stream.receive_some())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: expect_closed(sending=False))
            nursery.start_soon(lambda: expect_closed(sending=True))
            await trio.testing.wait_all_tasks_blocked()
            stream.close_now()


@asynccontextmanager
async def tls_pair(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, **options
) -> AsyncIterator[tuple[TlsStream, TlsPeer]]:
    """A client's TLS stream and its peer, after the handshake. After the block the reader must watch no socket."""
    async with running_reader(make) as reader:
        ours, theirs = socket.socketpair()
        stream = TlsStream(ours, reader, client, "peer.example", **options)
        peer = TlsPeer(theirs, server)
        async with peer.stream:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.handshake)
                    await stream.handshake()
                yield stream, peer
            finally:
                with contextlib.suppress(trio.ClosedResourceError):
                    stream.close_now()
        assert len(reader) == 0


@asynccontextmanager
async def tls_served(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, *, session: ssl.SSLSession | None = None
) -> AsyncIterator[tuple[TlsStream, TlsPeer]]:
    """A server's TLS stream and its client, after the handshake."""
    async with served_unshaken(make, client, server, session=session) as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.handshake)
            await stream.handshake()
        yield stream, peer


@asynccontextmanager
async def served_unshaken(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, *, session: ssl.SSLSession | None = None
) -> AsyncIterator[tuple[TlsStream, TlsPeer]]:
    """A server's TLS stream and its client, before the handshake.

    After the block the reader must watch no socket, and the stream's file descriptor must be closed.
    """
    async with running_reader(make) as reader:
        ours, theirs = socket.socketpair()
        stream = TlsStream.serving(ours, reader, server)
        peer = TlsPeer(theirs, client, "server.example", session)
        async with peer.stream:
            try:
                yield stream, peer
            finally:
                stream.close_now()
        assert len(reader) == 0
        await trio.testing.wait_all_tasks_blocked()
        assert ours.fileno() == -1, "the stream's file descriptor is still open"
