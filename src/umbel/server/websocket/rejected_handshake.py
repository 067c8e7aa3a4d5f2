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


async def reject_handshake(server: ServerState, request: Handshake, error_response: ErrorResponse) -> None:
    """Answer and record a handshake that no application gets to see."""
    request.refused_unseen = True
    response = ServerResponse(error_response, new_request_id())
    try:
        response = await send_error_response(server, request, response)
    finally:
        record_rejected(server, request, response)


async def send_error_response(server: ServerState, request: InboundRequest, response: ServerResponse) -> ServerResponse:
    """Give the response; ``response`` with the bytes of its body. A client that has gone misses it."""
    fields, body = server.fields_and_body(response.error_response, response.request_id)
    with suppress(ClientGoneError):
        if not request.respond(response.error_response.status, fields, body):
            await request.drained()
    return response._replace(bytes_sent=len(body))


def record_rejected(server: ServerState, request: InboundRequest, response: ServerResponse) -> None:
    """Have the access record of a request written that no application has recorded."""
    server.record_rejected(
        response.error_response,
        request_id=response.request_id,
        started_at=request.started,
        method=request.method,
        path=request.target.partition(b"?")[0].decode("latin-1"),
        peer=Peer(request.peer, request.local, request.scheme == "https"),
        fields=request.fields,
        bytes_sent=response.bytes_sent,
    )
