"""Conditional and range requests (RFC 9110 sections 13 and 14): when a call may forward a client's conditions.

A condition is about the one representation that the client has. It can be forwarded where the answer is one response
and nothing else: one call, no shape. There the validators are the upstream's, and its 304 becomes the answer. Of
several calls a 304 would leave a hole in the answer, and the client's validator is that of the whole answer, which no
upstream knows; the gateway's own ETag serves there. Ranges of bytes are never forwarded: the answer's bytes are other
ones. Other units, such as items, are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ...config.schema.sections import Route

CONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"})
"""The request fields whose upstream may answer with less than a representation, or with a refusal."""
_UNCHANGED = frozenset({"if-none-match", "if-modified-since"})
# RFC 9110 section 13.2.2: the second is ignored where the first stands.
_WEAKER = {"if-modified-since": "if-none-match", "if-unmodified-since": "if-match"}
_ALWAYS = frozenset({b"content-location", b"expires"})


def refusal_reason(route: Route, name: str) -> str:
    """Why no call of a route may forward the condition ``name``, and what to do; empty if its one call may."""
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
    """Those of the ``conditions`` of a call that a request with these header fields makes it send."""
    names = tuple(conditions)
    return [name for name in names if name in headers and not withheld(name, names, headers)]


def withheld(name: str, forwarded: Collection[str], headers: Mapping[str, str]) -> bool:
    """Whether a field that the client sent must not go on: a range of bytes, or a condition that does not count.

    A date does not count beside an entity tag. Alone it would decide what the tag has to decide.
    """
    if name in ("range", "if-range"):
        return headers.get("range", "").lstrip(" \t").lower().startswith("bytes")
    stronger = _WEAKER.get(name)
    return stronger is not None and stronger in headers and stronger not in forwarded


def answering_statuses(sent: Iterable[str], method: str) -> frozenset[int]:
    """The statuses of a call that become the answer's where it has ``sent`` these of a ``method`` request."""
    names = frozenset(sent)
    statuses = {206} if "range" in names else set()
    if method in ("GET", "HEAD") and not names.isdisjoint(_UNCHANGED):
        statuses.add(304)
    return frozenset(statuses)


def passed_for_conditions(conditions: Collection[str]) -> frozenset[int]:
    """The failures that a client with conditions must hear of, beside those that are always passed on."""
    if not conditions:
        return frozenset()
    return frozenset({412, 416, 428} if "range" in conditions else {412, 428})


def validators(conditions: Collection[str]) -> frozenset[bytes]:
    """The response fields that an answer needs so that the client can use these conditions, and what goes with them.

    A validator whose condition is not forwarded is left out: the upstream would never be asked about it.
    """
    if not conditions:
        return frozenset()
    found = set(_ALWAYS)
    if not {"if-match", "if-none-match", "if-range"}.isdisjoint(conditions):
        found.add(b"etag")
    if not {"if-modified-since", "if-unmodified-since", "if-range"}.isdisjoint(conditions):
        found.add(b"last-modified")
    return frozenset(found)
