"""What becomes of errors under Quart: the application's own handlers first, then problem documents.

The base of ``Umbel``, which holds Quart's methods that we replace for it. Nothing is lost on the way: every leaf of a
group is answered or recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import quart.wrappers.base
import trio
from quart import request
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import RequestRedirect, RoutingException

from ...composition.answer.cache_control import to_private
from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...net.exception_groups import check_cancel, leaves, split_crash, without_stray_cancels
from .. import crashes
from ..application import GatewayApplication
from ..request.paths import relative_redirect
from ..request_context import find_request_context, find_websocket_context
from ..response.problems import as_http_exception, from_http_exception
from ..response.reply import ComposedResponse
from .quart_context import CONTEXT_IS_ARGUMENT

if TYPE_CHECKING:
    from quart.typing import ResponseReturnValue, ResponseTypes

    from ...core.model import RequestFacts
    from ..response.sending import AnyResponse

# What Quart's websocket raises once its client has gone; 0.22 has no such exception.
_DISCONNECTED: tuple[type[Exception], ...] = tuple(
    found for name, found in vars(quart.wrappers.base).items() if name == "ClientDisconnectedError"
)


class ErrorHandling(GatewayApplication):
    """A Quart-Trio application whose errors become problem documents where no handler of its own takes them."""

    # Quart 0.23 hands its context to these methods as an argument, 0.22 keeps it in a variable: ``context`` is either.

    async def full_dispatch_request(self, *context: Any) -> AnyResponse:
        """Quart's dispatch, with both halves kept of a group that holds a cancel and a crash.

        (Quart-Trio raises the cancel alone, and the crash is never heard of.)
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
        """The response to what a view raised, as Quart's dispatch makes it; ``context`` is Quart's of the request.

        Raises:
            BaseException: the cancel that a group holds, whose crash is recorded.
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
        """The response for what a view returned, as Quart's dispatch makes it."""
        quarts: Any = self.finalize_request
        arguments = (context, result) if CONTEXT_IS_ARGUMENT else (result, context)
        response: AnyResponse = await quarts(*arguments)
        return response

    def _holds_cancel(self, group: BaseExceptionGroup[BaseException]) -> bool:
        """Whether a group holds nothing but cancels.

        Raises:
            BaseException: the cancels of one that holds crashes too, which are recorded.
        """
        crash, rest = split_crash(group)
        if crash is None or rest is None:
            return crash is None
        crashes.record(self.recorder, "request.crashed", crash, self._facts())
        raise rest from crash

    async def full_dispatch_websocket(self, *context: Any) -> Any:
        """Quart's dispatch; a cancel that nobody ordered is a failure of the view."""
        try:
            return await super().full_dispatch_websocket(*context)
        except trio.Cancelled as error:
            check_cancel(error)
            raise

    async def handle_user_exception(self, *context_and_error: Any) -> HTTPException | ResponseReturnValue:
        """Find a handler; a ``RequestError`` that has none goes by its status, as ``abort(status)`` would."""
        *context, error = context_and_error
        if isinstance(error, BaseExceptionGroup):
            return await self._handle_group(context, error)
        ctx = find_request_context()
        if (
            isinstance(error, RequestError)
            and ctx is not None
            and self._find_error_handler(error, request.blueprints) is None
        ):
            ctx.detail = error.detail
            error = as_http_exception(error)
        quarts: Any = super()
        answer: HTTPException | ResponseReturnValue = await quarts.handle_user_exception(*context, error)
        return answer

    async def _handle_group(
        self, context: list[Any], group: BaseExceptionGroup[BaseException]
    ) -> HTTPException | ResponseReturnValue:
        """The first leaf that has a handler answers, as with Quart-Trio; the others are recorded."""
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
                # Its handler broke: that is the exception now, and the leaf its context.
                self._record_all(others)
                raise
            self._record_all(others)
            return answer
        raise group

    def _record_all(self, errors: Iterable[Exception]) -> None:
        for error in errors:
            crashes.record(self.recorder, "request.crashed", error, self._facts())

    async def handle_websocket_exception(self, *context_and_error: Any) -> ResponseTypes | None:
        """Quart's; but a client that has gone is no failure. (Quart-Trio 0.13 takes it for one.)"""
        error = context_and_error[-1]
        if isinstance(error, _DISCONNECTED):
            raise error
        quarts: Any = super()
        answer: ResponseTypes | None = await quarts.handle_websocket_exception(*context_and_error)
        return answer

    def log_exception(self, *context_and_info: Any) -> None:
        """Record an exception that no handler took, each leaf of a group; Quart's logger hears of it too."""
        error = context_and_info[-1][1]
        if error is not None:
            ctx = find_request_context()
            event = "request.crashed" if ctx is not None else "app.crashed"
            crashes.record(self.recorder, event, error, self._facts())
            if (ctx := ctx or find_websocket_context()) is not None:
                ctx.kind, ctx.detail = Kind.INTERNAL, "an exception that no handler took"
        super().log_exception(*context_and_info)

    def raise_routing_exception(self, request: Any) -> NoReturn:
        """Raise why no view answers; the target of a redirect is relative to the request's."""
        error = request.routing_exception
        if isinstance(error, RequestRedirect):
            error.new_url = relative_redirect(error.new_url, request.scheme, request.host)
        raise error

    async def make_response(self, result: ResponseReturnValue | HTTPException) -> AnyResponse:
        """Quart's, but an HTTP error that no handler of the application took becomes a problem document."""
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
        return await super().make_response(result)

    async def process_response(self, *response_and_context: Any) -> ResponseTypes:
        """Quart's hooks and its session; a composed answer that they let set a cookie becomes one client's.

        What a view of the application's own says of caching is its own affair.
        """
        quarts: Any = super()
        response: ResponseTypes = await quarts.process_response(*response_and_context)
        if isinstance(response, ComposedResponse) and "set-cookie" in response.headers:
            response.headers["cache-control"] = to_private(response.headers.get("cache-control", ""))
        return response

    async def make_default_options_response(self, *context: Any) -> TrioResponse:
        """The answer to OPTIONS: the methods, and no content."""
        quarts = await super().make_default_options_response(*context)
        return TrioResponse(b"", 204, {"allow": ", ".join(sorted(quarts.allow))})

    @staticmethod
    def _facts() -> RequestFacts | None:
        ctx = find_request_context() or find_websocket_context()
        return ctx.facts if ctx is not None else None
