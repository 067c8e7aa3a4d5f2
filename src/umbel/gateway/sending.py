"""Answers on their way out: what a view of ours or of Quart's gave, handed to the ``InboundRequest``.

It decides no status, and holds no scope. The head of an answer in parts is given with its first part, so that what
fails before that part can still be answered in another way. Cancelled midway, an answer stays unfinished, so that the
server cuts it and the client can tell.
"""

from __future__ import annotations

from collections.abc import Callable

from quart.wrappers.response import DataBody, Response, ResponseBody
from werkzeug.wrappers import Response as WerkzeugResponse

from ..core.inbound import InboundRequest
from .fields import Field
from .reply import BODILESS, REQUEST_ID, Reply, encoded

_REQUEST_ID_HEADER = REQUEST_ID.decode()

AnyResponse = Response | WerkzeugResponse


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
