"""Quart's contexts for a handler that is called without Quart's dispatch.

Theory
------
*Problem.* A handler of ``@app.compose`` may use what a Quart view may use: ``request``, ``current_app``, ``g``,
``url_for``, ``after_this_request``. All of these read Quart's context variables. Most handlers use none of them,
and making Quart's context costs several times as much as the call of the handler.

*Data structure.* ``enter_contexts`` sets each of Quart's context variables to a ``LazyContext``. A ``LazyContext``
makes Quart's own context when any attribute is first read, set or deleted, and forwards the access to it. ``made``
returns this context if it exists, without making it; ``context_of`` makes it if needed.

*Invariants.* At most one context is made per ``LazyContext``, also if several threads of a handler ask at once: a lock
guards the making. The variables are set within ``run_apart``, in context variables that belong to the request alone: a
copy, or in HTTP/2 those of the request's own task. They need no reset: they end with the request, except in background
tasks of the handler.

*What is left out.* Quart's own entering and leaving of a context also opens sessions, sends signals and calls hooks.
Requests for handlers are answered without Quart's dispatch only if none of these was found when the application started
(``route_table.py``). So the session is Quart's null session.

*After the request* a background task may still look at the context, and may be the first to do so. ``over=True`` then
makes a request whose body cannot be read.

*Versions.* Quart 0.22 has an application context and a request context in two variables. Since 0.23 one context in one
variable replaces both.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import quart.ctx
from quart import globals as quart_globals
from quart_trio.asgi import TrioASGIHTTPConnection

from ..request_context import SCOPE_KEY, RequestContext
from .quart_body import QuartBody

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart_trio import QuartTrio

    from ..application import GatewayApplication
    from ..response.sending import AnyResponse
    from ..route_table import Match
    from .quart_body import UmbelRequest

CONTEXT_IS_ARGUMENT = not hasattr(quart_globals, "_cv_request")
"""Whether the methods of Quart's dispatch take the context as their first argument (since Quart 0.23)."""
_OF_APPLICATION: Any = quart_globals._cv_app
_OF_REQUEST: Any = getattr(quart_globals, "_cv_request", _OF_APPLICATION)


def request_of(
    connection: TrioASGIHTTPConnection,
    ctx: RequestContext,
    send: Callable[[Any], Awaitable[None]],
    *,
    over: bool = False,
) -> UmbelRequest:
    """Make Quart's request object of ``connection``, with the body of ``ctx``, and without the tags of compression.

    ``over``: the request has been answered; its body cannot be read any more.
    """
    request = cast("UmbelRequest", connection._create_request_from_scope(send))
    if not isinstance(request.body, QuartBody):
        # The application has a request class of its own. Its body class has no bound, and nothing would fill it.
        request.body = QuartBody(request.content_length, connection.app.config["MAX_CONTENT_LENGTH"])
    compression = cast("GatewayApplication", connection.app).gateway_context.compression
    if compression is not None:
        for name, value in compression.changed_conditions(ctx.origin.fields.by_name, ctx.origin.fields).items():
            request.headers[name.title()] = value
    if not over:
        request.body.read_from(ctx)
    return request


class LazyContext:
    """Proxy of a Quart context, which is made on the first access to an attribute; see the module."""

    __slots__ = ("_lazy_made", "_lazy_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        _set_make(self, make)
        _set_made(self, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(context_of(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(context_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(context_of(self), name)

    # ``isinstance`` reads __class__; ``async with`` reads __aenter__ and __aexit__ of the class.

    @property  # type: ignore[misc]  # typeshed has a setter, too
    def __class__(self) -> type:
        return type(context_of(self))

    async def __aenter__(self) -> Any:
        return await context_of(self).__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        await context_of(self).__aexit__(*raised)


# Setters of the two slots, which bypass LazyContext.__setattr__.
_set_make = LazyContext.__dict__["_lazy_make"].__set__
_set_made = LazyContext.__dict__["_lazy_made"].__set__


def made(lazy: LazyContext) -> Any:
    """Quart's context of ``lazy``; None if it has not been made."""
    return lazy._lazy_made


def context_of(lazy: LazyContext) -> Any:
    """Quart's context of ``lazy``, made now if necessary."""
    context = lazy._lazy_made
    if context is None:
        # Threads of one handler share its contexts, so two of them may come here at once. The lock is reentrant:
        # making a context may access the other LazyContext.
        with _MAKING:
            context = lazy._lazy_made
            if context is None:
                context = lazy._lazy_make()
                _set_made(lazy, context)
    return context


_MAKING = threading.RLock()


@dataclass(frozen=True, slots=True)
class QuartDispatch:
    """Functions of one application that do parts of Quart's dispatch."""

    app_context: Callable[[], Any]
    """Makes Quart's application context."""
    request_context: Callable[..., Any]
    """Makes Quart's request context: ``make_request_context`` with the application bound."""
    finalize_view: Callable[[Any, Any], Awaitable[AnyResponse]]
    """Makes the response of a view's return value (``ErrorHandling.finalize_view``)."""
    answer_exception: Callable[[Any, BaseException], Awaitable[AnyResponse]]
    """Makes the response to a view's exception (``ErrorHandling.answer_exception``)."""


def enter_contexts(app_context: Callable[[], Any], of_request: LazyContext) -> None:
    """Set Quart's context variables. The context variables of the caller must belong to the request alone."""
    if _OF_REQUEST is not _OF_APPLICATION:
        _OF_APPLICATION.set(LazyContext(app_context))
    _OF_REQUEST.set(of_request)


def make_request_context(
    app: QuartTrio,
    ctx: RequestContext,
    scope: Mapping[str, Any],
    send: Callable[[Any], Awaitable[None]],
    match: Match,
    *,
    over: bool,
) -> Any:
    """Make Quart's context of a matched request.

    Args:
        app: the application.
        ctx: the request context of the gateway.
        scope: the ASGI scope of the request.
        send: ASGI's ``send``.
        match: the matched route.
        over: see ``request_of``.
    """
    rewritten: Any = {**ctx.origin.rewritten(scope), SCOPE_KEY: ctx}
    request = request_of(TrioASGIHTTPConnection(app, rewritten), ctx, send, over=over)
    session = app.session_interface.null_session_class()
    quarts: Any = quart.ctx
    if CONTEXT_IS_ARGUMENT:
        context = quarts.AppContext(app, request=request, session=session)
    else:
        context = quarts.RequestContext(app, request, session)
    request.url_rule, request.view_args = match.rule, dict(match.path)
    return context
