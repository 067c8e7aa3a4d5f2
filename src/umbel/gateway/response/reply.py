"""An answer as it goes out: status, fields as bytes, and a body. What a view of ours gives before anybody sends it.

Sent as it is, or handed to Quart as a response of its own. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from quart.wrappers.response import Response, ResponseBody
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from ...core.http.header_field import raw_value
from ..request.request_fields import Field

KRAKEND_COMPLETED = b"x-krakend-completed"
"""KrakenD's field of completeness; an answer that no composition made is "false" (Lura's router/mux, router/gin)."""
BODILESS = frozenset({204, 304})
"""RFC 9110 section 8.6: no Content-Length with 204; with 304 it would be that of an answer we have not made. Nor is
there content to have a type."""
REQUEST_ID = b"x-request-id"
ERROR = 400
"""The least status of an error."""


class Reply:
    """One answer. ``fields`` lack the request's id, which whoever sends it adds.

    ``named``: but they may have one, because somebody else has chosen some of them.
    """

    __slots__ = ("body", "fields", "named", "status")

    def __init__(self, status: int, fields: list[Field], body: bytes | ResponseBody, *, named: bool = False) -> None:
        self.status = status
        self.fields = fields
        """Lower-case names, in the order in which they go out."""
        self.body = body
        self.named = named


def complete(reply: Reply, request_id: str, *, krakend: bool) -> None:
    """Add the fields that every answer has: the request's id, and ``krakend``: an error's KrakenD field."""
    if krakend and reply.status >= ERROR:
        say_incomplete(reply)
    if not reply.named or all(name != REQUEST_ID for name, _ in reply.fields):
        reply.fields.append((REQUEST_ID, request_id.encode()))


def redirect_reply(location: bytes) -> Reply:
    """The answer that sends a client to another path of the same origin, with the same method and body (308)."""
    return Reply(308, [(b"location", location), (b"content-length", b"0")], b"")


def say_incomplete(response: Reply | Response | WerkzeugResponse) -> None:
    """Add KrakenD's field of completeness to an error that has none."""
    if not isinstance(response, Reply):
        response.headers.setdefault(KRAKEND_COMPLETED.decode(), "false")
    elif all(name != KRAKEND_COMPLETED for name, _ in response.fields):
        response.fields.append((KRAKEND_COMPLETED, b"false"))


class ComposedResponse(TrioResponse):
    """A response that was made of a reply."""


def as_response(reply: Reply) -> TrioResponse:
    """The same for Quart, whose hooks may look at it and change it."""
    headers = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in reply.fields])
    typed = "content-type" in headers
    response = ComposedResponse(reply.body, reply.status, headers)
    # The server's write deadline cuts a client that reads nothing; Quart's would cut one that reads slowly too.
    response.timeout = None
    if not typed:
        # No content, so no type of it; Quart would say text/html.
        del response.headers["content-type"]
    return response


def encoded(headers: Iterable[tuple[str, str]]) -> list[Field]:
    """Fields as they go out; one whose value no field can hold is left out."""
    values = ((name.lower().encode("ascii"), raw_value(value)) for name, value in headers)
    return [(name, value) for name, value in values if value is not None]
