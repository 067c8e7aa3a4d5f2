"""The life of one HTTP request: the facts at its beginning, its client's leaving, its crash, and its one record.

``connection.py`` lives it with Quart, ``direct.py`` without; what both share is here and written once. It is where
every exception of a request stops. It composes nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio
from quart.wrappers import Response
from werkzeug.exceptions import GatewayTimeout, InternalServerError

from ..events import RequestEnded
from ..kinds import Kind
from ..server.ending import CUT_DETAIL
from ..server.exchange import CANCELS, Canceller, ClientLeft
from ..server.refusal import REFUSED
from . import crashes
from .problems import from_http_exception
from .reply import Reply, say_incomplete
from .sending import AnyResponse, Sender

if TYPE_CHECKING:
    from ..events import Recorder
    from ..model import RequestFacts
    from ..server.refusal import Refusal
    from .app import Umbel
    from .exchange import Exchange
    from .uploads import Upload

DISCARD_MAX = 10**6
"""Bytes of a body that no view read which are read behind the answer, so that the connection can serve on."""
CLIENT_GONE = str(Kind.CLIENT_GONE)
_ERROR = 400

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Life(ABC):
    """The life of one request.

    * A client that leaves cancels the request, with reason ``client-gone``; nothing more is sent.
    * The disconnect that Hypercorn posts while the last part is being sent cancels nothing. (It would cancel the very
      task that is restarting the idle timer or closing the connection: idle connections would stay open for ever, and
      ``Connection: close`` would not close.)
    * Whatever ends it, one ``RequestEnded`` is recorded, after everything else of the request has ended.
    """

    def __init__(self, app: Umbel, exchange: Exchange) -> None:
        self.app = app
        self.exchange = exchange
        self._sender: Sender
        self._server: Canceller | None = None
        """Our own server's side of this request; None under any other."""
        self._gone = False
        self._refused: tuple[Refusal, str] | None = None
        """What the server answered in our place when the request's body could not be read on, and the answer's id."""
        self._upload: Upload | None = None
        """Where the parts of the body go."""
        self._body_wanted: trio.Event
        """Of a request that is watched: set when somebody reads the body."""

    def _find_server(self, scope: Mapping[str, Any]) -> None:
        extensions = scope.get("extensions")
        self._server = extensions.get(CANCELS) if extensions else None
        if self._server is not None:
            self._server.discard_max = DISCARD_MAX

    @abstractmethod
    async def _converse(self) -> None:
        """Answer. Raises what the answer or a child of it raised."""

    @abstractmethod
    async def _apologise(self) -> None:
        """Answer with 500, for nothing has been answered."""

    def _facts(self) -> RequestFacts:
        """The facts for the record."""
        return self.exchange.facts

    def _has_left(self) -> bool:
        """Whether the server says that the client has gone."""
        return False

    def _says_krakend(self) -> bool:
        """Whether an error of this request bears KrakenD's field of completeness."""
        return False

    async def live(self) -> None:
        """Run the request to its end. Cancelled from outside (a server that stops), it is cut off there."""
        self.app.request_began()
        try:
            await self._converse()
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
            await self._end(error)
        finally:
            self.app.request_ended()
            file_record(self._server, self.exchange.recorder, self._record())

    async def _end(self, error: BaseException) -> None:
        """Every exception of the request stops here, but a cancel and the like, which goes on upwards."""
        self._gone = self._gone or self._has_left() or _says_gone(error)
        crash, rest = crashes.split(error)
        if crash is None:
            raise error
        if all(isinstance(leaf, ClientLeft) for leaf in crashes.leaves(crash)):
            if rest is not None:
                raise rest from crash
            return
        self._crashed(crash)
        if rest is not None:
            raise rest from crash
        if self.app.testing:
            # Quart's test client shows its user the exception instead of a 500.
            raise error
        if self._sender.status is None and not self._gone:
            await self._apologise()
        elif self._server is not None:
            self._server.crash_recorded = True

    # Answering.

    async def _watched(self, receive: Receive, respond: Callable[[], Awaitable[AnyResponse | Reply]]) -> None:
        """Answer in a nursery of the request's own, while watching for the client's leaving."""
        async with trio.open_nursery() as nursery:
            self.exchange.nursery = nursery
            self._body_wanted = trio.Event()
            nursery.start_soon(self._watch, receive, nursery.cancel_scope)
            await self._deliver(await respond())
            nursery.cancel_scope.cancel(reason="answered")

    async def _watch(self, receive: Receive, scope: trio.CancelScope) -> None:
        """Hand on the request's body, and cancel the request if its client leaves.

        Our own server cancels a request by itself, so there nothing is received before somebody wants the body: what
        nobody reads stays with the client, and needs no place among the uploads. Elsewhere this reads from the
        beginning, and reads on after the end of the body and while the answer is sent: Hypercorn's queue is short, and
        a server that cannot put its last message into it never ends the request.
        """
        if self._server is not None and self._server.receive == receive:
            await self._body_wanted.wait()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._refused = message.get(REFUSED)
                if not self._sender.finishing:
                    self._gone = True
                    scope.cancel(reason=CLIENT_GONE)
                return
            if self._upload is not None:
                self._upload.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._upload.set_complete()

    def _cancelling(self, send: Send) -> Send:
        """``send``; but a client that cannot be sent to has gone, and what serves it ends for that reason alone."""

        async def cancelling(message: Mapping[str, Any]) -> None:
            try:
                await send(message)
            except ClientLeft:
                self._gone = True
                self.exchange.nursery.cancel_scope.cancel(reason=CLIENT_GONE)
                await trio.lowlevel.checkpoint()
                raise

        return cancelling

    async def _deliver(self, response: AnyResponse | Reply) -> None:
        status = response.status if isinstance(response, Reply) else response.status_code
        if status >= _ERROR and self._says_krakend():
            say_incomplete(response)
        if isinstance(response, Reply):
            await self._sender.reply(response)
            return
        timeout = self.app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = response.timeout
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await self._sender.respond(response)
        if scope.cancelled_caught:
            self.exchange.kind = Kind.TIMEOUT
            self.exchange.detail = f"the response was not sent within its timeout of {timeout:g} s"
            if self._sender.status is None:
                await self._sender.respond(from_http_exception(GatewayTimeout(), self.exchange.facts.request_id))
            elif self._server is not None:
                self._server.crash_recorded = True  # It is no crash, and the record says it.
            # The message stays unfinished then, so the server closes the connection and the client can tell.

    async def _apology(self) -> AnyResponse:
        return from_http_exception(InternalServerError(), self.exchange.facts.request_id)

    # The end.

    def _crashed(self, error: BaseException) -> None:
        crashes.note(self.exchange.recorder, "request.crashed", error, self.exchange.facts)
        self.exchange.kind = Kind.INTERNAL
        self.exchange.detail = "an exception nobody handled"

    def _record(self) -> RequestEnded:
        exchange, sender = self.exchange, self._sender
        facts, kind, detail = self._facts(), exchange.kind, exchange.detail
        if self._refused is not None:
            return self._refusal_record(facts, *self._refused)
        if not sender.finished:
            if self._gone:
                kind = Kind.CLIENT_GONE
            elif kind not in (Kind.INTERNAL, Kind.TIMEOUT):
                kind = Kind.CANCELLED
            if sender.status is not None and kind is not Kind.CLIENT_GONE:
                detail = f"{detail}; {CUT_DETAIL}" if detail else CUT_DETAIL
        unanswered = 500 if kind is Kind.INTERNAL else 499
        return RequestEnded(
            facts,
            sender.status if sender.status is not None else unanswered,
            trio.current_time(),
            sender.bytes_sent,
            exchange.completed,
            kind,
            exchange.origin.client,
            exchange.origin.scheme,
            detail,
            exchange.own_ms,
            exchange.of_client,
            exchange.outcomes or tuple(exchange.calls.values()),
        )

    def _refusal_record(self, facts: RequestFacts, refusal: Refusal, request_id: str) -> RequestEnded:
        facts = facts._replace(request_id=request_id)
        now, origin = trio.current_time(), self.exchange.origin
        return RequestEnded(
            facts, refusal.status, now, 0, None, refusal.kind, origin.client, origin.scheme, refusal.detail
        )


def file_record(server: object, recorder: Recorder, ended: RequestEnded) -> None:
    """Have a record written: by our own server when it knows what the client got, under any other at once."""
    file = getattr(server, "file", None)
    if file is None:
        recorder.record(ended)
    else:
        file(recorder, ended)


def _says_gone(error: BaseException) -> bool:
    """Whether this came because the client has gone: the server cancels with that reason, and its send raises."""
    return any(
        isinstance(leaf, ClientLeft) or (isinstance(leaf, trio.Cancelled) and leaf.reason == CLIENT_GONE)
        for leaf in crashes.leaves(error)
    )
