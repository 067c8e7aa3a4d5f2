"""Result of a composition: the outcomes, and the answer or the failure that they make.

Immutable. The gateway turns it into an HTTP response.
"""

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
    Kind.OVERFLOW: "Too many requests are waiting for a part of the answer.",
    Kind.OVERLOADED: "The gateway is working on as many requests as it can.",
    Kind.BREAKER_OPEN: "A part of the answer is out of service for the moment.",
    Kind.INTERNAL: "The answer could not be made.",
}


class Result(msgspec.Struct, frozen=True):
    """The result of a composition: its outcomes, with an answer or the failure that decided it."""

    outcomes: tuple[Outcome, ...]
    """In config order."""
    failure: Failure | None
    """The failure that decides the answer; None: there is a composed answer."""
    answer: Json = None
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    """Header fields of the answer: the route's own, forwarded ones, Set-Cookie, and those of a failure's status. Values
    have a character per byte."""
    completed: bool = True
    cache_control: str | None = None
    """The Cache-Control of a composed answer; None: none."""
    own_ms: float = 0.0
    """The gateway's own time in milliseconds (``own_time``)."""

    vary: tuple[str, ...] = ()
    """Request headers that the answer varies by, beside those of the route."""
    failed: bool = True
    """Whether a call or an item has failed, or may have."""
    validated: bool = False
    """Whether ``headers`` hold validators (ETag, Last-Modified): those of the one response that is the answer."""

    @property
    def kind(self) -> Kind | None:
        """The kind of the failure; None: there is an answer."""
        return self.failure.kind if self.failure is not None else None

    @property
    def incomplete(self) -> tuple[Outcome, ...]:
        """The outcomes that are missing from the answer, whole or in part, but for calls that were cut."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if not outcome.complete and (outcome.worst is None or outcome.worst.kind not in CUT)
        )

    def problem(self, request_id: str) -> Problem:
        """The problem document of a failed composition: kinds and statuses, never the details meant for records.

        Raises:
            ValueError: there is no failure.
        """
        if self.failure is None:
            raise ValueError("a composed answer has no problem")
        calls = []
        for outcome in self.incomplete:
            worst = outcome.worst
            if worst is not None:
                started = outcome.started_at if outcome.started_at is not None else outcome.ended_at
                elapsed_ms = (outcome.ended_at - started) * 1000
                calls.append(FailedCall(outcome.call, worst.kind, worst.status, elapsed_ms, worst.received_status))
        return Problem(
            self.failure.status,
            self.failure.public or _DETAILS.get(self.failure.kind, "A part of the answer failed."),
            kind=self.failure.kind,
            request_id=request_id,
            calls=tuple(calls),
        )


def own_time(started_at: float, now: float, outcomes: tuple[Outcome, ...]) -> float:
    """Seconds since ``started_at`` that the gateway took itself: the whole time less the longest chain of calls.

    In a chain each call began after the one before it had ended; of calls that ran at once the longest counts. So the
    gateway's own time shows also while calls were under way.
    """
    first_end, last_start, longest = math.inf, -math.inf, 0.0
    for outcome in outcomes:
        start, end = outcome.started_at, outcome.ended_at
        if start is not None:
            # Not min() and max(): this is once per call.
            longest = end - start if end - start > longest else longest
            first_end = end if end < first_end else first_end
            last_start = start if start > last_start else last_start
    if last_start >= first_end:  # Not all at once, as most are.
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
    """Of the first spans, by their number."""
    for end, start in spans:
        best.append(max(best[-1], best[bisect_right(ends, start)] + end - start))
        ends.append(end)
    return best[-1]
