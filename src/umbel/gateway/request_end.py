"""The end of one HTTP request: what becomes of its exceptions, and its one record.

The same for requests that are answered before Quart (``RequestCycle``) and for Quart's (``QuartRequest``). What the
client got is known by the server, and said by the exchange's ``inbound``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..core.events import RequestEnded
from ..core.failure_kinds import Kind
from ..core.inbound import AnsweredByServerError, ClientGoneError
from ..net.exception_groups import holds_only, leaves, split
from ..server.answer.access_record import CUT_DETAIL
from . import crashes

if TYPE_CHECKING:
    from .request_context import Exchange

DISCARD_MAX = 10**6
"""Bytes of a body that nobody read which are read behind the answer, so that the connection can serve on."""


async def end_by(
    error: BaseException, exchange: Exchange, answer_500: Callable[[], Awaitable[None]], *, testing: bool = False
) -> None:
    """End a request that raised ``error``: note a crash, and answer with 500 where nothing has been answered.

    Every exception stops here but a cancel and the like (``exception_groups.split``), which is raised on. A client that
    has gone is no crash.

    ``testing``: a crash is raised on, because Quart's test client shows its user the exception instead of a 500.
    """
    crash, rest = split(error)
    if crash is None:
        raise error
    inbound = exchange.inbound
    for leaf in leaves(crash):
        if isinstance(leaf, AnsweredByServerError):
            exchange.refused = leaf.with_traceback(None)  # Its frames hold the exchange.
    if holds_only(crash, ClientGoneError):
        if rest is not None:
            raise rest from crash
        return
    crashes.note(exchange.recorder, "request.crashed", crash, exchange.facts)
    exchange.kind, exchange.detail = Kind.INTERNAL, "an exception nobody handled"
    if rest is not None:
        raise rest from crash
    if testing:
        raise error
    if inbound.unanswered and not inbound.gone:
        await answer_500()
    else:
        inbound.crash_recorded = True


def record_of(exchange: Exchange) -> RequestEnded:
    """The record of a request that is over."""
    inbound, origin = exchange.inbound, exchange.origin
    if exchange.refused is not None:
        return _refusal_record(exchange, exchange.refused)
    kind, detail, status = exchange.kind, exchange.detail, inbound.status
    if not inbound.answered:
        if inbound.gone:
            kind = Kind.CLIENT_GONE
        elif kind not in (Kind.INTERNAL, Kind.TIMEOUT):
            kind = Kind.CANCELLED
        if not status:
            status = 500 if kind is Kind.INTERNAL else 499
        elif kind is not Kind.CLIENT_GONE:
            detail = f"{detail}; {CUT_DETAIL}" if detail else CUT_DETAIL
    return RequestEnded(
        exchange.facts,
        status,
        trio.current_time(),
        inbound.bytes_sent,
        exchange.completed,
        kind,
        origin.client,
        origin.scheme,
        detail,
        exchange.own_ms,
        exchange.of_client,
        exchange.outcomes or tuple(exchange.calls.values()),
    )


def _refusal_record(exchange: Exchange, refused: AnsweredByServerError) -> RequestEnded:
    """The record of a request that the server has answered in our place, because its body could not be read on."""
    facts, origin = replace(exchange.facts, request_id=refused.request_id), exchange.origin
    return RequestEnded(
        facts, refused.status, trio.current_time(), 0, None, refused.kind, origin.client, origin.scheme, refused.detail
    )
