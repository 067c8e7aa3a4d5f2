"""A composition as a streaming response: a line per outcome, as NDJSON or as server-sent events.

The composition runs as a task of the request's nursery and never in the iterator, so a client that leaves, or is cut
because it reads nothing, takes it along.
"""

from __future__ import annotations

import math
from types import TracebackType

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
"""Seconds of silence after which an SSE stream says that it is alive, for proxies that cut silent connections."""
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
    """Begin to stream.

    Returns once the first line is there: the answer that goes on with it; or, where that line already says that the
    composition failed, its result, for an ordinary problem answer.
    """
    fields = head_fields(plan, inputs)
    send, receive = trio.open_memory_channel[StreamLine](capacity(plan))
    ctx.nursery.start_soon(run_stream, plan, inputs, facts, callers, ctx.recorder, send, ctx.calls)
    first = await receive.receive()
    if first.terminal is not None and first.terminal.failure is not None:
        receive.close()
        return first.terminal
    headers = Headers([*fields, ("cache-control", NO_STORE), ("vary", vary)])
    headers["content-type"] = f"{SSE}; charset=utf-8" if form == "sse" else NDJSON
    return Reply(plan.route.answer.status, encoded(headers), LineBody(first, receive, form, ctx), named=True)


class LineBody(ResponseBody):
    """The lines of one stream as the parts of a response body."""

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
            # The scope is closed before anything is handed out.
            with trio.move_on_after(COMMENT_EVERY if self._sse else math.inf):
                # A channel that ends before the last line is a crash of the composition, and passes as one: the
                # message must stay unfinished.
                line = await self._lines.receive()
        if line is None:
            return _COMMENT
        if line.terminal is not None:
            self._ended = True
            keep_result(line.terminal, self._ctx)
        return line.sse() if self._sse else line.ndjson()
