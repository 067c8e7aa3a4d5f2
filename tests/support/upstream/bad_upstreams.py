"""Tables of bad upstreams: malformed or too large responses, and responses that never end.

The tests of the upstream client and those of the whole gateway use the same tables.
"""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tests.support.upstream.raw_server import Handler, Peer
from umbel.core.failure_kinds import Kind

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = "http_protocol_error"
INCOMPLETE = "http_response_incomplete"
CODING = "http_response_content_coding"
CHUNKING = "http_response_transfer_coding"

# The bytes sent, whether the connection is closed after them, and the kind and Proxy-Status error of the failure.
BAD_ANSWERS: dict[str, tuple[bytes, bool, Kind, str]] = {
    "closes without a byte": (b"", True, Kind.RESET, "connection_terminated"),
    "closes inside the head": (HEAD + b"Content-Le", True, Kind.MALFORMED, INCOMPLETE),
    "closes inside the body": (HEAD + b"Content-Length: 9\r\n\r\nhalf", True, Kind.MALFORMED, INCOMPLETE),
    "closes inside a chunk": (CHUNKED + b"9\r\nhalf", True, Kind.MALFORMED, INCOMPLETE),
    "closes before the last chunk": (CHUNKED + b"4\r\nhalf\r\n", True, Kind.MALFORMED, INCOMPLETE),
    "closes after 100": (b"HTTP/1.1 100 Continue\r\n\r\n", True, Kind.MALFORMED, INCOMPLETE),
    "status line is none": (b"hello\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "status 99": (b"HTTP/1.1 099 X\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "status 999": (b"HTTP/1.1 999 X\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "status 101": (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "version 2.0": (b"HTTP/2.0 200 OK\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "length with chunked": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"),
        False,
        Kind.MALFORMED,
        MALFORMED,
    ),
    "folded line": (HEAD + b"X: a\r\n b\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "NUL": (HEAD + b"X: a\0b\r\n\r\n", False, Kind.MALFORMED, MALFORMED),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", False, Kind.MALFORMED, MALFORMED),
    "chunk size is no number": (CHUNKED + b"zz\r\n", False, Kind.MALFORMED, CHUNKING),
    "chunk longer than its size": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", False, Kind.MALFORMED, CHUNKING),
    "chunk extension of 100 KB": (CHUNKED + b"1;" + b"x" * 100_000 + b"\r\n", False, Kind.MALFORMED, CHUNKING),
    "70 KiB of headers": (HEAD + b"X: " + b"x" * 70 * 1024, False, Kind.TOO_BIG, "http_response_header_section_size"),
    "101 fields": (HEAD + b"X: y\r\n" * 101 + b"\r\n", False, Kind.TOO_BIG, "http_response_header_section_size"),
    "length over max_body": (HEAD + b"Content-Length: 100001\r\n\r\n", False, Kind.TOO_BIG, "http_response_body_size"),
}

# The Content-Encoding, a body that cannot be decoded with it, and the Proxy-Status error. The framing is sound.
CODED: dict[str, tuple[bytes, bytes, str]] = {
    "br": (b"br", b"x", CODING),
    "gzip twice": (b"gzip, gzip", gzip.compress(gzip.compress(b"x")), CODING),
    "no gzip": (b"gzip", b"<html>", CODING),
    "gzip cut short": (b"gzip", gzip.compress(b"x" * 99)[:-3], INCOMPLETE),
}


async def drip_head(peer: Peer) -> None:
    await peer.read_head()
    for byte in HEAD + b"X: " + b"y" * 1000:
        await peer.send(bytes([byte]))
        await trio.sleep(0.01)


async def drip_body(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    while True:
        await peer.send(b"x")
        await trio.sleep(0.01)


async def endless_interim(peer: Peer) -> None:
    await peer.read_head()
    while True:
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await trio.sleep(0.01)


def endless(piece: bytes, *fields: bytes) -> Handler:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"\r\n".join([HEAD[:-2], *fields]) + b"\r\n\r\n")
        while True:
            await peer.send(piece)

    return handler


ENDLESS = {
    "until the end": endless(b"x" * 10_000),
    "in chunks": endless(b"3e8\r\n" + b"x" * 1000 + b"\r\n", b"Transfer-Encoding: chunked"),
    "in tiny chunks": endless(b"2\r\nxy\r\n" * 1000, b"Transfer-Encoding: chunked"),
}


@contextmanager
def nobody() -> Iterator[int]:
    """A port that refuses connections: it is bound, but no socket listens on it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@contextmanager
def full() -> Iterator[int]:
    """A port whose listen queue is full, so that a connection attempt gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()
