"""Templates for the lines of ordinary calls, whose lines differ only in ids and durations.

An ordinary call has one attempt, which succeeded. Its line is filled in instead of encoded. A template is cut from the
line that ``record.py`` and the encoder make of a call with placeholders, so that only they decide on the fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from ...core.events import CallEnded
from ...core.model import Attempt, Outcome, RequestFacts
from ...net.bounded_cache import BoundedCache
from .record import to_record
from .schema import Record

TEMPLATES_MAX = 1024
"""The largest number of templates that are cached."""

# The placeholders. They hold a control character, so that no name of a configuration can be equal to one.
_REQUEST_ID, _TRACE_ID = "\x01request\x01", "\x01trace\x01"
_SECONDS, _ATTEMPT_SECONDS = 1.0, 2.0
_IDS = r'"request_id":"\u0001request\u0001","trace_id":"\u0001trace\u0001"'
_DURATION = '"duration_ms":'

Key = tuple[str, str, str, str, int | None, bool]
"""What the fixed parts of a line depend on: route, call, upstream, replica, status, whether the connection was reused.
"""


class Template(NamedTuple):
    """The fixed parts of a line: before the call's duration, between it and the attempt's duration, and after that."""

    before: str
    between: str
    after: str


class CallLineTemplates:
    """Renders the lines of ordinary calls.

    Args:
        encode: gives the encoded members of a record, without braces, or None if they need sanitizing.
    """

    def __init__(self, encode: Callable[[Record], bytes | None]) -> None:
        self._encode = encode
        self._templates: BoundedCache[Key, Template | None] = BoundedCache(TEMPLATES_MAX)
        # The ids of the latest request: its calls often end one after the other.
        self._request: RequestFacts | None = None
        self._ids: str | None = None

    def render(self, event: CallEnded) -> bytes | None:
        """Return the encoded members of the call's record; None if the call has no template and must be encoded."""
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
            template = self._templates.entries[key]
        except KeyError:
            template = self._compile(event, key)
        if template is None or self._ids is None:
            return None
        before, between, after = template
        took, attempt_took = (
            round((call_ended - call_began) * 1000, 3),
            round((attempt.ended_at - attempt.started_at) * 1000, 3),
        )
        return f"{self._ids}{before}{took!r}{between}{attempt_took!r}{after}".encode("ascii")

    def _compile(self, event: CallEnded, key: Key) -> Template | None:
        """Make and cache the template of calls with this key; None if the values of such calls need sanitizing."""
        attempt: Attempt = replace(event.outcome.attempts[0], started_at=0.0, ended_at=_ATTEMPT_SECONDS)
        outcome: Outcome = replace(event.outcome, started_at=0.0, ended_at=_SECONDS, attempts=(attempt,))
        trace = replace(event.request.trace, trace_id=_TRACE_ID)
        request = replace(event.request, request_id=_REQUEST_ID, trace=trace)
        _, _, _, record, _ = to_record(event._replace(request=request, outcome=outcome))
        template = _cut(self._encode(record))
        self._templates.add(key, template)
        return template


def _ids_of(request: RequestFacts) -> str | None:
    """Return the members with the request's ids; None if they may need escaping or redaction."""
    request_id = request.request_id
    # A client's id may hold characters that JSON escapes, or be a secret (JSON Web Tokens begin with eyJ).
    if not (request_id.isascii() and request_id.isalnum()) or "J" in request_id:
        return None
    return f'"request_id":"{request_id}","trace_id":"{request.trace.trace_id}"'


def _cut(members: bytes | None) -> Template | None:
    """Cut a line with placeholders into a template; None if it cannot be one."""
    if members is None or not members.isascii():
        return None
    text = members.decode("ascii")
    before, call, rest = text.partition(f"{_DURATION}{_SECONDS * 1000}")
    between, attempt, after = rest.partition(f"{_DURATION}{_ATTEMPT_SECONDS * 1000}")
    if not (call and attempt and before.startswith(_IDS)):
        return None  # A name was redacted or holds a placeholder, or the members have another order.
    return Template(before.removeprefix(_IDS) + _DURATION, between + _DURATION, after)
