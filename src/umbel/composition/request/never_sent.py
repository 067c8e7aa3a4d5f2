"""Header fields that an upstream never gets as configured, because Umbel writes them or the connection owns them."""

from __future__ import annotations

from ...config.schema.sections import Upstream
from ...core.http.hop_by_hop import is_hop_by_hop
from .request_template import GATEWAY_FIELDS_ALWAYS, GATEWAY_FIELDS_FORWARDED

OF_ATTEMPT = frozenset({b"traceparent", b"tracestate"})
"""The fields of the trace, which each attempt writes."""
_WRITTEN_BY_UMBEL = GATEWAY_FIELDS_ALWAYS | OF_ATTEMPT | {b"accept-encoding"}
"""The header fields that Umbel writes into every call or attempt."""


def why_never_sent(field: str, upstream: Upstream) -> str | None:
    """The reason why a header field of a call would not be sent as configured; None: it is sent.

    ``field`` is the name in lower case.
    """
    name = field.encode("ascii")
    if name == b"expect" or is_hop_by_hop(name):
        return f'"{field}" belongs to one connection and is never forwarded; remove it'
    written = f'"{field}" is written by Umbel, so this value is never sent; remove it'
    if upstream.forwarded and name in GATEWAY_FIELDS_FORWARDED:
        return f"{written}, or set forwarded = false at the upstream"
    if field == upstream.deadline_header:
        return f"{written}, or give the upstream another deadline_header"
    return written if name in _WRITTEN_BY_UMBEL else None


def why_not_deadline_header(upstream: Upstream) -> str | None:
    """The reason why the upstream's ``deadline_header`` cannot be used; None: it can."""
    name = str(upstream.deadline_header or "").encode("ascii")
    if name == b"expect" or is_hop_by_hop(name):
        return f'"{name.decode()}" belongs to one connection and is never forwarded; write another name'
    if name in _WRITTEN_BY_UMBEL or (upstream.forwarded and name in GATEWAY_FIELDS_FORWARDED):
        return f'"{name.decode()}" is written by Umbel with another meaning; write another name'
    return None
