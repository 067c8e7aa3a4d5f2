"""Conditional and range requests (RFC 9110 sections 13 and 14): when a call may forward a client's conditions.

A condition is about the one representation that the client has. A call may forward it only if the answer is one
response: a route of one call, without a shape. Then the validators are the upstream's, and its 304 becomes the answer.
With several calls a 304 would leave a part of the answer empty, and the client's validator is that of the whole answer,
which no upstream knows; the gateway's own ETag serves there. Byte ranges are never forwarded, since the answer's bytes
differ from the response's; ranges of other units, such as items, are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ...config.schema.sections import Route

_UNCHANGED = frozenset({"if-none-match", "if-modified-since"})
# RFC 9110 section 13.2.2: the key is ignored if the value is sent too.
_WEAKER = {"if-modified-since": "if-none-match", "if-unmodified-since": "if-match"}
_ALWAYS = frozenset({b"content-location", b"expires"})


def why_not_forwarded(route: Route, name: str) -> str:
    """Why no call of a route may forward the condition ``name``, and what to do; empty: its one call may."""
    why = _why_not_single(route)
    if not why:
        return ""
    reason = f'"{name}" asks for less than one whole response, and {why}; remove it'
    if name in _UNCHANGED:
        reason += ": the answer has an ETag of its own, and If-None-Match is answered with 304 here"
    return reason


def _why_not_single(route: Route) -> str:
    if len(route.calls) > 1:
        return f"the answer is made of {len(route.calls)} calls"
    if any(call.each is not None for call in route.calls.values()):
        return "an each makes many calls"
    if route.answer.shape is not None:
        return "the answer has a shape of its own"
    return "the answer is a stream" if route.stream else ""


def sent_conditions(conditions: Iterable[str], headers: Mapping[str, str]) -> list[str]:
    """The ``conditions`` of a call that it sends for a request with these header fields."""
    names = tuple(conditions)
    return [name for name in names if name in headers and not withheld(name, names, headers)]


def withheld(name: str, forwarded: Collection[str], headers: Mapping[str, str]) -> bool:
    """Whether a field of the client must not be forwarded: a byte range, or a date beside an entity tag.

    A date is ignored beside an entity tag (RFC 9110 section 13.2.2); forwarded alone, it would be evaluated.
    """
    if name in ("range", "if-range"):
        return headers.get("range", "").lstrip(" \t").lower().startswith("bytes")
    stronger = _WEAKER.get(name)
    return stronger is not None and stronger in headers and stronger not in forwarded


def answering_statuses(sent: Iterable[str], method: str) -> frozenset[int]:
    """The statuses that the answer takes over if the call of a ``method`` request has ``sent`` these conditions."""
    names = frozenset(sent)
    statuses = {206} if "range" in names else set()
    if method in ("GET", "HEAD") and not names.isdisjoint(_UNCHANGED):
        statuses.add(304)
    return frozenset(statuses)


def passed_for_conditions(conditions: Collection[str]) -> frozenset[int]:
    """The error statuses that the answer takes over if a call forwards conditions, beside the default ones."""
    if not conditions:
        return frozenset()
    return frozenset({412, 416, 428} if "range" in conditions else {412, 428})


def validators(conditions: Collection[str]) -> frozenset[bytes]:
    """The response fields that an answer needs if a call forwards these conditions, in lower case.

    A validator whose condition is not forwarded is left out: the upstream would never evaluate it.
    """
    if not conditions:
        return frozenset()
    found = set(_ALWAYS)
    if not {"if-match", "if-none-match", "if-range"}.isdisjoint(conditions):
        found.add(b"etag")
    if not {"if-modified-since", "if-unmodified-since", "if-range"}.isdisjoint(conditions):
        found.add(b"last-modified")
    return frozenset(found)
