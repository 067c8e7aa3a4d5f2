"""``@app.compose``: a composition written in Python as a Quart view, on the same engine as the configured routes.

Made when the decorator is used. The handler's calls are ``composition.gather``'s; reading the request and writing the
answer are the files that ``routes.py`` uses.
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

from ..composition.field_template import LeftOut, note_left_out
from ..composition.gather import Compose, CompositionFailedError
from ..composition.outgoing import UpstreamDefaults
from ..core.field_value import raw_value
from ..kinds import Kind
from ..model import Failure
from ..net.exception_groups import first_leaf, holds_only
from .exchange import Exchange, current_exchange, current_request
from .inputs import InputRules
from .reply import as_response
from .respond import AnswerRules, answer
from .routes import deadline_of

if TYPE_CHECKING:
    from ..composition.result import Result
    from .app import Umbel
    from .sending import AnyResponse

Handler = Callable[..., Awaitable[Any]]

GRACE = 0.02
"""Seconds past the deadline after which a handler is cut. Its calls end at the deadline itself; this is the time for
making an answer of what there is."""


class ComposeView:
    """The view of one ``@app.compose`` handler."""

    def __init__(
        self,
        app: Umbel,
        rule: str,
        handler: Handler,
        deadline: float | None,
        rules: AnswerRules,
        upstreams: Mapping[str, UpstreamDefaults],
    ) -> None:
        if not iscoroutinefunction(handler):
            raise TypeError(f"a composing handler must be an async function, and {handler!r} is none")
        self._app = app
        self._upstreams = upstreams
        self._rule = rule
        self._handler = handler
        self._deadline = math.inf if deadline is None else deadline
        self._inputs = InputRules()
        self._answer = rules
        self.view = _standing_for(handler, self._view)

    async def _view(self, **path: Any) -> AnyResponse:
        """Answer one request with what the handler returns.

        Raises:
            RequestError: nothing can be answered at the moment (503).
        """
        exchange = current_exchange()
        fields = exchange.origin.fields
        facts = exchange.routed(self._rule, deadline_of(fields, exchange.facts.started_at, self._deadline))
        runtime = self._app.runtime
        inputs = self._inputs.read(exchange, path)
        compose = Compose(runtime.callers, inputs, facts, exchange.recorder, self._upstreams, exchange.calls)
        try:
            with trio.CancelScope(deadline=facts.deadline + GRACE) as late:

                def waits(for_body: bool) -> None:
                    """The deadline runs from the complete request: waiting for its body takes nothing of it."""
                    now = trio.current_time()
                    due = math.inf if for_body else deadline_of(fields, now, self._deadline)
                    compose.facts = exchange.became_complete(due, now)
                    late.deadline = due + GRACE

                current_request().body.waits = waits  # type: ignore[attr-defined]  # Umbel.request_class has it
                value = await self._handler(compose, **path)
        except Exception as error:
            failed = _failed_composition(error)
            if failed is None:
                raise
            # The block that failed may stand in another one, whose calls have been cut only since.
            return self._respond(compose.with_all_calls(failed.result), exchange)
        if late.cancelled_caught:
            failure = Failure.of(Kind.TIMEOUT, "the handler itself was at work past the deadline")
            return self._respond(compose.failed(failure), exchange)
        if isinstance(value, (Response, WerkzeugResponse)):
            # The handler wrote its own response; its fields are its own affair.
            return value
        value, status, headers = _unpacked(value)
        said = _fields(headers, partial(note_left_out, facts, exchange.recorder))
        return self._respond(compose.result(value, status=status, headers=said), exchange)

    def _respond(self, result: Result, exchange: Exchange) -> AnyResponse:
        response = as_response(answer(result, self._answer, exchange))
        # The server's write deadline cuts a client that reads nothing; Quart's would cut one that reads slowly too.
        response.timeout = None
        return response


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


def _fields(headers: Iterable[tuple[str, Any]], left_out: LeftOut) -> list[tuple[str, str]]:
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
