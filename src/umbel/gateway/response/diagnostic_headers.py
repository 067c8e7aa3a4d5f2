"""Diagnostic fields of a composed response: Proxy-Status (RFC 9209) and Server-Timing (W3C).

They name calls, never upstreams or addresses. Each value has at most ``LENGTH_MAX`` bytes, because clients and proxies
bound the size of a head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import http_sf
from http_sf.types import BareItemType

from ...core.failure_kinds import Kind
from ...core.http.syntax import TOKEN_CHARS
from ...core.model import Attempt, Outcome

LENGTH_MAX = 1024
"""Maximum bytes of a field's value, including the last member, which counts the omitted members."""

_PROXY = http_sf.Token("umbel")
_NOT_TOKEN = re.compile(f"[^{TOKEN_CHARS}]")
_NOT_STRING = re.compile(r"[^\x20-\x7e]")
# Cancelled calls are not reported: the gateway ended them itself (the client left, another call failed or sufficed).
_NOT_REPORTED = frozenset({Kind.CANCELLED, Kind.CLIENT_GONE})


def proxy_status(outcomes: Iterable[Outcome]) -> str | None:
    """The value of Proxy-Status: one member per call that failed or has a failed item, in the order of ``outcomes``.

    Calls that the gateway itself cancelled are left out. None: no other call failed. ``next-hop`` is the name of the
    call, because clients must not learn addresses.
    """
    members = list(_proxy_members(outcomes))
    if not members:
        return None
    whole = ", ".join(members)
    return whole if len(whole) <= LENGTH_MAX else _cut(members, lambda cut: _member({"details": f"+{cut} more"}))


def _proxy_members(outcomes: Iterable[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.failure is None and not outcome.failed_items:
            continue
        failure = outcome.worst
        if failure is None or failure.kind in _NOT_REPORTED:
            continue
        params: dict[str, BareItemType] = {}
        if failure.proxy_error is not None:
            params["error"] = http_sf.Token(failure.proxy_error)
        if failure.received_status is not None:
            params["received-status"] = failure.received_status
        params["next-hop"] = _NOT_STRING.sub("?", outcome.call)
        yield _member(params)


def _member(params: dict[str, BareItemType]) -> str:
    members: http_sf.ListType = [(_PROXY, params)]
    return http_sf.ser(members)


def server_timing(own_ms: float, outcomes: Iterable[Outcome]) -> str:
    """The value of Server-Timing: Umbel's own time, then the duration of each call that began, in milliseconds."""
    members = [f"umbel;dur={own_ms:.1f}"]
    for outcome in outcomes:
        if outcome.started_at is None:
            continue
        member = f"{_metric(outcome.call)};dur={(outcome.ended_at - outcome.started_at) * 1000:.1f}"
        attempts = outcome.attempts
        # A call with a single attempt of its own gets no description.
        if attempts and (attempts[-1] is not attempts[0] or attempts[0].coalesced):
            member += _described(attempts)
        members += [member]
    whole = ", ".join(members)
    return whole if len(whole) <= LENGTH_MAX else _cut(members, lambda cut: f'more;desc="{cut}"')


@lru_cache(maxsize=1024)
def _metric(call: str) -> str:
    """The name of a call as a token (RFC 9110 section 5.6.2)."""
    return _NOT_TOKEN.sub("_", call)


def _described(attempts: Sequence[Attempt]) -> str:
    """The ``desc`` parameter with the causes of a call's attempts (retried, hedged, coalesced), or empty."""
    causes = {attempt.cause for attempt in attempts}
    words = [word for cause, word in (("retry", "retried"), ("hedge", "hedged")) if cause in causes]
    if any(attempt.coalesced for attempt in attempts):
        words.append("coalesced")
    return f';desc="{", ".join(words)}"' if words else ""


def _cut(members: Sequence[str], more: Callable[[int], str]) -> str:
    """Join the members that fit into ``LENGTH_MAX``. ``more`` makes a last member of the number of omitted ones."""
    kept = list(members)
    length = len(", ".join(members))
    while kept:
        length -= len(kept.pop()) + 2
        last = more(len(members) - len(kept))
        if length + 2 + len(last) <= LENGTH_MAX:
            return ", ".join([*kept, last])
    return more(len(members))
