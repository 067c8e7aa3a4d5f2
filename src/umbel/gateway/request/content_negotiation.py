"""Content negotiation between a single JSON response and a stream of lines (RFC 9110 section 12.5.1).

A stream is sent if Accept names its media type (a wildcard is not enough), or if the route always streams.
"""

from __future__ import annotations

from typing import Literal

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

StreamForm = Literal["ndjson", "sse"]

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
ACCEPT_CHARS_MAX = 4096
"""Maximum characters of Accept. A longer one is ignored, because parsing it would block the event loop."""
_FORMS: dict[str, StreamForm] = {NDJSON: "ndjson", SSE: "sse"}


def stream_form(accept: str | None, *, always: bool = False) -> StreamForm | None:
    """The form of the stream to send; None: a single response.

    The form with the higher quality in ``accept`` is chosen, of equal ones the first. If application/json has a higher
    quality than both, the response is single, unless ``always`` is True (the route's ``stream``).
    """
    default: StreamForm | None = "ndjson" if always else None
    if accept is None or not may_ask_for_stream(accept):
        return default
    accept = accept.lower()
    named = [(media, quality) for media, quality in parse_accept_header(accept, MIMEAccept) if quality > 0]
    wanted = [(quality, _FORMS[media]) for media, quality in named if media in _FORMS]
    if not wanted:
        return default
    # max() returns the first of equal members, which are in the client's order.
    best, form = max(wanted, key=lambda wish: wish[0])
    json = max((quality for media, quality in named if media == "application/json"), default=0)
    return form if always or best >= json else None


def may_ask_for_stream(accept: str | None) -> bool:
    """Whether ``accept`` may name a stream, by a fast check without parsing. False is certain."""
    if not accept or len(accept) > ACCEPT_CHARS_MAX:
        return False
    accept = accept.lower()
    return "ndjson" in accept or "event-stream" in accept
