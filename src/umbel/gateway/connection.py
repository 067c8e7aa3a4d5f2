"""One HTTP request through ASGI, in a nursery of its own, with exactly one record at its end.

Quart makes one per request (``Umbel.asgi_http_class``). It watches for the client's leaving, lets the server's own
disconnect pass, and is where every exception of a request stops. It composes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
from quart.wrappers import Response
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, InternalServerError

from ..errors import RequestError
from ..events import RequestEnded
from ..kinds import Kind
from ..model import RequestFacts
from ..server.exchange import ClientLeft
from ..server.refusal import REFUSED
from . import crashes, ids
from .exchange import SCOPE_KEY, Exchange
from .forwarded import origin_of
from .paths import check_path, check_query, raw_path
from .probes import probe
from .problems import from_http_exception, from_request_error
from .sending import AnyResponse, Sender

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

    from ..server.refusal import Refusal
    from .app import Umbel
    from .uploads import UmbelRequest

CLIENT_GONE = str(Kind.CLIENT_GONE)


class Connection(TrioASGIHTTPConnection):
    """The life of one request.

    * A client that leaves cancels the request's nursery, with reason ``client-gone``; nothing more is sent.
    * The disconnect that Hypercorn posts while the last part is being sent cancels nothing. (It would cancel the very
      task that is restarting the idle timer or closing the connection: idle connections would stay open for ever, and
      ``Connection: close`` would not close.)
    * Whatever ends it, one ``RequestEnded`` is recorded, after everything else of the request has ended.
    """

    app: Umbel

    def __init__(self, app: Umbel, scope: HTTPScope) -> None:
        client = scope.get("client")
        origin = origin_of(
            client[0] if client else None,
            scope["headers"],
            app.trusted_proxies,
            http_version=scope["http_version"],
            scheme=scope["scheme"],
        )
        facts = RequestFacts(
            ids.request_id(origin.claimed(b"x-request-id")),
            ids.trace(origin.said.get(b"traceparent"), origin.said.get(b"tracestate")),
            scope["method"],
            scope["path"],
            "",
            trio.current_time(),
        )
        self.exchange = Exchange(facts, origin, app.recorder)
        # A copy: the scope is the server's (ASGI: "copy it before passing it on").
        ours = {**scope, "headers": origin.headers, SCOPE_KEY: self.exchange}
        super().__init__(app, cast("HTTPScope", ours))
        self._request: UmbelRequest | None = None
        self._gone = False
        self._refused: tuple[Refusal, str] | None = None
        """What the server answered in our place when the request's body could not be read on, and the answer's id."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the request to its end. Cancelled from outside (a server that stops), it is cut off there."""
        exchange = self.exchange
        head_only, request_id = self.scope["method"] == "HEAD", exchange.facts.request_id
        sender = Sender(partial(self._send, send), head_only=head_only, request_id=request_id)
        self.app.request_began()
        try:
            try:
                await self._converse(receive, sender, lambda: self._answer(send))
            except BaseException as error:
                self._gone = self._gone or _says_gone(error)
                crash, rest = crashes.split(error)
                if crash is None:
                    raise
                if all(isinstance(leaf, ClientLeft) for leaf in crashes.leaves(crash)):
                    if rest is not None:
                        raise rest from crash
                    return
                self._crashed(crash)
                if rest is not None:
                    raise rest from crash
                if self.app.testing:
                    # Quart's test client shows its user the exception instead of a 500.
                    raise
                if sender.status is None and not self._gone:
                    await self._converse(receive, sender, self._apology)
        finally:
            self.app.request_ended()
            exchange.recorder.record(self._record(sender))

    async def _converse(
        self, receive: ASGIReceiveCallable, sender: Sender, respond: Callable[[], Awaitable[AnyResponse]]
    ) -> None:
        """Answer, while watching for the client's leaving. Raises what the answer or a child of it raised."""
        async with trio.open_nursery() as nursery:
            self.exchange.nursery = nursery
            nursery.start_soon(self._watch, receive, sender, nursery.cancel_scope)
            await self._deliver(await respond(), sender)
            nursery.cancel_scope.cancel(reason="answered")

    async def _watch(self, receive: ASGIReceiveCallable, sender: Sender, scope: trio.CancelScope) -> None:
        """Hand on the request's body, and cancel the request if its client leaves.

        It reads on after the end of the body and while the answer is sent: Hypercorn's queue is short, and a server
        that cannot put its last message into it never ends the request.
        """
        while True:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                self._refused = message.get(REFUSED)
                if not sender.finishing:
                    self._gone = True
                    scope.cancel(reason=CLIENT_GONE)
                return
            if self._request is not None:
                self._request.body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._request.body.set_complete()

    async def _send(self, send: ASGISendCallable, message: Any) -> None:
        """Send; a client that cannot be sent to has gone, and what serves it ends for that reason and no other."""
        try:
            await send(message)
        except ClientLeft:
            self._gone = True
            self.exchange.nursery.cancel_scope.cancel(reason=CLIENT_GONE)
            await trio.lowlevel.checkpoint()
            raise

    async def _answer(self, send: ASGISendCallable) -> AnyResponse:
        facts = self.exchange.facts
        try:
            check_path(raw_path(self.scope))
            check_query(self.scope["query_string"])
        except RequestError as error:
            self.exchange.kind, self.exchange.detail = Kind.BAD_REQUEST, error.detail
            return from_request_error(error, facts.request_id)
        self._request = cast("UmbelRequest", self._create_request_from_scope(send))
        if (response := probe(self.app, self._request, self.exchange)) is not None:
            return response
        try:
            return await self.app.handle_request(self._request)
        except HTTPException as error:
            # Quart raises these before its own handling begins: a Host header that is no host name, for one.
            return from_http_exception(error, facts.request_id)

    async def _apology(self) -> AnyResponse:
        return from_http_exception(InternalServerError(), self.exchange.facts.request_id)

    async def _deliver(self, response: AnyResponse, sender: Sender) -> None:
        timeout = self.app.config["RESPONSE_TIMEOUT"]
        if isinstance(response, Response) and response.timeout is not Ellipsis:
            timeout = response.timeout
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await sender.respond(response)
        if scope.cancelled_caught:
            # The message stays unfinished, so the server closes the connection and the client can tell.
            self.exchange.kind = Kind.TIMEOUT
            self.exchange.detail = f"the response was not sent within its timeout of {timeout:g} s"

    def _crashed(self, error: Exception) -> None:
        crashes.note(self.exchange.recorder, "request.crashed", error, self.exchange.facts)
        self.exchange.kind = Kind.INTERNAL
        self.exchange.detail = "an exception nobody handled"

    def _record(self, sender: Sender) -> RequestEnded:
        exchange, kind, detail = self.exchange, self.exchange.kind, self.exchange.detail
        facts = exchange.facts
        rule = self._request.url_rule if self._request is not None else None
        if not facts.route and rule is not None:
            facts = exchange.routed(rule.rule, facts.deadline)
        if self._refused is not None:
            return self._refusal_record(facts, *self._refused)
        if self._gone and not sender.finished:
            kind = Kind.CLIENT_GONE
        elif not sender.finished and kind not in (Kind.INTERNAL, Kind.TIMEOUT):
            kind = Kind.CANCELLED
        unanswered = 500 if kind is Kind.INTERNAL else 499
        return RequestEnded(
            facts,
            sender.status if sender.status is not None else unanswered,
            trio.current_time(),
            sender.bytes_sent,
            exchange.completed,
            kind,
            exchange.origin.client,
            self.scope["scheme"],
            detail,
        )

    def _refusal_record(self, facts: RequestFacts, refusal: Refusal, request_id: str) -> RequestEnded:
        facts = replace(facts, request_id=request_id)
        now, origin = trio.current_time(), self.exchange.origin
        return RequestEnded(
            facts, refusal.status, now, 0, None, refusal.kind, origin.client, origin.scheme, refusal.detail
        )


def _says_gone(error: BaseException) -> bool:
    """Whether this came because the client has gone: the server cancels with that reason, and its send raises."""
    return any(
        isinstance(leaf, ClientLeft) or (isinstance(leaf, trio.Cancelled) and leaf.reason == CLIENT_GONE)
        for leaf in crashes.leaves(error)
    )
