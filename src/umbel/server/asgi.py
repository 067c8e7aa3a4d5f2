"""The ASGI adapter of an ``InboundRequest``: the scope, ``receive`` and ``send`` of one HTTP request.

For applications that are not ``InboundApplication``s, and for the share of Quart in those that are.

Theory
------
The application runs with context variables and inside a cancel scope of its own (``InboundRequest.run_apart``). What it
raises passes to whoever serves the request, and answers for it.

When the client leaves, ASGI has two ways to report it: ``receive`` gives a disconnect, and whoever does not listen is
cancelled with the reason ``client-gone``. So an application that waits in ``receive`` is notified and may end in its
own time; any other one is cancelled. ``send`` raises ``ClientGoneError``, an OSError (ASGI 2.4), from then on.

The scope's extension ``CANCELS`` holds this object. So an application whose ``receive`` is this very one knows that it
need not listen only to hear of the client's leaving, and has a place for its access record.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
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
"""What a scope says of the specification that it follows."""
CANCELS = "umbel.cancels"
"""The key in ``scope["extensions"]`` of whoever cancels an application whose client leaves, a ``Canceller``."""
_TRAILERS, _EARLY_HINT = "http.response.trailers", "http.response.early_hint"


class Canceller(Protocol):
    """What stands under ``CANCELS``."""

    @property
    def gone(self) -> bool:
        """Whether the client has left, or is treated so."""
        ...

    crash_recorded: bool
    discard_max: int
    """As of ``InboundRequest``."""

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Take the application's record of the request."""
        ...

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        ...

    def take_at_most(self, size: int) -> None:
        """As of ``InboundRequest``."""


# How far a response is. Plain numbers, because they are compared several times per request.
_NOTHING, _HEAD, _BODY, _TRAILING, _DONE = range(5)
"""In ``_HEAD`` the application has given its head, which goes out with the first of the body."""


def make_scope(request: InboundRequest, server: ServerState) -> dict[str, Any]:
    """ASGI's scope of a request (HTTP)."""
    raw_path, _, query = request.target.partition(b"?")
    path = raw_path.decode("ascii")
    extensions: dict[str, Any] = {}
    if request.takes_trailers:
        extensions[_TRAILERS] = {}
    if request.version == "2":
        extensions[_EARLY_HINT] = {}
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


class AsgiCycle(BoundedCalls):
    """One request on its way through an ASGI application."""

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
        """Set when the client has gone or has its response; made for the first who listens behind the body."""
        self._listeners = 0
        """Tasks that wait in ``receive``, and so will hear that the client has gone."""
        self._end_told = False
        """Whether the application has been given the end of the body."""
        self._reading = False
        """Whether a task waits for the next part of the body: one at a time does."""
        self._turns: trio.lowlevel.ParkingLot | None = None
        """Where the others wait; made for the first of them."""
        self._at = _NOTHING
        self._wants_trailers = False
        self._trailers: tuple[Field, ...] = ()
        self._refused: AnsweredByServerError | None = None

    # Running the application.

    def serve(self) -> Coroutine[Any, Any, None]:
        """Run the application on the request to its end: its first step at once, and to be awaited at once.

        Raises:
            BaseException: what the application raised.
        """
        scope = make_scope(self._request, self._server)
        scope["extensions"][CANCELS] = self
        work = self._app(scope, self.receive, self.send)
        return self._request.run_apart(work, self._begins_to_wait)

    def _begins_to_wait(self) -> None:
        self._request.on_gone(self._client_gone)

    def _client_gone(self) -> None:
        """The client has gone: whoever listens is notified, and if nobody does the application is cancelled."""
        if self.gone or self._at is _DONE:
            return
        self.gone = True
        self._tell()
        if not self._listeners:
            self._request.cancel_apart(str(Kind.CLIENT_GONE))

    def _tell(self) -> None:
        if self._over is not None:
            self._over.set()
        self._take_turns()

    def _take_turns(self) -> None:
        """Whoever waits for the body behind another task is to look again."""
        if self._turns is not None:
            self._turns.unpark_all()

    def stop_endless(self, reason: str) -> None:
        """Cancel the application."""
        self._server.note_endless(reason)
        self._request.cancel_apart(reason)

    # What the application may ask, beside ASGI.

    def file(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Take the application's record of the request."""
        self._request.file_record(recorder, ended)

    def take_at_most(self, size: int) -> None:
        """As of ``InboundRequest``."""
        self._request.take_at_most(size)

    @property
    def discard_max(self) -> int:
        """As of ``InboundRequest``."""
        return self._request.discard_max

    @discard_max.setter
    def discard_max(self, size: int) -> None:
        self._request.discard_max = size

    @property
    def crash_recorded(self) -> bool:
        """As of ``InboundRequest``."""
        return self._request.crash_recorded

    @crash_recorded.setter
    def crash_recorded(self, recorded: bool) -> None:
        self._request.crash_recorded = recorded

    # What the application calls.

    async def receive(self) -> Message:
        """ASGI's ``receive``: parts of the body, then a disconnect once there is one or the response is sent."""
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
        if self._refused is not None:
            error = self._refused
            return disconnect_with(ErrorResponse(error.status, error.detail, error.kind), error.request_id)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            ClientGoneError: nobody is there to read it.
            ApplicationError: the message does not fit those before it, or breaks a rule of HTTP.
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
                raise ApplicationError(f"the application sent {kind!r} out of turn")
        except ClientGoneError:
            self._client_gone_while_sending()
            raise

    async def _send_trailers(self, message: Message) -> None:
        self._trailers += tuple(message.get("headers", ()))
        if message.get("more_trailers", False):
            await trio.lowlevel.checkpoint()
            return
        self._at = _DONE
        await self._request.finish(b"", self._trailers)
        self._tell()

    def _client_gone_while_sending(self) -> None:
        """The client does not take the response: it has gone, and no task of the application need go on."""
        if not self.gone:
            self.gone = True
            self._tell()
            if not self._listeners:
                self._request.cancel_apart(str(Kind.CLIENT_GONE))
