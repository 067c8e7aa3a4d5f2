"""A handshake of WebSocket over HTTP/1.1 (RFC 6455): what ``websocket`` needs of an ``InboundRequest``.

Called with the head of the upgrade, which ``http1.py`` has checked. It holds no rule of WebSocket's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from ..core.inbound import ByteStream, ClientGoneError, Field
from .clocks import WriteClock
from .ending import RecordedOnce, Said, refusal_for
from .h2head import Head
from .head import END
from .peer import Peer
from .refusal import Refusal
from .response import NO_CONTENT, STATUS_LINES, read_fields
from .service import Service
from .websocket import serve_websocket
from .wire import AnyStream
from .writing import ClientStuckError, linger, write

if TYPE_CHECKING:
    from ..events import Recorder, RequestEnded

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
_EARLY_MAX = 64 * 1024
"""Bytes that a client may send before the application has accepted: it should send none (RFC 6455 section 4.1)."""
_RECEIVE_MAX = 64 * 1024


class Http1Upgrade(RecordedOnce):
    """A connection that asks to become a WebSocket, and its bytes from ``take`` on."""

    version = "1.1"
    method = "GET"
    unanswered = True
    answered = False
    gone = False

    def __init__(self, service: Service, stream: AnyStream, peer: Peer, head: Head, received: bytes) -> None:
        self.target = head.path
        self.fields = tuple(head.fields)
        self.scheme = "https" if peer.secure else "http"
        self.peer, self.local = peer.client, peer.server
        self.started = trio.current_time()
        self._service = service
        self._stream = stream
        self._peer = peer
        self._received = received
        """What came and was not taken."""
        self._ended = False
        """Whether the client has sent its last byte."""
        self._clock = WriteClock(service)
        self._answer = b""
        """What of the answer waits to be sent."""
        self._bodiless = False
        self._lingers = True
        self._on_gone: Callable[[], object] | None = None
        self._watch = trio.CancelScope()
        self._watched = trio.Event()
        """Nobody but the taker reads from now on."""

    async def run(self) -> None:
        """Serve it to its end; closes nothing."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_early)
                await self._serve()
                nursery.cancel_scope.cancel(reason="the WebSocket is over")
        finally:
            self._record_end()
        if self._lingers:
            await linger(self._stream)

    async def _serve(self) -> None:
        request: Any = self  # as much of an InboundRequest as a WebSocket needs
        try:
            await serve_websocket(self._service, self._service.app, request)
        except BaseException as error:
            # A cancel; what the application raises does not come here.
            refusal = refusal_for(self._service, error)
            if refusal is not None and self.unanswered and not self.gone:
                await self._refuse(refusal)
            raise

    # The client's side.

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """As ``InboundRequest`` says."""
        self._on_gone = callback
        if self.gone and callback is not None:
            callback()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            if self._on_gone is not None:
                self._on_gone()

    async def _read_early(self) -> None:
        """Read what comes before the answer, and its end. Half of a refusal would be of no use to anybody."""
        try:
            with self._watch:
                while len(self._received) < _EARLY_MAX and (data := await self._receive()):
                    self._received += data
                if self._ended and self.unanswered:
                    self._leave()
        finally:
            self._watched.set()

    async def _receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(_RECEIVE_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._ended = not data
        return data

    async def receive_some(self) -> bytes:
        """As ``ByteStream`` says."""
        await self._watched.wait()
        if self._received:
            data, self._received = self._received, b""
            return data
        return b"" if self._ended else await self._receive()

    # The answer.

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Keep the whole answer for ``drained``."""
        self._begin(status, fields, length=len(body))
        self._answer += b"" if self._bodiless else body
        return False

    async def drained(self) -> None:
        """Send it."""
        await self._send_kept()
        self.answered = True

    async def start(self, status: int, fields: Sequence[Field]) -> None:
        """As ``InboundRequest`` says. The content ends with the connection."""
        self._begin(status, fields)

    async def send(self, data: bytes) -> None:
        """As ``InboundRequest`` says."""
        self._answer += b"" if self._bodiless else data
        await self._send_kept()

    async def finish(self, trailers: Sequence[Field] = ()) -> None:
        """As ``InboundRequest`` says; there are no trailers."""
        await self.drained()

    def _begin(self, status: int, fields: Sequence[Field], length: int | None = None) -> None:
        self._bodiless = status in NO_CONTENT
        checked, framing = read_fields(fields), b""
        if length is not None and checked.length is None and not self._bodiless:
            framing = b"content-length: %d\r\n" % length
        self._answer = b"".join((STATUS_LINES[status], checked.lines, framing, b"connection: close\r\n\r\n"))

    async def _send_kept(self) -> None:
        data, self._answer = self._answer, b""
        if data:
            await self.send_all(data)

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """As ``InboundRequest`` says."""
        lines = read_fields(fields).lines
        self._watch.cancel(reason="the WebSocket is accepted")
        await self.send_all(b"".join((_SWITCHING, lines, b"connection: upgrade\r\n\r\n")))
        self._lingers = False  # A WebSocket does so by itself.
        return self

    async def send_all(self, data: bytes) -> None:
        """As ``ByteStream`` says."""
        self.unanswered = False
        # Shielded: what is left out here the client misses in its compression's window. Each write has its deadline.
        with trio.CancelScope(shield=True):
            try:
                await write(self._clock, self._stream, data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ClientStuckError) as error:
                self._leave()
                raise ClientGoneError("the client has gone, or does not read") from error

    async def send_eof(self) -> None:
        """As ``ByteStream`` says. TLS says it with its closing."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()

    def cut(self, reason: str) -> None:
        """End the connection without a last word."""
        self._lingers = False

    # The application's task, and the record.

    async def run_in_task(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run it in this task, which serves nothing else."""
        await function()

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """As ``InboundRequest`` says."""
        self.file(recorder, ended)

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer in the application's place."""
        request_id = self.request_id
        fields, body = self._service.answer_to(refusal, request_id)
        self.said = Said(refusal, request_id, len(body))
        self.respond(refusal.status, fields, body)
        with suppress(ClientGoneError):  # It is recorded all the same.
            await self.drained()

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
            started_at=self.started,
            method=self.method,
            path=self.target.decode("latin-1").partition("?")[0],
            peer=self._peer,
            fields=self.fields,
            bytes_sent=said.bytes_sent,
        )


async def serve_upgrade(service: Service, stream: AnyStream, peer: Peer, received: bytes) -> None:
    """Serve the WebSocket whose upgrade ``received`` begins with; returns at its end, and closes nothing."""
    end = received.index(END) + len(END)
    # It has passed every check already, so its lines are fields.
    lines = received[: end - len(END)].split(b"\r\n")[1:]
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    head = Head("GET", service.heads.read(received[:end]).target, fields)
    await Http1Upgrade(service, stream, peer, head, received[end:]).run()
