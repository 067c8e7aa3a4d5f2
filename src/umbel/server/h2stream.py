"""One HTTP/2 stream: an application in a task of its own, what comes for it, and its answer under flow control.

Made by ``h2.py`` for each request, as an ``HttpStream`` or a ``WebSocketStream``. It knows bytes and frames, and
nothing of what an application says.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import trio
from h2.errors import ErrorCodes

from .clocks import WriteClock
from .crash import apart
from .exchange import ClientLeft
from .fairness import BoundedCalls
from .h2head import CONNECTION_SPECIFIC, Fields, Head
from .h2sender import WRITE_TIMEOUT
from .inbox import Inbox
from .response import ApplicationError, read_fields
from .upload_places import UploadPlace

if TYPE_CHECKING:
    from .h2 import Http2

_FRAMES_AT_ONCE = 4
"""Frames of one answer between two looks at the socket."""
_SHARED_FACTOR = 4.0
"""A stream that waits for what all streams share (the socket, the connection's window) has so many write timeouts per
64 KiB: a slow link may carry many answers, but one stream that flows must not keep the others alive."""

Message = dict[str, Any]


class Stream(BoundedCalls, ABC):
    """A request and its answer. ``run`` is its task; the rest is called by the connection or by a subclass."""

    def __init__(self, connection: Http2, stream_id: int, head: Head) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.head = head
        self.inbox = Inbox(lambda amount: connection.sender.acknowledge(stream_id, amount))
        self.window_opened = trio.Event()
        self.started_at = trio.current_time()
        self.answering = False
        """Whether the head of an answer has been sent."""
        self.status = 0
        """Of that head."""
        self.bytes_sent = 0
        """Of the content."""
        self.cut_short = False
        """Whether its answer has ended in the middle, and not because its client left."""
        self._head_waits: Fields | None = None
        """A head that goes out with what follows, so that what is wrong with that can still be answered with 500."""
        self.bodiless = False
        """Whether the answer has no content, whatever its application sends."""
        self.finished = False
        """Whether nothing more is to be sent: all of it was, or nobody waits for it."""
        self.scope = trio.CancelScope()
        self.upload: UploadPlace | None = None
        """What the request counts as, where its body was waited for; else it is in flight."""
        self._counted = True
        self._window_clock = WriteClock(connection.service)
        """Of the stream's own flow-control window."""
        self._shared_clock = WriteClock(connection.service, factor=_SHARED_FACTOR)
        self._promised = math.inf
        """Bytes of the answer's body that its Content-Length still promises."""

    async def run(self) -> None:
        """The stream's task, from the application's call to its end. Whatever the application raises ends here."""
        rest: BaseException | None = None
        try:
            with self.scope:
                try:
                    await self.call_application()
                except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
                    crash, rest = apart(error)
                    if crash is not None:
                        self.connection.service.application_failed("request", crash, gone=self.gone)
                    if rest is not None:
                        self.cut_short = self.answering and not self.finished
                        await self.connection.stop(self, rest)
                        raise rest from None
            await self.connection.application_ended(self)
        finally:
            self.connection.task_ended(self)
            self.connection.record_end(self, rest)

    @abstractmethod
    async def call_application(self) -> None:
        """Call the application and wait for its end."""

    @abstractmethod
    def tell(self, told: Message) -> bool:
        """The client has gone, or has its answer; whether the application listens, and so will hear of it."""

    def leave(self, reason: str, told: Message | None = None) -> None:
        """Nobody waits for the answer any more: who listens is told; if nobody does, the application is cancelled."""
        self.finished = self.gone = True
        self.inbox.leave()
        self.window_opened.set()
        if not self.tell(told or {}):
            self.scope.cancel(reason=reason)

    def stop_endless(self, reason: str) -> None:
        """Cancel the application."""
        self.connection.service.note_endless(reason)
        self.scope.cancel(reason=reason)

    def count_out(self) -> None:
        """It is no request in flight any more; said twice, it is counted once."""
        if self._counted:
            self._counted = False
            self.connection.service.reserve.requests.pop(self, None)
            if self.upload is None:
                self.connection.service.request_ended()
            else:
                self.upload.end()

    def displace(self, reason: str) -> None:
        """Give the answer up; it counts as ended from now on."""
        self.count_out()
        self.connection.displace(self, reason)

    @property
    def stalled(self) -> float:
        """Seconds that the answer has waited for its client since the last 64 KiB."""
        return max(self._window_clock.stalled, self._shared_clock.stalled)

    # The answer.

    async def send_head(self, status: int, headers: Fields) -> None:
        """The head of an answer, which goes out with what follows; one under 200 goes out at once."""
        checked, fields = read_fields(headers), sendable(headers)
        if status < 200:
            self.connection.sender.headers(self.stream_id, status, fields)
            await self.flush()
            return
        fields += self.connection.service.own_fields.fields(dated=checked.dated)
        self.bodiless = bodiless = self.head.method == "HEAD" or status in (204, 304)
        if status == 204:
            fields = [field for field in fields if field[0] != b"content-length"]  # RFC 9110 section 8.6.
        self._promised = math.inf if checked.length is None or bodiless else checked.length
        self.status, self._head_waits = status, fields

    def put_head(self) -> None:
        """Put the head that waits to what is to be sent."""
        if self._head_waits is not None and not self.finished:
            fields, self._head_waits = self._head_waits, None
            self.connection.sender.headers(self.stream_id, self.status, fields)
            self.answering = True

    async def send_data(self, data: bytes, *, end: bool) -> None:
        """A part of the answer's body, as the client's windows allow: the application waits, and nothing piles up.

        A client that does not accept 64 KiB within the write timeout loses the answer (``WriteClock``). Neither an
        opening of a window nor a further part of the body starts that time anew; time in which nothing waits to be
        sent does not count.
        """
        self._promised -= len(data)
        if self._promised < 0:
            raise ApplicationError("the application sent more than its Content-Length")
        if end and self._promised not in (0, math.inf):
            raise ApplicationError(f"the application sent {self._promised} bytes less than its Content-Length")
        self.put_head()
        self.bytes_sent += len(data)
        view, frames = memoryview(data), 0
        while view and not self.finished:
            window = self.connection.sender.window(self.stream_id)
            if window <= 0:
                await self.flush()
                await self._wait_for_window()
                continue
            piece, view = view[:window], view[window:]
            self.connection.send_data(self.stream_id, bytes(piece), end=end and not view)
            self._window_clock.took(len(piece))
            self._shared_clock.took(len(piece))
            frames += 1
            if view and frames % _FRAMES_AT_ONCE == 0:
                await self.flush()
        if end and not self.finished:
            if not data:
                self.connection.send_data(self.stream_id, b"", end=True)
            await self.answered()
        else:
            await self.flush()

    async def send_trailers(self, headers: Fields) -> None:
        """The trailer section, which ends the answer."""
        self.put_head()
        self.connection.sender.trailers(self.stream_id, sendable(headers))
        await self.answered()

    async def answered(self) -> None:
        """All has been said. A body that the client is still sending is of no use to anybody.

        Raises:
            ClientLeft: it could not be sent.
        """
        self.finished = True
        complete = self.inbox.complete
        self.inbox.leave()
        self.tell({})
        await self.connection.answered(self, complete=complete)
        if self.connection.sender.broken:
            self.gone = True
            raise ClientLeft("the client has gone, or does not read")

    async def _wait_for_window(self) -> None:
        self.window_opened = trio.Event()
        if self.finished or self.connection.sender.window(self.stream_id) > 0:
            return  # it was opened while we wrote
        clocks = [self._window_clock]
        if self.connection.sender.connection_window <= 0:
            clocks = [self._shared_clock, self.connection.window_clock]
        for clock in clocks:
            clock.begin()
        try:
            # Other streams may make progress meanwhile, which moves the connection's deadline.
            while (deadline := min(clock.deadline for clock in clocks)) > trio.current_time():
                with trio.CancelScope(deadline=deadline) as scope:
                    await self.window_opened.wait()
                if not scope.cancelled_caught:
                    return
        finally:
            for clock in clocks:
                clock.end()
        await self.connection.cut(self, ErrorCodes.CANCEL, WRITE_TIMEOUT)

    async def flush(self) -> None:
        """Have written what is to be sent. A stream that waits too long for the socket loses its answer."""
        with trio.CancelScope(deadline=self._shared_clock.begin()) as scope:
            try:
                await self.connection.sender.flush()
            finally:
                await self._shared_clock.end_write()
        if scope.cancelled_caught:
            await self.connection.cut(self, ErrorCodes.CANCEL, WRITE_TIMEOUT)


def sendable(headers: Fields) -> Fields:
    """Fields as HTTP/2 may bear them."""
    lower = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    return [field for field in lower if field[0] not in CONNECTION_SPECIFIC]
