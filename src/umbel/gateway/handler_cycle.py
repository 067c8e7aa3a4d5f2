"""Handler cycle: one HTTP request for a handler of ``@app.compose``, answered without Quart's dispatch.

Theory
------
*Problem.* A handler is foreign code. It may set context variables, open cancel scopes, start tasks and raise anything,
and it may use Quart's ``request``, ``g`` or ``after_this_request``. The handler must not change the connection's task,
and must find everything that Quart's dispatch would give it. The route table sends a request here only if the
application has no hook (``route_table.py``), so nothing else of Quart's dispatch could have an effect.

*Steps.* The constructor and the record are those of ``RequestCycle``. In between, ``_handle`` runs in
``InboundRequest.run_apart``:

    1 enter    Quart's context variables get lazy contexts (``quart/quart_context.py``)   never waits
    2 call     the handler runs under the scope ``_late``                                 waits for the handler
    3 error    what the handler raised goes to Quart's error handling                     waits for error handlers
    4 deliver  the response is sent                                                       waits for the client
    5 leave    a Quart request that was made is detached from the connection and closed   waits for body readers

``run_apart`` gives steps 1 to 5 a copy of the context variables, and a scope that ``cancel_apart`` cancels. So a
context variable that the handler sets ends with the request, and error handlers still see it.

*Deadline.* The handler's calls end at the request's deadline. The handler itself is cancelled ``GRACE`` seconds later,
by the scope ``_late``; the time between is for making a response of the calls that succeeded.

*A client that leaves.* Before the handler begins: the handler is not called. Later: the server calls ``cancel``, which
cancels the scope of ``run_apart`` with the reason "client-gone". ``on_gone`` is registered just before the handler
first waits (``_begins_to_wait``), so a client that has only closed its sending half before gets its response.

*A cancel of the task* (by the server) passes through the handler, which may clean up, and through step 5, and
propagates. ``RequestCycle.run`` files the record.

*Stray cancels.* A handler may raise a ``Cancelled`` that belongs to no cancelled scope. It becomes a
``StrayCancelError``, a crash of this request, because the next scope around it would otherwise catch it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from ..auth.current_identity import set_current
from ..composition.engine import CLIENT_GONE
from ..core.inbound import ClientGoneError, InboundRequest
from ..net.exception_groups import stray_cancel, without_stray_cancels
from .compose import GRACE
from .quart.quart_context import LazyContext, context_of, enter_contexts, made
from .request_cycle import RequestCycle
from .response.reply import Reply, as_response
from .response.sending import AnyResponse, deliver

if TYPE_CHECKING:
    from .compose import ComposeView
    from .context import GatewayContext
    from .quart.quart_context import QuartDispatch
    from .route_table import Match


class HandlerCycle(RequestCycle):
    """One request for a handler of ``@app.compose``, answered without Quart's dispatch; see the module."""

    __slots__ = ("_late", "_match", "_over", "_quart", "_scope", "_send", "_view")

    def __init__(
        self,
        context: GatewayContext,
        quart: QuartDispatch,
        match: Match,
        view: ComposeView,
        inbound: InboundRequest,
        scope: Callable[[], Mapping[str, Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Read the facts of ``inbound``.

        Args:
            context: the gateway context.
            quart: Quart's functions of the application.
            match: the matched route; ``view`` is ``match.route``.
            view: the handler's view.
            inbound: the request.
            scope: makes the ASGI scope of the request, for Quart's request object.
            send: ASGI's ``send``, which Quart uses for HTTP/2 push only.
        """
        RequestCycle.__init__(self, context, match, view, inbound)
        self._quart = quart
        self._match = match
        self._view = view
        self._scope = scope
        self._send = send
        self._late = trio.CancelScope(deadline=self.facts.deadline + GRACE)
        self._over = False

    def cancel(self) -> None:
        """Cancel the handler, because the client has left."""
        self.inbound.cancel_apart(CLIENT_GONE)

    async def _answer(self) -> None:
        inbound = self.inbound
        if inbound.gone:
            raise ClientGoneError("the client left before the handler began")
        await inbound.run_apart(self._handle(), self._begins_to_wait)

    def _begins_to_wait(self) -> None:
        self.inbound.on_gone(self.cancel)

    async def _handle(self) -> None:
        context = LazyContext(self._make_context)
        enter_contexts(self._quart.app_context, context)
        self.bind()
        set_current(self.identity)
        try:
            answered = await self._call(context)
            await deliver(self, answered, self._context.settings["RESPONSE_TIMEOUT"], self._has_krakend)
        finally:
            # A background task of the handler may outlive the request and make Quart's context only then. Its body must
            # not read from the connection, which serves another request by that time.
            self._over = True
            if (quarts := made(context)) is not None:
                await quarts.request.body.detach()  # For the same reason: a background task may hold the body.
                await quarts.request.close()

    async def _call(self, context: LazyContext) -> Reply | AnyResponse:
        """Call the handler and return its response, or the response of Quart's error handling."""
        try:
            answered = await self._view.answer(self, self._path, self._late)
            quarts = made(context)
            if quarts is None or not quarts._after_request_functions:
                return answered
            # Functions of ``after_this_request`` must see the response.
            response = as_response(answered) if isinstance(answered, Reply) else answered
            return await self._quart.finalize_view(quarts, response)
        except trio.Cancelled as error:
            if (stray := stray_cancel(error)) is None:
                raise
            raised: BaseException = stray
        except BaseExceptionGroup as group:
            raised = without_stray_cancels(group)
        except Exception as error:  # noqa: BLE001 - handled below, outside of the ``except`` block
            raised = error
        try:
            return await self._quart.answer_exception(context_of(context), raised)
        finally:
            del raised  # Its traceback holds this frame: a reference cycle.

    def _make_context(self) -> Any:
        scope = {**self._scope(), "query_string": self.query}  # Without tokens.
        return self._quart.request_context(self, scope, self._send, self._match, over=self._over)

    def _has_krakend(self) -> bool:
        return self._says_krakend
