"""``@app.compose``: a composition written in Python, on the same engine as the configured routes.

``ComposeView`` is made when the decorator is used. ``view`` is Quart's way to it, and ``HandlerCycle`` the other. The
handler's calls are ``composition.gather``'s; reading the request and writing the answer are the files that
``routes.py`` uses.
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

from ..composition.gather import Compose, CompositionFailedError
from ..composition.request.code_request import UpstreamDefaults
from ..composition.text.field_template import OnLeftOut, record_left_out
from ..core.failure_kinds import Kind
from ..core.http.header_field import raw_value
from ..core.model import Failure
from ..net.exception_groups import first_leaf, holds_only
from .request.inputs import InputRules
from .request_context import RequestContext, count_nothing, current_request_context
from .response.answer import AnswerRules, answer
from .response.reply import Reply, as_response
from .routes import deadline_of

if TYPE_CHECKING:
    from .context import GatewayContext
    from .request.request_fields import RequestFields
    from .response.sending import AnyResponse

Handler = Callable[..., Awaitable[Any]]

GRACE = 0.02
"""Seconds past the deadline after which a handler is cut. Its calls end at the deadline itself; this is the time for
making an answer of what there is."""


class ComposeView:
    """One ``@app.compose`` handler."""

    def __init__(
        self,
        context: GatewayContext,
        rule: str,
        handler: Handler,
        deadline: float | None,
        rules: AnswerRules,
        upstreams: Mapping[str, UpstreamDefaults],
    ) -> None:
        if not iscoroutinefunction(handler):
            raise TypeError(f"a composing handler must be an async function, and {handler!r} is none")
        self._context = context
        self._upstreams = upstreams
        self.rule = rule
        self.krakend_compat = rules.krakend_compat
        self._handler = handler
        self._deadline = math.inf if deadline is None else deadline
        self._inputs = InputRules()
        self._answer = rules
        self.view = _standing_for(handler, self._view)

    async def _view(self, **path: Any) -> AnyResponse:
        """Answer one request of Quart's; see ``answer``."""
        ctx = current_request_context()
        facts = ctx.routed(self.rule, self.deadline(ctx.origin.fields, ctx.facts.started_at))
        answered = await self.answer(ctx, path, trio.CancelScope(deadline=facts.deadline + GRACE))
        if not isinstance(answered, Reply):
            return answered
        return as_response(answered)

    def deadline(self, fields: RequestFields, complete_at: float) -> float:
        """When the answer to a request with these fields is due (absolute), which was complete at that time."""
        return deadline_of(fields, complete_at, self._deadline)

    async def answer(self, ctx: RequestContext, path: Mapping[str, Any], late: trio.CancelScope) -> AnyResponse | Reply:
        """Answer one request that has been routed with what the handler returns.

        ``late`` is a new scope, whose deadline is ``GRACE`` after the request's.

        Raises:
            RequestError: nothing can be answered at the moment (503).
            BaseException: whatever the handler raises, but failed compositions.
        """
        fields, facts = ctx.origin.fields, ctx.facts
        runtime = self._context.require_runtime()
        inputs = self._inputs.read(ctx, path)
        compose = Compose(runtime.callers, inputs, facts, ctx.recorder, self._upstreams, ctx.calls)
        try:
            with late:

                def waits(for_body: bool) -> None:
                    """The deadline runs from the complete request: waiting for its body takes nothing of it."""
                    now = trio.current_time()
                    due = self.deadline(fields, now)
                    # A block that begins meanwhile has the deadline that it would have if the body were there.
                    compose.facts = ctx.became_complete(due, now)
                    late.deadline = math.inf if for_body else due + GRACE

                ctx.body_waits = waits
                try:
                    value = await self._handler(compose, **path)
                finally:
                    ctx.body_waits = count_nothing  # It holds the request context.
        except Exception as error:
            failed = _failed_composition(error)
            if failed is None:
                raise
            # The block that failed may stand in another one, whose calls have been cut only since.
            return answer(compose.with_all_calls(failed.result), self._answer, ctx)
        if late.cancelled_caught:
            failure = Failure.of(Kind.TIMEOUT, "the handler itself was at work past the deadline")
            return answer(compose.failed(failure), self._answer, ctx)
        if isinstance(value, (Response, WerkzeugResponse)):
            # The handler wrote its own response; its fields are its own affair.
            return value
        value, status, headers = _unpacked(value)
        said = _fields(headers, partial(record_left_out, facts, ctx.recorder)) if headers else ()
        return answer(compose.result(value, status=status, headers=said), self._answer, ctx)


def _standing_for(handler: Handler, answer: Callable[..., Awaitable[AnyResponse]]) -> Callable[..., Any]:
    """A view with the name, the text and the attributes of ``handler``.

    Extensions mark a function with attributes (rate limits, CORS, automatic OPTIONS) and look for them on the view
    that is registered. Some decorators mark it only after its registration, so the attributes are not a copy.
    """

    async def view(**path: Any) -> AnyResponse:
        return await answer(**path)

    update_wrapper(view, handler, updated=())
    view.__dict__ = handler.__dict__  # without ``__wrapped__``: it would be the handler's own, and lead to itself
    return view


def _unpacked(value: Any) -> tuple[Any, int, Iterable[tuple[str, Any]]]:
    """What a handler returned, as Quart's views may: a value, ``(value, status)`` or ``(value, status, headers)``.

    Raises:
        TypeError: it is another tuple; JSON has lists.
    """
    if not isinstance(value, tuple):
        return value, 200, []
    match value:
        case (inner, int() as status):
            return inner, status, []
        case (inner, int() as status, headers):
            return inner, status, headers.items() if isinstance(headers, Mapping) else headers
    raise TypeError("a composing handler returns a value, (value, status) or (value, status, headers)")


def _fields(headers: Iterable[tuple[str, Any]], left_out: OnLeftOut) -> list[tuple[str, str]]:
    """The fields that a handler gives: as in a template, None is no field, and what no field can hold is left out."""
    fields = []
    for name, value in headers:
        if value is None:
            continue
        if raw_value(str(value)) is not None:
            fields.append((str(name).lower(), str(value)))
        else:
            left_out(str(name).lower(), "it holds a control character, or is no Unicode")
    return fields


def _failed_composition(error: Exception) -> CompositionFailedError | None:
    """The failure that a handler raised, also through nurseries of its own; None if anything else is in there."""
    return first_leaf(error, CompositionFailedError) if holds_only(error, CompositionFailedError) else None
