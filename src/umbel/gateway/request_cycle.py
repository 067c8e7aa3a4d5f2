"""One HTTP request that is answered before Quart, on the connection's own task.

``PlanCycle`` is one for a route of the configuration; ``HandlerCycle`` (``handler_cycle.py``) is one for a handler of
``@app.compose``. A request goes through these steps in this order: its facts, its inputs (the body among them), the
composition, the answer, the record. Nothing of it is left in the task afterwards: no scope, no context variable. Only a
stream has a nursery, which ends with it. What is an error under Quart's dispatch is answered here in the same way.

**The client's leaving.** A client that has left before the calls start has none started. When the composition is about
to wait, it has ``InboundRequest.on_gone`` call it if the client leaves; the calls are cut then. Once the answer is
given, the server says by ``ClientGoneError`` that nobody takes it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import trio
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from ..core.errors import RequestError
from ..core.failure_kinds import Kind
from ..core.inbound import ClientGoneError, InboundRequest
from ..core.model import RequestFacts
from ..logs import bound
from ..net.exception_groups import split_crash
from . import crashes
from .request.client_origin import origin_of
from .request.request_body import known_length
from .request_context import RequestContext, names_of
from .request_end import DISCARD_MAX, end_by, record_of
from .response.answer import answer
from .response.problems import http_exception_reply, request_error_reply
from .response.reply import Reply, complete
from .response.sending import send_reply

if TYPE_CHECKING:
    from ..core.model import Inputs
    from .compose import ComposeView
    from .context import GatewayContext
    from .request.content_negotiation import StreamForm
    from .request.request_fields import RequestFields
    from .route_table import Match
    from .routes import RouteView


class RequestCycle(RequestContext):
    """A request that a route of the table answers."""

    __slots__ = ("_context", "_path", "_says_krakend")

    def __init__(
        self, context: GatewayContext, match: Match, route: RouteView | ComposeView, inbound: InboundRequest
    ) -> None:
        """``route`` is that of ``match``."""
        peer, started_at = inbound.peer, inbound.started
        origin = origin_of(
            None if peer is None else peer[0], inbound.fields, context.proxies, inbound.version, inbound.scheme
        )
        fields = origin.fields
        request_id, trace = origin.identify()
        facts = RequestFacts(
            request_id,
            trace,
            inbound.method,
            match.decoded,
            route.rule,
            started_at,
            route.deadline(fields, started_at),
        )
        recorder = context.serving.recorder
        RequestContext.__init__(
            self, facts, origin, recorder, inbound.target.partition(b"?")[2]
        )  # Not super(): it is slow.
        self.inbound = inbound
        self._context = context
        self._path = match.path
        self._says_krakend = route.krakend_compat

    async def run(self) -> None:
        """Answer, and file the one record. Cancelled (a server that stops), it is cut off."""
        inbound, counts = self.inbound, self._context.counts
        counts.in_flight += 1
        counts.total += 1
        try:
            inbound.discard_max = DISCARD_MAX
            await self._answer()
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
            await end_by(error, self, self._answer_500)
        finally:
            counts.in_flight -= 1
            inbound.file_record(self.recorder, record_of(self))

    async def _answer(self) -> None:
        """Answer. What it raises is answered by ``end_by``."""
        raise NotImplementedError

    async def _answer_500(self) -> None:
        reply = http_exception_reply(InternalServerError(), self.facts.request_id)
        complete(reply, self.facts.request_id, krakend=self._says_krakend)
        await send_reply(self.inbound, reply)


class PlanCycle(RequestCycle):
    """A request that a route of the configuration answers."""

    __slots__ = ("_form", "_route")

    def __init__(self, context: GatewayContext, match: Match, route: RouteView, inbound: InboundRequest) -> None:
        RequestCycle.__init__(self, context, match, route, inbound)
        self._route = route
        self._form: StreamForm | None = route.form(self.origin.fields)

    async def _answer(self) -> None:
        if self._form is not None:
            await self._answer_by_stream(self._form)
            return
        inbound, route = self.inbound, self._route
        try:
            inputs = await self._read_with_body() if route.reads_body else route.read(self, self._path)
            result = await route.run(self, inputs, inbound.on_gone).run()
            reply = answer(result, route.answer_rules, self)
        except (Exception, BaseExceptionGroup) as error:
            if (reply_to_error := self._reply_to(error)) is None:
                raise
            reply = reply_to_error
        complete(reply, self.facts.request_id, krakend=route.krakend_compat)
        assert type(reply.body) is bytes
        if not inbound.respond(reply.status, reply.fields, reply.body):
            await inbound.drained()

    async def _answer_by_stream(self, form: StreamForm) -> None:
        inbound, route = self.inbound, self._route
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                inputs = await self._read_with_body() if route.reads_body else route.read(self, self._path)
                inbound.on_gone(self.cancel)
                reply = await route.stream(self, inputs, form)
            except (Exception, BaseExceptionGroup) as error:
                if (reply_to_error := self._reply_to(error)) is None:
                    raise
                reply = reply_to_error
            complete(reply, self.facts.request_id, krakend=route.krakend_compat)
            try:
                await send_reply(inbound, reply)
            except ClientGoneError:
                self.cancel()  # The calls end for that reason, and not because a sibling failed.
                raise
            nursery.cancel_scope.cancel(reason="answered")

    def _read_with_body(self) -> Awaitable[Inputs]:
        self.body = _Parts(self.inbound, self.origin.fields, self._context.settings["MAX_CONTENT_LENGTH"])
        return self._route.read_with_body(self, self._path)

    def _reply_to(self, error: BaseException) -> Reply | None:
        """The answer to an error, as Quart's dispatch gives it (``Umbel.handle_user_exception``).

        None where ``error`` is to be raised on: the client has gone, or it is a group of cancels.

        Raises:
            BaseException: the cancel in a group, whose crash is recorded.
        """
        request_id = self.facts.request_id
        if isinstance(error, RequestError):
            self.detail = error.detail
            if error.status == 400:
                self.kind = Kind.BAD_REQUEST
            return request_error_reply(error, request_id)
        if isinstance(error, HTTPException):
            return http_exception_reply(error, request_id)
        if isinstance(error, ClientGoneError):
            # Not raised here: the traceback would hold this frame, and this frame the error.
            return None
        if isinstance(error, Exception):
            self._record_crash(error)
            return http_exception_reply(InternalServerError(), request_id)
        crash, rest = split_crash(error)
        if crash is None or rest is None:
            return None
        crashes.record(self.recorder, "request.crashed", crash, self.facts)
        raise rest from crash

    def _record_crash(self, error: Exception) -> None:
        """As ``Umbel.log_exception``."""
        facts = self.facts
        crashes.record(self.recorder, "request.crashed", error, facts)
        self.kind, self.detail = Kind.INTERNAL, "an exception that no handler took"
        with bound(**names_of(facts)):
            self._context.logger().error("Exception on request %s %s", facts.method, facts.path, exc_info=error)


class _Parts:
    """The parts of a request's body, held to the application's own limit."""

    __slots__ = ("_length", "_limit", "_receive", "_size", "take_at_most")

    def __init__(self, inbound: InboundRequest, fields: RequestFields, limit: int | None) -> None:
        self.take_at_most = inbound.take_at_most
        self._receive = inbound.receive
        self._limit = math.inf if limit is None else limit
        self._length = known_length(fields) or 0
        self._size = 0

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        """The next part.

        Raises:
            ClientGoneError: the client has gone, or the server has answered.
            RequestEntityTooLarge: there is, or will be, more than the application takes.
        """
        if self._length > self._limit:
            raise RequestEntityTooLarge
        data = await self._receive()
        if not data:
            raise StopAsyncIteration
        self._size += len(data)
        if self._size > self._limit:
            raise RequestEntityTooLarge
        return data
