"""Handlers of ``@app.compose``: compositions that are written in Python.

A ``ComposeView`` calls its handler for a request, either from Quart's dispatch (``view``) or from a ``HandlerCycle``
(``answer``), and makes a response of what the handler returns. The handler makes calls through ``composition.gather``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial, update_wrapper
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import trio
from quart.wrappers import Response
from werkzeug.wrappers import Response as WerkzeugResponse

from ..auth.current_identity import set_current
from ..composition.gather import Compose, CompositionFailedError
from ..composition.request.code_request import UpstreamDefaults
from ..composition.text.field_template import OnLeftOut, record_left_out
from ..core.failure_kinds import Kind
from ..core.http.header_field import raw_value
from ..core.model import Failure
from ..net.exception_groups import first_leaf, holds_only
from .configured_view import deadline_of
from .request.inputs import InputRules
from .request_context import RequestContext, count_nothing, current_request_context
from .response.answer import AnswerRules, answer
from .response.reply import Reply, as_response, keep_private

if TYPE_CHECKING:
    from .access.route_admission import RouteAdmission
    from .context import GatewayContext
    from .request.request_fields import RequestFields
    from .response.sending import AnyResponse

Handler = Callable[..., Awaitable[Any]]

GRACE = 0.02
"""Seconds after the deadline at which the handler itself is cancelled. Its calls end at the deadline; in between the
handler can return a response with the calls that succeeded."""


class ComposeView:
    """Answers the requests for one handler of ``@app.compose``. Holds no data of a request.

    Args:
        context: the gateway context.
        rule: the werkzeug rule.
        handler: the async function.
        deadline: seconds from the complete request; None: no deadline.
        rules: the rules for the response fields.
        upstreams: the defaults for calls, by name of the upstream.
        compress: whether ``[compress]`` applies to the responses.
        cors: whether ``[cors]`` applies to them. False: the gateway leaves CORS to the handler.
        admission: which requests it gets; None: all.

    Raises:
        TypeError: ``handler`` is not an async function.
    """

    def __init__(
        self,
        context: GatewayContext,
        rule: str,
        handler: Handler,
        deadline: float | None,
        rules: AnswerRules,
        upstreams: Mapping[str, UpstreamDefaults],
        *,
        compress: bool = True,
        cors: bool = True,
        admission: RouteAdmission | None = None,
    ) -> None:
        if not iscoroutinefunction(handler):
            raise TypeError(f"a handler of @app.compose must be an async function, and {handler!r} is not")
        self.admission = admission
        """Which requests the handler gets; None: all."""
        self.states_access = False
        """Whether the application says who may make requests."""
        self.registered: Callable[..., Any] = handler
        """The function that was registered: the handler, or what ``@app.requires`` has made of it."""
        self._context = context
        self._upstreams = upstreams
        self.rule = rule
        self.krakend_compat = rules.krakend_compat
        self.browser_fields = context.browsers.of(None if cors else False)
        self._handler = handler
        self._deadline = math.inf if deadline is None else deadline
        self.compression = context.compression if compress else None
        """Compresses the responses; None: they are sent as they are."""
        self._inputs = InputRules(compression=context.compression)
        self._answer = rules
        self.view = _standing_for(handler, self._view)

    async def _view(self, **path: Any) -> AnyResponse:
        """Quart's view: answer the current request of Quart; see ``answer``."""
        ctx = current_request_context()
        ctx.compression = self.compression
        facts = ctx.routed(self.rule, self.deadline(ctx.origin.fields, ctx.facts.started_at))
        if self.admission is not None:
            await self.admission.admit(ctx, path)
            set_current(ctx.identity)
        answered = await self.answer(ctx, path, trio.CancelScope(deadline=facts.deadline + GRACE))
        if not isinstance(answered, Reply):
            return answered
        return as_response(answered)

    def deadline(self, fields: RequestFields, complete_at: float) -> float:
        """The deadline (``trio.current_time()``) of a request with ``fields`` that was complete at ``complete_at``.

        Infinite if neither the handler nor the client sets one.
        """
        return deadline_of(fields, complete_at, self._deadline)

    async def answer(self, ctx: RequestContext, path: Mapping[str, Any], late: trio.CancelScope) -> AnyResponse | Reply:
        """Call the handler and make a response of what it returns.

        Args:
            ctx: the request context, with route and deadline.
            path: the values of the rule's variables.
            late: a new cancel scope with the request's deadline plus ``GRACE``; the handler runs in it.

        Returns:
            The composed reply, or the Quart response that the handler returned. If the handler was cut at ``late``, or
            a required call failed, the reply is a problem document.

        Raises:
            RequestError: 503, the application has not started or has stopped.
            TypeError: the handler returned a tuple of another form.
            BaseException: an exception of the handler, except ``CompositionFailedError``.
        """
        sent, facts = ctx.origin.fields, ctx.facts
        runtime = self._context.require_runtime()
        inputs = self._inputs.read(ctx, path)
        compose = Compose(runtime.callers, inputs, facts, ctx.recorder, self._upstreams, ctx.calls)
        try:
            with late:

                def waits(for_body: bool) -> None:
                    """Move the deadline, which counts from the complete request, after a wait for the body.

                    The handler has no deadline while it waits for the body.
                    """
                    now = trio.current_time()
                    due = self.deadline(sent, now)
                    # A gather block that begins during the wait gets the deadline as if the body were complete now.
                    compose.facts = ctx.became_complete(due, now)
                    late.deadline = math.inf if for_body else due + GRACE

                ctx.body_waits = waits
                try:
                    value = await self._handler(compose, **path)
                finally:
                    ctx.body_waits = count_nothing  # ``waits`` holds the request context: a reference cycle.
        except Exception as error:
            failed = _failed_composition(error)
            if failed is None:
                raise
            # The failed gather block may be inside another one, whose calls were cut after the result was made.
            return answer(compose.with_all_calls(failed.result), self._answer, ctx)
        if late.cancelled_caught:
            failure = Failure.of(Kind.TIMEOUT, "the handler was still running after the deadline")
            return answer(compose.failed(failure), self._answer, ctx)
        if isinstance(value, (Response, WerkzeugResponse)):
            return value
        value, status, headers = _unpacked(value)
        said = _fields(headers, partial(record_left_out, facts, ctx.recorder)) if headers else ()
        reply = answer(compose.result(value, status=status, headers=said), self._answer, ctx)
        if ctx.identity is not None:
            reply.fields = fields = [*reply.fields]
            keep_private(fields)
        return reply


def _standing_for(handler: Handler, answer: Callable[..., Awaitable[AnyResponse]]) -> Callable[..., Any]:
    """Make a view that calls ``answer`` and has the name, the docstring and the attributes of ``handler``.

    Extensions (rate limits, CORS, automatic OPTIONS) set attributes on a function and look for them on the registered
    view. Some decorators set them after registration, so the view shares the handler's ``__dict__``.
    """

    async def view(**path: Any) -> AnyResponse:
        return await answer(**path)

    update_wrapper(view, handler, updated=())
    # After update_wrapper: ``__wrapped__`` in the shared dict would make the handler wrap itself.
    view.__dict__ = handler.__dict__
    return view


def _unpacked(value: Any) -> tuple[Any, int, Iterable[tuple[str, Any]]]:
    """Split the return value of a handler: a value, ``(value, status)`` or ``(value, status, headers)``.

    Raises:
        TypeError: ``value`` is another tuple.
    """
    if not isinstance(value, tuple):
        return value, 200, []
    match value:
        case (inner, int() as status):
            return inner, status, []
        case (inner, int() as status, headers):
            return inner, status, headers.items() if isinstance(headers, Mapping) else headers
    raise TypeError("a handler of @app.compose must return a value, (value, status) or (value, status, headers)")


def _fields(headers: Iterable[tuple[str, Any]], left_out: OnLeftOut) -> list[tuple[str, str]]:
    """The header fields that a handler returned. A field with the value None, or with an invalid value, is left out."""
    fields = []
    for name, value in headers:
        if value is None:
            continue
        if raw_value(str(value)) is not None:
            fields.append((str(name).lower(), str(value)))
        else:
            left_out(str(name).lower(), "the value holds a control character or a lone surrogate")
    return fields


def _failed_composition(error: Exception) -> CompositionFailedError | None:
    """The ``CompositionFailedError`` of a handler, also from a group of only such errors; None for any other error."""
    return first_leaf(error, CompositionFailedError) if holds_only(error, CompositionFailedError) else None
