"""The lines of calls that went as most do, from a form that is filled in instead of encoded anew.

A request of ten calls has ten lines that differ in their times alone. This remembers how the rest is written; what
goes into a line is decided in ``record.py``, and a call that is not of an ordinary kind is left to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from ..events import CallEnded
from ..model import Attempt, Outcome, RequestFacts
from ..net.bounded_cache import BoundedCache
from .lines import Line
from .record import told

FORMS_MAX = 1024
"""Forms that are remembered."""

# What stands for the parts that differ. No name of a configuration can be one: they hold a character that JSON escapes.
_REQUEST_ID, _TRACE_ID = "\x01request\x01", "\x01trace\x01"
_SECONDS, _ATTEMPT_SECONDS = 1.0, 2.0
_IDS = r'"request_id":"\u0001request\u0001","trace_id":"\u0001trace\u0001"'
_DURATION = '"duration_ms":'

Key = tuple[str, str, str, str, int | None, bool]


class Form(NamedTuple):
    """The members of a line: what stands after the ids, between the call's milliseconds and its attempt's, and last."""

    before: str
    between: str
    after: str


class CallMembers:
    """Fills forms in. ``encode`` gives the members of a line, or None where they must be looked at each time."""

    def __init__(self, encode: Callable[[Line], bytes | None]) -> None:
        self._encode = encode
        self._forms: BoundedCache[Key, Form | None] = BoundedCache(FORMS_MAX)
        # Calls of one request end at nearly the same time.
        self._request: RequestFacts | None = None
        self._ids: str | None = None

    def of(self, event: CallEnded) -> bytes | None:
        """The members of the call's line, as they stand in it; None: ``told`` must make them."""
        request, upstream, outcome, items = event
        call, state, attempts = outcome.call, outcome.state, outcome.attempts
        call_began, call_ended = outcome.started_at, outcome.ended_at
        if state != "value" or len(attempts) != 1 or items is not None or call_began is None:
            return None
        attempt = attempts[0]
        if attempt.kind is not None or attempt.coalesced or attempt.cause != "first" or attempt.number != 1:
            return None
        if request is not self._request:
            self._request, self._ids = request, _ids_of(request)
        key = (request.route, call, upstream, attempt.replica, attempt.status, attempt.reused)
        try:
            form = self._forms.entries[key]
        except KeyError:
            form = self._made(event, key)
        if form is None or self._ids is None:
            return None
        before, between, after = form
        took, attempt_took = (
            round((call_ended - call_began) * 1000, 3),
            round((attempt.ended_at - attempt.started_at) * 1000, 3),
        )
        return f"{self._ids}{before}{took!r}{between}{attempt_took!r}{after}".encode("ascii")

    def _made(self, event: CallEnded, key: Key) -> Form | None:
        """The form of such a line, found by making one with marks where the holes will be."""
        attempt: Attempt = replace(event.outcome.attempts[0], started_at=0.0, ended_at=_ATTEMPT_SECONDS)
        outcome: Outcome = replace(event.outcome, started_at=0.0, ended_at=_SECONDS, attempts=(attempt,))
        trace = replace(event.request.trace, trace_id=_TRACE_ID)
        request = replace(event.request, request_id=_REQUEST_ID, trace=trace)
        _, _, _, line, _ = told(event._replace(request=request, outcome=outcome))
        form = _cut(self._encode(line))
        self._forms.add(key, form)
        return form


def _ids_of(request: RequestFacts) -> str | None:
    """The members that name the request; None where they need a closer look."""
    request_id = request.request_id
    # An id that somebody else gave may hold what JSON escapes, or look like a secret (JWTs begin with eyJ).
    if not (request_id.isascii() and request_id.isalnum()) or "J" in request_id:
        return None
    return f'"request_id":"{request_id}","trace_id":"{request.trace.trace_id}"'


def _cut(members: bytes | None) -> Form | None:
    if members is None or not members.isascii():
        return None
    text = members.decode("ascii")
    before, call, rest = text.partition(f"{_DURATION}{_SECONDS * 1000}")
    between, attempt, after = rest.partition(f"{_DURATION}{_ATTEMPT_SECONDS * 1000}")
    if not (call and attempt and before.startswith(_IDS)):
        return None  # A name that needs a closer look, or another order of the members.
    return Form(before.removeprefix(_IDS) + _DURATION, between + _DURATION, after)
