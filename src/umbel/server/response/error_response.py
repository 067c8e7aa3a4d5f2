"""Error responses that the server gives in the application's place: a problem document each.

Nothing is decided here: the caller gives the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex
from typing import Any, NamedTuple

from ...core.failure_kinds import Kind
from ...core.problem import CONTENT_TYPE, Problem

REFUSED_MAX = 100
"""Requests of one connection that the server refuses before it ends the connection: none may live on errors."""
RETRY_AFTER = b"1"
"""Seconds after which a request that was shed may come again."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error response instead of the application's. ``detail`` is shown to the client and stands in the record."""

    status: int
    detail: str
    kind: Kind = Kind.BAD_REQUEST
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that belong to the status."""

    def fields_and_body(self, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The header fields and the body of the response."""
        # As in the gateway's documents, a fault of the client has no kind beside its status.
        kind = "" if self.kind is Kind.BAD_REQUEST else self.kind
        body = Problem(self.status, self.detail, kind=kind, request_id=request_id).encode()
        headers = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode()),
            *self.fields,
        ]
        if self.status == 503:
            headers.append((b"retry-after", RETRY_AFTER))
        return headers, body


class ServerResponse(NamedTuple):
    """An error response that the server has sent in the application's place, as the access record needs it."""

    error_response: ErrorResponse
    request_id: str
    bytes_sent: int = 0
    """Bytes of the body."""
    notified: bool = False
    """Whether the application has been notified of it, by ``AnsweredByServerError`` or ``disconnect_with``."""


OVERLOADED = ErrorResponse(503, "The server is at work on as many requests as it takes.", Kind.OVERLOADED)
NO_UPLOAD_LEFT = ErrorResponse(503, "The server is taking as many uploads as it takes at a time.", Kind.OVERLOADED)
NO_CONNECTION_LEFT = ErrorResponse(503, "The server has as many connections as it takes.", Kind.OVERLOADED)
NO_MEMORY_LEFT = ErrorResponse(503, "The server is short of memory.", Kind.OVERLOADED)


ERROR_RESPONSE = "umbel.error_response"
"""The key, beside those of ASGI, under which a disconnect carries an error response."""


def disconnect_with(error_response: ErrorResponse, request_id: str) -> dict[str, Any]:
    """The ``http.disconnect`` of a request that was refused, with this response, after its application had begun.

    An application that keeps records makes its one record of it; the server makes none.
    """
    return {"type": "http.disconnect", ERROR_RESPONSE: (error_response, request_id)}


def new_request_id() -> str:
    """An id for a request that no application has seen."""
    return token_hex(16)
