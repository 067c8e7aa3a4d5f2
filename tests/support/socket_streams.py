"""Streams of ``umbel.net`` over socket pairs, with either reader, and their peers."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support.memory_dial import running_reader
from umbel.net.epoll import HAS_EPOLL, AnyReader, EpollReader, WaitReader
from umbel.net.stream import PlainStream
from umbel.net.tls_stream import TlsStream

READERS = [EpollReader, WaitReader] if HAS_EPOLL else [WaitReader]


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    data: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)
    ended: list[str | Exception] = field(default_factory=list)
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
    """Our stream and its peer."""
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
    """A TLS server over a socket that decides about each record and each byte by itself."""

    def __init__(self, sock: socket.socket | trio.abc.Stream, context: ssl.SSLContext) -> None:
        if isinstance(sock, socket.socket):
            sock = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.stream = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def feed(self) -> None:
        data = await self.stream.receive_some()
        self.incoming.write(data) if data else self.incoming.write_eof()

    async def handshake(self) -> None:
        while True:
            try:
                self.ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            else:
                await self.flush()
                return

    def records(self, *data: bytes) -> bytes:
        """The bytes of a record per piece of data."""
        for piece in data:
            self.ssl.write(piece)
        return self.outgoing.read()

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await self.stream.send_all(data)

    async def send(self, *data: bytes) -> None:
        await self.stream.send_all(self.records(*data))

    async def receive(self) -> bytes:
        while True:
            try:
                return self.ssl.read()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            except ssl.SSLZeroReturnError:
                return b""


def key_update(keys: Path, number: int) -> bytes:
    """A KeyUpdate that asks for one in return, as record ``number`` under the last traffic secret in ``keys``.

    The secret is one of AES-256-GCM, as a server wrote it to its key log (RFC 8446). Python's ssl module has no call
    for it.
    """
    lines = [line for line in keys.read_text().splitlines() if line.startswith("SERVER_TRAFFIC_SECRET_0")]
    secret = bytes.fromhex(lines[-1].split()[2])

    def expand(label: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(secret)

    nonce = int.from_bytes(expand(b"iv", 12), "big") ^ number
    message = b"\x18\x00\x00\x01\x01" + b"\x16"
    head = b"\x17\x03\x03" + (len(message) + 16).to_bytes(2, "big")
    return head + AESGCM(expand(b"key", 32)).encrypt(nonce.to_bytes(12, "big"), message, head)


@asynccontextmanager
async def tls_pair(
    make: type[AnyReader], client: ssl.SSLContext, server: ssl.SSLContext, **options
) -> AsyncIterator[tuple[TlsStream, TlsPeer]]:
    """Our stream, which has shaken hands, and its peer."""
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
