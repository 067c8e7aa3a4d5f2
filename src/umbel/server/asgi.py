"""ASGI adapter: the scope, ``receive`` and ``send`` of one HTTP request, on top of an ``InboundRequest``.

Theory
------
``InboundRequest.run_apart`` runs the application, in an own context and cancel scope. What the application raises is
raised by ``serve``; the server's protocol then responds with 500 or cuts the response off.

**The client's leaving** is reported in one of two ways. If tasks of the application are in ``receive``, they get
``http.disconnect``, and the application ends in its own time. Otherwise the application is cancelled with the reason
``client-gone``. From then on ``send`` raises ``ClientGoneError``, an OSError (ASGI 2.4).

**Several tasks** of an application may call ``receive``. One of them waits for the body; the others wait for their turn
(``_turns``), and look again whenever a part was taken. After the body all wait for ``_over``.

**The extension** ``CANCELS`` of the scope holds the ``AsgiCycle``. If the ``receive`` of an application is a method of
that object, no middleware stands between the two. The server then cancels the application when the client leaves, so
the application needs no task that waits for a disconnect.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import trio

from ..core.failure_kinds import Kind
from ..core.inbound import AnsweredByServerError, ClientGoneError
from .limits.fairness import CALLS_PER_TURN, BoundedCalls
from .response.error_response import ErrorResponse, disconnect_with
from .response.response_head import ApplicationError

if TYPE_CHECKING:
    from ..core.events import Recorder, RequestEnded
    from ..core.inbound import Field, InboundRequest
    from .state import ServerState

Message = Mapping[str, Any]

ASGI = {"version": "3.0", "spec_version": "2.5"}
"""The versions in each scope."""
CANCELS = "umbel.cancels"
"""The key in ``scope["extensions"]`` of a ``Canceller``."""
_TRAILERS, _EARLY_HINT = "http.response.trailers", "http.response.early_hint"


class Canceller(Protocol):
    """What ``CANCELS`` gives an ASGI application: a server that cancels it when the client leaves.

    The server also writes the application's access record of the request.
    """

    @property
    def gone(self) -> bool:
        """Whether the client has left or is treated as if it had."""
        ...

    crash_recorded: bool
    """Whether the application has recorded why the response ends in its middle; see ``InboundRequest``."""
    discard_max: int
    """Maximum bytes of an unread body that the server reads and discards after the response; see ``InboundRequest``."""

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Have the server give the record ``ended`` to ``recorder`` at the end of the request."""
        ...

    async def receive(self) -> Message:
        """ASGI's ``receive``, to be compared with the one that the application was called with."""
        ...

    def take_at_most(self, size: int) -> None:
        """Bound the time for a body of unknown length to what ``size`` bytes need; see ``InboundRequest``."""

    def take_any_size(self) -> None:
        """Lift ``max_body`` and the bound on the whole time of the body; see ``InboundRequest``."""

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits for 100 (Continue); see ``InboundRequest``."""
        ...

    def became_stream(self) -> bool:
        """Count the request as a stream from now on; see ``InboundRequest``."""
        ...

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the server begins to drain; see ``InboundRequest``."""


# The states of a response. Plain numbers, because they are compared several times per request.
_NOTHING, _HEAD, _BODY, _TRAILING, _DONE = range(5)


def make_scope(request: InboundRequest, server: ServerState) -> dict[str, Any]:
    """The ASGI scope of an HTTP request."""
    raw_path, _, query = request.target.partition(b"?")
    path = raw_path.decode("ascii")
    extensions: dict[str, Any] = {}
    if request.takes_trailers:
        extensions[_TRAILERS] = {}
    if request.version == "2":
        extensions[_EARLY_HINT] = {}
    extensions |= tls_extension(request)
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": request.version,
        "method": request.method,
        "scheme": request.scheme,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": server.root_path,
        "headers": list(request.fields),
        "client": request.peer,
        "server": request.local,
        "state": server.lifespan_state.copy(),
        "extensions": extensions,
    }


def tls_extension(request: InboundRequest) -> dict[str, Any]:
    """The extension ``tls`` of a scope with the client's certificate (PEM); empty on a connection without TLS.

    What the server does not know of the connection is None. The client's chain is its certificate alone.
    """
    if request.scheme != "https":
        return {}
    certificate = request.client_certificate
    return {
        "tls": {
            "server_cert": None,
            "client_cert_chain": () if certificate is None else (ssl.DER_cert_to_PEM_cert(certificate),),
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": None,
            "cipher_suite": None,
        }
    }


class AsgiCycle(BoundedCalls):
    """``receive`` and ``send`` of one HTTP request for an ASGI application, which ``serve`` runs."""

    __slots__ = (
        "_app",
        "_at",
        "_calls",
        "_end_told",
        "_late_calls",
        "_listeners",
        "_over",
        "_reading",
        "_refused",
        "_request",
        "_server",
        "_trailers",
        "_turns",
        "_wants_trailers",
        "gone",
    )

    def __init__(self, app: Any, server: ServerState, request: InboundRequest) -> None:
        self._app = app
        self._server = server
        self._request = request
        self._calls = self._late_calls = 0
        self.gone = False
        self._over: trio.Event | None = None
        """Set when the client has gone or the response is complete; made for the first task that waits for it."""
        self._listeners = 0
        """Tasks in ``receive``."""
        self._end_told = False
        """Whether ``receive`` has given the end of the body."""
        self._reading = False
        """Whether a task in ``receive`` waits for the body."""
        self._turns: trio.lowlevel.ParkingLot | None = None
        """Where other tasks in ``receive`` wait for their turn; made for the first of them."""
        self._at = _NOTHING
        self._wants_trailers = False
        self._trailers: tuple[Field, ...] = ()
        self._refused: AnsweredByServerError | None = None

    # Running the application.

    def serve(self) -> Coroutine[Any, Any, None]:
        """Run the application to its end. The call itself runs the application's first step; await the result at once.

        Raises:
            BaseException: what the application raises, from this call or from the ``await``.
        """
        scope = make_scope(self._request, self._server)
        scope["extensions"][CANCELS] = self
        work = self._app(scope, self.receive, self.send)
        return self._request.run_apart(work, self._begins_to_wait)

    def _begins_to_wait(self) -> None:
        self._request.on_gone(self._client_gone)

    def _client_gone(self) -> None:
        """The callback of ``on_gone``: notify the tasks in ``receive``; without one, cancel the application."""
        if self.gone or self._at is _DONE:
            return
        self.gone = True
        self._tell()
        if not self._listeners:
            self._request.cancel_apart(str(Kind.CLIENT_GONE))

    def _tell(self) -> None:
        """Wake all tasks in ``receive``."""
        if self._over is not None:
            self._over.set()
        self._take_turns()

    def _take_turns(self) -> None:
        """Wake the tasks that wait for their turn at the body."""
        if self._turns is not None:
            self._turns.unpark_all()

    def stop_endless(self, reason: str) -> None:
        """Cancel the application, because it keeps calling after the end; see ``BoundedCalls``."""
        self._server.note_endless(reason)
        self._request.cancel_apart(reason)

    # ``Canceller``.

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Have the server give the record ``ended`` to ``recorder`` at the end of the request; see ``Canceller``."""
        self._request.file_record(recorder, ended)

    def take_at_most(self, size: int) -> None:
        """Bound the time for a body of unknown length to what ``size`` bytes need; see ``InboundRequest``."""
        self._request.take_at_most(size)

    def take_any_size(self) -> None:
        """Lift ``max_body`` and the bound on the whole time of the body; see ``InboundRequest``."""
        self._request.take_any_size()

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits for 100 (Continue); see ``InboundRequest``."""
        return self._request.expects_continue

    def became_stream(self) -> bool:
        """Count the request as a stream from now on; see ``InboundRequest``."""
        return self._request.became_stream()

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the server begins to drain; see ``InboundRequest``."""
        self._request.on_drain(callback)

    @property
    def discard_max(self) -> int:
        """Maximum bytes of an unread body that the server reads and discards; see ``InboundRequest``."""
        return self._request.discard_max

    @discard_max.setter
    def discard_max(self, size: int) -> None:
        self._request.discard_max = size

    @property
    def crash_recorded(self) -> bool:
        """Whether the application has recorded why the response ends in its middle; see ``InboundRequest``."""
        return self._request.crash_recorded

    @crash_recorded.setter
    def crash_recorded(self, recorded: bool) -> None:
        self._request.crash_recorded = recorded

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: the parts of the body, then ``http.disconnect``.

        The disconnect comes when the client has gone, when the response is complete, or when the server has sent an
        error response because of the body. A cancel loses no byte of the body.
        """
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        if self.gone or self._at is _DONE:
            await self.count_late_call()
            return self._disconnect()
        self._listeners += 1
        try:
            while not (self.gone or self._at is _DONE):
                if self._end_told:
                    if self._over is None:
                        self._over = trio.Event()
                    await self._over.wait()
                elif not self._reading:
                    return await self._receive_body()
                else:
                    if self._turns is None:
                        self._turns = trio.lowlevel.ParkingLot()
                    await self._turns.park()
        finally:
            self._listeners -= 1
        return self._disconnect()

    async def _receive_body(self) -> Message:
        """The next part of the body, or a disconnect. Only one task at a time may be here (``_reading``)."""
        request = self._request
        self._reading = True
        try:
            data = await request.receive()
        except AnsweredByServerError as error:
            self._refused = error
        except ClientGoneError:
            pass
        else:
            if not self.gone:
                self._end_told = not data or request.body_complete
                return {"type": "http.request", "body": data, "more_body": not self._end_told}
        finally:
            self._reading = False
            self._take_turns()
        self.gone = True
        self._tell()
        return self._disconnect()

    def _disconnect(self) -> Message:
        """ASGI's disconnect, with the error response if the server has sent one in the application's place."""
        if self._refused is not None:
            error = self._refused
            return disconnect_with(ErrorResponse(error.status, error.detail, error.kind), error.request_id)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            ClientGoneError: the client has gone or does not read, or the server has answered instead.
            ApplicationError: the message is not allowed in this state, or breaks a rule of HTTP.
        """
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        kind, at = message["type"], self._at
        if self.gone or at is _DONE:
            await self.count_late_call()
            if self.gone:
                raise ClientGoneError("the client has gone")
        try:
            if kind == "http.response.body" and (at is _HEAD or at is _BODY):
                body = message.get("body", b"")
                if message.get("more_body", False):
                    self._at = _BODY
                    await self._request.send(body)
                elif self._wants_trailers:
                    self._at = _TRAILING
                    await self._request.send(body)
                else:
                    self._at = _DONE
                    await self._request.finish(body)
                    if self._over is not None:
                        self._over.set()
            elif kind == "http.response.start" and at is _NOTHING:
                self._wants_trailers = trailers = bool(message.get("trailers", False))
                await self._request.start(message["status"], message.get("headers", ()), trailers=trailers)
                self._at = _HEAD
            elif kind == _EARLY_HINT and at is _NOTHING and self._request.version == "2":
                await self._request.inform(103, [(b"link", bytes(link).strip()) for link in message["links"]])
            elif kind == _TRAILERS and at is _TRAILING:
                await self._send_trailers(message)
            else:
                raise ApplicationError(f"the application sent {kind!r}, which is not allowed at this point")
        except ClientGoneError:
            self._client_gone_while_sending()
            raise

    async def _send_trailers(self, message: Message) -> None:
        """Collect trailers, and send them with the last message."""
        self._trailers += tuple(message.get("headers", ()))
        if message.get("more_trailers", False):
            await trio.lowlevel.checkpoint()
            return
        self._at = _DONE
        await self._request.finish(b"", self._trailers)
        self._tell()

    def _client_gone_while_sending(self) -> None:
        """Notify or cancel the application, as ``_client_gone``, because a send has found that the client has gone."""
        if not self.gone:
            self.gone = True
            self._tell()
            if not self._listeners:
                self._request.cancel_apart(str(Kind.CLIENT_GONE))
