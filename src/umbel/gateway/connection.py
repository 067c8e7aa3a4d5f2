"""One HTTP request through Quart, in a nursery of its own.

Quart makes one per request (``Umbel.asgi_http_class``). It refuses paths that two parsers read differently, answers
probes, and leaves the rest to Quart's dispatch; what else happens to a request is ``life.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException

from ..errors import RequestError
from ..kinds import Kind
from ..model import RequestFacts
from .exchange import SCOPE_KEY, Exchange
from .forwarded import origin_in
from .life import Life, Receive, Send
from .paths import check_path, check_query, merged_path, raw_path
from .probes import probe
from .problems import from_http_exception, from_request_error
from .reply import Reply, redirect_reply
from .sending import AnyResponse, Sender
from .uploads import Upload

if TYPE_CHECKING:
    from hypercorn.typing import HTTPScope
    from werkzeug.routing import MapAdapter

    from ..server.exchange import Canceller
    from .app import Umbel
    from .uploads import UmbelRequest


def _endpoints_at(adapter: MapAdapter, path: str) -> Iterator[str]:
    """The endpoints that a path has, by whatever method."""
    for method in adapter.allowed_methods(path):
        with suppress(HTTPException):
            yield adapter.match(path, method)[0]


class Connection(Life, TrioASGIHTTPConnection):
    """A request that Quart dispatches."""

    app: Umbel

    def __init__(self, app: Umbel, scope: HTTPScope) -> None:
        origin = origin_in(scope, app.trusted_proxies)
        facts = RequestFacts(
            *origin.identify(),
            scope["method"],
            scope["path"],
            "",
            trio.current_time(),
        )
        super().__init__(app, Exchange(facts, origin, app.recorder, scope["query_string"]))
        self.exchange.bind()
        self._find_server(scope)
        # A copy: the scope is the server's (ASGI: "copy it before passing it on").
        self.scope = cast("HTTPScope", {**origin.rewritten(scope), SCOPE_KEY: self.exchange})
        self._canceller: Canceller | None = None
        """Our own server, where it gave us the very ``receive`` that we read."""
        self._receive: Receive
        self._send: Send
        self._request: UmbelRequest | None = None

    async def __call__(self, receive: Any, send: Any) -> None:
        """Run the request to its end. Cancelled from outside (a server that stops), it is cut off there."""
        self._receive, self._send = receive, send
        if self._server is not None and self._server.receive == receive:
            self._canceller = self._server
        facts = self.exchange.facts
        self._sender = Sender(self._cancelling(send), head_only=facts.method == "HEAD", request_id=facts.request_id)
        await self.live()

    async def _converse(self) -> None:
        await self._watched(self._receive, self._answer)

    async def _apologise(self) -> None:
        await self._watched(self._receive, self._apology)

    def _has_left(self) -> bool:
        return self._canceller is not None and self._canceller.gone

    def _facts(self) -> RequestFacts:
        facts = self.exchange.facts
        rule = self._request.url_rule if self._request is not None else None
        if not facts.route and rule is not None:
            facts = self.exchange.routed(rule.rule, facts.deadline)
        return facts

    def _says_krakend(self) -> bool:
        endpoints = self.app.krakend_endpoints
        rule = self._request.url_rule if self._request is not None else None
        if rule is not None or not endpoints:
            return rule is not None and rule.endpoint in endpoints
        if self.exchange.facts.route:
            return False  # A probe.
        # Of a path that no route has, whoever expects KrakenD expects its answer.
        at_path = set(_endpoints_at(self.app.url_map.bind(""), self.scope["path"]))
        return not at_path or not at_path.isdisjoint(endpoints)

    async def _answer(self) -> AnyResponse | Reply:
        facts = self.exchange.facts
        raw, query = raw_path(self.scope["path"], self.scope.get("raw_path")), self.scope["query_string"]
        try:
            check_path(raw)
            check_query(query)
        except RequestError as error:
            self.exchange.kind, self.exchange.detail = Kind.BAD_REQUEST, error.detail
            return from_request_error(error, facts.request_id)
        if (merged := merged_path(raw)) is not None:
            return redirect_reply(merged + b"?" + query if query else merged)
        self._request = request = cast("UmbelRequest", self._create_request_from_scope(self._send))
        self._upload = request.body
        if not isinstance(request.body, Upload):
            self._body_wanted.set()
        elif self._canceller is not None:
            request.body.ask_for(self._body_wanted, self._canceller)
        elif self._server is None:
            request.body.bound_time(self.app.limits)
        if (response := probe(self.app, request, self.exchange)) is not None:
            return response
        try:
            return await self.app.handle_request(request)
        except HTTPException as error:
            # Quart raises these before its own handling begins: a Host header that is no host name, for one.
            return from_http_exception(error, facts.request_id)
