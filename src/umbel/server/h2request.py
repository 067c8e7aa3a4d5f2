"""One HTTP request over HTTP/2, as ASGI: the ``receive`` and the ``send`` of its application.

Made by ``h2.py``. Hypercorn's ``HTTPStream`` makes the scope and translates the messages of an answer; how much may
come, how slowly, and what is said to a client that breaks a rule is decided here, as ``exchange.py`` decides it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.protocol import events
from hypercorn.protocol.http_stream import HTTPStream

from .clocks import BodyClock
from .exchange import ASGI, CANCELS, ClientLeft
from .h2head import Head
from .h2stream import Message, Stream
from .http1.body import too_large
from .refusal import Refusal
from .response import STATUS_LINES, ApplicationError
from .upload_places import UploadPlace

if TYPE_CHECKING:
    from .h2 import Http2

Send = Callable[[Any], Awaitable[None]]


class HttpStream(Stream):
    """A stream whose application speaks HTTP."""

    def __init__(self, connection: Http2, stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id, head)
        self._disconnect: Message = {"type": "http.disconnect"}
        self._listeners = 0
        """Tasks that wait in ``receive``, and so will hear that the client has gone."""
        self._body_clock = BodyClock(connection.service.limits)
        self._body_size = connection.service.limits.max_body if head.content_length is None else head.content_length
        """Bytes that the body has, or may have at most where nobody knows."""
        self._last = False
        """Whether the message that is being sent ends the body and has no trailers behind it."""
        self._has_trailers = False
        self._must_continue = head.expects_continue
        self._call: tuple[Message, Send] | None = None
        service, peer = connection.service, connection.peer
        make: Any = HTTPStream  # its types want Hypercorn's own objects; ours have what it uses of them
        ends = (peer.secure, peer.client, peer.server)
        self._hypercorn: HTTPStream = make(service.app, service.config, None, self, *ends, self._on_event, stream_id)

    async def call_application(self) -> None:
        """Have Hypercorn make the scope, and call the application with it."""
        state: Any = self.connection.service.state
        head = self.head
        await self._hypercorn.handle(
            events.Request(self.stream_id, head.fields, "2", head.method, head.path, state)  # calls ``spawn_app``
        )
        if self._call is not None:
            scope, self._to_hypercorn = self._call
            await self.connection.service.app(scope, self.receive, self.send)
        if not self.finished and not self.crash_recorded:
            raise ApplicationError("the application returned without a whole response")

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Send) -> Callable[[Any], Awaitable[None]]:
        """What Hypercorn's stream asks of a task group. The application runs in this stream's own task instead."""
        scope["extensions"].pop("http.response.push", None)  # no client takes it (RFC 9113, appendix B)
        scope["extensions"][CANCELS] = self
        scope["asgi"] = ASGI  # Hypercorn's says less than ours does: a send after the client's leaving raises
        self._call = scope, send
        return self._put

    async def _put(self, message: Any) -> None:
        """Hypercorn's messages to the application, which has the body and the disconnect from ``receive``."""

    def tell(self, told: Message) -> bool:
        """Whoever waits in ``receive`` is woken by the inbox."""
        self._disconnect.update(told)
        self._hypercorn.closed = True
        return self._listeners > 0

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``. A body that is too slow or too large is refused, of which the disconnect tells."""
        await self.count_call()
        if self.inbox.gone:
            await self.count_late_call()
            return self._disconnect
        self._listeners += 1
        try:
            if self.inbox.awaited:
                await self._wait_for_body()
            else:
                await trio.lowlevel.checkpoint()
                await self.inbox.changed()
            if self.inbox.received > self.connection.service.limits.max_body:
                await self._refuse(too_large(self.connection.service.limits))
            elif (refusal := self._refused_when_complete()) is not None:
                await self._refuse(refusal)
        finally:
            self._listeners -= 1
        if self.inbox.gone:
            return self._disconnect
        data, more = self.inbox.take()
        await self.flush()
        return {"type": "http.request", "body": data, "more_body": more}

    def _refused_when_complete(self) -> Refusal | None:
        """Why the request, whose body was waited for and is complete, is not in flight again; None where it is."""
        if self.upload is None or not self.inbox.complete or self.inbox.gone or self.answering:
            return None
        return self.upload.complete()

    async def _wait_for_body(self) -> None:
        """Wait until something comes, as an upload; only the time that we wait counts against the client."""
        inbox, clock = self.inbox, self._body_clock
        if self.upload is None:
            self.upload = UploadPlace(self.connection.service)
        if (refusal := await self.upload.begin(inbox.completed)) is not None:
            await self._refuse(refusal)
            return
        if self._must_continue and not self.answering:
            self._must_continue = False
            await self.send_head(100, [])
        began = trio.current_time()
        with trio.CancelScope(deadline=began + clock.left(self._body_size)) as scope:
            await inbox.changed()
        clock.waited(trio.current_time() - began)
        if scope.cancelled_caught:
            await self._refuse(Refusal(408, "The body did not arrive in time."))

    def take_at_most(self, size: int) -> None:
        """As ``Canceller`` says."""
        if self.head.content_length is None:
            self._body_size = min(self._body_size, size)

    async def _refuse(self, refusal: Refusal) -> None:
        self.connection.refuse(self, refusal)
        await self.connection.sender.flush()

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            ClientLeft: nobody is there to read it.
            ApplicationError: the message breaks a rule.
        """
        await self.count_call()
        if self.finished:
            await self.count_late_call()
        if self.gone:
            raise ClientLeft("the client has gone")
        if message["type"] == "http.response.start":
            if message["status"] not in STATUS_LINES:
                raise ApplicationError(f"the application answered with the status {message['status']!r}")
            self._has_trailers = bool(message.get("trailers", False))
        more = message.get("more_body", False)
        self._last = message["type"] == "http.response.body" and not more and not self._has_trailers
        await self._to_hypercorn(message)
        if more and self.bodiless and not self.finished:
            await self._leave_unsent(len(message.get("body", b"")))
        if self.gone:
            raise ClientLeft("the client has gone, or does not read")

    async def _leave_unsent(self, size: int) -> None:
        """Take a part of content that is not sent. The client gets the head now, and at the bound the end."""
        self.put_head()
        await self.connection.sender.flush()
        if not self.leave_unsent(size, self.connection.service.limits.write_timeout):
            await self.send_data(b"", end=True)
            self.gone = True
        await trio.lowlevel.checkpoint()

    async def _on_event(self, event: events.Event) -> None:
        """What Hypercorn makes of the application's messages."""
        if self.finished:
            await trio.lowlevel.checkpoint()
        elif isinstance(event, events.Response | events.InformationalResponse):
            await self.send_head(event.status_code, event.headers)
        elif isinstance(event, events.Body):
            await self.send_data(event.data, end=self._last)
        elif isinstance(event, events.EndBody):
            await self.send_data(b"", end=True)
        elif isinstance(event, events.Trailers):
            await self.send_trailers(event.headers)
