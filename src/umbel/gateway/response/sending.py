"""Sending of replies and Quart responses through an ``InboundRequest``.

The head of a response in parts is sent with the first part, so an error before the first part can still become an error
response. After a cancel in the middle the response stays incomplete; the server then aborts the response, and the
client sees an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio
from quart.wrappers.response import DataBody, Response, ResponseBody
from werkzeug.exceptions import GatewayTimeout
from werkzeug.wrappers import Response as WerkzeugResponse

from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError, InboundRequest
from ..browsers.compression import WholeResponse
from ..request.request_fields import Field
from .lasting import streaming
from .problems import from_http_exception
from .reply import (
    BODILESS,
    ERROR,
    ComposedResponse,
    Reply,
    add_vary,
    complete,
    encoded,
    keep_private,
    say_incomplete,
)
from .route_fields import REQUEST_ID

if TYPE_CHECKING:
    from ..request_context import RequestContext

_REQUEST_ID_HEADER = REQUEST_ID.decode()

AnyResponse = Response | WerkzeugResponse


async def deliver(
    ctx: RequestContext, answer: AnyResponse | Reply, timeout: float | None, says_krakend: Callable[[], bool]
) -> None:
    """Send the return value of a view, with the fields that every response has and KrakenD's field added.

    If a Quart response is not sent within its timeout, the client gets 504, or an aborted response if it has begun.

    Args:
        ctx: the request context.
        answer: the reply or Quart response.
        timeout: seconds for sending a Quart response that has no timeout of its own; None: no timeout.
        says_krakend: whether an error response to this request has KrakenD's field.

    Raises:
        ClientGoneError: the client has left. If ``answer`` is a Quart response, the request's work has been cancelled.
    """
    inbound, request_id = ctx.inbound, ctx.facts.request_id
    krakend = (answer.status if isinstance(answer, Reply) else answer.status_code) >= ERROR and says_krakend()
    if isinstance(answer, Reply):
        complete(answer, ctx, krakend=krakend)
        await send_reply(ctx, answer)
        return
    if krakend:
        say_incomplete(answer)
    if isinstance(answer, Response) and answer.timeout is not Ellipsis:
        timeout = answer.timeout
    try:
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await send_response(ctx, answer)
    except ClientGoneError:
        ctx.cancel()  # Before the exception leaves the nursery: running calls are then recorded as "client-gone".
        raise
    if scope.cancelled_caught:
        ctx.kind = Kind.TIMEOUT
        ctx.detail = f"the response was not sent within its timeout of {timeout:g} s"
        if inbound.can_respond:
            await send_response(ctx, from_http_exception(GatewayTimeout(), request_id))
        else:
            # The response stays incomplete, so the server aborts it. The access record has the reason.
            inbound.crash_recorded = True


async def send_reply(ctx: RequestContext, reply: Reply) -> None:
    """Send a reply to which ``complete`` was applied.

    Raises:
        ClientGoneError: the client has left.
    """
    if isinstance(reply.body, bytes):
        await send_whole(ctx, reply.status, reply.fields, reply.body)
    else:
        await _send_parts(ctx, reply.status, lambda: reply.fields, reply.body)


async def send_response(ctx: RequestContext, response: AnyResponse) -> None:
    """Send a Quart or werkzeug response, with X-Request-Id added if it is missing, and the fields for browsers.

    Raises:
        ClientGoneError: the client has left.
    """
    inbound, status = ctx.inbound, response.status_code

    def fields() -> list[Field]:
        if status in BODILESS:
            if status == 304 and ctx.compression is not None:
                # Without Content-Type the 304 would have a Vary that the 200 lacks.
                media = response.headers.get("content-type", "").encode("utf-8", "replace")
                ctx.compression = ctx.compression if not media or ctx.compression.has_type(media) else None
            del response.headers["content-length"], response.headers["content-type"]
        response.headers.setdefault(_REQUEST_ID_HEADER, ctx.facts.request_id)
        raw = encoded(response.headers)
        if ctx.identity is not None and not isinstance(response, ComposedResponse):
            keep_private(raw)
            add_vary(raw, ctx.varies)
        raw += ctx.limit_fields
        ctx.browser_fields.add(raw, ctx.origin)
        return raw

    if isinstance(response, WerkzeugResponse):
        try:
            if response.is_sequence:
                await send_whole(ctx, status, fields(), b"".join(response.iter_encoded()))
            elif _is_bodiless(inbound, status):
                await send_whole(ctx, status, fields(), b"")
            else:
                await inbound.start(status, fields())
                with streaming(ctx):
                    for part in response.iter_encoded():
                        await inbound.send(part)
                    await inbound.finish()
        finally:
            response.close()
    elif isinstance(response.response, DataBody):
        # ``begin`` and ``end`` select the range of a range request.
        data = response.response.data[response.response.begin : response.response.end]
        await send_whole(ctx, status, fields(), data)
    else:
        await _send_parts(ctx, status, fields, response.response)


def _is_bodiless(inbound: InboundRequest, status: int) -> bool:
    return inbound.method == "HEAD" or status in BODILESS


async def send_whole(ctx: RequestContext, status: int, fields: Sequence[Field], body: bytes) -> None:
    """Send a response whose body is complete, compressed if that fits.

    For HEAD ``body`` is the one of GET; the server does not send it.

    Raises:
        ClientGoneError: the client has left.
    """
    inbound = ctx.inbound
    if ctx.compression is not None:
        whole = WholeResponse(status, [*fields], body)
        status, fields, body = await ctx.compression.apply(ctx.origin.fields, inbound.method, whole, ctx.coded_content)
    if not inbound.respond(status, fields, body):
        await inbound.drained()


async def _send_parts(
    ctx: RequestContext, status: int, fields: Callable[[], Sequence[Field]], body: ResponseBody
) -> None:
    inbound = ctx.inbound
    async with body as iterable:
        head, parts = fields(), aiter(iterable)
        first = None if _is_bodiless(inbound, status) else await anext(parts, None)
        await inbound.start(status, head)
        with streaming(ctx):
            if first is not None:
                await inbound.send(_encoded(first))
                async for part in parts:
                    await inbound.send(_encoded(part))
            await inbound.finish()


def _encoded(part: bytes | str) -> bytes:
    return part.encode() if isinstance(part, str) else part
