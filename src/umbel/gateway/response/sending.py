"""Answers on their way out: what a view of ours or of Quart's gave, handed to the ``InboundRequest``.

The head of an answer in parts is given with its first part, so that what
fails before that part can still be answered in another way. Cancelled midway, an answer stays unfinished, so that the
server cuts it and the client notices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from quart.wrappers.response import DataBody, Response, ResponseBody
from werkzeug.exceptions import GatewayTimeout
from werkzeug.wrappers import Response as WerkzeugResponse

from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError, InboundRequest
from ..request.request_fields import Field
from .problems import from_http_exception
from .reply import BODILESS, ERROR, REQUEST_ID, Reply, complete, encoded, say_incomplete

if TYPE_CHECKING:
    from ..request_context import RequestContext

_REQUEST_ID_HEADER = REQUEST_ID.decode()

AnyResponse = Response | WerkzeugResponse


async def deliver(
    ctx: RequestContext, answer: AnyResponse | Reply, timeout: float | None, says_krakend: Callable[[], bool]
) -> None:
    """Send what a view has answered, with the fields that every answer has.

    ``timeout`` bounds the sending of a response that has no timeout of its own, in seconds; None is no bound.
    ``says_krakend`` says whether an error of this request has KrakenD's field.

    Raises:
        ClientGoneError: nobody is there to take it. What serves the request has been cancelled then.
    """
    inbound, request_id = ctx.inbound, ctx.facts.request_id
    krakend = (answer.status if isinstance(answer, Reply) else answer.status_code) >= ERROR and says_krakend()
    if isinstance(answer, Reply):
        complete(answer, request_id, krakend=krakend)
        await send_reply(inbound, answer)
        return
    if krakend:
        say_incomplete(answer)
    if isinstance(answer, Response) and answer.timeout is not Ellipsis:
        timeout = answer.timeout
    try:
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await send_response(inbound, answer, request_id)
    except ClientGoneError:
        ctx.cancel()  # What serves it ends for that reason, and not because a sibling failed.
        raise
    if scope.cancelled_caught:
        ctx.kind = Kind.TIMEOUT
        ctx.detail = f"the response was not sent within its timeout of {timeout:g} s"
        if inbound.can_respond:
            await send_response(inbound, from_http_exception(GatewayTimeout(), request_id), request_id)
        else:
            inbound.crash_recorded = True  # It is no crash, and the record says it.
        # The message stays unfinished then, so the server closes the connection and the client notices.


async def send_reply(inbound: InboundRequest, reply: Reply) -> None:
    """Send the whole answer, whose fields are complete.

    Raises:
        ClientGoneError: nobody is there to take it.
    """
    if isinstance(reply.body, bytes):
        await _send_whole(inbound, reply.status, reply.fields, reply.body)
    else:
        await _send_parts(inbound, reply.status, lambda: reply.fields, reply.body)


async def send_response(inbound: InboundRequest, response: AnyResponse, request_id: str) -> None:
    """Send the whole response, with the request's id where it has none.

    Raises:
        ClientGoneError: nobody is there to take it.
    """
    status = response.status_code

    def fields() -> list[Field]:
        if status in BODILESS:
            del response.headers["content-length"], response.headers["content-type"]
        response.headers.setdefault(_REQUEST_ID_HEADER, request_id)
        return encoded(response.headers)

    if isinstance(response, WerkzeugResponse):
        try:
            if _is_bodiless(inbound, status) or response.is_sequence:
                data = b"" if _is_bodiless(inbound, status) else b"".join(response.iter_encoded())
                await _send_whole(inbound, status, fields(), data)
            else:
                await inbound.start(status, fields())
                for part in response.iter_encoded():
                    await inbound.send(part)
                await inbound.finish()
        finally:
            response.close()
    elif isinstance(response.response, DataBody):
        # Range requests move these two.
        data = response.response.data[response.response.begin : response.response.end]
        await _send_whole(inbound, status, fields(), data)
    else:
        await _send_parts(inbound, status, fields, response.response)


def _is_bodiless(inbound: InboundRequest, status: int) -> bool:
    return inbound.method == "HEAD" or status in BODILESS


async def _send_whole(inbound: InboundRequest, status: int, fields: list[Field], body: bytes) -> None:
    if not inbound.respond(status, fields, body):
        await inbound.drained()


async def _send_parts(
    inbound: InboundRequest, status: int, fields: Callable[[], list[Field]], body: ResponseBody
) -> None:
    async with body as parts:
        head = fields()
        begun = False
        if not _is_bodiless(inbound, status):
            async for part in parts:
                if not begun:
                    begun = True
                    await inbound.start(status, head)
                await inbound.send(part.encode() if isinstance(part, str) else part)
    if not begun:
        await inbound.start(status, head)
    await inbound.finish()
