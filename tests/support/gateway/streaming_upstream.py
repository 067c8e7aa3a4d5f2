"""An upstream of large bodies, event streams and WebSockets with numbered frames, and a client of the latter.

A numbered frame is a binary frame whose payload begins with its number in 8 bytes. So a receiver sees whether a frame
is lost, doubled or cut.
"""

from __future__ import annotations

import random
import struct

import trio

from tests.support.server.ws_client import upgrade
from tests.support.upstream.raw_server import Peer

PIECE = bytes(256 * 1024)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def numbered_frame(number: int, size: int, *, masked: bool = False) -> bytes:
    """A binary frame of ``size`` bytes of payload, at least 8; the mask is zero."""
    length = bytes((size,)) if size < 126 else b"\x7e" + struct.pack("!H", size)
    if masked:
        length = bytes((length[0] | 0x80,)) + length[1:] + bytes(4)
    return b"\x82" + length + struct.pack("!Q", number) + bytes(size - 8)


class NumberedFrames:
    """The receiver of numbered frames.

    Args:
        masked: whether the frames are masked: those of a client are.
    """

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._buffer = b""
        self.received = 0
        """The number of whole frames."""
        self.close_code: int | None = None

    @property
    def inside(self) -> bool:
        """Whether a frame is incomplete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        Raises:
            AssertionError: a frame is missing or malformed, or one came after the close frame.
        """
        self._buffer += data
        while (end := self._end()) is not None:
            frame, self._buffer = self._buffer[: end[1]], self._buffer[end[1] :]
            assert self.close_code is None, "a frame after the close frame"
            payload = frame[end[0] :]
            if frame[0] == 0x88:
                key = frame[end[0] - 4 : end[0]] if self._masked else bytes(4)
                self.close_code = int.from_bytes(bytes(a ^ b for a, b in zip(payload[:2], key, strict=False)))
                continue
            assert frame[0] == 0x82, frame[:20]
            assert struct.unpack("!Q", payload[:8])[0] == self.received, "a frame is missing"
            assert not any(payload[8:]), "a frame is corrupt"
            self.received += 1

    def _end(self) -> tuple[int, int] | None:
        """Where the payload of the first frame begins and ends; None: the frame is incomplete."""
        data = self._buffer
        if len(data) < 4:
            return None
        assert bool(data[1] & 0x80) is self._masked
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4]), 4
        at += 4 if self._masked else 0
        return (at, at + size) if len(data) >= at + size else None


class StreamingUpstream:
    """The handler of the upstream's connections.

    ``GET /download?N`` gets N bytes, ``POST /upload`` the number of the bytes that came, ``/events`` an event and
    then silence, and ``/ws`` numbered frames of random sizes until ``stop`` is set or the gateway closes.

    Args:
        pause: the longest pause between two frames, in seconds; None: a WebSocket is silent after its first frame.
    """

    def __init__(self, pause: float | None = None) -> None:
        self._pause = pause
        self.close_codes: list[int | None] = []
        """The codes of the gateway's close frames, of the WebSockets that have ended."""
        self.broken: list[str] = []
        """What was wrong with the frames of clients."""

    async def __call__(self, peer: Peer) -> None:
        while head := await peer.read_head():
            target = head.split(b" ")[1]
            if target.startswith(b"/download"):
                await self._download(peer, int(target.partition(b"?")[2]))
            elif target.startswith(b"/upload"):
                await self._upload(peer, head)
            elif target.startswith(b"/events"):
                await peer.send(EVENTS + b"9\r\ndata: 1\n\n\r\n")
                await peer.closed()
            else:
                await self._websocket(peer)
                return

    async def _download(self, peer: Peer, size: int) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size:
            await peer.send(PIECE[:size])
            size -= min(size, len(PIECE))

    async def _upload(self, peer: Peer, head: bytes) -> None:
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        left, peer.buffer = size - len(peer.buffer), b""
        while left and (data := await peer.stream.receive_some(len(PIECE))):
            left -= len(data)
        said = b"%d" % (size - left)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))

    async def _websocket(self, peer: Peer) -> None:
        await peer.send(SWITCHED)
        received = NumberedFrames(masked=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_frames, peer.stream, self._pause)
            try:
                received.feed(peer.buffer)
                while data := await peer.stream.receive_some():
                    received.feed(data)
            except trio.BrokenResourceError:
                pass
            except AssertionError as error:
                self.broken.append(str(error))
            nursery.cancel_scope.cancel(reason="the WebSocket has ended")
        if received.inside:
            self.broken.append("the last frame is cut")
        self.close_codes.append(received.close_code)


async def send_frames(stream: trio.abc.SendStream, pause: float | None, *, masked: bool = False) -> None:
    """Send numbered frames of random sizes with random pauses until the stream breaks; ``pause`` None: only one."""
    number = 0
    try:
        while True:
            size = random.choice((8, 20, 125, 126, 1000, 8000))
            await stream.send_all(numbered_frame(number, size, masked=masked))
            number += 1
            if pause is None:
                return
            await trio.sleep(random.random() * pause)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def open_websocket(port: int, target: bytes = b"/ws") -> tuple[trio.SocketStream, NumberedFrames]:
    """Open a WebSocket to an upstream of this module; return it with the receiver of its frames."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        await stream.send_all(upgrade(target))
        received = b""
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some()
            assert data, received
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        frames = NumberedFrames(masked=False)
        frames.feed(rest)
    except BaseException:
        stream.socket.close()
        raise
    return stream, frames
