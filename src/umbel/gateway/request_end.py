"""The end of one HTTP request: what becomes of its exceptions, and its one record.

The same for requests that are answered before Quart (``RequestCycle``) and for Quart's (``QuartRequest``). What the
client got is known by the server, and said by the request context's ``inbound``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..core.events import RequestEnded
from ..core.failure_kinds import Kind
from ..core.inbound import AnsweredByServerError, ClientGoneError
from ..net.exception_groups import holds_only, leaves, split_crash
from ..server.response.access_record import CUT_DETAIL
from . import crashes

if TYPE_CHECKING:
    from .request_context import RequestContext

DISCARD_MAX = 10**6
"""Bytes of a body that nobody read which are read behind the answer, so that the connection can serve on."""


async def end_by(
    error: BaseException, ctx: RequestContext, answer_500: Callable[[], Awaitable[None]], *, testing: bool = False
) -> None:
    """End a request that raised ``error``: record a crash, and answer with 500 where nothing has been answered.

    Every exception stops here but a cancel and the like (``exception_groups.split``), which is raised on. A client that
    has gone is no crash.

    ``testing``: a crash is raised on, because Quart's test client shows its user the exception instead of a 500.
    """
    crash, rest = split_crash(error)
    if crash is None:
        raise error
    inbound = ctx.inbound
    for leaf in leaves(crash):
        if isinstance(leaf, AnsweredByServerError):
            ctx.answered_by_server = leaf.with_traceback(None)  # Its frames hold the request context.
    if holds_only(crash, ClientGoneError):
        if rest is not None:
            raise rest from crash
        return
    crashes.record(ctx.recorder, "request.crashed", crash, ctx.facts)
    ctx.kind, ctx.detail = Kind.INTERNAL, "an exception nobody handled"
    if rest is not None:
        raise rest from crash
    if testing:
        raise error
    if inbound.can_respond and not inbound.gone:
        await answer_500()
    else:
        inbound.crash_recorded = True


def record_of(ctx: RequestContext) -> RequestEnded:
    """The record of a request that is over."""
    inbound, origin = ctx.inbound, ctx.origin
    if ctx.answered_by_server is not None:
        return _server_answer_record(ctx, ctx.answered_by_server)
    kind, detail, status = ctx.kind, ctx.detail, inbound.status
    if not inbound.response_complete:
        if inbound.gone:
            kind = Kind.CLIENT_GONE
        elif kind not in (Kind.INTERNAL, Kind.TIMEOUT):
            kind = Kind.CANCELLED
        if not status:
            status = 500 if kind is Kind.INTERNAL else 499
        elif kind is not Kind.CLIENT_GONE:
            detail = f"{detail}; {CUT_DETAIL}" if detail else CUT_DETAIL
    return RequestEnded(
        ctx.facts,
        status,
        trio.current_time(),
        inbound.bytes_sent,
        ctx.completed,
        kind,
        origin.client,
        origin.scheme,
        detail,
        ctx.own_ms,
        ctx.of_client,
        ctx.outcomes or tuple(ctx.calls.values()),
    )


def _server_answer_record(ctx: RequestContext, error: AnsweredByServerError) -> RequestEnded:
    """The record of a request that the server has answered in our place, because its body could not be read on."""
    facts, origin = replace(ctx.facts, request_id=error.request_id), ctx.origin
    return RequestEnded(
        facts,
        error.status,
        trio.current_time(),
        0,
        None,
        error.kind,
        origin.client,
        origin.scheme,
        error.detail,
    )
