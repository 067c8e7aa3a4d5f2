"""A WebSocket over HTTP/1.1 (RFC 6455): a connection that has been upgraded, and carries one.

Called with the head of the upgrade, which ``http1.py`` has checked. It holds no rule of WebSocket's.
"""

from __future__ import annotations

import trio

from ..kinds import Kind
from .clocks import WriteClock
from .diagnosis import HeadRefused
from .ending import RecordedOnce, Said, refusal_for
from .exchange import ClientLeft
from .h2head import Fields, Head
from .head import END
from .peer import Peer
from .refusal import Refusal
from .response import STATUS_LINES, read_fields
from .service import Service
from .websocket.handshake import read_opening
from .websocket.session import WebSocket
from .wire import AnyStream
from .writing import ClientStuckError, linger, write

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
_CRASHED = Refusal(500, "The WebSocket failed inside the application.", Kind.INTERNAL)
_RECEIVE_MAX = 64 * 1024


class Http1WebSocket(RecordedOnce):
    """A connection that carries a WebSocket."""

    def __init__(self, service: Service, stream: AnyStream, peer: Peer, head: Head, received: bytes) -> None:
        self._service = service
        self._stream = stream
        self._peer = peer
        self._head = head
        self._received = received
        self._lock = trio.Lock()
        self._clock = WriteClock(service)
        self._started_at = trio.current_time()
        self._websocket = WebSocket(service, peer, self)

    async def run(self) -> None:
        """Serve it to its end; closes nothing."""
        try:
            await self._serve()
        finally:
            self._record_end()
        if not self._websocket.client_closed:
            await linger(self._stream)

    async def _serve(self) -> None:
        try:
            opening = read_opening(self._head.fields, keyed=True)
        except HeadRefused as error:
            await self._refuse(error.refusal)
            return
        try:
            await self._websocket.run(self._head, opening, "1.1")
        except BaseException as error:
            # A cancel; what the application raises does not come here.
            refusal = refusal_for(self._service, error)
            if refusal is not None and not self._websocket.answered and not self._websocket.abandoned:
                await self._refuse(refusal)
            raise
        if not self._websocket.answered and not self._websocket.abandoned:
            await self._refuse(_CRASHED)

    async def receive(self) -> bytes:
        """What the client sends."""
        if self._received:
            await trio.lowlevel.checkpoint()
            data, self._received = self._received, b""
            return data
        try:
            return bytes(await self._stream.receive_some(_RECEIVE_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send_head(self, status: int, headers: Fields) -> None:
        """The answer to the handshake; one that is not 101 ends with the connection."""
        if status == 101:
            own = (b"upgrade", b"connection")
            fields = read_fields(field for field in headers if field[0].lower() not in own)
            lines = b"upgrade: websocket\r\nconnection: upgrade\r\n"
            await self._write(b"".join((_SWITCHING, fields.lines, lines, b"\r\n")))
            return
        fields = read_fields(headers)
        await self._write(b"".join((STATUS_LINES[status], fields.lines, b"connection: close\r\n\r\n")))

    async def send_data(self, data: bytes, *, end: bool) -> None:
        """Send.

        Raises:
            ClientLeft: nobody is there to take it.
        """
        if data:
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        # Shielded: what is left out here the client misses in its compression's window. Each write has its deadline.
        with trio.CancelScope(shield=True):
            async with self._lock:
                try:
                    await write(self._clock, self._stream, data)
                except (trio.BrokenResourceError, trio.ClosedResourceError, ClientStuckError) as error:
                    self._websocket.left()
                    raise ClientLeft("the client has gone, or does not read") from error

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer in the application's place. Each write is shielded, and has a deadline."""
        request_id = self.request_id
        headers, body = self._service.answer_to(refusal, request_id)
        self.said = Said(refusal, request_id, len(body))
        try:
            await self.send_head(refusal.status, headers)
            await self._write(body)
        except ClientLeft:
            pass  # It is recorded all the same.

    def _record_end(self) -> None:
        """Have the one record written: the application's, or ours of what it did not answer."""
        filed, said = self.record_filed(), self.said
        if said is None:
            return
        if filed:
            self._service.count_refusal(said.refusal)
            return
        self._service.record_refusal(
            said.refusal,
            request_id=said.request_id,
            started_at=self._started_at,
            method=self._head.method,
            path=self._head.path.decode("latin-1").partition("?")[0],
            peer=self._peer,
            fields=self._head.fields,
            bytes_sent=said.bytes_sent,
        )


async def serve_websocket(service: Service, stream: AnyStream, peer: Peer, received: bytes) -> None:
    """Serve the WebSocket whose upgrade ``received`` begins with; returns at its end, and closes nothing."""
    end = received.index(END) + len(END)
    # It has passed every check already, so its lines are fields.
    lines = received[: end - len(END)].split(b"\r\n")[1:]
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    head = Head("GET", service.heads.read(received[:end]).target, fields)
    await Http1WebSocket(service, stream, peer, head, received[end:]).run()
