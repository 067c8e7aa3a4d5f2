"""Quart's request, and Quart's context variables for a handler that is called without Quart's dispatch.

Theory
------
A handler of ``@app.compose`` may use whatever Quart's views may: ``request``, ``current_app``, ``g``, ``url_for``,
``after_this_request``. Most use none of it, and to make it costs several times as much as to call the handler. So the
context variables hold a ``LazyContext``, which makes Quart's own context when something of it is looked at.

What Quart does when it enters and leaves a context beside that is done for hooks, receivers of signals and sessions.
Requests for handlers come here only where there are none of them (``route_table.py``), so the session is Quart's null
session.

Quart 0.22 has a context of the application and one of the request, in a variable each. Since 0.23 both are one.
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

    from ..response.sending import AnyResponse
    from ..route_table import Match
    from .quart_body import UmbelRequest

CONTEXT_IS_ARGUMENT = not hasattr(quart_globals, "_cv_request")
"""Whether the methods of Quart's dispatch take the context as their first argument (since 0.23)."""
_OF_APPLICATION: Any = quart_globals._cv_app
_OF_REQUEST: Any = getattr(quart_globals, "_cv_request", _OF_APPLICATION)


def request_of(
    connection: TrioASGIHTTPConnection,
    ctx: RequestContext,
    send: Callable[[Any], Awaitable[None]],
    *,
    over: bool = False,
) -> UmbelRequest:
    """The request that ``connection`` has in its scope, as Quart's views see it; its body is that of ``ctx``.

    ``over``: the request has been answered, so that nothing of its body can be read any more.
    """
    request = cast("UmbelRequest", connection._create_request_from_scope(send))
    if not isinstance(request.body, QuartBody):
        # A request class of the application's own. Its body would not be bounded as a whole, and nobody would fill it.
        request.body = QuartBody(request.content_length, connection.app.config["MAX_CONTENT_LENGTH"])
    if not over:
        request.body.read_from(ctx)
    return request


class LazyContext:
    """Stands for a context of Quart's, which is made when something of it is looked at or set."""

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

    # What Python looks for in the class, and isinstance asks for.

    @property  # type: ignore[misc]  # typeshed has a setter, too
    def __class__(self) -> type:
        return type(context_of(self))

    async def __aenter__(self) -> Any:
        return await context_of(self).__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        await context_of(self).__aexit__(*raised)


# Past LazyContext.__setattr__.
_set_make = LazyContext.__dict__["_lazy_make"].__set__
_set_made = LazyContext.__dict__["_lazy_made"].__set__


def made(lazy: LazyContext) -> Any:
    """Quart's own context that ``lazy`` stands for; None if nobody has asked for it."""
    return lazy._lazy_made


def context_of(lazy: LazyContext) -> Any:
    """Quart's own context that ``lazy`` stands for; made now, if nobody has asked for it yet."""
    context = lazy._lazy_made
    if context is None:
        # Threads of one handler share its context, and may be the first to ask for it.
        with _MAKING:
            context = lazy._lazy_made
            if context is None:
                context = lazy._lazy_make()
                _set_made(lazy, context)
    return context


_MAKING = threading.RLock()


@dataclass(frozen=True, slots=True)
class QuartDispatch:
    """The functions of one application by which a handler is called and answered as Quart's dispatch does it."""

    app_context: Callable[[], Any]
    """Makes Quart's context of the application."""
    request_context: Callable[..., Any]
    """Makes Quart's context of a request: ``make_request_context`` with the application."""
    finalize_view: Callable[[Any, Any], Awaitable[AnyResponse]]
    """See ``ErrorHandling``."""
    answer_exception: Callable[[Any, BaseException], Awaitable[AnyResponse]]
    """See ``ErrorHandling``."""


def enter_contexts(app_context: Callable[[], Any], of_request: LazyContext) -> None:
    """Set Quart's variables in the current context, which ends with the request."""
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
    """Quart's context of a request that has been matched; ``scope`` and ``send`` are ASGI's; ``over`` as above."""
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
