"""One request and its response, as ASGI: the ``receive`` and the ``send`` of an application.

Made by ``http1.py`` for each request, and used in the connection's own task. It reads from the connection only what the
application asks for, and writes as soon as the application speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ..core.inbound import ClientGoneError
from .body import Body, BodyRefused
from .clocks import BodyClock
from .ending import Said
from .fairness import CALLS_PER_TURN, BoundedCalls
from .refusal import Refusal, new_request_id, told
from .response import CONTINUE, NO_CONTENT, STATUS_LINES, ApplicationError, Fields, read_fields
from .upload_places import SMALL_BODY, UploadPlace
from .wire import has_left

if TYPE_CHECKING:
    from ..events import Recorder, RequestEnded
    from .head import Head
    from .http1 import Http1Connection

Message = Mapping[str, Any]

ASGI = {"version": "3.0", "spec_version": "2.5"}
"""What a scope says of the specification that it follows."""
CANCELS = "umbel.cancels"
"""The key in ``scope["extensions"]`` of whoever cancels an application whose client leaves, a ``Canceller``.

While nobody waits in its ``receive`` it cancels the application, with the reason ``client-gone`` where the client left
by itself. So who was given that very ``receive`` need not listen to it, except for the body.
"""
_JOINED_MAX = 256 * 1024
"""Up to this a head and its body go out in one piece, at the price of a copy."""


class Canceller(Protocol):
    """What stands under ``CANCELS``."""

    @property
    def gone(self) -> bool:
        """Whether the client has left, or is treated so."""
        ...

    crash_recorded: bool
    discard_max: int
    """What is left of a body of known length that nobody read is read behind the answer, if it is no more than that;
    else a connection of HTTP/1.1 ends. HTTP/2 ends the stream alone."""

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Take the application's record of the request."""
        ...

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        ...

    def take_at_most(self, size: int) -> None:
        """The application takes no more than ``size`` bytes of body: one of unknown length need not have more time."""


ClientLeft = ClientGoneError


# How far a response is. Plain numbers, because they are compared several times per request.
_NOTHING, _HEAD, _BODY, _TRAILERS, _DONE = range(5)
"""In ``_HEAD`` the application has given its head, which goes out with the first of the body."""


class Exchange(BoundedCalls):
    """One request on its way through an application."""

    # Not __slots__: most of these stay as they are here for nearly every request.
    _body: Body | None = None
    """Until its last byte has been handed on."""
    _end_told = False
    _body_clock: BodyClock
    """Of a request with a body."""
    _body_size = 0
    """Bytes that the body has, or may have at most where nobody knows."""
    upload: UploadPlace | None = None
    """What the request counts as, where its body was waited for; else it is in flight."""
    _listeners = 0
    """Tasks that wait in ``receive``, and so will hear that the client has gone."""
    _over: trio.Event | None = None
    bytes_sent = 0
    """Of the content, as far as the application has sent it."""
    _at = _NOTHING
    _status = 0
    _fields: Fields | None = None
    _wants_trailers = False
    _trailing = False
    """Whether the last chunk has gone out, and trailer fields follow."""
    _chunked = False
    _left: int | None = None
    """Bytes that Content-Length still promises."""
    _mute = False
    """Whether the content is not sent: HEAD, 204, 304."""

    def __init__(self, connection: Http1Connection, head: Head) -> None:
        self._connection = connection
        self._method = head.method
        self._meaning = meaning = head.meaning
        self.keep_alive = meaning.keep_alive
        if meaning.length:
            limits = connection.service.limits
            self._body = Body(meaning.length, limits)
            self._body_clock = BodyClock(limits)
            self._body_size = meaning.length if meaning.length > 0 else limits.max_body

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: parts of the body, then a disconnect once there is one or the response is sent."""
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if self.gone or self._at is _DONE:
            await self.count_late_call()
            return _DISCONNECT
        if self._body is not None:
            return await self._receive_body(self._body)
        if not self._end_told:
            self._end_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._over is None:
            self._over = trio.Event()
        self._listeners += 1
        try:
            await self._over.wait()
        finally:
            self._listeners -= 1
        return _DISCONNECT

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            ClientLeft: nobody is there to read it.
            ApplicationError: the message does not fit those before it.
        """
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if self.gone or self._at is _DONE:
            await self.count_late_call()
        if self.gone:
            raise ClientLeft("the client has gone")
        kind = message["type"]
        if kind == "http.response.body" and _HEAD <= self._at <= _BODY:
            body, more = message.get("body", b""), message.get("more_body", False)
            if self._at is _HEAD:
                await self._send_first(body, more)
            else:
                self._spend(len(body), more)
                await self._put(body, more)
            if more:
                # An application that only ever sends must let others have their turn.
                await trio.lowlevel.checkpoint()
        elif kind == "http.response.start" and self._at is _NOTHING:
            self._status = message["status"]
            if self._status not in STATUS_LINES:
                raise ApplicationError(f"the application answered with the status {self._status!r}")
            self._fields = read_fields(message.get("headers", ()))
            self._wants_trailers = bool(message.get("trailers", False))
            self._at = _HEAD
        elif kind == "http.response.trailers" and self._at is _TRAILERS:
            await self._send_trailers(message)
        else:
            raise ApplicationError(f"the application sent {kind!r} out of turn")

    def take_at_most(self, size: int) -> None:
        """As ``Canceller`` says."""
        if self._meaning.length < 0:
            self._body_size = min(self._body_size, size)

    def stop_endless(self, reason: str) -> None:
        """Cancel the application."""
        self._connection.service.note_endless(reason)
        self._connection.cancel(reason)

    # What the connection asks and tells.

    @property
    def answered(self) -> bool:
        """Whether the whole response has been handed to the socket."""
        return self._at is _DONE

    @property
    def status(self) -> int:
        """The status that the application has given; 0 before."""
        return self._status

    @property
    def begun(self) -> bool:
        """Whether the application has given the head of its response."""
        return self._at is not _NOTHING

    @property
    def unanswered(self) -> bool:
        """Whether no byte of a response has gone out."""
        return self._at <= _HEAD

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end tells the client where the content ends."""
        return not self.unanswered and self._left is None and not self._chunked and not self._mute

    @property
    def body_is_read(self) -> bool:
        """Whether nothing of the request is left in the connection."""
        return self._body is None

    def client_left(self) -> None:
        """The client has gone: whoever listens is told, and if nobody does the application is cancelled."""
        if self.gone or self._at is _DONE:
            return
        self.gone = True
        self._tell()
        if not self._listeners:
            self._connection.cancel()

    def departed(self, reset: bool) -> None:
        """The client's end of the stream has come, perhaps behind bytes that nobody has read."""
        if reset:
            self.client_left()
        elif self._body is not None and self._listeners:
            pass  # Somebody is reading the body, and will see whether it was whole.
        elif not self._connection.half_closed:
            self.client_left()

    async def discard_body(self) -> bool:
        """Read what nobody read of the body; whether the connection can serve on."""
        body = self._body
        if body is None:
            return True
        if body.left is None or body.left > self.discard_max:
            return False
        # It has a time of its own: the application may have waited for the beginning.
        self._body_clock, self._body_size = BodyClock(self._connection.service.limits), body.left
        try:
            while not body.ended:
                data = self._connection.take_buffer() or await self._more()
                if not data:
                    return False
                _, self._connection.buffer = body.feed(data)
        except BodyRefused:
            return False
        self._body = None
        return True

    # The request's body.

    async def _receive_body(self, body: Body) -> Message:
        content = b""
        self._listeners += 1
        try:
            while not content and not body.ended:
                data = self._what_is_there(body)
                if data is None:
                    data = await self._more_of(body)
                if not data:
                    self.client_left()
                    return _DISCONNECT
                content, self._connection.buffer = body.feed(data)
            if body.ended and self.upload is not None and not self.begun:
                _pass(self.upload.complete())
        except BodyRefused as error:
            return await self._refuse(error.refusal)
        finally:
            self._listeners -= 1
        if body.ended:
            self._body = None
            self._end_told = True
            self._connection.half_closed = has_left(self._connection.wire.fd)
        return {"type": "http.request", "body": content, "more_body": not body.ended}

    def _what_is_there(self, body: Body) -> bytes | None:
        """The connection's next bytes, where no wait is needed; empty at its end, None if a wait is needed."""
        connection = self._connection
        if connection.buffer:
            return connection.take_buffer()
        if self.upload is None and body.left is not None and body.left <= SMALL_BODY:
            return connection.wire.receive_now()
        return None

    async def _more_of(self, body: Body) -> bytes:
        """The connection's next bytes, for which the request becomes an upload; empty at the connection's end.

        Raises:
            BodyRefused: 503, there are too many uploads; 408, the bytes come too slowly.
        """
        connection = self._connection
        if self.upload is None:
            self.upload = UploadPlace(connection.service)
        small = body.left is not None and body.left <= SMALL_BODY
        _pass(await self.upload.begin(partial(self._all_has_come, body.left or 0) if small else None))
        if self._meaning.expects_continue and not body.received and self.unanswered and not connection.buffer:
            await self._write(CONTINUE)
        return connection.take_buffer() or await self._more()

    async def _all_has_come(self, left: int) -> None:
        """Wait until the connection's buffer holds the ``left`` bytes of the body, or there is no more."""
        connection = self._connection
        while len(connection.buffer) < left and (data := await connection.wire.receive()):
            connection.buffer += data

    async def _more(self) -> bytes:
        """Wait for the connection's next bytes; empty at its end.

        Raises:
            BodyRefused: 408, they come too slowly. Only the time that we wait for them counts.
        """
        clock, began = self._body_clock, trio.current_time()
        with trio.CancelScope(deadline=began + clock.left(self._body_size)) as scope:
            data = await self._connection.wire.receive()
        if scope.cancelled_caught:
            raise BodyRefused(Refusal(408, "The body did not arrive in time."))
        clock.waited(trio.current_time() - began)
        return data

    async def _refuse(self, refusal: Refusal) -> Message:
        """Answer in the application's place, if nothing has been answered; it hears of it with its disconnect."""
        message: Message = _DISCONNECT
        if self.unanswered:
            request_id = new_request_id()
            self.keep_alive = False
            try:
                sent = await self._connection.refuse(refusal, request_id, self._method)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.client_left()
                return _DISCONNECT
            self.said = Said(refusal, request_id, sent, told=True)
            message = told(refusal, request_id)
        self._connection.lingers = True
        self.gone = True
        self._tell()
        return message

    # The response.

    async def _send_first(self, body: bytes, more: bool) -> None:
        """Send the head with what there is of the body."""
        fields, connection, status = self._fields, self._connection, self._status
        assert fields is not None
        self._mute = self._method == "HEAD" or status in NO_CONTENT
        lines, framing, self._left = fields.lines, b"", fields.length
        if self._left is None:
            framing = self._framing(len(body), more)
        elif status == 204:
            lines = lines.replace(b"content-length: %d\r\n" % self._left, b"")
        self._spend(len(body), more)
        if self.keep_alive and (fields.close or not connection.keeps_alive() or not self._rest_is_small()):
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self._meaning.version == "1.0":
            framing += b"connection: keep-alive\r\n"
        own = connection.service.own_fields.lines(dated=fields.dated)
        head = b"".join((STATUS_LINES[status], own, lines, framing, b"\r\n"))
        self._at = _BODY
        if more or self._mute or self._chunked or len(body) > _JOINED_MAX:
            await self._put(body, more, head)
        else:
            await self._write(head + body)
            self._finish()

    def _framing(self, size: int, more: bool) -> bytes:
        """How the end of a body is told whose length the application has not."""
        if not more and not self._wants_trailers:
            if self._status in NO_CONTENT or (self._mute and not size):
                return b""
            self._left = size
            return b"content-length: %d\r\n" % size
        if self._mute:
            return b""
        if self._meaning.version == "1.1":
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.keep_alive = False
        return b""

    def _rest_is_small(self) -> bool:
        """Whether what nobody has read of the body can be read later."""
        body = self._body
        if body is None:
            return True
        # A client that waits for its 100 may send it or may not.
        waits = self._meaning.expects_continue and not body.received
        return not waits and body.left is not None and body.left <= self.discard_max

    def _spend(self, size: int, more: bool) -> None:
        """Hold the application to its Content-Length, before anything goes out that breaks it."""
        if self._mute:
            return
        if self._left is not None:
            if size > self._left:
                raise ApplicationError("the application sent more than its Content-Length")
            self._left -= size
            if not more and self._left:
                raise ApplicationError(f"the application sent {self._left} bytes less than its Content-Length")
        self.bytes_sent += size

    async def _put(self, body: bytes, more: bool, before: bytes = b"") -> None:
        if self._mute:
            data = before
            if more and not self.leave_unsent(len(body), self._connection.service.limits.write_timeout):
                self._connection.lingers = self.gone = True
                self._tell()
                raise ClientLeft("the response has no content, and the client takes none")
        elif self._chunked:
            data = before
            if body:
                data = b"%b%x\r\n%b\r\n" % (before, len(body), body)
            if not more and not self._wants_trailers:
                data += b"0\r\n\r\n"
        elif before and len(body) > _JOINED_MAX:
            await self._write(before)
            data = body
        else:
            data = before + body if before else body
        if data:
            await self._write(data)
        if not more:
            if self._wants_trailers and self._chunked:
                self._at = _TRAILERS
            else:
                self._finish()

    async def _send_trailers(self, message: Message) -> None:
        fields = read_fields(message.get("headers", ()))
        more = message.get("more_trailers", False)
        await self._write(b"%b%b%b" % (b"" if self._trailing else b"0\r\n", fields.lines, b"" if more else b"\r\n"))
        self._trailing = True
        if not more:
            self._finish()
        else:
            await trio.lowlevel.checkpoint()

    def _finish(self) -> None:
        self._at = _DONE
        if self._over is not None:
            self._tell()

    def _tell(self) -> None:
        if self._over is not None:
            self._over.set()

    async def _write(self, data: bytes) -> None:
        """Hand bytes to the socket.

        Raises:
            ClientLeft: it takes no more, or not within its deadline.
        """
        connection = self._connection
        try:
            sent = connection.wire.send_now(data)
            connection.sent_now += sent
            if sent != len(data):
                await connection.write(data, sent)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            self.client_left()
            raise ClientLeft("the client has gone, or does not read") from error


def _pass(refusal: Refusal | None) -> None:
    """Go on unless there is a refusal.

    Raises:
        BodyRefused: there is one.
    """
    if refusal is not None:
        raise BodyRefused(refusal)


_DISCONNECT = {"type": "http.disconnect"}
