"""Handshakes that the server answers in the application's place: the response, and its record."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from ...core.inbound import ClientGoneError, InboundRequest
from ..peer import Peer
from ..response.error_response import ErrorResponse, ServerResponse, new_request_id

if TYPE_CHECKING:
    from ..state import ServerState


class Handshake(InboundRequest, Protocol):
    """A request of one of our servers that asks for a WebSocket."""

    refused_unseen: bool
    """Set where no application gets to see it: a connection that serves on counts these (``REFUSED_MAX``)."""


async def refuse_handshake(server: ServerState, request: Handshake, refusal: ErrorResponse) -> None:
    """Answer and record a handshake that no application gets to see."""
    request.refused_unseen = True
    response = ServerResponse(refusal, new_request_id())
    try:
        response = await answer_refusal(server, request, response)
    finally:
        record_refusal(server, request, response)


async def answer_refusal(server: ServerState, request: InboundRequest, response: ServerResponse) -> ServerResponse:
    """Give the answer; ``response`` with the bytes of its body. A client that has gone misses it."""
    fields, body = server.answer_to(response.refusal, response.request_id)
    with suppress(ClientGoneError):
        if not request.respond(response.refusal.status, fields, body):
            await request.drained()
    return response._replace(bytes_sent=len(body))


def record_refusal(server: ServerState, request: InboundRequest, response: ServerResponse) -> None:
    """Have the access record of a request written that no application has recorded."""
    server.record_refusal(
        response.refusal,
        request_id=response.request_id,
        started_at=request.started,
        method=request.method,
        path=request.target.partition(b"?")[0].decode("latin-1"),
        peer=Peer(request.peer, request.local, request.scheme == "https"),
        fields=request.fields,
        bytes_sent=response.bytes_sent,
    )
