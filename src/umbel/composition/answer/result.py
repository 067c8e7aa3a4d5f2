"""Result of a composition: the outcomes of all calls, with the answer or the deciding failure. Immutable."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from ...core.failure_kinds import CUT, Kind
from ...core.model import Failure, Json, Outcome
from ...core.problem import FailedCall, Problem

_DETAILS = {
    Kind.TIMEOUT: "A part of the answer did not come in time.",
    Kind.BAD_REQUEST: "A value that a part of the answer has given cannot be used.",
    Kind.OVERFLOW: "Too many requests are waiting for a part of the answer, or are getting it.",
    Kind.OVERLOADED: "The gateway is working on as many requests as it can.",
    Kind.BREAKER_OPEN: "A part of the answer is out of service for the moment.",
    Kind.INTERNAL: "The answer could not be made.",
}
_LIMITED = "A part of the answer is limited, and its turn does not come in time."


class Result(msgspec.Struct, frozen=True):
    """The result of a composition: its outcomes, with the answer or the deciding failure."""

    outcomes: tuple[Outcome, ...]
    """The outcomes in config order; those of calls in code in the order of their launch."""
    failure: Failure | None
    """The deciding failure; None: there is an answer."""
    answer: Json = None
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    """Header fields of the answer: the route's own fields, forwarded ones, Set-Cookie, validators, and those that
    belong to the status. A value has one character per byte."""
    completed: bool = True
    """Whether nothing is missing from the answer. True also for a redirect that the answer takes over."""
    cache_control: str | None = None
    """The Cache-Control of the answer; None: no such field."""
    own_ms: float = 0.0
    """The own time of the request in milliseconds (``own_time``)."""

    vary: tuple[str, ...] = ()
    """The names for the field Vary of the answer, beside those of the route."""
    failed: bool = True
    """Whether a call or an item may have failed; False: none has."""
    validated: bool = False
    """Whether ``headers`` hold validators (ETag, Last-Modified) of the response that is the answer."""

    @property
    def kind(self) -> Kind | None:
        """The kind of the deciding failure; None: there is an answer."""
        return self.failure.kind if self.failure is not None else None

    @property
    def incomplete(self) -> tuple[Outcome, ...]:
        """The outcomes that are missing from the answer, whole or in part, without those of cut calls."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if not outcome.complete and (outcome.worst is None or outcome.worst.kind not in CUT)
        )

    def problem(self, request_id: str) -> Problem:
        """The problem document of a failed composition. It holds kinds and statuses, and no detail of a record.

        Raises:
            ValueError: the composition has not failed.
        """
        if self.failure is None:
            raise ValueError("this result has an answer and no problem document")
        calls = []
        for outcome in self.incomplete:
            worst = outcome.worst
            if worst is not None:
                started = outcome.started_at if outcome.started_at is not None else outcome.ended_at
                elapsed_ms = (outcome.ended_at - started) * 1000
                calls.append(FailedCall(outcome.call, worst.kind, worst.status, elapsed_ms, worst.received_status))
        detail = _LIMITED if self.failure.limit else _DETAILS.get(self.failure.kind, "A part of the answer failed.")
        return Problem(
            self.failure.status,
            self.failure.public or detail,
            kind=self.failure.kind,
            request_id=request_id,
            calls=tuple(calls),
        )


def own_time(started_at: float, now: float, outcomes: tuple[Outcome, ...]) -> float:
    """The own time of a request in seconds: from ``started_at`` to ``now``, minus the longest chain of calls.

    A chain is a sequence of calls of which each began after the one before had ended; its length is the sum of their
    durations. So the gateway's pauses between the calls of the longest chain are own time. Times are
    ``trio.current_time()``.
    """
    first_end, last_start, longest = math.inf, -math.inf, 0.0
    for outcome in outcomes:
        start, end = outcome.started_at, outcome.ended_at
        if start is not None:
            # Comparisons are faster than min() and max(), and this runs once per call.
            longest = end - start if end - start > longest else longest
            first_end = end if end < first_end else first_end
            last_start = start if start > last_start else last_start
    if last_start >= first_end:  # Not all calls ran at the same time, so a chain may be longer than any call.
        longest = _longest_chain(
            [(outcome.ended_at, outcome.started_at) for outcome in outcomes if outcome.started_at is not None]
        )
    own = now - started_at - longest
    return own if own > 0.0 else 0.0


def _longest_chain(spans: list[tuple[float, float]]) -> float:
    """The greatest sum of the lengths of spans (end, start) that do not overlap ("weighted interval scheduling")."""
    spans.sort()
    ends: list[float] = []
    best = [0.0]
    """The greatest sum of the first n spans, by n."""
    for end, start in spans:
        best.append(max(best[-1], best[bisect_right(ends, start)] + end - start))
        ends.append(end)
    return best[-1]
