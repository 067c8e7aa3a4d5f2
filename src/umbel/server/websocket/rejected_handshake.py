"""Error responses to opening handshakes in the application's place, and their access records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ...core.inbound import ClientGoneError, InboundRequest
from ..peer import Peer
from ..response.error_response import ErrorResponse, ServerResponse, new_request_id

if TYPE_CHECKING:
    from ..state import ServerState


class Handshake(InboundRequest, Protocol):
    """The request of an opening handshake."""

    refused_unseen: bool
    """Set if no application sees the request. An HTTP/2 connection counts such requests (``REFUSED_MAX``)."""


async def reject_handshake(server: ServerState, request: Handshake, error_response: ErrorResponse) -> None:
    """Send an error response to a handshake that no application sees, and record it, also if cancelled."""
    request.refused_unseen = True
    response = ServerResponse(error_response, new_request_id())
    try:
        response = await send_error_response(server, request, response)
    finally:
        record_rejected(server, request, response)


async def send_error_response(server: ServerState, request: InboundRequest, response: ServerResponse) -> ServerResponse:
    """Send an error response. Return ``response`` with the size of the body as ``bytes_sent``.

    A client that has gone, or does not read, is no error: ``response`` is returned as it is, with 0 bytes.
    """
    fields, body = server.fields_and_body(response.error_response, response.request_id, request)
    try:
        if not request.respond(response.error_response.status, fields, body):
            await request.drained()
    except ClientGoneError:
        return response
    return response._replace(bytes_sent=len(body))


def record_rejected(server: ServerState, request: InboundRequest, response: ServerResponse) -> None:
    """Count the error response to a handshake that no application records, and write the access record."""
    server.record_rejected(
        response.error_response,
        request_id=response.request_id,
        started_at=request.started,
        method=request.method,
        path=request.target.partition(b"?")[0].decode("latin-1"),
        peer=Peer(request.peer, request.local, request.scheme == "https"),
        version=request.version,
        fields=request.fields,
        bytes_sent=response.bytes_sent,
    )
