"""Checks of configured header fields of requests: those that could not be sent as they are configured."""

from __future__ import annotations

from collections.abc import Iterator

from ...config.schema.sections import Config, KeyPath, Upstream
from ..request.never_sent import why_never_sent, why_not_deadline_header

_CLIENT_CERTIFICATE = "x-forwarded-client-cert"
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
            if field == _CLIENT_CERTIFICATE and "forward_headers" in path:
                yield path, f'"{field}" says who the client is, and no upstream gets it; send {{auth.sub}} in a field'
            elif reason := next(filter(None, (why_never_sent(field, upstream) for upstream in upstreams)), None):
                yield path, reason


def never_sent_by_upstreams(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the header fields of the upstreams, and their ``deadline_header``, that could not be sent as configured."""
    for name, upstream in config.upstreams.items():
        for field in upstream.headers:
            if reason := why_never_sent(field, upstream):
                yield ("upstreams", name, "headers", field), reason
        if reason := why_not_deadline_header(upstream):
            yield ("upstreams", name, "deadline_header"), reason
