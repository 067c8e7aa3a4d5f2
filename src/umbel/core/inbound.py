"""Interface between a server and the application that answers its requests, without ASGI.

Theory
------
A server reads the head of a request, makes an ``InboundRequest`` of it, and awaits ``application.handle(request)``.
The request is also the way to answer: there is no second object and there are no messages.

**The response** is given in one of three ways, once:

- whole: ``respond(status, fields, body)``. It does not wait. It returns False if the socket has not taken all of it;
  then ``await drained()`` waits for the rest. (A server that can only wait keeps all of it until ``drained``.)
- in parts: ``await start(status, fields)``, ``await send(data)`` any number of times, ``await finish(data)``. The head
  goes out with the first part, so that whatever fails before that can still be answered in another way.
- as another protocol: ``await take(status, fields)`` gives the bytes of both directions.

The server adds Date, the framing and Connection. It leaves out the content of a response that has none (to HEAD, with
204 and 304) and holds a Content-Length among ``fields`` to the content. Fields have names in lower case.

**The body** of the request is pulled: ``await receive()`` gives the next part, and ``b""`` at the end. Nothing is read
before that. ``Expect: 100-continue`` is answered by the first ``receive``. A body that is too large, too slow or
malformed is refused by the server itself: ``receive`` raises ``AnsweredByServerError``.

**The client's leaving.** A client that ends its sending before the application waits for the first time has closed its
half, and gets its response. After that it has left. The application says by ``on_gone(callback)`` that it begins to
wait. From then on ``callback()`` is called, once and synchronously, when the client leaves, as long as ``handle`` runs.
It must not raise and must do little. Sending to a client that has left, or that does not read, raises
``ClientGoneError``. ``gone`` says whether the client has left. An application should start nothing for such a client,
but it may end as it likes.

**Foreign code.** ``handle`` runs in a task that serves further requests of the same connection afterwards. So it must
leave nothing behind in that task: no context variable and no cancel scope. Code that is not under the control of Umbel
runs by ``await run_apart(work)``: with a copy of the context variables, and in a scope that ``cancel_apart(reason)``
cancels. The server cancels ``handle`` only together with the connection (when the grace of a drain is over).

**The record.** There is exactly one access record per request. An application that keeps records hands it over by
``file_record``. The server writes it at the request's end, because only then it is known what the client got: where the
server has answered in the application's place, the record is corrected. Of a request whose application files nothing,
the server writes a record only where it answered by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .events import Recorder, RequestEnded
    from .failure_kinds import Kind

Field = tuple[bytes, bytes]
"""A header field. Names are in lower case."""

DISCARD_MAX = 64 * 1024
"""Bytes of a body that nobody read which a server reads behind the response, so that the connection can serve on."""


class ClientGoneError(OSError):
    """The client has gone, or does not read: nothing more can be sent. (ASGI: ``send`` raises an OSError.)"""


class AnsweredByServerError(ClientGoneError):
    """The server has answered in the application's place, because the body cannot be read on."""

    def __init__(self, status: int, kind: Kind, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.request_id = request_id
        """That stands in the response."""


class RequestHead(NamedTuple):
    """Head of a request."""

    method: str
    target: bytes
    fields: Sequence[Field]


class ByteStream(Protocol):
    """The bytes of both directions of a connection, or of a stream of one, after ``InboundRequest.take``."""

    async def receive_some(self) -> bytes:
        """What the client sends; empty once it has ended its sending, or has gone.

        Raises:
            trio.ClosedResourceError: the stream was closed from this side.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of it, also where the caller is cancelled: each wait for the client has a deadline of its own.

        Raises:
            ClientGoneError: the client has gone, or does not read.
        """
        ...

    async def send_eof(self) -> None:
        """Say that nothing more is sent. Does nothing if the client has gone."""
        ...


class InboundRequest(Protocol):
    """Inbound request, and the way to answer it. See the module."""

    @property
    def method(self) -> str:
        """As it came: methods are case-sensitive."""
        ...

    @property
    def target(self) -> bytes:
        """In origin form (``/path?query``), or ``*``."""
        ...

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header fields in their order, values without blanks around them. Never changed."""
        ...

    @property
    def version(self) -> str:
        """``1.0``, ``1.1`` or ``2``."""
        ...

    @property
    def scheme(self) -> str:
        """``http``, or ``https`` on a connection with TLS."""
        ...

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address and port; None on a Unix socket."""
        ...

    @property
    def local(self) -> tuple[str, int | None] | None:
        """The server's own address and port; of a Unix socket its path and None."""
        ...

    @property
    def client_certificate(self) -> bytes | None:
        """The certificate (DER) that the client has shown and the server has verified."""
        ...

    @property
    def started(self) -> float:
        """When the head was complete, in ``trio.current_time()``."""
        ...

    @property
    def content_length(self) -> int | None:
        """Bytes of the request's body: 0 if it has none, None if it is not known."""
        ...

    @property
    def websocket(self) -> bool:
        """Whether it is the handshake of a WebSocket: an Upgrade (RFC 6455), or an extended CONNECT (RFC 8441)."""
        ...

    # The body.

    async def receive(self) -> bytes:
        """The next part of the body, at least one byte; empty at its end.

        Raises:
            AnsweredByServerError: the body cannot be read on, and the server has answered so.
            ClientGoneError: the client left in the middle of its body.
        """
        ...

    @property
    def body_complete(self) -> bool:
        """Whether ``receive`` has given all of the body, so that it would give nothing more than its end."""
        ...

    def take_at_most(self, size: int) -> None:
        """The application takes no more than ``size`` bytes of body: one of unknown length need not have more time."""

    discard_max: int
    """A body of known length that nobody reads is read behind the response if no more than this is left of it; else a
    connection of HTTP/1.1 ends. HTTP/2 ends the stream alone."""

    # The client's leaving.

    @property
    def gone(self) -> bool:
        """Whether the client has left, or is treated so."""
        ...

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """Call ``callback()`` once when the client leaves, at once if it has left already; None: call nobody any more.

        The first call says that the application is about to wait; see the module.
        """

    # The response.

    @property
    def status(self) -> int:
        """The status of the response that the application has given; 0 before."""
        ...

    @property
    def response_complete(self) -> bool:
        """Whether the whole response has been handed to the client's socket."""
        ...

    @property
    def can_respond(self) -> bool:
        """Whether no byte of a response has gone out, so that another response can still be given."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Bytes of content that have been sent."""
        ...

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Give the whole response without waiting; False: ``await drained()`` is still to be called.

        Raises:
            ClientGoneError: nobody is there to take it.
            RuntimeError: a field is malformed, or the content is not as long as its Content-Length says.
        """
        ...

    async def drained(self) -> None:
        """Wait until the client's socket has taken all of the response.

        Raises:
            ClientGoneError: the client has gone, or does not read.
        """

    @property
    def takes_trailers(self) -> bool:
        """Whether the client says that it reads trailer fields."""
        ...

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """Begin a response whose content comes in parts. Sends nothing yet. ``trailers``: some will follow it.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """

    async def send(self, data: bytes) -> None:
        """Send a part of the content; returns when less than 64 KiB wait for the client. Has a checkpoint.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> None:
        """End the response that ``start`` has begun, with a last part and, where ``start`` said so, with trailers.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """Send an interim response (1xx but 101), where the client's version knows them.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """Answer with a head alone, and give the bytes of both directions to the application.

        HTTP/1.1: ``status`` is 101, and ``fields`` name the protocol in Upgrade. HTTP/2: the response to an extended
        CONNECT (RFC 8441) is 200. The connection, or the stream, ends with ``handle``.

        What the client sends before that is kept for the stream, within bounds. From here on the end of what the
        client sends is reported by ``receive_some``, behind all that came before it, and a reset by ``on_gone``.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """
        ...

    def cut(self, reason: str) -> None:
        """End a response in its middle so that the client notices: by a reset of the stream or of the connection."""

    # Foreign code, and the record.

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """Await what is not Umbel's own with a copy of the context variables; what it raises passes.

        ``begins_to_wait()`` is called before it waits for the first time, if it waits; it is the place to call
        ``on_gone``, and must not raise.
        """

    def cancel_apart(self, reason: str) -> None:
        """Cancel what ``run_apart`` runs. A connection of HTTP/1.1 ends then, with or without a response."""

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Have ``recorder`` take this record at the request's end; see the module."""

    crash_recorded: bool
    """Set by an application whose record says why its response ends in the middle, so that the server adds no other."""


class InboundApplication(ABC):
    """Application that answers requests without ASGI. Any other one is served through ``server.asgi``."""

    @abstractmethod
    async def handle(self, request: Any) -> None:
        """Answer an ``InboundRequest``. What it raises is logged, and answered with 500 where nothing was sent yet."""

    @abstractmethod
    def error_response_fields(self, head: RequestHead | None) -> Sequence[Field]:
        """The fields of a response that the server gives by itself; ``head`` is None where it could not be read."""
