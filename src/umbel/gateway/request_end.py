"""End of one HTTP request: handling of its exceptions, and its access record.

Both kinds of request, ``RequestCycle`` and ``QuartRequest``, end in the same way. Which response the client got is read
from ``RequestContext.inbound``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..core.events import RequestEnded
from ..core.failure_kinds import BREAKS, Kind
from ..core.inbound import AnsweredByServerError, ClientGoneError
from ..net.exception_groups import holds_only, leaves, split_crash
from ..server.response.access_record import CUT_DETAIL
from ..upstream.mirrors import RequestCopy
from .operation import crashes

if TYPE_CHECKING:
    from .request_context import RequestContext

DISCARD_MAX = 10**6
"""Maximum bytes of an unread request body that the server discards after the response, to keep the connection."""


async def end_by(
    error: BaseException, ctx: RequestContext, answer_500: Callable[[], Awaitable[None]], *, testing: bool = False
) -> None:
    """Handle an exception that no other code has handled, at the end of its request.

    To be called in the ``except`` block of ``error``. A crash is recorded, and answered with 500 if no response was
    begun. ``ClientGoneError`` is ignored.

    Args:
        error: the exception.
        ctx: the request context.
        answer_500: sends the response with the status 500.
        testing: whether a crash is raised after its record, and no 500 is sent. Quart's test client expects this.

    Raises:
        BaseException: the part of ``error`` that must propagate, such as a cancel (``exception_groups.split_crash``).
    """
    crash, rest = split_crash(error)
    if crash is None:
        raise error
    inbound = ctx.inbound
    for leaf in leaves(crash):
        if isinstance(leaf, AnsweredByServerError):
            # Without its traceback, whose frames hold the request context.
            ctx.answered_by_server = leaf.with_traceback(None)
    if holds_only(crash, ClientGoneError):
        if rest is not None:
            raise rest from crash
        return
    crashes.record(ctx.recorder, "request.crashed", crash, ctx.facts)
    ctx.kind, ctx.detail = Kind.INTERNAL, "an unhandled exception"
    if rest is not None:
        raise rest from crash
    if testing:
        raise error
    if inbound.can_respond and not inbound.gone:
        await answer_500()
    else:
        inbound.crash_recorded = True


def record_of(ctx: RequestContext) -> RequestEnded:
    """Make the access record of a request that is over, from its context and what was sent of its response.

    Without a response, the status is 500 after a crash of the gateway, else 499. A request that was taken has the
    status 101, over HTTP/2 too: so each WebSocket counts alike. Its end cuts no response off.
    """
    inbound, origin = ctx.inbound, ctx.origin
    if ctx.answered_by_server is not None:
        return _server_answer_record(ctx, ctx.answered_by_server)
    kind, detail, status = ctx.kind, ctx.detail, inbound.status
    if inbound.switched_at is not None:
        status = 101
    elif not inbound.response_complete:
        if inbound.gone:
            kind = Kind.CLIENT_GONE
        elif kind not in BREAKS:
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
        switched_at=inbound.switched_at,
        auth=ctx.auth,
        limit=ctx.limit,
    )


def send_copies(ctx: RequestContext) -> None:
    """Send the copies of a request that is over to their mirrors, without waiting.

    A call that never began has no copy. While the application stops no copies are sent.
    """
    copies, ctx.copies = ctx.copies, None
    runtime = ctx.serving.runtime
    if runtime is None:
        return
    for copy in copies or ():
        mirror, rules = copy.mirror, copy.mirror.call.rules
        outcome = ctx.calls.get(rules.name)
        if outcome is not None and outcome.started_at is not None:
            runtime.mirrors.send(
                RequestCopy(rules.upstream, rules.name, copy.prepare, ctx.facts, mirror.timeout, rules.max_body)
            )


def _server_answer_record(ctx: RequestContext, error: AnsweredByServerError) -> RequestEnded:
    """Make the access record of a request to which the server itself has sent an error response because of its body."""
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
        auth=ctx.auth,
    )
