"""Streaming response: one line per outcome of a composition, as NDJSON or server-sent events (SSE).

The composition runs as a task in the request's nursery. If the client leaves, or the server ends a client that does not
read, the nursery is cancelled and so the composition.
"""

from __future__ import annotations

import math
from types import TracebackType

import msgspec
import trio
from quart.wrappers.response import ResponseBody
from werkzeug.datastructures import Headers

from ...composition.answer.result import Result
from ...composition.engine import Callers
from ...composition.plan.plan import Plan
from ...composition.stream import StreamLine, capacity, head_fields, run_stream
from ...core.model import Inputs, RequestFacts
from ..request.content_negotiation import NDJSON, SSE, StreamForm
from ..request_context import RequestContext
from .answer import keep_result
from .reply import Reply, encoded
from .validators import NO_STORE

COMMENT_EVERY = 15.0
"""Seconds without a line after which an SSE stream sends a comment, because proxies close silent connections."""
_COMMENT = b": still composing\n\n"


async def stream(
    plan: Plan,
    inputs: Inputs,
    facts: RequestFacts,
    callers: Callers,
    ctx: RequestContext,
    form: StreamForm,
    vary: str,
) -> Reply | Result:
    """Start the composition in ``ctx.nursery``, and wait for its first line. ``vary`` is the value of the field Vary.

    Returns:
        The streaming reply. If the composition fails before its first line, its result, for a problem document.
    """
    fields = head_fields(plan, inputs)
    send, receive = trio.open_memory_channel[StreamLine](capacity(plan))
    if plan.has_mirrors:
        ctx.copies = []
    ctx.nursery.start_soon(run_stream, plan, inputs, facts, callers, ctx.recorder, send, ctx.calls, ctx.copies)
    first = await receive.receive()
    if first.terminal is not None and first.terminal.failure is not None:
        receive.close()
        return first.terminal
    headers = Headers([*fields, ("cache-control", NO_STORE), ("vary", vary)])
    headers["content-type"] = f"{SSE}; charset=utf-8" if form == "sse" else NDJSON
    return Reply(plan.route.answer.status, encoded(headers), LineBody(first, receive, form, ctx), named=True)


class LineBody(ResponseBody):
    """Response body whose parts are the lines of a stream."""

    def __init__(
        self, first: StreamLine, lines: trio.MemoryReceiveChannel[StreamLine], form: StreamForm, ctx: RequestContext
    ) -> None:
        self._first: StreamLine | None = first
        self._lines = lines
        self._sse = form == "sse"
        self._ctx = ctx
        self._ended = False

    async def __aenter__(self) -> LineBody:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._lines.close()

    def __aiter__(self) -> LineBody:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        line = self._first
        self._first = None
        if line is None:
            # The scope ends before the part is returned: an iterator must not hold an open scope.
            with trio.move_on_after(COMMENT_EVERY if self._sse else math.inf):
                # If the channel ends before the terminal line, the composition has crashed. EndOfChannel propagates,
                # so that the response stays incomplete.
                line = await self._lines.receive()
        if line is None:
            return _COMMENT
        if line.terminal is not None:
            self._ended = True
            result = line.terminal
            if result.failure is not None:
                # A redirect that the answer takes over is complete, but not in a stream, whose status has been sent.
                result = msgspec.structs.replace(result, completed=False)
            keep_result(result, self._ctx)
        return line.sse() if self._sse else line.ndjson()
