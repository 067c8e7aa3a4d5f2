"""Request cycle: one HTTP request that is answered before Quart, from its head to its access record.

Theory
------
*Problem.* Quart's dispatch about doubles the CPU time of a request with one upstream call, and a request for a
configured route needs none of it. Such a request is answered here, on the task of its connection (HTTP/2: of its
stream). The client gets the same response as through Quart. The task of an HTTP/1.1 connection serves the next request
afterwards, so nothing may remain in it: no cancel scope, no context variable, no child task.

*Classes.* ``PlanCycle`` answers a route of the configuration, ``StaticCycle`` one without a composition
(``static_routes.py``), ``HandlerCycle`` (``handler_cycle.py``) a handler of ``@app.compose``. ``RequestCycle`` is
their common part. One object answers one request; ``run`` is called once.

*Steps* of a ``PlanCycle``, with all points at which it waits (3 and 4 also while a thread decodes large JSON):

    1 constructor   facts: request id, trace, origin, route, deadline                       never waits
    2 admission     limits, credentials, scopes (``access/route_admission.py``)             waits while keys are fetched
    3 inputs        path, query, fields; the body, if the plan uses it                      waits for the body
    4 composition   the plan's calls under the deadline (``PlanRun.run``)                   waits for upstreams
    5 answer        status, fields and body of the response                                 never waits
    6 response      ``send_whole``: compression; ``respond``; ``drained``, if the socket    waits for a thread that
                    does not take everything                                                compresses, for the client
    7 record        ``file_record``; runs in every case, exactly once                       never waits

For a stream, steps 4 to 6 overlap: a task in the request's own nursery runs the composition, and the lines are sent as
they come. The nursery ends with the request.

*Errors.* An exception of steps 2 to 5 becomes a response, as in Quart's dispatch without any hook: a problem document
with the status of the ``RequestError`` or ``HTTPException``, else 500 with a record of the crash (``_reply_to``). An
exception that remains goes to ``end_by``: a crash is recorded, and answered with 500 if no response has begun; a cancel
is raised again.

*A client that leaves.*

- In step 2: keys are fetched on, since other requests wait for them too; then no call is started.
- In step 3: ``receive`` raises ClientGoneError.
- Before step 4: no call is started.
- In step 4: before the composition first waits, it registers itself with ``InboundRequest.on_gone``. When the client
  leaves, all calls are cut, and ``PlanRun.run`` raises ClientGoneError. A stream registers ``cancel``, which cancels
  the nursery.
- In step 6: ``respond``, ``drained`` or ``send`` raises ClientGoneError.

ClientGoneError ends in ``end_by`` without a response, and the record says "client-gone". (If the server itself has
sent an error response because of the body, the error is AnsweredByServerError, and the record has that response.)

*A cancel of the task* comes from the server: when the grace period of a shutdown is over, or through ASGI also when the
client leaves. Until step 3 nothing has been started. In step 4 all calls are cut and their outcomes are recorded. In
step 6 the response stays incomplete, and the server closes the connection so that the client notices. In each case the
record is filed and the cancel propagates.

*The deadline* counts from the complete request: from the head, or if a body is read, from the end of its decoding.
It bounds step 4 only. The server bounds the time for the body and for a client that does not read.
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
from .operation import crashes
from .request.client_origin import origin_of
from .request.request_body import known_length
from .request_context import RequestContext
from .request_end import DISCARD_MAX, end_by, record_of, send_copies
from .response.answer import answer
from .response.problems import http_exception_reply, request_error_reply
from .response.reply import Reply, complete
from .response.sending import send_reply, send_whole

if TYPE_CHECKING:
    from ..core.model import Inputs
    from .context import GatewayContext
    from .request.content_negotiation import StreamForm
    from .request.request_fields import RequestFields
    from .route_table import AnyView, Match
    from .routes import RouteView
    from .static_routes import StaticView


class RequestCycle(RequestContext):
    """One request that is answered before Quart, from its facts to its access record; see the module."""

    __slots__ = ("_admission", "_context", "_path", "_says_krakend")

    def __init__(self, context: GatewayContext, match: Match, route: AnyView, inbound: InboundRequest) -> None:
        """Read the facts of ``inbound``; ``route`` is ``match.route``."""
        peer, started_at = inbound.peer, inbound.started
        origin = origin_of(
            None if peer is None else peer[0], inbound.fields, context.proxies, inbound.version, inbound.scheme
        )
        fields = origin.fields
        request_id, trace = origin.identify(context.head_bound)
        facts = RequestFacts(
            request_id,
            trace,
            inbound.method,
            match.decoded,
            route.rule,
            started_at,
            route.deadline(fields, started_at),
        )
        RequestContext.__init__(
            self, facts, origin, context.serving, context.visible_query(inbound.target.partition(b"?")[2])
        )  # Not super(): it is slow.
        self.inbound = inbound
        self.compression = route.compression
        self.browser_fields = route.browser_fields
        self._admission = route.admission
        self._context = context
        self._path = match.path
        self._says_krakend = route.krakend_compat

    async def run(self) -> None:
        """Answer the request and file its access record. After a cancel the response may be incomplete.

        Raises:
            BaseException: a cancel, or another exception that must end the server (``split_crash``).
        """
        inbound, counts = self.inbound, self._context.counts
        counts.in_flight += 1
        counts.total += 1
        try:
            inbound.discard_max = DISCARD_MAX
            if (self._admission is None and self.serving.admit_by_limits is None) or await self._is_admitted():
                await self._answer()
        except BaseException as error:  # noqa: BLE001 - ``end_by`` raises what must propagate
            await end_by(error, self, self._answer_500)
        finally:
            # After ``end_by``: only now it is certain which response was sent.
            counts.in_flight -= 1
            inbound.file_record(self.recorder, record_of(self))
            if self.copies:
                send_copies(self)

    async def _is_admitted(self) -> bool:
        """Whether the limits of the server and the route admit the request. If not, the response has been sent.

        Waits only while keys are fetched.

        An exception is handled by ``end_by``.
        """
        try:
            if self.serving.admit_by_limits is not None:
                self.serving.admit_by_limits(self, self._path)
            if self._admission is not None:
                await self._admission.admit(self, self._path)
        except (Exception, BaseExceptionGroup) as error:
            if (reply := self._reply_to(error)) is None:
                raise
        else:
            return True
        complete(reply, self, krakend=self._says_krakend)
        await send_reply(self, reply)
        return False

    async def _answer(self) -> None:
        """Send the response to a request that the route admits. An exception is handled by ``end_by``."""
        raise NotImplementedError

    async def _answer_500(self) -> None:
        reply = http_exception_reply(InternalServerError(), self.facts.request_id)
        complete(reply, self, krakend=self._says_krakend)
        await send_reply(self, reply)

    def _reply_to(self, error: BaseException) -> Reply | None:
        """The error response for ``error``, the same as ``Umbel.handle_user_exception`` gives.

        None if the caller must raise ``error`` on: the client has left, or ``error`` is a group of cancels only or of
        crashes only.

        Raises:
            BaseException: the cancel of a group that also holds a crash. The crash is recorded.
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
            # Not raised here: the traceback would hold this frame, and this frame holds the error.
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
        """Record a crash and log it, the same as ``Umbel.log_exception`` does."""
        facts = self.facts
        crashes.record(self.recorder, "request.crashed", error, facts)
        self.kind, self.detail = Kind.INTERNAL, "an unhandled exception"
        with bound(**facts.log_fields):
            self._context.logger().error("Exception on request %s %s", facts.method, facts.path, exc_info=error)


class PlanCycle(RequestCycle):
    """One request for a route of the configuration, answered before Quart; see the module."""

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
            # ``on_gone`` is given to the composition, which calls it before it first waits: a client that closes its
            # sending half before that still gets the response.
            result = await route.run(self, inputs, inbound.on_gone).run()
            reply = answer(result, route.answer_rules, self)
        except (Exception, BaseExceptionGroup) as error:
            if (reply_to_error := self._reply_to(error)) is None:
                raise
            reply = reply_to_error
        complete(reply, self, krakend=route.krakend_compat)
        assert type(reply.body) is bytes
        await send_whole(self, reply.status, reply.fields, reply.body)

    async def _answer_by_stream(self, form: StreamForm) -> None:
        inbound, route = self.inbound, self._route
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                inputs = await self._read_with_body() if route.reads_body else route.read(self, self._path)
                # The composition runs in a task of the nursery, so a cancel of the nursery cuts it.
                inbound.on_gone(self.cancel)
                reply = await route.stream(self, inputs, form)
            except (Exception, BaseExceptionGroup) as error:
                if (reply_to_error := self._reply_to(error)) is None:
                    raise
                reply = reply_to_error
            complete(reply, self, krakend=route.krakend_compat)
            try:
                await send_reply(self, reply)
            except ClientGoneError:
                self.cancel()  # Before the nursery cancels: the calls are then recorded as "client-gone".
                raise
            nursery.cancel_scope.cancel(reason="answered")

    def _read_with_body(self) -> Awaitable[Inputs]:
        self.body = _Parts(self.inbound, self.origin.fields, self._context.settings["MAX_CONTENT_LENGTH"])
        return self._route.read_with_body(self, self._path)


class StaticCycle(RequestCycle):
    """One request for a static route, answered before Quart; see the module.

    Only a delay makes it wait. If the client leaves during the delay, the wait ends and no response is sent.
    """

    __slots__ = ("_route",)

    def __init__(self, context: GatewayContext, match: Match, route: StaticView, inbound: InboundRequest) -> None:
        RequestCycle.__init__(self, context, match, route, inbound)
        self._route = route
        self.coded_content = route.coded_content

    async def _answer(self) -> None:
        route = self._route
        try:
            reply = route.reply(self, self._path)
            if route.delay:
                await self._wait()
        except (Exception, BaseExceptionGroup) as error:
            if (reply_to_error := self._reply_to(error)) is None:
                raise
            reply = reply_to_error
        complete(reply, self, krakend=route.krakend_compat)
        assert type(reply.body) is bytes
        await send_whole(self, reply.status, reply.fields, reply.body)

    async def _wait(self) -> None:
        with trio.CancelScope() as scope:
            self.inbound.on_gone(scope.cancel)
            await self._route.wait(self)
        self.inbound.on_gone(None)
        if self.inbound.gone:
            raise ClientGoneError("the client left during the delay of the response")


class _Parts:
    """Iterator over the parts of a request body, with the limit MAX_CONTENT_LENGTH of the application."""

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
            ClientGoneError: the client has left, or the server has sent an error response itself.
            RequestEntityTooLarge: the body exceeds the limit; at once if its length is known.
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
