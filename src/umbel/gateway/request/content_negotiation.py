"""Content negotiation between one answer and a stream of lines (RFC 9110 section 12.5.1).

A stream is sent only to a client that names its media type, or on
a route that always streams: a wildcard asks for nothing in particular.
"""

from __future__ import annotations

from typing import Literal

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

StreamForm = Literal["ndjson", "sse"]

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
ACCEPT_CHARS_MAX = 4096
"""A longer Accept asks for nothing: to weigh its members would hold the loop."""
_FORMS: dict[str, StreamForm] = {NDJSON: "ndjson", SSE: "sse"}


def stream_form(accept: str | None, *, always: bool = False) -> StreamForm | None:
    """The form of stream to answer with; None for one whole answer.

    ``always`` is the route's ``stream``. Between the two forms the client's quality decides, then its order; JSON that
    it names with a higher quality than either keeps the answer whole, unless the route always streams.
    """
    default: StreamForm | None = "ndjson" if always else None
    if accept is None or not may_ask_for_stream(accept):
        return default
    accept = accept.lower()
    named = [(media, quality) for media, quality in parse_accept_header(accept, MIMEAccept) if quality > 0]
    wanted = [(quality, _FORMS[media]) for media, quality in named if media in _FORMS]
    if not wanted:
        return default
    # max() keeps the first of equals, and the parsed header is in the client's order.
    best, form = max(wanted, key=lambda wish: wish[0])
    json = max((quality for media, quality in named if media == "application/json"), default=0)
    return form if always or best >= json else None


def may_ask_for_stream(accept: str | None) -> bool:
    """Whether an Accept names a stream; where not, there is nothing to weigh and nothing to parse."""
    if not accept or len(accept) > ACCEPT_CHARS_MAX:
        return False
    accept = accept.lower()
    return "ndjson" in accept or "event-stream" in accept
