"""One HTTP request for a route of the configuration, answered without Quart's dispatch.

Made for requests that ``route_table.py`` finds. What else happens to a request is ``life.py``'s, and the answer is
``routes.py``'s; what Quart's dispatch makes of errors is done here in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from ..errors import RequestError
from ..kinds import Kind
from ..model import RequestFacts
from ..server.exchange import Canceller, ClientLeft
from ..server.refusal import REFUSED
from . import crashes
from .bodies import known_length
from .exchange import Exchange
from .life import Life, Receive, Send
from .problems import from_http_exception, from_request_error
from .reply import Reply
from .sending import AnyResponse, Sender
from .uploads import Upload

if TYPE_CHECKING:
    from .accept import StreamForm
    from .app import Umbel
    from .forwarded import Origin
    from .route_table import Match


class DirectRequest(Life):
    """A request that a route of the configuration answers.

    Under our own server it has no nursery and nobody who watches for the client's leaving, unless it streams: the
    server cancels it then. Under any other it has both.
    """

    def __init__(
        self, app: Umbel, match: Match, origin: Origin, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        route, path, _ = match
        fields = origin.fields
        started_at = trio.current_time()
        facts = RequestFacts(
            *origin.identify(),
            scope["method"],
            scope["path"],
            route.rule,
            started_at,
            route.deadline(fields, started_at),
        )
        super().__init__(app, Exchange(facts, origin, app.recorder, scope["query_string"]))
        self.exchange.bind()
        self._route = route
        self._path = path
        self._form: StreamForm | None = route.form(fields)
        self._receive = receive
        self._find_server(scope)
        self._canceller = self._find_canceller()
        plain = self._canceller is not None and self._form is None
        self._sender = Sender(
            send if plain else self._cancelling(send), head_only=facts.method == "HEAD", request_id=facts.request_id
        )

    def _find_canceller(self) -> Canceller | None:
        """Who cancels this request if its client leaves, so that nobody need watch for it."""
        canceller = self._server
        # Whoever stands between may listen in our place, and the server would only tell him.
        if canceller is None or canceller.receive != self._receive:
            return None
        return canceller

    async def _converse(self) -> None:
        if self._route.reads_body:
            length, limit = known_length(self.exchange.origin.fields), self.app.config["MAX_CONTENT_LENGTH"]
            if self._canceller is None:
                self.exchange.body = self._upload = Upload(length, limit)
                if self._server is None:
                    self._upload.bound_time(self.app.limits)
            else:
                self.exchange.body = _Incoming(self, self._canceller, length, limit)
        if self._canceller is None:
            await self._watched(self._receive, self._answer)
        elif self._form is None:
            await self._deliver(await self._answer())
        else:
            async with trio.open_nursery() as nursery:
                self.exchange.nursery = nursery
                await self._deliver(await self._answer())
                nursery.cancel_scope.cancel(reason="answered")

    async def _apologise(self) -> None:
        if self._canceller is None:
            await self._watched(self._receive, self._apology)
        else:
            await self._deliver(await self._apology())

    def _says_krakend(self) -> bool:
        return self._route.krakend_compat

    def _has_left(self) -> bool:
        return self._canceller is not None and self._canceller.gone

    async def _answer(self) -> AnyResponse | Reply:
        """What Quart's dispatch gives, where the application has no part in it (``Umbel.handle_user_exception``)."""
        exchange = self.exchange
        request_id = exchange.facts.request_id
        try:
            return await self._route.reply(exchange, self._path, self._form)
        except RequestError as error:
            exchange.detail = error.detail
            if error.status == 400:
                exchange.kind = Kind.BAD_REQUEST
            return from_request_error(error, request_id)
        except HTTPException as error:
            return from_http_exception(error, request_id)
        except ClientLeft:
            raise
        except Exception as error:  # noqa: BLE001 - as Quart does, so that the client gets its 500
            self._note(error)
            return from_http_exception(InternalServerError(), request_id)
        except BaseExceptionGroup as error:
            crash, rest = crashes.split(error)
            if crash is None or rest is None:
                raise
            crashes.note(exchange.recorder, "request.crashed", crash, exchange.facts)
            raise rest from crash

    def _note(self, error: Exception) -> None:
        """As ``Umbel.log_exception``."""
        exchange = self.exchange
        facts = exchange.facts
        crashes.note(exchange.recorder, "request.crashed", error, facts)
        exchange.kind, exchange.detail = Kind.INTERNAL, "an exception that no handler took"
        self.app.logger.error("Exception on request %s %s", facts.method, facts.path, exc_info=error)

    def left(self, message: Mapping[str, Any]) -> ClientLeft:
        """The client left in the middle of its body, or was refused in our place, as this disconnect says."""
        self._gone = True
        self._refused = message.get(REFUSED)
        return ClientLeft("the client left before its body was complete")


class _Incoming:
    """The parts of a body, straight from the server."""

    def __init__(self, request: DirectRequest, canceller: Canceller, length: int | None, limit: int | None) -> None:
        self._request = request
        self._canceller = canceller
        self._limit = math.inf if limit is None else limit
        self._size = 0 if length is None else length
        self._received = 0
        self._ended = False

    def take_at_most(self, size: int) -> None:
        """As ``Canceller`` says."""
        self._canceller.take_at_most(size)

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> bytes:
        """The next part.

        Raises:
            ClientLeft: the client has gone, or was refused.
            RequestEntityTooLarge: there is, or will be, more than the application takes.
        """
        if self._ended:
            raise StopAsyncIteration
        if self._size > self._limit:
            raise RequestEntityTooLarge
        message = await self._canceller.receive()
        # It may have left while we were about to get the last part. Nobody cancels who listens, and we do no more.
        if message["type"] == "http.disconnect" or self._canceller.gone:
            raise self._request.left(message)
        data: bytes = message.get("body", b"")
        self._received += len(data)
        if self._received > self._limit:
            raise RequestEntityTooLarge
        self._ended = not message.get("more_body", False)
        return data
