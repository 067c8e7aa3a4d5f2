"""Sending half of an HTTP/2 connection: a queue of frames, which one task at a time writes for all streams.

Frames are queued synchronously. A flush writes all queued frames. ``flush`` writes in the calling task. ``flush_soon``
and ``flush_together`` have ``run`` write in its next turn of the event loop, so many small responses share a write.
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
from ...core.inbound import AnyHead
from ..limits.client_clocks import PIECE, WriteClock
from ..response.error_response import ErrorResponse
from ..state import ServerState
from . import frames
from .request_head import Fields

CLIENT_GONE = str(Kind.CLIENT_GONE)
WRITE_TIMEOUT = "write-timeout"


class ClientStuckError(Exception):
    """The client accepted less than 64 KiB within the write timeout."""


async def write(clock: WriteClock, stream: Any, data: bytes) -> None:
    """Send all of ``data``. Shielded: a frame that is sent in part would break the connection for all its streams.

    Raises:
        ClientStuckError: the client did not accept 64 KiB within the time of ``clock``. The stream can only be closed.
        trio.BrokenResourceError, trio.ClosedResourceError: the client has gone, or the stream was closed.
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
    """The sending half of a connection.

    ``failed(reason)`` is called at most once, when a write fails: with ``client-gone`` or ``write-timeout``.
    """

    def __init__(
        self, h2: H2Connection, server: ServerState, stream: trio.abc.SendStream, failed: Callable[[str], None]
    ) -> None:
        self.over = False
        """Whether nothing can be sent any more."""
        self.broken = False
        """Whether a write has failed, so that queued frames were lost."""
        self._h2 = h2
        self._server = server
        self._stream = stream
        self._failed = failed
        self._clock = WriteClock(server)
        self.writing = False
        """Whether a task is writing. It also writes the frames that are queued meanwhile."""
        self._next_written = trio.Event()
        """Set when the next write is done: it contains every frame that is queued now."""
        self._frames: list[bytes] = []
        """Queued frames, which come before those that are still in the library's own buffer."""
        self._goaways = b""
        """Queued GOAWAY frames, which come last."""
        self._flush_requested = False
        """Whether ``flush_soon`` was called since ``run`` last began to write."""
        self._running = False
        self._writer = trio.lowlevel.ParkingLot()
        """Where ``run`` waits for ``flush_soon``."""

    async def run(self) -> None:
        """Write after each ``flush_soon``, until the connection is over."""
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
        """Ask ``run`` for a flush. Frames that are queued until ``run`` gets its turn are written by the same flush."""
        if not self._flush_requested:
            self._flush_requested = True
            self._writer.unpark_all()

    async def flush_together(self) -> None:
        """Wait until ``run`` has written the queued frames; without a running ``run``, write them here."""
        if self._running:
            written = self._next_written
            self.flush_soon()
            await written.wait()
        if not self._running:
            await self.flush()

    def close(self) -> None:
        """End the sending: ``run`` returns, and later flushes write nothing."""
        self.over = True
        self._writer.unpark_all()

    async def flush(self) -> None:
        """Write all queued frames, or wait until the task that is writing has written them (back-pressure).

        Frames are never lost by a cancel: each write is shielded, and queued frames go with the next write. A failed
        write calls ``failed`` and raises nothing.
        """
        if self.writing:
            # The present write began before this call. The next one has every frame that is queued now.
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
        """Take all queued frames as bytes."""
        data = b"".join([*self._frames, self._h2.data_to_send(), self._goaways])
        self._frames.clear()
        self._goaways = b""
        return data

    def _fail(self, reason: str) -> None:
        """End the sending because of a write that failed."""
        self.over = self.broken = True
        self._failed(reason)

    # Windows, and frames that the next flush writes.

    def window(self, stream_id: int) -> int:
        """Bytes of content that the next DATA frame of a stream may have; 0 or less: a window is closed."""
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, PIECE)

    def room(self, stream_id: int) -> int:
        """Bytes of content that both windows allow a stream now."""
        return self._h2.local_flow_control_window(stream_id)

    @property
    def frame_max(self) -> int:
        """Bytes of content that a DATA frame may have."""
        return min(self._h2.max_outbound_frame_size, PIECE)

    @property
    def connection_window(self) -> int:
        """Bytes of content that the connection's window allows all streams together."""
        return self._h2.outbound_flow_control_window

    def headers(self, stream_id: int, status: int, fields: Fields, *, end: bool = False) -> None:
        """Queue the head of a response: interim with a ``status`` below 200, else final; ``end``: with END_STREAM."""
        step = StreamInputs.SEND_HEADERS if status >= 200 else StreamInputs.SEND_INFORMATIONAL_HEADERS
        self._put_headers(stream_id, [(b":status", b"%d" % status), *fields], step, end=end)

    def trailers(self, stream_id: int, fields: Fields) -> None:
        """Queue a trailer section, with END_STREAM."""
        self._put_headers(stream_id, fields, StreamInputs.SEND_HEADERS, end=True)

    def data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue a DATA frame of at most ``window`` bytes; ``end``: with END_STREAM."""
        h2 = self._h2
        stream = self._advance(stream_id, ConnectionInputs.SEND_DATA, StreamInputs.SEND_DATA, end=end)
        size = len(data)
        assert size <= self.window(stream_id) or not size, "the caller must respect the windows"
        stream.outbound_flow_control_window -= size
        h2.outbound_flow_control_window -= size
        self._put(frames.DATA, frames.END_STREAM if end else 0, stream_id, data)

    def _put_headers(self, stream_id: int, fields: Fields, step: StreamInputs, *, end: bool) -> None:
        """Queue a header block in HEADERS and CONTINUATION frames."""
        self._advance(stream_id, ConnectionInputs.SEND_HEADERS, step, end=end)
        # After _advance, which may raise: an encoded block changes the table, so it must be sent.
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
        """Advance the library's state machines by a frame that is encoded here.

        The library's own methods would also build the frame, but take several times as long.

        Raises:
            ProtocolError: the state of the stream, or of the connection, does not allow the frame.
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
        """Queue a frame, behind the frames that the library has built so far."""
        if made := self._h2.data_to_send():
            self._frames.append(made)
        self._frames += frames.frame_head(kind, flags, stream_id, len(payload)), payload

    def acknowledge(self, stream_id: int, amount: int) -> None:
        """Open the inbound windows by ``amount`` bytes of a stream, which were taken or dropped. May queue frames."""
        if amount and not self.over:
            self._h2.acknowledge_received_data(amount, stream_id)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Queue RST_STREAM. Does nothing if the stream has ended."""
        with contextlib.suppress(ProtocolError):  # The client may have ended or reset it.
            self._h2.reset_stream(stream_id, code)

    def error_response(
        self,
        stream_id: int,
        error_response: ErrorResponse,
        request_id: str,
        head: AnyHead,
        *,
        complete: bool,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> int:
        """Queue an error response. Return the bytes of its body, which HEAD and a window that is too small leave out.

        If the request is not ``complete``, RST_STREAM with ``code`` follows: NO_ERROR refuses the rest of the request
        (RFC 9113 section 8.1). An error ``code`` follows in any case, for a malformed request (section 8.1.1).
        """
        ends = code is ErrorCodes.NO_ERROR
        fields, body = self._server.fields_and_body(error_response, request_id, head)
        fields += self._server.own_fields.fields()
        with contextlib.suppress(ProtocolError):  # The client may have reset the stream.
            if head.method == "HEAD" or len(body) > self.window(stream_id):
                body = b""
            self.headers(stream_id, error_response.status, fields, end=ends and not body)
            if body:
                self.data(stream_id, body, end=ends)
        if not complete or not ends:
            self.reset(stream_id, code)
        return len(body)

    def put_first_goaway(self) -> None:
        """Queue a GOAWAY that asks for no new requests; requests on their way are answered (RFC 9113 section 6.8)."""
        self._goaways += frames.goaway(frames.NO_LAST_STREAM)

    def put_last_goaway(self) -> None:
        """Queue a GOAWAY with the id of the last request that was accepted."""
        self._goaways += frames.goaway(self._h2.highest_inbound_stream_id)
