"""The sending half of an HTTP/2 connection: frames, error responses and GOAWAY, written by one task at a time.

The streams send through it. It reads nothing and starts no task.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import trio
from h2.connection import ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, StreamInputs

from ...core.failure_kinds import Kind
from ...core.inbound import RequestHead
from ..limits.client_clocks import PIECE, WriteClock
from ..response.error_response import ErrorResponse
from ..state import ServerState
from . import frames
from .request_head import Fields, Head

CLIENT_GONE = str(Kind.CLIENT_GONE)
WRITE_TIMEOUT = "write-timeout"


class ClientStuckError(Exception):
    """The client took nothing for as long as a write may take."""


async def write(clock: WriteClock, stream: Any, data: bytes) -> None:
    """Send all of ``data``, even if cancelled: half a frame would break the connection for all that share it.

    Raises:
        ClientStuckError: it did not take 64 KiB within the time of ``clock``; the stream is of no use any more.
        trio.BrokenResourceError: the client has gone.
        trio.ClosedResourceError: the stream was closed.
    """
    view, sent = memoryview(data), 0
    while sent < len(view):
        piece = view[sent : sent + clock.room]
        with trio.CancelScope(deadline=clock.begin(), shield=True) as scope:
            try:
                await stream.send_all(piece)
            finally:
                await clock.end_write()
        if scope.cancelled_caught:
            raise ClientStuckError
        clock.took(len(piece))
        sent += len(piece)


class Sender:
    """The sending half of a connection. ``failed(reason)`` is called once, when nothing can be sent any more."""

    def __init__(
        self, h2: H2Connection, server: ServerState, stream: trio.abc.SendStream, failed: Callable[[str], None]
    ) -> None:
        self.over = False
        """Whether nothing more can be sent."""
        self.broken = False
        """Whether something that was to be sent never was."""
        self._h2 = h2
        self._server = server
        self._stream = stream
        self._failed = failed
        self._clock = WriteClock(server)
        self.writing = False
        """Whether a task is writing; it takes along whatever comes until it is done."""
        self._next_written = trio.Event()
        """Set when the next write that begins is done."""
        self._frames: list[bytes] = []
        """What is to be sent before that which the library has made last."""
        self._goaways = b""
        self._flush_requested = False
        """Whether ``run`` has been asked to write."""
        self._running = False
        self._writer = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Write whenever ``flush_soon`` asks for it, until the connection is over."""
        self._running = True
        try:
            while not self.over:
                if not self._flush_requested:
                    await self._writer.park()
                self._flush_requested = False
                await self.flush()
        finally:
            self._running = False
            self._wake()

    def _wake(self) -> None:
        """Wake the tasks that wait for the next write."""
        self._next_written.set()
        self._next_written = trio.Event()

    def flush_soon(self) -> None:
        """Have all written that is to be sent at the end of this turn of the loop, together."""
        if not self._flush_requested:
            self._flush_requested = True
            self._writer.unpark_all()

    async def flush_together(self) -> None:
        """Have all written that is to be sent, as ``flush_soon``, and wait for it."""
        if self._running:
            written = self._next_written
            self.flush_soon()
            await written.wait()
        if not self._running:
            await self.flush()

    def close(self) -> None:
        """Nothing more will be sent."""
        self.over = True
        self._writer.unpark_all()

    async def flush(self) -> None:
        """Write all that is to be sent. One task writes for all; the others wait for it, as back-pressure.

        Of a task that is cancelled here nothing is lost: what it left is taken along by whoever writes.
        """
        if self.writing:
            # The next write takes along what this task has put; it need not wait for a further one.
            await self._next_written.wait()
            return
        self.writing = True
        written = self._next_written
        try:
            while not self.over and (data := self._take()):
                written, self._next_written = self._next_written, trio.Event()
                await write(self._clock, self._stream, data)
                written.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail(CLIENT_GONE)
        except ClientStuckError:
            self._fail(WRITE_TIMEOUT)
        finally:
            self.writing = False
            written.set()
            self._wake()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _take(self) -> bytes:
        """All that is to be sent now."""
        data = b"".join([*self._frames, self._h2.data_to_send(), self._goaways])
        self._frames.clear()
        self._goaways = b""
        return data

    def _fail(self, reason: str) -> None:
        self.over = self.broken = True
        self._failed(reason)

    # What is written with the next flush.

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream in one frame now."""
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, PIECE)

    def room(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream now."""
        return self._h2.local_flow_control_window(stream_id)

    @property
    def frame_max(self) -> int:
        """Bytes of content in one frame."""
        return min(self._h2.max_outbound_frame_size, PIECE)

    @property
    def connection_window(self) -> int:
        """Bytes that may be sent on all streams together."""
        return self._h2.outbound_flow_control_window

    def headers(self, stream_id: int, status: int, fields: Fields, *, end: bool = False) -> None:
        """The head of a response; ``status`` under 200 is not the last one."""
        step = StreamInputs.SEND_HEADERS if status >= 200 else StreamInputs.SEND_INFORMATIONAL_HEADERS
        self._put_headers(stream_id, [(b":status", b"%d" % status), *fields], step, end=end)

    def trailers(self, stream_id: int, fields: Fields) -> None:
        """The end of a response that has them."""
        self._put_headers(stream_id, fields, StreamInputs.SEND_HEADERS, end=True)

    def data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """A DATA frame, no longer than ``window`` allows."""
        h2 = self._h2
        stream = self._advance(stream_id, ConnectionInputs.SEND_DATA, StreamInputs.SEND_DATA, end=end)
        size = len(data)
        assert size <= self.window(stream_id) or not size, "whoever sends looks at the windows first"
        stream.outbound_flow_control_window -= size
        h2.outbound_flow_control_window -= size
        self._put(frames.DATA, frames.END_STREAM if end else 0, stream_id, data)

    def _put_headers(self, stream_id: int, fields: Fields, step: StreamInputs, *, end: bool) -> None:
        self._advance(stream_id, ConnectionInputs.SEND_HEADERS, step, end=end)
        # Only now: what was encoded must be sent, or the client's table is another.
        block, size_max = self._h2.encoder.encode(fields), self._h2.max_outbound_frame_size
        flags = frames.END_STREAM if end else 0
        if len(block) <= size_max:
            self._put(frames.HEADERS, flags | frames.END_HEADERS, stream_id, block)
            return
        kind = frames.HEADERS
        for start in range(0, len(block), size_max):
            last = frames.END_HEADERS if start + size_max >= len(block) else 0
            self._put(kind, flags | last, stream_id, block[start : start + size_max])
            kind, flags = frames.CONTINUATION, 0

    def _advance(self, stream_id: int, connection_step: ConnectionInputs, step: StreamInputs, *, end: bool) -> H2Stream:
        """Have the library's states follow what is sent; it builds frames, too, but takes several times as long.

        Raises:
            ProtocolError: the stream, or the connection, is in no state in which this may be sent.
        """
        stream = self._h2.streams.get(stream_id)
        if stream is None:
            raise ProtocolError(f"there is no stream {stream_id}")
        self._h2.state_machine.process_input(connection_step)
        stream.state_machine.process_input(step)
        if end:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        return stream

    def _put(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Put a frame behind those that the library has made."""
        if made := self._h2.data_to_send():
            self._frames.append(made)
        self._frames += frames.frame_head(kind, flags, stream_id, len(payload)), payload

    def acknowledge(self, stream_id: int, amount: int) -> None:
        """So many bytes of a stream have been read, or will never be: the client may send as many more."""
        if amount and not self.over:
            self._h2.acknowledge_received_data(amount, stream_id)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Reset a stream."""
        with contextlib.suppress(ProtocolError):  # the client may have been first
            self._h2.reset_stream(stream_id, code)

    def error_response(
        self,
        stream_id: int,
        error_response: ErrorResponse,
        request_id: str,
        head: Head,
        *,
        complete: bool,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> int:
        """Send an error response, with its body if the client's window has room for it; the bytes of that body.

        What the client still sends of a request that is not ``complete`` is refused (RFC 9113 section 8.1). With a
        ``code`` of an error the stream ends with that, after the response (section 8.1.1).
        """
        ends = code is ErrorCodes.NO_ERROR
        fields, body = self._server.fields_and_body(
            error_response, request_id, RequestHead(head.method, head.path, head.fields)
        )
        fields += self._server.own_fields.fields()
        with contextlib.suppress(ProtocolError):  # the client may have given it up
            if head.method == "HEAD" or len(body) > self.window(stream_id):
                body = b""
            self.headers(stream_id, error_response.status, fields, end=ends and not body)
            if body:
                self.data(stream_id, body, end=ends)
        if not complete or not ends:
            self.reset(stream_id, code)
        return len(body)

    def put_first_goaway(self) -> None:
        """A GOAWAY for no new requests; those on their way are answered (RFC 9113 section 6.8)."""
        self._goaways += frames.goaway(frames.NO_LAST_STREAM)

    def put_last_goaway(self) -> None:
        """A GOAWAY that says which request was the last."""
        self._goaways += frames.goaway(self._h2.highest_inbound_stream_id)
