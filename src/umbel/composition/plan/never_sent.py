"""Checks of configured header fields of requests: those that could not be sent as they are configured."""

from __future__ import annotations

from collections.abc import Iterator

from ...config.schema.sections import Config, KeyPath, Upstream
from ...core.http.hop_by_hop import is_hop_by_hop
from ..request.request_template import GATEWAY_FIELDS_ALWAYS, GATEWAY_FIELDS_FORWARDED

# The header fields that Umbel writes into every call or attempt.
_WRITTEN_BY_UMBEL = GATEWAY_FIELDS_ALWAYS | {b"traceparent", b"tracestate", b"accept-encoding"}
# Replaces an unknown upstream.
_DEFAULTS = Upstream(urls=("http://unknown",))


def never_sent_by_calls(config: Config, index: int) -> Iterator[tuple[KeyPath, str]]:
    """Yield the header fields of a route's calls that could not be sent as configured, with the reason."""
    for name, call in config.routes[index].calls.items():
        upstreams = [config.upstreams.get(each, _DEFAULTS) for each in call.upstreams or ("",)]
        at: KeyPath = ("routes", index, "calls", name)
        named: list[tuple[KeyPath, str]] = [((*at, "headers", field), field) for field in call.headers]
        named += [((*at, "forward_headers", place), field) for place, field in enumerate(call.forward_headers)]
        for path, field in named:
            if reason := next(filter(None, (why_never_sent(field, upstream) for upstream in upstreams)), None):
                yield path, reason


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


def _why_not_deadline_header(upstream: Upstream) -> str | None:
    """The reason why the upstream's ``deadline_header`` cannot be used; None: it can."""
    name = str(upstream.deadline_header or "").encode("ascii")
    if name == b"expect" or is_hop_by_hop(name):
        return f'"{name.decode()}" belongs to one connection and is never forwarded; write another name'
    if name in _WRITTEN_BY_UMBEL or (upstream.forwarded and name in GATEWAY_FIELDS_FORWARDED):
        return f'"{name.decode()}" is written by Umbel with another meaning; write another name'
    return None


def never_sent_by_upstreams(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the header fields of the upstreams, and their ``deadline_header``, that could not be sent as configured."""
    for name, upstream in config.upstreams.items():
        for field in upstream.headers:
            if reason := why_never_sent(field, upstream):
                yield ("upstreams", name, "headers", field), reason
        if reason := _why_not_deadline_header(upstream):
            yield ("upstreams", name, "deadline_header"), reason
