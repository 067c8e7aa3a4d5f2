"""Interface between a server and the application that answers its requests, without ASGI.

Theory
------
A server reads the head of a request, makes an ``InboundRequest``, and awaits ``application.handle(request)``. The
application reads the request and sends the response through this one object.

**Response.** The application gives the response once, in one of three ways:

- whole: ``respond(status, fields, body)``, which does not wait. It returns False if the socket has not taken all of the
  response; then ``await drained()`` waits for the rest.
- in parts: ``await start(status, fields)``, then ``await send(data)`` any number of times, then ``await finish(data)``.
  The head is sent together with the first part, or alone by ``send(b"")``. If ``handle`` raises before that, the server
  sends an error response instead. Each part is written at once, however small; ``send`` returns when the socket has
  taken it, so the server holds at most one part.
- as another protocol: ``await take(status, fields)`` sends the head and returns a stream of bytes in both directions.

The server adds the framing, Date if ``fields`` has none, and in HTTP/1.1 Connection where it is needed. It omits the
content where HTTP allows none (HEAD, 204, 304), and otherwise checks that the content is as long as a Content-Length in
``fields`` says. Names of fields are in lower case.

**Request body.** ``await receive()`` returns the next part, and ``b""`` at the end. What the application has not
received is bounded: HTTP/1.1 reads on only when ``receive`` is called, HTTP/2 up to the flow-control window of the
stream (64 KiB), which opens by what ``receive`` returns. A ``receive`` that must wait first sends 100 (Continue) if the
client expects it (``expects_continue``) and ``inform(100)`` has not sent it. If the body is too large, too slow or
malformed, or the server has no capacity for an upload, the server sends an error response itself, and ``receive``
raises ``AnsweredByServerError``. If a response has begun, it is cut off instead, and ``receive`` raises
``ClientGoneError``.

**Bodies that are passed on.** An application that does not keep the body calls ``take_any_size`` before it receives:
then the body may have any size and last for any time, as long as each 64 KiB of it come in time. A declared length
above ``[server] max_body`` is refused before ``handle`` is called, unless ``InboundApplication.takes_any_size`` says
otherwise for the head.

**Streams.** A request counts in ``[server] max_in_flight``, or in ``max_uploads`` while the server waits for its body.
A response that lasts long must not hold that place: ``became_stream()`` has the request count in ``max_streams`` to its
end instead. ``take`` makes each request a stream. From then on the server does not bound the silence of a client that
sends a body; the application does. ``on_drain(callback)`` tells a stream when to end.

**A client that leaves.** A client of HTTP/1.1 may close its sending half (TCP FIN) and still want the response, or it
may be gone; the two look alike. If ``receive`` finds that the sending has ended before the body was complete, the
client has left. Otherwise the first ``on_gone(callback)`` decides, which the application calls before it waits for
anything but the body. Before this call, the end of the client's sending is a half-close: the client gets its response.
Afterwards it means that the client has left, with two exceptions, which are half-closes too. First, it comes while
``receive`` reads the body. Second, the whole rest of a body that may have any size has come before it. (The second is
recognised only if the length is declared, and without TLS.) A broken connection always means that the client has left;
in HTTP/2 so does the end of the connection or a reset of the stream. If the client leaves before it has its response,
the server calls ``callback()`` once, synchronously; the callback must not raise or wait. ``gone`` is True from then on.
An application should not begin calls for a client that has left. Sending to a client that has left or does not read
raises ``ClientGoneError``.

**Foreign code.** In HTTP/1.1 ``handle`` runs in the connection's task, which serves the next request of the connection
afterwards; in HTTP/2 each request has a task. ``handle`` must leave no context variable and no cancel scope behind in
its task. Code that Umbel does not control (handlers, ASGI applications) runs in ``await run_apart(work)``: with context
variables that end with the request (a copy, where the task serves other requests), and in a cancel scope that
``cancel_apart(reason)`` cancels.

**Cancellation.** The server cancels ``handle`` only together with the connection: when the grace period of a shutdown
is over, at a second signal, or when a connection of the reserve for probes has used up its time. A client that leaves
does not cancel ``handle``; the callback decides what is cancelled.

**Access record.** The application gives its access record to ``file_record``. The server writes the record at the end
of the request, because only then the bytes sent and the status are certain: if the server itself has sent the response,
it corrects the record. An application that calls two others may file two records; then the server writes the first one
when the second is filed. If the application files no record, the server writes one only for a response that the server
itself has sent, or that ended early although the client stayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from .events import Recorder, RequestEnded
    from .failure_kinds import Kind

Field = tuple[bytes, bytes]
"""A header field: its name in lower case, and its value."""

DISCARD_MAX = 64 * 1024
"""Default maximum bytes of an unread request body that the server discards to keep the connection open."""


class PreparedFields:
    """The header fields of responses that differ only in the values of some fields, such as X-Request-Id.

    A server may keep in ``encoded`` what it has made of the fields: it checks and encodes the constant ones once.

    Args:
        fields: the fields in the order of sending; None in place of a value that each response has of its own. The
            names of these must be in lower case.
    """

    __slots__ = ("encoded", "fields")

    def __init__(self, fields: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.fields = tuple(fields)
        self.encoded: Any = None


class ResponseFields(Sequence[Field]):
    """The header fields of one response: ``PreparedFields``, and the values that are its own, in their order."""

    __slots__ = ("prepared", "values")

    def __init__(self, prepared: PreparedFields, values: tuple[bytes, ...]) -> None:
        self.prepared = prepared
        self.values = values

    def __len__(self) -> int:
        return len(self.prepared.fields)

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Field]:
        values = iter(self.values)
        for name, value in self.prepared.fields:
            yield name, next(values) if value is None else value


class ClientGoneError(OSError):
    """The exchange with the client is over.

    The client has left or does not read, or the server has ended the exchange (``AnsweredByServerError``, a drain, too
    much unsent content). ``receive`` and all sending methods raise it. It is an OSError, because ASGI demands one from
    ``send``.
    """


class AnsweredByServerError(ClientGoneError):
    """The server has sent an error response itself, because it cannot read the rest of the request body.

    Args:
        status: the status of the error response.
        kind: the failure kind for the access record.
        detail: the reason, in one sentence.
        request_id: the request id in the error response.
    """

    def __init__(self, status: int, kind: Kind, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.request_id = request_id


class RequestHead(NamedTuple):
    """Head of a request, and its connection. If the head could not be read, it has no fields."""

    method: str
    target: bytes
    fields: Sequence[Field]
    scheme: str
    """``https`` on a connection with TLS, else ``http``."""
    peer: tuple[str, int] | None
    """The client's address and port; None on a Unix socket."""


class ByteStream(Protocol):
    """Bytes in both directions of a connection, or of an HTTP/2 stream, after ``InboundRequest.take``."""

    async def receive_some(self) -> bytes:
        """Receive bytes of the client; ``b""`` at their end.

        That is once the client has ended its sending or has left, or this side has closed the stream.
        """
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``.

        Shielded from cancels, because a frame sent in part would corrupt the next one. Each wait for the client has a
        timeout instead.

        Raises:
            ClientGoneError: the client has left or does not read.
            trio.ClosedResourceError: HTTP/2, after ``send_eof``.
        """
        ...

    async def send_eof(self) -> None:
        """End the sending direction. Does nothing if the client has left."""
        ...


class InboundRequest(Protocol):
    """Inbound request, and the methods to answer it; see the module."""

    @property
    def method(self) -> str:
        """The method, unchanged: methods are case-sensitive."""
        ...

    @property
    def target(self) -> bytes:
        """The request target in origin form (``/path?query``), or ``*``."""
        ...

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header fields in order, values without surrounding whitespace."""
        ...

    @property
    def version(self) -> str:
        """The HTTP version: ``1.0``, ``1.1`` or ``2``."""
        ...

    @property
    def scheme(self) -> str:
        """``https`` on a connection with TLS, else ``http``."""
        ...

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address and port; None on a Unix socket."""
        ...

    @property
    def local(self) -> tuple[str, int | None] | None:
        """The server's own address and port; on a Unix socket its path and None."""
        ...

    @property
    def client_certificate(self) -> bytes | None:
        """The client's certificate (DER), which the TLS handshake has verified; None without one."""
        ...

    @property
    def started(self) -> float:
        """When the head was complete, in ``trio.current_time()``."""
        ...

    @property
    def content_length(self) -> int | None:
        """Bytes of the request body: 0 without a body, None if the length is unknown."""
        ...

    @property
    def websocket(self) -> bool:
        """Whether the request opens a WebSocket: an Upgrade (RFC 6455) or an extended CONNECT (RFC 8441)."""
        ...

    # Request body.

    receive_max: int
    """Most bytes that ``receive`` reads from the client's socket at once; may be changed between two calls. Only for a
    request with a body, and without effect over HTTP/2 and other servers."""

    async def receive(self) -> bytes:
        """Receive the next part of the body, at least one byte; ``b""`` at its end.

        Raises:
            AnsweredByServerError: the rest of the body cannot be read, and the server has sent an error response.
            ClientGoneError: the client left in the middle of its body.
        """
        ...

    @property
    def body_complete(self) -> bool:
        """Whether ``receive`` has returned the whole body, so that only ``b""`` can follow."""
        ...

    @property
    def expects_continue(self) -> bool:
        """Whether the client has sent ``Expect: 100-continue`` and still waits for the 100 (RFC 9110 section 10.1.1).

        False as soon as a 100 was sent, a part of the body has come or a response was begun.
        """
        ...

    def take_at_most(self, size: int) -> None:
        """Declare that the application reads at most ``size`` bytes of the body.

        The server then grants a body of unknown length only the time that ``size`` bytes need.
        """

    def take_any_size(self) -> None:
        """Declare that the application passes the body on as it comes, and keeps none of it. Before any ``receive``.

        ``[server] max_body`` and the bound on the whole time of the body do not hold then. A client that stalls is
        still refused: the waits add up to at most ``body_timeout`` and the time of 64 KiB at ``min_body_rate``, and
        each complete 64 KiB begin the sum anew; for a stream (``became_stream``) there is no bound. The body holds a
        place of ``max_uploads`` while it comes. When it is complete, the request is not refused for want of capacity.
        """

    # Streams.

    def became_stream(self) -> bool:
        """Count the request as a stream from now on: in ``[server] max_streams``, neither as in flight nor as upload.

        Returns False, and changes nothing, if no place is free, or if the request is over (``gone``,
        ``response_complete``). Further calls return True while the request lasts. Its end gives the place back.
        """
        ...

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once, synchronously, when the server begins to drain; at once if it drains.

        None: no callback. The callback must not raise or wait. It is not called after ``handle`` has returned. After
        the call the request has ``graceful_timeout`` of hypercorn.toml before it is cancelled.
        """

    @property
    def switched_at(self) -> float | None:
        """When the request was taken (``take``), in ``trio.current_time()``; None: it was not. For its record."""
        ...

    discard_max: int
    """Maximum bytes of an unread body of known length that the server reads and discards after the response. If more
    bytes are unread, HTTP/1.1 closes the connection; HTTP/2 ends only the stream."""

    # A client that leaves.

    @property
    def gone(self) -> bool:
        """Whether the client has left, or counts as having left."""
        ...

    def on_gone(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the client leaves; at once if it has left already. None: no callback.

        The first call says that the application is about to wait; see the module.
        """

    # Response.

    @property
    def status(self) -> int:
        """The status of the response that the application has given; 0 before."""
        ...

    @property
    def response_complete(self) -> bool:
        """Whether the whole response was handed to the connection, and no send of it has failed.

        Bytes of a complete response may still wait for the socket; ``drained`` waits for them.
        """
        ...

    @property
    def can_respond(self) -> bool:
        """Whether no byte of a response has been sent, so that an error response is still possible.

        After ``start`` only the server can send one.
        """
        ...

    @property
    def bytes_sent(self) -> int:
        """Bytes of response content that were given to be sent. The client may not have taken all of them."""
        ...

    def respond(self, status: int, fields: Sequence[Field], body: bytes) -> bool:
        """Give the whole response without waiting. After False, ``await drained()`` must follow.

        Raises:
            ClientGoneError: the client has left.
            RuntimeError: a response has begun already, the status is not final, a field is malformed, or the content is
                not as long as Content-Length says.
        """
        ...

    async def drained(self) -> None:
        """Wait until the client's socket has taken the whole response. A cancel leaves the response incomplete.

        Raises:
            ClientGoneError: the client has left or does not read.
        """

    @property
    def takes_trailers(self) -> bool:
        """Whether the client declares that it accepts trailer fields (``TE: trailers``)."""
        ...

    async def start(self, status: int, fields: Sequence[Field], *, trailers: bool = False) -> None:
        """Begin a response in parts, without sending anything yet. ``trailers``: ``finish`` will give trailer fields.

        Raises:
            ClientGoneError, RuntimeError: as ``respond``.
        """

    async def send(self, data: bytes) -> bool:
        """Send a part of the content, and wait until the client's socket has taken it.

        ``b""`` sends the head, if it was not sent before. Raises a pending cancel in any case. If the socket takes all
        at once, it lets other tasks run only when the turn of the event loop has lasted for a millisecond.

        Returns:
            whether the socket took all at once, as far as this is known.

        Raises:
            ClientGoneError: the client has left or does not read.
            RuntimeError: no response has begun or it has ended, or the content is longer than Content-Length says.
        """

    async def finish(self, data: bytes = b"", trailers: Sequence[Field] = ()) -> object:
        """End the response that ``start`` began, with a last part, and with trailers if ``start`` declared them.

        Waits until the client's socket has taken the response. Trailers are left out where the protocol or the client
        does not support them.

        Raises:
            ClientGoneError, RuntimeError: as ``send``; also if the content is shorter than Content-Length says.
        """

    async def inform(self, status: int, fields: Sequence[Field]) -> None:
        """Send an interim response (1xx but not 101). Does nothing for a client of HTTP/1.0.

        100 is sent only if the client waits for it (``expects_continue``); ``receive`` then sends none.

        Raises:
            ClientGoneError: the client has left or does not read.
            RuntimeError: a response has begun already, the status is no such one, or a field is malformed.
        """

    def inform_soon(self, status: int, fields: Sequence[Field]) -> None:
        """``inform`` without a wait: what the socket does not take goes out before the response.

        Does nothing if the client has left or a response was given. May be called by any task at any time.

        Raises:
            RuntimeError: the status is no such one, or a field is malformed.
        """

    async def take(self, status: int, fields: Sequence[Field]) -> ByteStream:
        """Send a head, and return the stream of bytes that follows in both directions.

        HTTP/1.1: ``status`` is 101 and ``fields`` has Upgrade. HTTP/2: ``status`` is 200, for an extended CONNECT (RFC
        8441). The connection or the HTTP/2 stream ends when ``handle`` returns. The request becomes a stream
        (``became_stream``, which tells before whether a place is free).

        ``status``, ``switched_at`` and ``bytes_sent`` (with the bytes of the stream) are for the access record;
        ``response_complete`` stays False.

        Bytes that the client has sent before are kept for the returned stream, within bounds. From now on
        ``receive_some`` reports the end of the client's sending, and ``on_gone`` reports a reset.

        Raises:
            ClientGoneError: the client has left or does not read.
            RuntimeError: a response has begun already, the request's body is unread, a field is malformed, or
                ``became_stream`` returns False.
        """
        ...

    def cut(self, reason: str) -> None:
        """Abort a response by a reset of the connection or of the HTTP/2 stream, so that the client sees an error."""

    # Foreign code, and the access record.

    async def run_apart(self, work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
        """Await ``work``, which runs foreign code, with context variables of its own. Its exceptions propagate.

        ``begins_to_wait()`` is called before the first wait of ``work``, if there is one; in HTTP/2 it is called in any
        case, before ``work`` begins. It is the place to call ``on_gone``, and must not raise.
        """

    def cancel_apart(self, reason: str) -> None:
        """Cancel the work of ``run_apart``. Umbel's server then closes an HTTP/1.1 connection; HTTP/2 goes on."""

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Have the server give the access record to ``recorder`` at the end of the request; see the module."""

    crash_recorded: bool
    """The application sets this if it has recorded why the response ends in its middle. The server then records no
    crash of its own."""


AnyHead = RequestHead | InboundRequest
"""The head of a request, alone or with all of the request."""


class InboundApplication(ABC):
    """Application that answers requests without ASGI."""

    @abstractmethod
    async def handle(self, request: Any) -> None:
        """Answer an ``InboundRequest``. The server logs an exception, and answers 500 if nothing was sent yet."""

    @abstractmethod
    def error_response_fields(self, head: AnyHead, fields: list[Field]) -> Sequence[Field]:
        """The header fields of a response of the server itself, made of the server's own ``fields``.

        ``head``: that of the refused request, or of one that ``is_preflight``.
        """

    def takes_any_size(self, head: AnyHead) -> bool:
        """Whether ``handle`` takes a request whose declared body is larger than ``[server] max_body``.

        It must then call ``InboundRequest.take_any_size`` before it receives, or ``receive`` refuses the body with 413.
        Asked only for such a request, before it is admitted. Must not wait.
        """
        return False

    def is_preflight(self, head: AnyHead) -> bool:
        """Whether a request is a preflight of CORS, to which a 204 with ``error_response_fields`` is the response.

        The server sends it itself where it lacks the capacity to admit the request. Must not wait.
        """
        return False
