"""Conditional and range requests (RFC 9110 sections 13 and 14): when a call may forward the client's conditions.

A condition is about the representation that the client has stored. A call may forward a condition only if the answer is
one response: the route has one call, without ``each``, ``shape`` and ``stream``. Then the validators are the
upstream's, and its 304 becomes the answer. With several calls, a 304 would leave a part of the answer empty, and the
client's validator is that of the whole answer, which no upstream can compare; the gateway compares its own ETag then.

A byte range is never forwarded, because the bytes of the answer differ from those of the response. A range in another
unit, such as items, is forwarded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ...config.schema.sections import Route

_UNCHANGED = frozenset({"if-none-match", "if-modified-since"})
# A field with a date is ignored beside the field with an entity tag (RFC 9110 section 13.2.2).
_WEAKER = {"if-modified-since": "if-none-match", "if-unmodified-since": "if-match"}
_ALWAYS = frozenset({b"content-location", b"expires"})


def why_not_forwarded(route: Route, name: str) -> str:
    """The reason why no call of a route may forward the condition ``name``, and what to do; empty: it may."""
    why = _why_not_single(route)
    if not why:
        return ""
    reason = f'"{name}" works only if the answer is one response, but {why}; remove it'
    if name in _UNCHANGED:
        reason += " (Umbel gives the answer an ETag, and compares If-None-Match with that)"
    return reason


def _why_not_single(route: Route) -> str:
    if len(route.calls) > 1:
        return f"the answer is made of {len(route.calls)} calls"
    if any(call.each is not None for call in route.calls.values()):
        return "its each makes many calls"
    if route.answer.shape is not None:
        return "the answer has a shape"
    return "the answer is a stream" if route.stream else ""


def sent_conditions(conditions: Iterable[str], headers: Mapping[str, str]) -> list[str]:
    """The conditions that a call sends for a request with these header fields (names in lower case)."""
    names = tuple(conditions)
    return [name for name in names if name in headers and not withheld(name, names, headers)]


def withheld(name: str, forwarded: Collection[str], headers: Mapping[str, str]) -> bool:
    """Whether the client's condition ``name`` must not be forwarded: a byte range, or a date beside an entity tag.

    A date is ignored beside an entity tag (RFC 9110 section 13.2.2). If the call forwarded only the date, the upstream
    would evaluate it.

    Args:
        forwarded: the names of the conditions that the call forwards.
        headers: the client's header fields, with names in lower case.
    """
    if name in ("range", "if-range"):
        return headers.get("range", "").lstrip(" \t").lower().startswith("bytes")
    stronger = _WEAKER.get(name)
    return stronger is not None and stronger in headers and stronger not in forwarded


def answering_statuses(sent: Iterable[str], method: str) -> frozenset[int]:
    """The statuses that the answer takes over from a call that has sent these conditions.

    ``method`` is that of the inbound request.
    """
    names = frozenset(sent)
    statuses = {206} if "range" in names else set()
    if method in ("GET", "HEAD") and not names.isdisjoint(_UNCHANGED):
        statuses.add(304)
    return frozenset(statuses)


def passed_for_conditions(conditions: Collection[str]) -> frozenset[int]:
    """The error statuses that the answer takes over from a call that forwards conditions, beside the default ones."""
    if not conditions:
        return frozenset()
    return frozenset({412, 416, 428} if "range" in conditions else {412, 428})


def validators(conditions: Collection[str]) -> frozenset[bytes]:
    """The names of the response fields that the answer needs if a call forwards these conditions, in lower case.

    A validator is left out if its condition is not forwarded: no upstream would ever compare it.
    """
    if not conditions:
        return frozenset()
    found = set(_ALWAYS)
    if not {"if-match", "if-none-match", "if-range"}.isdisjoint(conditions):
        found.add(b"etag")
    if not {"if-modified-since", "if-unmodified-since", "if-range"}.isdisjoint(conditions):
        found.add(b"last-modified")
    return frozenset(found)
