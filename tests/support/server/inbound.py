"""An ``InboundRequest`` in memory: it acts as the server does, without a socket.

    request = MemoryRequest(target="/r", parts=[b"{", b"}"])
    await request.served_by(app)
    assert request.answer.status == 200

``leave()`` makes the client leave, at any time. Between ``stop_reading()`` and ``read_on()`` the client reads nothing,
so that sends wait. An application that breaks a rule of the interface gets an AssertionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from tests.support.server.asgi import Answer
from umbel.core.failure_kinds import Kind
from umbel.core.inbound import AnsweredByServerError, ByteStream, ClientGoneError, Field, InboundApplication

if TYPE_CHECKING:
    from umbel.core.events import Recorder, RequestEnded

DEFAULT_FIELDS = ((b"host", b"gateway.test"),)
_BODILESS = (204, 304)


class MemoryRequest:
    """One request.

    Args:
        parts: the parts of the body; all of them can be received at once.
        ends: whether the body ends after its parts; False: the client then sends nothing more and does not leave.
        refused: the error that ``receive`` raises after the parts, as for a body that the server has refused.
    """

    def __init__(
        self,
        method: str = "GET",
        target: str | bytes = "/",
        *,
        fields: Iterable[tuple[str, str]] = (),
        parts: Sequence[bytes] = (),
        ends: bool = True,
        refused: AnsweredByServerError | None = None,
        peer: tuple[str, int] | None = ("127.0.0.1", 40000),
    ) -> None:
        self.method = method
        self.target = target.encode("latin-1") if isinstance(target, str) else target
        given = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields)
        self.fields: tuple[Field, ...] = given if any(name == b"host" for name, _ in given) else DEFAULT_FIELDS + given
        self.version = "1.1"
        self.scheme = "http"
        self.peer = peer
        self.local: tuple[str, int | None] | None = ("127.0.0.1", 8000)
        self.client_certificate: bytes | None = None
        self.started = trio.current_time()
        self.content_length = sum(map(len, parts)) if ends else None
        self.websocket = self.takes_trailers = self.body_complete = False
        self.discard_max = self.receive_max = 64 * 1024
        self.crash_recorded = False
        self.answer = Answer()
        self.filed: list[RequestEnded] = []
        self.received = 0
        """The number of calls of ``receive``."""
        self.waited = False
        """Whether the application has called ``on_gone``."""
        self.taken_at_most: int | None = None
        self.takes_any_size = self.is_stream = False
        self.stream_is_free = True
        """Whether a place for a stream is free (``became_stream``)."""
        self.switched_at: float | None = None
        self.expects_continue = (b"expect", b"100-continue") in given
        self.informed: list[tuple[int, list[Field]]] = []
        """The interim responses."""
        self.taken: MemoryBytes | None = None
        """The bytes of both directions, after ``take``."""
        self._on_drain: Callable[[], object] | None = None
        self.cut_for: str | None = None
        self.gone = False
        self.status = 0
        self.bytes_sent = 0
        self._record: tuple[Recorder, RequestEnded] | None = None
        self._parts = [part for part in parts if part]
        self._ends = ends
        self._refused = refused
        self._callback: Callable[[], object] | None = None
        self._changed = trio.Event()
        self._reads = True
        self._unsent: list[bytes] | None = None
        self._ended = False

    async def served_by(self, app: InboundApplication) -> None:
        """Let ``app`` handle the request, and record its end, as the server does in the connection's task."""
        try:
            await app.handle(self)
        finally:
            self._callback = None
            if self._record is not None:
                recorder, ended = self._record
                recorder.record(ended)

    # The client.

    def leave(self) -> None:
        """The client leaves. This does nothing after the end of the response."""
        if self.gone or self.response_complete:
            return
        self.gone = True
        self._news()
        if self._callback is not None:
            self._callback()

    def stop_reading(self) -> None:
        """The client reads nothing until ``read_on``."""
        self._reads = False

    def read_on(self) -> None:
        """The client reads again."""
        self._reads = True
        self._news()

    def drain(self) -> None:
        """The server begins to drain."""
        callback, self._on_drain = self._on_drain, None
        if callback is not None:
            callback()

    def _news(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # The request body, and the callback for a client that leaves.

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self.received += 1
        self.expects_continue = False
        if self._parts:
            return self._parts.pop(0)
        if self._refused is not None:
            self.gone = True
            refused, self._refused = self._refused, None
            try:
                raise refused
            finally:
                del refused  # Its traceback holds this frame.
        while not self._ends:
            self._raise_if_gone()
            await self._changed.wait()
        self._raise_if_gone()
        return b""

    def take_at_most(self, size: int) -> None:
        self.taken_at_most = size

    def take_any_size(self) -> None:
        self.takes_any_size = True

    def became_stream(self) -> bool:
        self.is_stream = self.is_stream or (self.stream_is_free and not self.gone)
        return self.is_stream

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        self._on_drain = callback

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        self.waited = True
        self._callback = callback
        if callback is not None and self.gone:
            callback()

    def _raise_if_gone(self) -> None:
        if self.gone:
            raise ClientGoneError("the client has left")

    # The response.

    @property
    def response_complete(self) -> bool:
        return self.answer.complete

    @property
    def can_respond(self) -> bool:
        return self.answer.status is None

    @property
    def _mute(self) -> bool:
        return self.method == "HEAD" or self.status in _BODILESS

    def _give(self, status: int, fields: Sequence[Field]) -> None:
        self._raise_if_gone()
        assert self.can_respond, "the application sent a second response"
        assert all(name == name.lower() for name, _ in fields)
        self.status = status
        self.answer.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        self._give(status, fields)
        data = b"" if self._mute else body
        self._unsent = [data] if data else []
        self._ended = True
        return self._flush()

    def _flush(self) -> bool:
        """Deliver what is unsent; return whether the client has read it."""
        if not self._reads or self._unsent is None:
            return False
        self.answer.status = self.status
        self.answer.sends += 1
        self.answer.parts += self._unsent
        self.bytes_sent += sum(map(len, self._unsent))
        self._unsent = []
        self.answer.complete = self._ended
        return True

    async def drained(self) -> None:
        while True:
            self._raise_if_gone()
            if self._flush():
                return
            await self._changed.wait()

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        self._give(status, fields)

    async def send(self, data: bytes) -> bool:
        assert self.status, "the application sent content before the response head"
        assert not self._ended
        await trio.lowlevel.checkpoint()
        self._unsent = [] if self._mute or not data else [data]
        at_once = self._reads
        await self.drained()
        return at_once

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        assert self.status and not self._ended
        self._unsent = [data] if data and not self._mute else []
        self._ended = True
        await self.drained()

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        self._raise_if_gone()
        self.inform_soon(status, fields)

    def inform_soon(self, status: int, fields: Sequence[Field]) -> None:
        if not self.gone and not self.status and (status != 100 or self.expects_continue):
            self.expects_continue = self.expects_continue and status != 100
            self.informed.append((status, [*fields]))

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        self._give(status, fields)
        assert self.became_stream(), "the application took a request without a place for a stream"
        self.answer.status, self.switched_at = status, trio.current_time()
        self.taken = MemoryBytes(self)
        await trio.lowlevel.checkpoint()
        return self.taken

    def cut(self, reason: str) -> None:
        self.cut_for = reason
        self.gone = True

    # Tasks, and the record.

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        begins_to_wait()
        await work

    def cancel_apart(self, reason: str) -> None:
        raise NotImplementedError

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        assert self._record is None, "the application filed a second record"
        self._record = recorder, ended
        self.filed.append(ended)


class MemoryBytes:
    """The bytes of a request that was taken. The test is the client: ``put``, ``put_eof``, and ``sent``."""

    def __init__(self, request: MemoryRequest) -> None:
        self._request = request
        self._in, self._out = trio.open_memory_channel[bytes](100)
        self.sent = bytearray()
        """What the application has sent."""
        self.eof_sent = False

    def put(self, data: bytes) -> None:
        """The client sends ``data``."""
        self._in.send_nowait(data)

    def put_eof(self) -> None:
        """The client ends its sending."""
        self._in.close()

    async def receive_some(self) -> bytes:
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            return b""

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._request.gone:
            raise ClientGoneError("the client has left")
        self.sent += data
        self._request.bytes_sent += len(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.eof_sent = True


def too_slow(request_id: str = "of-the-server") -> AnsweredByServerError:
    """The error for a body that did not arrive in time: the server has answered with 408."""
    return AnsweredByServerError(408, Kind.BAD_REQUEST, "The body did not arrive in time.", request_id)
