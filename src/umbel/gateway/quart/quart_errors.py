"""Error handling under Quart: first the application's error handlers, then problem documents.

``ErrorHandling`` overrides those methods of Quart that handle errors. Each leaf of an exception group is either
answered or recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, cast

import quart.wrappers.base
import trio
from quart import request, websocket
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import RequestRedirect, RoutingException

from ...composition.answer.cache_control import to_private
from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...net.exception_groups import check_cancel, leaves, split_crash, without_stray_cancels
from ..access.route_access import AccessError
from ..access.route_limits import LimitError
from ..application import GatewayApplication
from ..operation import crashes
from ..request.paths import relative_redirect
from ..request_context import find_request_context, find_websocket_context
from ..response.problems import as_http_exception, from_http_exception
from ..response.reply import ComposedResponse
from .quart_context import CONTEXT_IS_ARGUMENT

if TYPE_CHECKING:
    from quart.typing import ResponseReturnValue, ResponseTypes

    from ...core.model import RequestFacts
    from ..response.sending import AnyResponse
    from ..routing.url_map import UmbelMap

# The exception that Quart's websocket raises after its client has left; Quart 0.22 has none.
_DISCONNECTED: tuple[type[Exception], ...] = tuple(
    found for name, found in vars(quart.wrappers.base).items() if name == "ClientDisconnectedError"
)


class ErrorHandling(GatewayApplication):
    """Quart-Trio application whose unhandled errors become problem documents."""

    # Quart 0.23 passes its context to these methods as the first argument; Quart 0.22 keeps it in a context variable.
    # So ``*context`` has one member or none.

    async def full_dispatch_request(self, *context: Any) -> AnyResponse:
        """Quart's dispatch. A crash in a group with a cancel is recorded, which Quart-Trio would lose.

        A stray cancel of the view becomes a ``StrayCancelError``.
        """
        try:
            return await super().full_dispatch_request(*context)
        except trio.Cancelled as error:
            check_cancel(error)
            raise
        except BaseExceptionGroup as error:
            self._holds_cancel(error)
            kept = without_stray_cancels(error)
            if kept is error:
                raise
            raise kept from None

    async def answer_exception(self, context: Any, error: BaseException) -> AnyResponse:
        """Make the response to a view's exception, as Quart's dispatch does. ``context`` is Quart's request context.

        Raises:
            BaseException: the cancel of a group that also holds a crash. The crash is recorded.
        """
        contexts = (context,) if CONTEXT_IS_ARGUMENT else ()
        try:
            return await self.finalize_view(context, await self.handle_user_exception(*contexts, error))
        except (Exception, BaseExceptionGroup) as unhandled:
            if isinstance(unhandled, BaseExceptionGroup) and self._holds_cancel(unhandled):
                raise
            quarts: Any = self.handle_exception
            response: AnyResponse = await quarts(*contexts, unhandled)
            return response

    async def finalize_view(self, context: Any, result: Any) -> AnyResponse:
        """Make the response of a view's return value, as Quart's dispatch does."""
        quarts: Any = self.finalize_request
        arguments = (context, result) if CONTEXT_IS_ARGUMENT else (result, context)
        response: AnyResponse = await quarts(*arguments)
        return response

    def _holds_cancel(self, group: BaseExceptionGroup[BaseException]) -> bool:
        """Whether ``group`` holds only cancels; False: only crashes.

        Raises:
            BaseException: the cancels of a group that holds both. The crashes are recorded.
        """
        crash, rest = split_crash(group)
        if crash is None or rest is None:
            return crash is None
        crashes.record(self.recorder, "request.crashed", crash, self._facts())
        raise rest from crash

    async def full_dispatch_websocket(self, *context: Any) -> Any:
        """Quart's dispatch of a WebSocket. A stray cancel of the view becomes a ``StrayCancelError``."""
        try:
            return await super().full_dispatch_websocket(*context)
        except trio.Cancelled as error:
            check_cancel(error)
            raise

    async def handle_user_exception(self, *context_and_error: Any) -> HTTPException | ResponseReturnValue:
        """Find and call an error handler. A ``RequestError`` without handler is treated as ``abort(error.status)``."""
        *context, error = context_and_error
        if isinstance(error, BaseExceptionGroup):
            return await self._handle_group(context, error)
        # Of a WebSocket only a refused handshake is an answer. Any other error may come after the handshake.
        answered: tuple[type[RequestError], ...] = (RequestError,)
        current: Any = request
        ctx = find_request_context()
        if ctx is None:
            answered, current, ctx = (AccessError, LimitError), websocket, find_websocket_context()
        if (
            isinstance(error, answered)
            and ctx is not None
            and self._find_error_handler(error, current.blueprints) is None
        ):
            ctx.detail = error.detail
            error = as_http_exception(error)
        quarts: Any = super()
        answer: HTTPException | ResponseReturnValue = await quarts.handle_user_exception(*context, error)
        return answer

    async def _handle_group(
        self, context: list[Any], group: BaseExceptionGroup[BaseException]
    ) -> HTTPException | ResponseReturnValue:
        """Answer the first leaf that has a handler, as Quart-Trio does, and record the other leaves."""
        crash, rest = split_crash(group)
        if rest is not None or not isinstance(crash, ExceptionGroup):
            raise group
        failures = [leaf for leaf in leaves(crash) if isinstance(leaf, Exception)]
        for leaf in failures:
            others = [other for other in failures if other is not leaf]
            try:
                answer = await self.handle_user_exception(*context, leaf)
            except Exception as raised:
                if raised is leaf:
                    continue
                # The error handler itself failed: its exception replaces the leaf, which is its context.
                self._record_all(others)
                raise
            self._record_all(others)
            return answer
        raise group

    def _record_all(self, errors: Iterable[Exception]) -> None:
        for error in errors:
            crashes.record(self.recorder, "request.crashed", error, self._facts())

    async def handle_websocket_exception(self, *context_and_error: Any) -> ResponseTypes | None:
        """Quart's handling, except that a client that has left is no error. (Quart-Trio 0.13 treats it as one.)"""
        error = context_and_error[-1]
        if isinstance(error, _DISCONNECTED):
            raise error
        quarts: Any = super()
        answer: ResponseTypes | None = await quarts.handle_websocket_exception(*context_and_error)
        return answer

    def log_exception(self, *context_and_info: Any) -> None:
        """Record each leaf of an unhandled exception, and log it with Quart's logger."""
        error = context_and_info[-1][1]
        if error is not None:
            ctx = find_request_context()
            event = "request.crashed" if ctx is not None else "app.crashed"
            crashes.record(self.recorder, event, error, self._facts())
            if (ctx := ctx or find_websocket_context()) is not None:
                ctx.kind, ctx.detail = Kind.INTERNAL, "an unhandled exception"
        super().log_exception(*context_and_info)

    def raise_routing_exception(self, request: Any) -> NoReturn:
        """Raise the routing exception of the request, with a relative URL if it is a redirect."""
        error = request.routing_exception
        if isinstance(error, RequestRedirect):
            error.new_url = relative_redirect(error.new_url, request.scheme, request.host)
        raise error

    async def make_response(self, result: ResponseReturnValue | HTTPException) -> AnyResponse:
        """Quart's response; for an unhandled HTTP error, a problem document."""
        if (
            isinstance(result, HTTPException)
            and not isinstance(result, RoutingException)
            and result.response is None
            and (result.code or 0) >= 400
        ):
            facts = self._facts()
            if result.code == 400 and (ctx := find_request_context()) is not None:
                ctx.kind = Kind.BAD_REQUEST
            return from_http_exception(result, facts.request_id if facts is not None else "")
        response = await super().make_response(result)
        if isinstance(result, RequestRedirect) and self._host_is_reported:
            # As an answer of a configured route: a client that may choose X-Forwarded-Host must not choose the redirect
            # that a shared cache gives to clients of another host.
            response.vary.update(("X-Forwarded-Host", "Forwarded"))
        return response

    @property
    def _host_is_reported(self) -> bool:
        """Whether the rule of a request depends on a host that a proxy may report."""
        return bool(cast("UmbelMap", self.url_map).by_host) and not self.trusted_proxies.is_empty

    async def process_response(self, *response_and_context: Any) -> ResponseTypes:
        """Run Quart's hooks and save its session. If these set a cookie, a composed response becomes private.

        Responses of the application's own views keep their Cache-Control.
        """
        quarts: Any = super()
        response: ResponseTypes = await quarts.process_response(*response_and_context)
        if isinstance(response, ComposedResponse) and "set-cookie" in response.headers:
            response.headers["cache-control"] = to_private(response.headers.get("cache-control", ""))
        return response

    async def make_default_options_response(self, *context: Any) -> TrioResponse:
        """The response to OPTIONS: 204 with Allow."""
        quarts = await super().make_default_options_response(*context)
        return TrioResponse(b"", 204, {"allow": ", ".join(sorted(quarts.allow))})

    @staticmethod
    def _facts() -> RequestFacts | None:
        ctx = find_request_context() or find_websocket_context()
        return ctx.facts if ctx is not None else None
