"""Error responses that the server sends in the application's place: problem documents (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex
from typing import Any, NamedTuple

from ...core.failure_kinds import Kind
from ...core.problem import CONTENT_TYPE, Problem

REFUSED_MAX = 100
"""Refused requests of one connection, after which the server ends it: a client must not repeat errors for ever."""
RETRY_AFTER = b"1"
"""Seconds in Retry-After of a 503."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error response in the application's place."""

    status: int
    detail: str
    """One sentence for the client, which is also in the access record."""
    kind: Kind = Kind.BAD_REQUEST
    """The failure kind for the access record. It is in the body too, unless it is BAD_REQUEST."""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """Further header fields that the status requires."""

    def fields_and_body(self, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The header fields, in lower case, and the body: a problem document with the status, the detail and the id.

        A status of 503 adds Retry-After. A 204 (``PREFLIGHT``) has no body. Date and Connection are not among the
        fields.
        """
        if self.status == 204:
            return [(b"x-request-id", request_id.encode())], b""
        # As in the gateway's problem documents: for a client's error the status says enough.
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
    """What the access record needs of an error response that was sent or tried, or of a response that was cut."""

    error_response: ErrorResponse
    request_id: str
    bytes_sent: int = 0
    """Bytes of the body that were sent."""
    notified: bool = False
    """Whether the application was notified, by ``AnsweredByServerError`` or ``disconnect_with``."""


OVERLOADED = ErrorResponse(503, "The server is at its limit of requests in flight; retry later.", Kind.OVERLOADED)
NO_UPLOAD_LEFT = ErrorResponse(503, "The server is at its limit of uploads; retry later.", Kind.OVERLOADED)
NO_STREAM_LEFT = ErrorResponse(503, "The server is at its limit of streams; retry later.", Kind.OVERLOADED)
NO_CONNECTION_LEFT = ErrorResponse(503, "The server is at its limit of connections; retry later.", Kind.OVERLOADED)
NO_MEMORY_LEFT = ErrorResponse(503, "The server is at its limit of memory; retry later.", Kind.OVERLOADED)
PREFLIGHT = ErrorResponse(204, "")
"""The response to a preflight that cannot be admitted for want of capacity. It is no error."""
NOT_ADMITTED = ErrorResponse(403, "The address of this client may make no requests here.")


ERROR_RESPONSE = "umbel.error_response"
"""The key of an ``http.disconnect`` under which Umbel adds an error response and its request id."""


def disconnect_with(error_response: ErrorResponse, request_id: str) -> dict[str, Any]:
    """The ``http.disconnect`` for an application in whose place the server has sent ``error_response``.

    An application that keeps records writes the access record from it; the server writes none.
    """
    return {"type": "http.disconnect", ERROR_RESPONSE: (error_response, request_id)}


def new_request_id() -> str:
    """A random id for a request to which the application has given none."""
    return token_hex(16)
