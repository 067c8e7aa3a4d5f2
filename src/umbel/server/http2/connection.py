"""An HTTP/2 connection on the ``h2`` library.

It reads frames, counts those that cost a client nothing, starts a task for each request and writes what the tasks send.
``stream.py`` has the request itself.
"""

from __future__ import annotations

import math
from typing import Any

import trio
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings

from ..http1.head_errors import HeadError
from ..http1.host import Hosts
from ..http1.request_body import too_large
from ..limits.client_clocks import WriteClock
from ..limits.reserve import RESERVED_REQUESTS, ReservedConnection
from ..peer import Peer
from ..phase import Phase
from ..response.access_record import CRASHED, LAST_RESPONSE_S, cut_response, error_response_for
from ..response.error_response import REFUSED_MAX, ErrorResponse, ServerResponse, new_request_id
from ..state import ServerState
from . import frames
from .encoder import LinearEncoder
from .flood_limits import FloodError, FloodLimits
from .frames import Frame, FrameSplitter
from .lingering_close import linger
from .request_head import CapturingDecoder, Head, check_trailers, list_size_max, malformed, read_head, unchecked_head
from .sender import CLIENT_GONE, Sender
from .stream import Stream

_BODIES_MAX = 2**20
"""Bytes of bodies that a connection may hold unread, over all of its requests."""
_FRAMES_PER_TURN = 16
"""Frames of one read between two checkpoints. One costs up to 0.3 ms, if it is a request that is refused."""
_FINISHING_MAX = 1.0
"""Seconds that nothing is read while applications that have answered come to their end."""
_STALLED_MAX = 100
"""Write timeouts that a connection may spend on answers which are then given up; after them it takes no request."""
_NO_RFC7540_PRIORITIES = 0x9
"""RFC 9218 section 2.1: whoever says so may ignore PRIORITY, as we do."""

_WRONG_LENGTH = "The Content-Length is not the length of the body."


class Http2Connection:
    """One connection, which ``run`` serves to its end. The other methods are for its streams."""

    def __init__(
        self, server: ServerState, stream: Any, peer: Peer, reserved: ReservedConnection | None = None
    ) -> None:
        self.server = server
        self.peer = peer
        self._reserved = reserved  # None unless it is beyond max_connections
        if reserved is not None:
            reserved.awaits_response = lambda: any(not stream.response_started for stream in self._streams.values())
        self.heard_at = trio.current_time()
        """When the last bytes came."""
        # ``request_head.py`` judges header lists: the library would end the connection for each that is malformed.
        self._h2 = H2Connection(
            H2Configuration(
                client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False
            )
        )
        self._decoder = CapturingDecoder()
        self._h2.encoder = LinearEncoder()  # whose table has the size that a client's settings begin with
        self.sender = Sender(self._h2, server, stream, self._failed)
        self.window_clock = WriteClock(server)
        """Of the connection's flow-control window: some 64 KiB must go on some stream, while one waits for it."""
        self._stream = stream
        self._hosts = Hosts((*server.limits.hosts, *server.config.server_names))
        self._streams: dict[int, Stream] = {}
        """The requests that await their response."""
        self._tasks = 0
        """Applications at work, also those whose answer is out."""
        self._finished = trio.lowlevel.ParkingLot()
        """Where the reader waits for some of them to end."""
        self._requests = 0
        self._refused = 0
        self._stalled = 0.0
        """Seconds that answers have waited for the client which were then given up, by it or by us."""
        self._preface_left = frames.PREFACE
        self._cutter = FrameSplitter(server.config.h2_max_inbound_frame_size)
        self._flood_limits = FloodLimits(list_size_max(server.limits))
        self._receiving = trio.CancelScope()
        self._idle_since = self.heard_at  # or when the last request ended, or was refused
        self._begun_at = self.heard_at if peer.accepted_at is None else peer.accepted_at
        """When the first byte came of what is incomplete: the preface, a header block, a frame."""
        self._leaving_at = math.inf
        """When an idle connection ends at the latest, because one side is leaving."""
        self._nursery: trio.Nursery

    async def run(self, received: bytes) -> None:
        """Serve the connection; ``received`` has been read of it already. Returns when it is over; closes nothing."""
        self._introduce()
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self.sender.run)
            self.server.open.add(self)
            try:
                if self.server.phase.value >= Phase.DRAINING:
                    self.drain(trio.current_time() + self.server.limits.drain_idle)
                reason = await self._read(received)
            finally:
                self.server.open.discard(self)
            self._leave_all(reason)
            await self.sender.flush()  # what has been answered by then
            self.sender.close()
            # Applications that have answered end in their own time, as with HTTP/1.1.

    def _introduce(self) -> None:
        config, limits = self.server.config, self.server.limits
        settings: Any = {
            SettingCodes.MAX_CONCURRENT_STREAMS: config.h2_max_concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_head,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            SettingCodes.MAX_FRAME_SIZE: config.h2_max_inbound_frame_size,
            _NO_RFC7540_PRIORITIES: 1,
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        # Before the client acknowledges them, too.
        self._h2.max_inbound_frame_size = config.h2_max_inbound_frame_size
        self._decoder.max_header_list_size = list_size_max(limits)
        self._h2.decoder = self._decoder
        self._h2.initiate_connection()
        # The library would end the connection for one stream more: ours refuses that stream, or answers a probe.
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] += RESERVED_REQUESTS
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        # One upload that nobody reads must not stop the others: the connection's window is that of several streams.
        self._h2.increment_flow_control_window(_BODIES_MAX - self._h2.inbound_flow_control_window)

    # Reading.

    async def _read(self, data: bytes) -> str:
        """Read until the connection is over; the reason for whoever is still at work."""
        await self.sender.flush()
        while True:
            if data and (refused := await self._take_in(data)):
                self._leave_all(refused)
                await self.sender.flush()
                await linger(self._stream)
                return refused
            await self.sender.flush()
            await self._let_finish()
            received = await self._receive()
            if received is None:
                self.sender.put_last_goaway()
                await self.sender.flush()
                return "idle"
            if not received:
                return CLIENT_GONE
            data = received
            self.heard_at = trio.current_time()

    async def _let_finish(self) -> None:
        """Wait for applications that have answered but not returned, if there are many.

        A client that has its responses asks for as much again at once, and would be refused for those that are about to
        end. For a moment only: one that works on after its response must not make us deaf.
        """
        limit = self.server.config.h2_max_concurrent_streams
        if self._tasks > limit:
            with trio.move_on_after(_FINISHING_MAX):
                while self._tasks > limit:
                    await self._finished.park()

    async def _receive(self) -> bytes | None:
        """The next bytes; b"" if the client has gone, None if the read deadline has passed."""
        while not self.sender.over:
            with trio.CancelScope(deadline=self._read_deadline()) as self._receiving:
                try:
                    return bytes(await self._stream.receive_some())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return b""
            if self._read_deadline() <= trio.current_time():
                return None
        return b""

    def _read_deadline(self) -> float:
        """When the wait for the client ends. Only the whole head of a request moves it, neither bytes nor frames."""
        whole_by = self._begun_at + self.server.limits.head_timeout
        if self._preface_left or self._cutter.head_begun:
            return whole_by
        if self._tasks:
            return math.inf
        idle = min(self._idle_since + self.server.config.keep_alive_timeout, self._leaving_at)
        return min(idle, whole_by) if self._cutter.begun else idle

    async def _take_in(self, data: bytes) -> str | None:
        """Act on the bytes of one read, perhaps thousands of frames; the reason if the connection ends with them."""
        begun = bool(self._preface_left) or self._cutter.in_head or self._cutter.begun
        try:
            rest = self._without_preface(data)
            begun = begun and (bool(self._preface_left) or self._cutter.in_head or self._cutter.begun)
            for number, frame in enumerate(self._cutter.cut(rest), 1):
                self._take_frame(frame)
                begun = begun and self._cutter.in_head  # A block of many frames began with the first of them.
                if number % _FRAMES_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
                    if self.sender.over:
                        return None
        except ProtocolError as error:
            # h2 gives some of them a number of a stream and no text.
            text = str(error)
            return self._broken(f"{type(error).__name__} {text}".rstrip() if not text or text.isdigit() else text)
        except FloodError as error:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            return self._broken(str(error))
        if not begun:
            self._begun_at = trio.current_time()
        return None

    def _without_preface(self, data: bytes) -> bytes:
        """What stands behind the preface (RFC 9113 section 3.4)."""
        if self._preface_left:
            expected, self._preface_left = self._preface_left, self._preface_left[len(data) :]
            if data[: len(expected)] != expected[: len(data)]:
                self._h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
                raise ProtocolError("the connection does not begin with the preface")
            if self._preface_left:
                return b""
            self._h2.receive_data(frames.PREFACE)
            return data[len(expected) :]
        return data

    def _take_frame(self, frame: Frame) -> None:
        if frame.kind == frames.GOAWAY and not frame.stream_id and frame.length >= 8:
            # The library would end the connection here; but what was asked before is still to be answered.
            self._leaving_at = trio.current_time()
            return
        if frame.is_too_long:
            self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError(f"a frame of {frame.length} bytes")
        awaited = frame.stream_id in self._streams
        self._flood_limits.saw(frame, awaited=awaited)
        if frame.kind == frames.HEADERS and awaited and not frame.flags & frames.END_STREAM:
            # The library would end the connection. Of a stream that is reset it decodes the block, and no more.
            self._refuse_malformed(self._streams[frame.stream_id], "Its trailer section does not end it.")
        for event in self._h2.receive_data(frames.known_settings(frame)):
            self._take_event(event)

    def _broken(self, why: str) -> str:
        """Record why the connection ends, once: as bytes that are no HTTP/1.1 are recorded, a request without a name.

        What anybody can bring about by connecting is no matter for the stream ``app``, whatever its level.
        """
        error_response = ErrorResponse(400, f"The connection breaks a rule of HTTP/2: {why[:200]}")
        self._record(ServerResponse(error_response, new_request_id()), None, self.heard_at)
        return "protocol-error"

    # What frames mean.

    def _take_event(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived(stream_id=int(stream_id), stream_ended=ended):
                self._take_request(stream_id, self._decoder.fields, complete=ended is not None)
            case events.DataReceived():
                self._take_body(event)
            case events.TrailersReceived(stream_id=int(stream_id)):
                if stream := self._streams.get(stream_id):
                    self._take_trailers(stream)
            case events.StreamEnded(stream_id=int(stream_id)):
                if stream := self._streams.get(stream_id):
                    if stream.receive_buffer.received == (stream.head.content_length or stream.receive_buffer.received):
                        stream.receive_buffer.end()
                    else:
                        self._refuse_malformed(stream, _WRONG_LENGTH)
            case events.StreamReset(stream_id=int(stream_id)):
                # Also where the library reset it: a client can make it do so.
                if stream := self._streams.get(stream_id):
                    self._charge(stream)
                self._leave(stream_id, CLIENT_GONE)
                self._flood_limits.saw_reset()
            case events.WindowUpdated(stream_id=int(stream_id)) if stream_id:
                if stream := self._streams.get(stream_id):
                    stream.window_changed()
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                for stream in self._streams.values():
                    stream.window_changed()

    def _take_request(self, stream_id: int, headers: Any, *, complete: bool) -> None:
        started_at = trio.current_time()
        if started_at >= self._leaving_at or self._is_full(headers, complete):
            self.sender.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            self._flood_limits.saw_reset()
            return
        limits = self.server.limits
        self._requests += 1
        try:
            head = read_head(headers, limits, self._hosts)
            if complete and head.protocol is not None:
                raise HeadError(ErrorResponse(400, "The request ends where its WebSocket begins (RFC 8441 section 4)."))
            if complete and head.content_length:
                raise malformed(_WRONG_LENGTH)
        except HeadError as error:
            code = ErrorCodes.PROTOCOL_ERROR if error.malformed else ErrorCodes.NO_ERROR
            self.refuse_unseen(
                stream_id, error.error_response, unchecked_head(headers), started_at, complete=complete, code=code
            )
            return
        length, admit = head.content_length or (0 if complete else -1), self.server.admit
        error_response = (
            too_large(limits) if length > limits.max_body else admit(self._reserved, head.method, head.path, length)
        )
        if error_response is not None:
            self.refuse_unseen(stream_id, error_response, head, started_at, complete=complete)
            return
        self._streams[stream_id] = stream = Stream(self, stream_id, head, complete=complete)
        if self.server.in_flight > limits.max_in_flight and self.server.is_probe(head.method, head.path, length):
            self.server.reserve.requests[stream] = None
        self._tasks += 1
        self._nursery.start_soon(stream.run)

    def _is_full(self, headers: Any, complete: bool) -> bool:
        """Whether no further stream is served: there are as many as the settings allow, and this is no probe."""
        limit = self.server.config.h2_max_concurrent_streams
        if len(self._streams) < limit and self._tasks < 2 * limit:
            return False
        head = unchecked_head(headers)
        is_probe = self.server.is_probe(head.method, head.path, 0 if complete else -1)
        return not is_probe or self._tasks >= 2 * limit + RESERVED_REQUESTS

    def _take_body(self, event: events.DataReceived) -> None:
        stream_id, size = event.stream_id or 0, event.flow_controlled_length or 0
        if size and not event.data and event.stream_ended is None:
            self._flood_limits.saw_padding()
        stream = self._streams.get(stream_id)
        if stream is None:
            self.sender.acknowledge(stream_id, size)
            return
        data, length = event.data or b"", stream.head.content_length
        if length is not None and stream.receive_buffer.received + len(data) > length:
            self._refuse_malformed(stream, _WRONG_LENGTH)
        stream.receive_buffer.put(data, size)

    def _take_trailers(self, stream: Stream) -> None:
        """Check what nobody reads: a client that breaks a rule gets an error, whatever the rule is for."""
        try:
            check_trailers(self._decoder.fields, self.server.limits)
        except HeadError as error:
            code = ErrorCodes.PROTOCOL_ERROR if error.malformed else ErrorCodes.CANCEL
            self._count_refused()
            self.refuse(stream, error.error_response, code)

    def _refuse_malformed(self, stream: Stream, reason: str) -> None:
        """A request turns out to be malformed when it is at work already."""
        self._count_refused()
        self.refuse(stream, malformed(reason).error_response, ErrorCodes.PROTOCOL_ERROR)

    def _count_refused(self) -> None:
        """A connection that brings too many requests that are refused ends (``REFUSED_MAX``)."""
        self._refused += 1
        if self._refused >= REFUSED_MAX:
            self.drain(trio.current_time())

    def _charge(self, stream: Stream) -> None:
        """Count the time that a response has waited which is given up: else a client that resets such streams and
        asks again would hold their capacity for ever."""
        self._stalled += stream.stalled
        if self._stalled > _STALLED_MAX * self.server.limits.write_timeout:
            self.drain(trio.current_time())

    def _leave(self, stream_id: int, reason: str) -> None:
        if stream := self._streams.get(stream_id):
            self._forget(stream)
            stream.leave(reason)

    def _forget(self, stream: Stream) -> None:
        """Take a stream from those that await their response; its application may still be running."""
        self._streams.pop(stream.stream_id, None)

    # What streams ask of their connection.

    def send_data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Put a DATA frame to what is to be sent; clients acknowledge those."""
        self.sender.data(stream_id, data, end=end)
        self.window_clock.took(len(data))
        self._flood_limits.sent_data()

    def response_ended(self, stream: Stream, *, complete: bool) -> None:
        """A response is whole, and goes with the next write.

        What a client still sends of its request is refused (RFC 9113 section 8.1).
        """
        if not complete:
            self.sender.reset(stream.stream_id, ErrorCodes.NO_ERROR)
        self._forget(stream)
        # From here on it is not in flight: the client may ask for something else, and must not be shed for this one.
        stream.count_out()

    def refuse(self, stream: Stream, error_response: ErrorResponse, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Answer in an application's place; one whose own response is under way is given up with ``code``."""
        self._forget(stream)
        if stream.response_started:
            self.sender.reset(stream.stream_id, code)
        else:
            request_id = new_request_id()
            ends = code if code is ErrorCodes.PROTOCOL_ERROR else ErrorCodes.NO_ERROR
            self._send_error_response(stream, error_response, request_id, ends, notified=True)
        stream.leave(error_response.detail)
        self.sender.flush_soon()

    def _send_error_response(
        self,
        stream: Stream,
        error_response: ErrorResponse,
        request_id: str,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
        *,
        notified: bool = False,
    ) -> None:
        complete = stream.receive_buffer.complete
        sent = self.sender.error_response(
            stream.stream_id, error_response, request_id, stream.head, complete=complete, code=code
        )
        stream.server_response = ServerResponse(error_response, request_id, sent, notified)

    async def stop(self, stream: Stream, rest: BaseException) -> None:
        """Answer a request that a server whose grace is over has cut before the first byte of its response."""
        error_response = error_response_for(self.server, rest)
        if error_response is None or stream.finished or stream.response_started or self.sender.over:
            return
        self._forget(stream)
        self._send_error_response(stream, error_response, stream.request_id)
        stream.finished = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_RESPONSE_S):
            await self.sender.flush()

    def give_up(self, stream: Stream, code: ErrorCodes, reason: str) -> None:
        """Reset a stream in the middle of its response, and count the time that the response has waited."""
        self._charge(stream)
        self._end(stream, code, reason)

    def displace(self, stream: Stream, reason: str) -> None:
        """Reset a stream whose client does not take the response, in favour of a newer probe."""
        self._end(stream, ErrorCodes.CANCEL, reason)

    def _end(self, stream: Stream, code: ErrorCodes, reason: str) -> None:
        self._forget(stream)
        self.sender.reset(stream.stream_id, code)
        stream.leave(reason)
        self.sender.flush_soon()

    def application_ended(self, stream: Stream) -> None:
        """An application has ended by itself; if it owes a response, or the rest of one, the client hears of it."""
        if not stream.finished and not self.sender.over:
            if stream.response_started:
                stream.cut_short = True
                self.give_up(stream, ErrorCodes.INTERNAL_ERROR, "the application ended in the middle of its answer")
            else:
                self._forget(stream)
                self._send_error_response(stream, CRASHED, stream.request_id)
                stream.leave("crashed")
                self.sender.flush_soon()

    def task_ended(self, stream: Stream) -> None:
        """A stream's task is over."""
        self._forget(stream)
        stream.count_out()
        self._tasks -= 1
        self._finished.unpark_all()
        if self._reserved or self._requests >= self.server.config.keep_alive_max_requests:
            # Not before: some clients take a GOAWAY for the end of what they are reading.
            self.drain(trio.current_time() + self.server.limits.drain_idle)
        if not self._tasks:
            self._idle_since = trio.current_time()
            if not self._cutter.head_begun:
                self._begun_at = self._idle_since
            self._receiving.deadline = self._read_deadline()

    def refuse_unseen(
        self,
        stream_id: int,
        error_response: ErrorResponse,
        head: Head,
        started_at: float,
        *,
        complete: bool,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> None:
        """Refuse a request that no application will see, and record it; ``code`` as in ``Sender.error_response``."""
        request_id = new_request_id()
        sent = self.sender.error_response(stream_id, error_response, request_id, head, complete=complete, code=code)
        self._record(ServerResponse(error_response, request_id, sent), head, started_at)
        self._idle_since = trio.current_time()
        self._count_refused()

    def record_end(self, stream: Stream, rest: BaseException | None) -> None:
        """Have the one record of a request written: the application's, or the server's."""
        if stream.refused_unseen:
            self._count_refused()
        filed, response = stream.record_filed(), stream.server_response
        if response is not None and (filed or self.server.leaves_record(response)):
            self.server.count_rejected(response.error_response)
        elif response is not None:
            self._record(response, stream.head, stream.started)
        elif not filed and stream.cut_short:
            cut = cut_response(stream.status, stream.bytes_sent, rest)
            self._record(cut, stream.head, stream.started, counts=False)

    def _record(self, response: ServerResponse, head: Head | None, started_at: float, *, counts: bool = True) -> None:
        self.server.record_rejected(
            response.error_response,
            request_id=response.request_id,
            method=head.method if head is not None else "",
            path=head.path.decode("latin-1").partition("?")[0] if head is not None else "",
            peer=self.peer,
            fields=head.fields if head is not None else (),
            started_at=started_at,
            bytes_sent=response.bytes_sent,
            counts=counts,
        )

    def _failed(self, reason: str) -> None:
        """Nothing can be sent any more, so nothing need be read."""
        self._leave_all(reason)
        self._receiving.cancel(reason=reason)

    def _leave_all(self, reason: str) -> None:
        for stream_id in list(self._streams):
            self._leave(stream_id, reason)

    # Leaving.

    def drain(self, idle_until: float) -> None:
        """Called when the server drains: a GOAWAY at once, and no new requests after ``idle_until``."""
        if idle_until < self._leaving_at:
            self.sender.put_first_goaway()
            self._leaving_at = idle_until
            self._receiving.deadline = self._read_deadline()
            self.sender.flush_soon()
