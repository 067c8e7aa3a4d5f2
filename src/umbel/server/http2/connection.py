"""HTTP/2 connection on the ``h2`` library: one task reads frames, and one runs for each request.

Theory
------
**Tasks.** All run in one nursery of ``run``: the *reader* (``run`` itself), the *writer* (``sender.run``), and a task
per stream (``Stream.run``). The reader alone calls ``h2.receive_data``. It acts on frames synchronously, so no stream
sees a frame half handled. The streams queue frames through ``sender`` and the methods of the connection. Any of these
tasks may write, one at a time (``sender.py``). Of the connection's methods for streams only ``stop`` waits.

**States of the connection.**

- *preface* (``_preface_left``): the client's 24 bytes are incomplete.
- *open*: requests are accepted.
- *leaving* (``_leaving_at`` is finite; possible in *preface* too): the client has sent GOAWAY, or this side has sent
  its first one. This side sends it when the server drains, when the connection has had too many requests, refusals or
  stalled responses, or when it was beyond ``max_connections`` and has served its probe. Requests that come before
  ``_leaving_at`` are still accepted, because they may have been on their way (RFC 9113 section 6.8); later ones get
  REFUSED_STREAM. With no task left and no unit incomplete (see "Time"), the connection ends at ``_leaving_at`` or at
  the idle timeout, whichever is first.
- *over* (``sender.over``): nothing can be sent. The streams have left; their applications end in their own time.

**States of a stream, as the connection sees it.** ``_streams`` holds those that await their response. ``_tasks`` counts
the running applications, also those whose response is done; an application may work on for long after its response.
``_take_request`` adds a stream. ``_forget`` removes it: with its complete response (the application's or the server's),
its reset, or its leaving. Later frames of the stream reach no application. They count for the flow-control windows, the
HPACK table and the flood limits, and may still break a rule of HTTP/2.

**A malformed request ends its stream. A broken rule of HTTP/2 ends the connection.** ``h2`` would end the connection
for most malformed requests, so its validation is off and ``request_head.py`` checks the header lists. What ``h2`` still
raises, a wrong preface, a frame that is too long and a flood (``flood_limits.py``) end the connection, with GOAWAY and
one access record without a method.

**Bounds.** Unread bodies: the connection's window, ``_BODIES_MAX``. Streams: ``h2_max_concurrent_streams``; tasks:
twice that number, because a client may open a stream as soon as it has a response. A probe may use
``RESERVED_REQUESTS`` more. Frames that cost a client nothing: token buckets. Requests that the server refuses before an
application sees them, or for the form of their body or trailers: ``REFUSED_MAX``. (REFUSED_STREAM counts as a reset in
the token buckets instead.) Responses that the client resets, or that end with ``give_up`` (most often because the
client does not take them): together they may have waited ``_STALLED_MAX`` write timeouts. Without this bound, a client
could hold capacity by resetting each such stream.

**Time.** ``_read_deadline`` bounds the wait for bytes. ``_begun_at`` is the time at which the incomplete unit (preface,
header block, frame) began. Further bytes of the unit do not move it, so a client cannot gain time by single bytes. One
thing does: the end of the last task, if no header block is incomplete. While a stream task runs and no header block is
incomplete, there is no deadline: bodies and writes have clocks of their own. While more tasks run than streams are
allowed, the reader pauses for up to ``_FINISHING_MAX``. A method that another task calls and that changes what the
deadline depends on sets the new deadline in ``_receiving``, the scope of the present wait.

**Cancellation.** A cancel of ``run`` cancels the reader and all tasks. Each stream task ends through ``Stream.run``,
which responds with 503 (``stop``, shielded for ``LAST_RESPONSE_S``) if the time of a drain is over and no response has
begun. A write is shielded (``sender.py``): a frame that is sent in part would make the connection useless for all.
``_receiving`` is cancelled when sending has failed, so the reader does not wait for a client that has gone.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import trio
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings

from ...core.inbound import RequestHead
from ..http1.head_errors import HeadError
from ..http1.host import Hosts
from ..http1.request_body import too_large
from ..limits.client_clocks import WriteClock
from ..limits.probe_reserve import RESERVED_REQUESTS, ReservedConnection
from ..limits.server_limits import is_own_probe
from ..peer import Peer
from ..phase import Phase
from ..response.access_record import CRASHED, LAST_RESPONSE_S, cut_response, error_response_for
from ..response.error_response import NOT_ADMITTED, REFUSED_MAX, ErrorResponse, ServerResponse, new_request_id
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
"""Bytes of unread request bodies of a connection: its inbound flow-control window."""
_FRAMES_PER_TURN = 16
"""Frames of one read between two checkpoints. A frame costs up to 0.3 ms (a request that is refused)."""
_FINISHING_MAX = 1.0
"""Seconds for which ``_let_finish`` reads nothing."""
_STALLED_MAX = 100
"""The waits of responses that were given up may add up to so many write timeouts; then the connection leaves."""
_NO_RFC7540_PRIORITIES = 0x9
"""SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218 section 2.1): this server ignores PRIORITY frames."""

# At level debug hpack logs whole header blocks. Values in them are in Huffman code, in which the redaction of a text
# finds no secret, but which everybody can decode.
logging.getLogger("hpack").setLevel(logging.INFO)

_WRONG_LENGTH = "The Content-Length is not the length of the body."


class Http2Connection:
    """One HTTP/2 connection. ``run`` serves it; the other public methods are for its streams and for a drain.

    Args:
        stream: the connected socket, with TLS done.
        reserved: set if the connection is beyond ``max_connections``: only a probe is answered.
    """

    def __init__(
        self, server: ServerState, stream: Any, peer: Peer, reserved: ReservedConnection | None = None
    ) -> None:
        self.server = server
        self.peer = peer
        self._reserved = reserved
        if reserved is not None:
            reserved.awaits_response = lambda: any(not stream.response_started for stream in self._streams.values())
        self.heard_at = trio.current_time()
        """When the last bytes were read."""
        # request_head.py validates header lists: the library would end the connection for a malformed one.
        self._h2 = H2Connection(
            H2Configuration(
                client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False
            )
        )
        self._decoder = CapturingDecoder()
        self._h2.encoder = LinearEncoder()  # Its table size is the default, which is a client's initial setting.
        self.sender = Sender(self._h2, server, stream, self._failed)
        self.window_clock = WriteClock(server)
        """Waits for the connection's flow-control window. 64 KiB on any streams are progress."""
        self._stream = stream
        self._hosts = Hosts((*server.limits.hosts, *server.config.server_names))
        self._admitted = server.admission.admits(None if peer.client is None else peer.client[0])
        """Whether the peer may make requests other than own probes."""
        self._streams: dict[int, Stream] = {}
        """Streams that await their response, by id."""
        self._tasks = 0
        """Stream tasks that run, also those whose response is complete."""
        self._finished = trio.lowlevel.ParkingLot()
        """Where the reader waits for the end of a stream task."""
        self._requests = 0
        self._refused = 0
        """Requests that were refused; see ``REFUSED_MAX``."""
        self._stalled = 0.0
        """Seconds that responses waited for the client before they were given up or reset."""
        self._preface_left = frames.PREFACE
        """Bytes of the client's preface that are still to come."""
        self._cutter = FrameSplitter(server.config.h2_max_inbound_frame_size)
        self._flood_limits = FloodLimits(list_size_max(server.limits))
        self._receiving = trio.CancelScope()
        """The scope of the present wait for bytes."""
        self._idle_since = self.heard_at
        """When the last request ended or was refused; at first, when the connection began."""
        self._begun_at = self.heard_at if peer.accepted_at is None else peer.accepted_at
        """When the first byte of the incomplete preface, header block or frame came."""
        self._leaving_at = math.inf
        """While the connection is leaving: when it stops accepting requests, and ends if it is idle. Else infinite."""
        self._nursery: trio.Nursery

    async def run(self, received: bytes) -> None:
        """Serve the connection until it is over; ``received``: the bytes that were read already.

        The stream is left open. Returns when the last application has ended. A cancel ends every request, and is raised
        again.
        """
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
            await self.sender.flush()  # Responses that were queued before the end.
            self.sender.close()
            # The nursery waits for applications that work on after their response, as with HTTP/1.1.

    def _introduce(self) -> None:
        """Queue the server's SETTINGS, and set the bounds that hold before the client acknowledges them."""
        config, limits = self.server.config, self.server.limits
        settings: Any = {
            SettingCodes.MAX_CONCURRENT_STREAMS: config.h2_max_concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_head,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
            SettingCodes.MAX_FRAME_SIZE: config.h2_max_inbound_frame_size,
            _NO_RFC7540_PRIORITIES: 1,
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        # The library applies these bounds only after the client's acknowledgement.
        self._h2.max_inbound_frame_size = config.h2_max_inbound_frame_size
        self._decoder.max_header_list_size = list_size_max(limits)
        self._h2.decoder = self._decoder
        self._h2.initiate_connection()
        # The library ends the connection for one stream too many. With a higher limit in the library, _is_full refuses
        # that stream alone, or lets a probe pass. The client has been sent the lower limit.
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] += RESERVED_REQUESTS
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        # One unread upload fills its stream's window. It must not fill the connection's, or the others would stop.
        self._h2.increment_flow_control_window(_BODIES_MAX - self._h2.inbound_flow_control_window)

    # Reading.

    async def _read(self, data: bytes) -> str:
        """Read and act until the connection is over. Return the reason, for the cancel of what still runs."""
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
        """Read nothing for up to ``_FINISHING_MAX`` while more tasks run than streams are allowed.

        A client that has its responses sends as many requests again at once. Without this pause, they would be refused
        because tasks whose responses are complete have not ended yet. An application that works on after its response
        must not stop the reading for longer.
        """
        limit = self.server.config.h2_max_concurrent_streams
        if self._tasks > limit:
            with trio.move_on_after(_FINISHING_MAX):
                while self._tasks > limit:
                    await self._finished.park()

    async def _receive(self) -> bytes | None:
        """Wait for bytes: b"" if the client has gone, None if the read deadline has passed."""
        # A cancelled scope ends the wait. The loop decides whether the deadline has passed, has moved meanwhile, or
        # whether _failed has cancelled the scope.
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
        """When the wait for the client's bytes ends; infinite while requests are served."""
        whole_by = self._begun_at + self.server.limits.head_timeout
        if self._preface_left or self._cutter.head_begun:
            return whole_by
        if self._tasks:
            return math.inf
        idle = min(self._idle_since + self.server.keep_alive_timeout, self._leaving_at)
        return min(idle, whole_by) if self._cutter.begun else idle

    async def _take_in(self, data: bytes) -> str | None:
        """Act on the bytes of one read, perhaps thousands of frames. Return the reason if they end the connection."""
        # Whether a unit was incomplete before these bytes and still is. Only then does _begun_at stay.
        begun = bool(self._preface_left) or self._cutter.in_head or self._cutter.begun
        try:
            rest = self._without_preface(data)
            begun = begun and (bool(self._preface_left) or self._cutter.in_head or self._cutter.begun)
            for number, frame in enumerate(self._cutter.cut(rest), 1):
                self._take_frame(frame)
                begun = begun and self._cutter.in_head  # A header block of many frames began with its first one.
                if number % _FRAMES_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
                    if self.sender.over:
                        return None
        except ProtocolError as error:
            # The text of some errors of h2 is empty, or a stream's number alone.
            text = str(error)
            return self._broken(f"{type(error).__name__} {text}".rstrip() if not text or text.isdigit() else text)
        except FloodError as error:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            return self._broken(str(error))
        if not begun:
            self._begun_at = trio.current_time()
        return None

    def _without_preface(self, data: bytes) -> bytes:
        """The bytes after the preface (RFC 9113 section 3.4).

        Raises:
            ProtocolError: the connection does not begin with the preface.
        """
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
        """Act on one frame.

        Raises:
            ProtocolError, FloodError: the connection must end.
        """
        if frame.kind == frames.GOAWAY and not frame.stream_id and frame.length >= 8:
            # The library would end the connection here. But earlier requests must still get their responses.
            self._leaving_at = trio.current_time()
            return
        if frame.is_too_long:
            self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError(f"a frame of {frame.length} bytes")
        awaited = frame.stream_id in self._streams
        self._flood_limits.saw(frame, awaited=awaited)
        if frame.kind == frames.HEADERS and awaited and not frame.flags & frames.END_STREAM:
            # A second HEADERS frame without END_STREAM is malformed (RFC 9113 section 8.1), and the library would end
            # the connection. For a stream that is reset before, it only decodes the block, which HPACK requires.
            self._refuse_malformed(self._streams[frame.stream_id], "The trailer section does not end its stream.")
        for event in self._h2.receive_data(frames.known_settings(frame)):
            self._take_event(event)

    def _broken(self, why: str) -> str:
        """Record why the connection ends, as one access record without a method. Return the reason for cancels.

        Any client can cause it, so nothing is written to the ``app`` stream of the log.
        """
        error_response = ErrorResponse(400, f"The connection breaks a rule of HTTP/2: {why[:200]}")
        self._record(ServerResponse(error_response, new_request_id()), None, self.heard_at)
        return "protocol-error"

    # Events of the library.

    def _take_event(self, event: events.Event) -> None:
        """Act on one event of the library. Events of streams that were forgotten have no effect."""
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
                # By the client, or by the library because of the client's frames.
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
        """Start the task of a request, or refuse it; ``complete``: the request has no body."""
        started_at = trio.current_time()
        if started_at >= self._leaving_at or self._is_full(headers, complete):
            self.sender.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            self._flood_limits.saw_reset()
            return
        limits = self.server.limits
        self._requests += 1
        try:
            head = read_head(headers, limits, self._hosts)
            if not (self._admitted or (complete and is_own_probe(head.method, head.path))):
                raise HeadError(NOT_ADMITTED)
            if complete and head.protocol is not None:
                raise HeadError(ErrorResponse(400, "An extended CONNECT must not end its stream (RFC 8441 section 4)."))
            if complete and head.content_length:
                raise malformed(_WRONG_LENGTH)
        except HeadError as error:
            code = ErrorCodes.PROTOCOL_ERROR if error.malformed else ErrorCodes.NO_ERROR
            self._refuse_unseen(
                stream_id, error.error_response, unchecked_head(headers), started_at, complete=complete, code=code
            )
            return
        length, admit = head.content_length or (0 if complete else -1), self.server.admit
        oversized = length > limits.max_body and not self.server.takes_any_size(self._seen(head))
        error_response = too_large(limits) if oversized else admit(self._reserved, head.method, head.path, length)
        if error_response is not None:
            self._refuse_unseen(stream_id, error_response, head, started_at, complete=complete)
            return
        # From here to start_soon nothing may raise: the request is counted in, and its task counts it out.
        self._streams[stream_id] = stream = Stream(self, stream_id, head, complete=complete)
        if self.server.in_flight > limits.max_in_flight and self.server.is_probe(head.method, head.path, length):
            self.server.reserve.requests[stream] = None
        self._tasks += 1
        self._nursery.start_soon(stream.run)

    def _is_full(self, headers: Any, complete: bool) -> bool:
        """Whether the request exceeds the allowed streams or tasks. A probe may use ``RESERVED_REQUESTS`` more."""
        limit = self.server.config.h2_max_concurrent_streams
        if len(self._streams) < limit and self._tasks < 2 * limit:
            return False
        head = unchecked_head(headers)
        is_probe = self.server.is_probe(head.method, head.path, 0 if complete else -1)
        return not is_probe or self._tasks >= 2 * limit + RESERVED_REQUESTS

    def _take_body(self, event: events.DataReceived) -> None:
        """Give content to its stream. Content that no stream takes is acknowledged, or the window would shrink."""
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
        stream.receive_buffer.put(data, size)  # Also after a refusal: the buffer then acknowledges the bytes.

    def _take_trailers(self, stream: Stream) -> None:
        """Check a trailer section, whose fields are dropped, and refuse the request if it is malformed."""
        try:
            check_trailers(self._decoder.fields, self.server.limits)
        except HeadError as error:
            code = ErrorCodes.PROTOCOL_ERROR if error.malformed else ErrorCodes.CANCEL
            self._count_refused()
            self.refuse(stream, error.error_response, code)

    def _refuse_malformed(self, stream: Stream, reason: str) -> None:
        """Refuse, with 400 and PROTOCOL_ERROR, a request that turns out to be malformed after its task has started."""
        self._count_refused()
        self.refuse(stream, malformed(reason).error_response, ErrorCodes.PROTOCOL_ERROR)

    def _count_refused(self) -> None:
        """Count a refused request. At ``REFUSED_MAX`` the connection leaves."""
        self._refused += 1
        if self._refused >= REFUSED_MAX:
            self.drain(trio.current_time())

    def _charge(self, stream: Stream) -> None:
        """Add the time that the response of ``stream`` waited, which is given up. Above the bound, leave."""
        self._stalled += stream.stalled
        if self._stalled > _STALLED_MAX * self.server.limits.write_timeout:
            self.drain(trio.current_time())

    def _leave(self, stream_id: int, reason: str) -> None:
        """End the stream with this id, if it awaits its response."""
        if stream := self._streams.get(stream_id):
            self._forget(stream)
            stream.leave(reason)

    def _forget(self, stream: Stream) -> None:
        """Remove a stream from those that await their response. Its application may still run."""
        self._streams.pop(stream.stream_id, None)

    # For the streams.

    def send_data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue a DATA frame, and allow the control frames that acknowledge it (``flood_limits.py``)."""
        self.sender.data(stream_id, data, end=end)
        self.window_clock.took(len(data))
        self._flood_limits.sent_data()

    def response_ended(self, stream: Stream, *, complete: bool) -> None:
        """Forget a stream whose whole response is queued. If the request is not ``complete``, refuse its rest.

        The rest is refused by RST_STREAM with NO_ERROR (RFC 9113 section 8.1).
        """
        if not complete:
            self.sender.reset(stream.stream_id, ErrorCodes.NO_ERROR)
        self._forget(stream)
        # Before the response is written: the client's next request may come with it, and must not be shed for this one.
        stream.count_out()

    def refuse(self, stream: Stream, error_response: ErrorResponse, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Send an error response in the application's place. If its own response has begun, reset with ``code``.

        PROTOCOL_ERROR as ``code`` also resets the stream after the error response.
        """
        # server_response is set before leave: a task in receive must find out which error response was sent.
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
        """Queue an error response to the request of ``stream``; ``code`` as in ``Sender.error_response``."""
        complete = stream.receive_buffer.complete
        sent = self.sender.error_response(
            stream.stream_id, error_response, request_id, stream, complete=complete, code=code
        )
        stream.server_response = ServerResponse(error_response, request_id, sent, notified)

    async def stop(self, stream: Stream, rest: BaseException) -> None:
        """Send 503 to a request without a response, if ``rest`` is the cancel at the end of a drain.

        ``rest``: what the stream's task raises next. The write is shielded for ``LAST_RESPONSE_S``.
        """
        error_response = error_response_for(self.server, rest)
        if error_response is None or stream.finished or stream.response_started or self.sender.over:
            return
        self._forget(stream)
        self._send_error_response(stream, error_response, stream.request_id)
        stream.finished = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_RESPONSE_S):
            await self.sender.flush()

    def give_up(self, stream: Stream, code: ErrorCodes, reason: str) -> None:
        """Reset a stream before the end of its response, and count the time that the response waited."""
        self._charge(stream)
        self._end(stream, code, reason)

    def displace(self, stream: Stream, reason: str) -> None:
        """Reset a probe's stream whose client is slow to take the response, to make room for a newer probe."""
        self._end(stream, ErrorCodes.CANCEL, reason)

    def _end(self, stream: Stream, code: ErrorCodes, reason: str) -> None:
        """Reset a stream, and have it leave."""
        self._forget(stream)
        self.sender.reset(stream.stream_id, code)
        stream.leave(reason)
        self.sender.flush_soon()

    def application_ended(self, stream: Stream) -> None:
        """End a stream whose application has returned or failed: with 500, or with a reset if a response has begun."""
        if not stream.finished and not self.sender.over:
            if stream.response_started:
                stream.cut_short = True
                self.give_up(stream, ErrorCodes.INTERNAL_ERROR, "the application ended before its response did")
            else:
                self._forget(stream)
                self._send_error_response(stream, CRASHED, stream.request_id)
                stream.leave("crashed")
                self.sender.flush_soon()

    def task_ended(self, stream: Stream) -> None:
        """Count the task of ``stream`` out. After the last one the idle timeout starts.

        After ``keep_alive_max_requests`` requests, or the probe of a reserved connection, send GOAWAY.
        """
        self._forget(stream)
        stream.count_out()
        stream.on_drain(None)
        self._tasks -= 1
        self._finished.unpark_all()
        if self._reserved or self._requests >= self.server.config.keep_alive_max_requests:
            # Not with the last request's head: some clients take a GOAWAY for the end of the responses they read.
            self.drain(trio.current_time() + self.server.limits.drain_idle)
        if not self._tasks:
            self._idle_since = trio.current_time()
            if not self._cutter.head_begun:
                self._begun_at = self._idle_since
            self._receiving.deadline = self._read_deadline()

    def _seen(self, head: Head) -> RequestHead:
        """The head, as the application sees it before the request is admitted."""
        scheme = "https" if self.peer.secure else "http"
        return RequestHead(head.method, head.path, head.fields, scheme, self.peer.client)

    def _refuse_unseen(
        self,
        stream_id: int,
        error_response: ErrorResponse,
        head: Head,
        started_at: float,
        *,
        complete: bool,
        code: ErrorCodes = ErrorCodes.NO_ERROR,
    ) -> None:
        """Send an error response to a request that no application sees (``unadmitted``), and record it.

        ``complete``: the request has ended. ``code``: as in ``Sender.error_response``.
        """
        request_id, seen = new_request_id(), self._seen(head)
        error_response = self.server.unadmitted(error_response, seen)
        sent = self.sender.error_response(stream_id, error_response, request_id, seen, complete=complete, code=code)
        self._record(ServerResponse(error_response, request_id, sent), head, started_at)
        self._idle_since = trio.current_time()
        self._count_refused()

    def record_end(self, stream: Stream, rest: BaseException | None) -> None:
        """Write the request's one access record: the one that the application filed, else the server's own.

        The server writes its own only for an error response of its own, or for a response that it or its application
        ended early (``rest``: by a cancel).
        """
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
        elif not filed:
            self.server.show_unrecorded(stream)

    def _record(self, response: ServerResponse, head: Head | None, started_at: float, *, counts: bool = True) -> None:
        self.server.record_rejected(
            response.error_response,
            request_id=response.request_id,
            method=head.method if head is not None else "",
            path=head.path.decode("latin-1").partition("?")[0] if head is not None else "",
            peer=self.peer,
            version="2",
            fields=head.fields if head is not None else (),
            started_at=started_at,
            bytes_sent=response.bytes_sent,
            counts=counts,
        )

    def _failed(self, reason: str) -> None:
        """End all streams and the reading, because nothing can be sent any more."""
        self._leave_all(reason)
        self._receiving.cancel(reason=reason)

    def _leave_all(self, reason: str) -> None:
        for stream_id in list(self._streams):
            self._leave(stream_id, reason)

    # Leaving.

    def drain(self, idle_until: float) -> None:
        """Send GOAWAY now, accept no request after ``idle_until``, and end the connection then if it is idle."""
        if idle_until < self._leaving_at:
            self.sender.put_first_goaway()
            self._leaving_at = idle_until
            self._receiving.deadline = self._read_deadline()
            self.sender.flush_soon()
