"""All that an HTTP/2 connection sends: frames, refusals and goodbyes, written by one task at a time.

Made by ``h2.py``; its streams send through it. It reads nothing and starts nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Encoder

from ..kinds import Kind
from . import h2frames
from .clocks import PIECE, WriteClock
from .h2head import Fields
from .refusal import Refusal
from .service import Service
from .writing import ClientStuckError, write

CLIENT_GONE = str(Kind.CLIENT_GONE)
WRITE_TIMEOUT = "write-timeout"
_HUFFMAN_MAX = 4096
"""Bytes of the longest field that is Huffman-coded."""


class LinearEncoder(Encoder):
    """HPACK that takes time linear in a field: the library's Huffman coding is quadratic in its length."""

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Encode a field (RFC 7541 section 6.2); coding its strings is optional (section 5.2)."""
        return super().add(to_add, sensitive, huffman and len(to_add[0]) + len(to_add[1]) <= _HUFFMAN_MAX)


class Sender:
    """The sending half of a connection. ``failed`` hears once why nothing can be sent any more."""

    def __init__(self, h2: H2Connection, service: Service, stream: Any, failed: Callable[[str], None]) -> None:
        self.over = False
        """Whether nothing more can be sent."""
        self.broken = False
        """Whether something that was to be sent never was."""
        self._h2 = h2
        self._service = service
        self._stream = stream
        self._failed = failed
        self._clock = WriteClock(service)
        self.writing = False
        """Whether a task is writing; it takes along whatever comes until it is done."""
        self._next_written = trio.Event()
        """Set when the next write that begins is done."""
        self._goodbyes = b""

    async def flush(self) -> None:
        """Write all that is to be sent. One task writes for all; the others wait for it, as back-pressure.

        Of a task that is cancelled here nothing is lost: what it left is taken along by whoever writes.
        """
        if self.writing:
            # What we have to say goes with the next write, and no further one is ours to wait for.
            await self._next_written.wait()
            return
        self.writing = True
        written = self._next_written
        try:
            while not self.over and (data := self._h2.data_to_send() + self._goodbyes):
                self._goodbyes = b""
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
            self._next_written.set()
            self._next_written = trio.Event()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _fail(self, reason: str) -> None:
        self.over = self.broken = True
        self._failed(reason)

    # What is written with the next flush.

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream in one frame now."""
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size, PIECE)

    @property
    def connection_window(self) -> int:
        """Bytes that may be sent on all streams together."""
        return self._h2.outbound_flow_control_window

    def headers(self, stream_id: int, status: int, fields: Fields, *, end: bool = False) -> None:
        """The head of an answer; ``status`` under 200 is not the last one."""
        self._h2.send_headers(stream_id, [(b":status", b"%d" % status), *fields], end_stream=end)

    def trailers(self, stream_id: int, fields: Fields) -> None:
        """The end of an answer that has them."""
        self._h2.send_headers(stream_id, fields, end_stream=True)

    def data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """A DATA frame, no longer than ``window`` allows."""
        self._h2.send_data(stream_id, data, end_stream=end)

    def acknowledge(self, stream_id: int, amount: int) -> None:
        """So many bytes of a stream have been read, or will never be: the client may send as many more."""
        if amount and not self.over:
            self._h2.acknowledge_received_data(amount, stream_id)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream before its time."""
        with contextlib.suppress(ProtocolError):  # the client may have been first
            self._h2.reset_stream(stream_id, code)

    def refusal(
        self,
        stream_id: int,
        refusal: Refusal,
        request_id: str,
        method: str,
        *,
        complete: bool,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> int:
        """A refusal, with its body if the client's window has room for it: nobody waits here. The bytes of that.

        What the client still sends of a request that is not ``complete`` is refused (RFC 9113 section 8.1). With a
        ``code`` of an error the stream ends with that, after the answer (section 8.1.1).
        """
        ends = code is ErrorCodes.NO_ERROR
        fields, body = self._service.answer_to(refusal, request_id)
        fields += self._service.own_fields.fields()
        with contextlib.suppress(ProtocolError):  # the client may have given it up
            if method == "HEAD" or len(body) > self.window(stream_id):
                body = b""
            self.headers(stream_id, refusal.status, fields, end=ends and not body)
            if body:
                self.data(stream_id, body, end=ends)
        if not complete or not ends:
            self.reset(stream_id, code)
        return len(body)

    def ask_to_leave(self) -> None:
        """A GOAWAY for no new requests; those on their way are answered (RFC 9113 section 6.8)."""
        self._goodbyes += h2frames.goaway(h2frames.NO_LAST_STREAM)

    def goodbye(self) -> None:
        """A GOAWAY that says which request was the last."""
        self._goodbyes += h2frames.goaway(self._h2.highest_inbound_stream_id)
