"""Reply: a response before it is sent, as status, fields in bytes, and a body.

A reply is either sent directly, or converted to a Quart response.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from quart.wrappers.response import Response, ResponseBody
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from ...composition.answer.cache_control import is_targeted, names_shared_age, to_private
from ...core.http.header_field import raw_value
from ...core.inbound import ResponseFields
from ..request.request_fields import Field
from .route_fields import REQUEST_ID, RouteFields

if TYPE_CHECKING:
    from ..request_context import RequestContext

KRAKEND_COMPLETED = b"x-krakend-completed"
"""KrakenD's field that says whether a response is complete; "false" for a response that no composition has made."""
BODILESS = frozenset({204, 304})
"""Statuses without content, and so without Content-Type and Content-Length. (Content-Length with 304 would be that of a
200 response, which is unknown here; RFC 9110 section 8.6.)"""
CACHE_CONTROL = b"cache-control"
PRIVATE: Field = (CACHE_CONTROL, b"private")
"""What the response to an identified client says if nothing else does: it may be for this client only."""
ERROR = 400
"""The lowest status of an error."""


class Reply:
    """Response that is not sent yet. ``complete`` adds the fields that every response has.

    Args:
        status: the status.
        fields: the header fields.
        body: the body, as bytes or in parts.
        named: whether ``fields`` may have an X-Request-Id already, because the route or an upstream chose some fields.
            ``ResponseFields`` have none.
    """

    __slots__ = ("body", "fields", "named", "status")

    def __init__(
        self, status: int, fields: Sequence[Field], body: bytes | ResponseBody, *, named: bool = False
    ) -> None:
        self.status = status
        self.fields = fields
        """The fields in the order of sending, with names in lower case."""
        self.body = body
        self.named = named


def complete(reply: Reply, ctx: RequestContext, *, krakend: bool) -> None:
    """Add the fields that every response has: X-Request-Id if it is missing, and those for browsers.

    The response to an identified client is private, unless it has a Cache-Control.

    With ``krakend``, add KrakenD's field ("false") to an error.
    """
    given, says_krakend = reply.fields, krakend and reply.status >= ERROR
    if type(given) is ResponseFields and ctx.identity is None and not (says_krakend or ctx.limit_fields):
        prepared = given.prepared
        completed = prepared.completed(ctx.browser_fields, ctx.origin) if type(prepared) is RouteFields else None
        if completed is not None:
            given.prepared = completed
            given.values += (ctx.facts.request_id.encode(),)
            return
    if says_krakend:
        say_incomplete(reply)
    fields = reply.fields = [*reply.fields]
    if not reply.named or all(name != REQUEST_ID for name, _ in fields):
        fields.append((REQUEST_ID, ctx.facts.request_id.encode()))
    if ctx.identity is not None and CACHE_CONTROL not in dict(fields):
        fields.append(PRIVATE)
    fields += ctx.limit_fields
    ctx.browser_fields.add(fields, ctx.origin)


def keep_private(fields: list[Field]) -> None:
    """Keep the response of a view or handler to an identified client out of shared caches.

    Only s-maxage, which is for shared caches alone, shows that the author means them. max-age alone allows them to
    store the response (RFC 9111 section 3), since only Authorization, and no cookie, key or certificate, makes a cache
    careful (section 3.5); and some helpers, such as Quart's ``send_file``, say ``public`` unasked.
    """
    said = [value for name, value in fields if name == CACHE_CONTROL]
    joined = b", ".join(said).decode("latin-1")
    if not names_shared_age(joined):
        fields[:] = [field for field in fields if field[0] != CACHE_CONTROL and not is_targeted(field[0])]
        fields.append((CACHE_CONTROL, to_private(joined).encode("latin-1")))


def add_vary(fields: list[Field], names: Sequence[str]) -> None:
    """Add the names of request fields to Vary, where they are missing. ``names`` are in lower case."""
    said = [value.decode("latin-1") for name, value in fields if name == b"vary"]
    present = {member.strip(" \t").lower() for value in said for member in value.split(",")}
    if "*" not in present and (more := [name.title() for name in names if name not in present]):
        fields[:] = [field for field in fields if field[0] != b"vary"]
        fields.append((b"vary", ", ".join([*filter(None, said), *more]).encode("latin-1")))


def redirect_reply(location: bytes) -> Reply:
    """A redirect (308) to another path of the same origin; the client keeps method and body."""
    return Reply(308, [(b"location", location), (b"content-length", b"0")], b"")


def say_incomplete(response: Reply | Response | WerkzeugResponse) -> None:
    """Add KrakenD's field with the value "false", unless the response has the field."""
    if not isinstance(response, Reply):
        response.headers.setdefault(KRAKEND_COMPLETED.decode(), "false")
    elif all(name != KRAKEND_COMPLETED for name, _ in response.fields):
        response.fields = [*response.fields, (KRAKEND_COMPLETED, b"false")]


class ComposedResponse(TrioResponse):
    """Quart response that was made of a reply, as opposed to a response of the application's own views."""


def as_response(reply: Reply) -> TrioResponse:
    """Convert a reply to a Quart response, which Quart's hooks can read and change."""
    headers = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in reply.fields])
    given = {name: headers.get(name) for name in ("content-type", "content-length")}
    response = ComposedResponse(reply.body, reply.status, headers)
    # The server's write timeout ends only a client that does not read. Quart's timeout for the whole response would
    # also end a client that reads slowly.
    response.timeout = None
    for name, value in given.items():
        # Quart has added text/html, or set the length of the body, which for HEAD is not that of the content.
        if value is None:
            del response.headers[name]
        else:
            response.headers[name] = value
    return response


def encoded(headers: Iterable[tuple[str, str]]) -> list[Field]:
    """Encode fields to bytes, with names in lower case. Fields with a value that HTTP does not allow are left out."""
    values = ((name.lower().encode("ascii"), raw_value(value)) for name, value in headers)
    return [(name, value) for name, value in values if value is not None]
