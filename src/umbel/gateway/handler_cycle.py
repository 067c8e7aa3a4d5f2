"""One HTTP request for a handler of ``@app.compose``, answered without Quart's dispatch.

The steps are those of ``RequestCycle``. The handler is foreign code, so it runs apart: with a copy of the context
variables, in which Quart's are set (``quart_context.py``), and in a scope that is cancelled when the client leaves.

What the handler raises is answered by Quart's error handling, in the same context, so that the application's error
handlers see it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

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
    """A request that a handler of ``@app.compose`` answers."""

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
        """``scope`` and ``send`` are ASGI's, of this request."""
        RequestCycle.__init__(self, context, match, view, inbound)
        self._quart = quart
        self._match = match
        self._view = view
        self._scope = scope
        self._send = send
        self._late = trio.CancelScope(deadline=self.facts.deadline + GRACE)
        self._over = False

    def cancel(self) -> None:
        """See ``RequestContext``."""
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
        try:
            answered = await self._call(context)
            await deliver(self, answered, self._context.settings["RESPONSE_TIMEOUT"], self._has_krakend)
        finally:
            self._over = True  # A task that outlives the request may be the first to look at its context.
            if (quarts := made(context)) is not None:
                await quarts.request.body.detach()  # This object may hold the body, too.
                await quarts.request.close()

    async def _call(self, context: LazyContext) -> Reply | AnyResponse:
        """What the handler answers, or what becomes of its error."""
        try:
            answered = await self._view.answer(self, self._path, self._late)
            quarts = made(context)
            if quarts is None or not quarts._after_request_functions:
                return answered
            # Somebody wants to see the response (``after_this_request``).
            response = as_response(answered) if isinstance(answered, Reply) else answered
            return await self._quart.finalize_view(quarts, response)
        except trio.Cancelled as error:
            if (stray := stray_cancel(error)) is None:
                raise
            raised: BaseException = stray
        except BaseExceptionGroup as group:
            raised = without_stray_cancels(group)
        except Exception as error:  # noqa: BLE001 - answered below
            raised = error
        try:
            return await self._quart.answer_exception(context_of(context), raised)
        finally:
            del raised  # Its traceback holds this frame.

    def _make_context(self) -> Any:
        return self._quart.request_context(self, self._scope(), self._send, self._match, over=self._over)

    def _has_krakend(self) -> bool:
        return self._says_krakend
