"""Traces of requests for tests: what the calls and attempts of a request did, in seconds of the virtual clock.

A trace is a view of the request's timeline (``observe/timeline.py``), the same that ``umbel slow`` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..observe.timeline import AttemptLine, AttemptOutcome, CallLine, CallOutcome, RequestOutcome, Timeline


@dataclass(frozen=True, slots=True)
class AttemptTrace:
    """One attempt of a call: one request to one replica."""

    cause: str
    """``first``, ``retry``, ``hedge``, ``redirect`` or ``mirror``."""
    outcome: AttemptOutcome
    """``ok``: a whole response came, with any status; ``failed``; ``cancelled``: the gateway ended it."""
    kind: str | None
    """The failure kind; None for a response."""
    status: int | None
    """The status of the response; None without one."""
    reason: str
    """Why it failed, or the cancel reason, such as ``lost-hedge``; empty for a response."""
    replica: str
    """The base URL of the replica."""
    start: float
    """Seconds from the start of the request."""
    end: float
    """Seconds from the start of the request."""
    reused: bool
    """Whether the connection had carried an earlier request."""
    item: int | None
    """The number of the item of an ``each``; None for another call."""

    @classmethod
    def of(cls, line: AttemptLine) -> AttemptTrace:
        """The trace of an attempt of a timeline."""
        return cls(
            line.cause,
            line.outcome,
            line.kind,
            line.status,
            line.reason,
            line.replica,
            line.start_ms / 1000,
            line.end_ms / 1000,
            line.reused,
            line.item,
        )


@dataclass(frozen=True, slots=True)
class CallTrace:
    """One call of a request."""

    name: str
    upstream: str
    """The upstream; empty for a call without one."""
    outcome: CallOutcome
    """``ok``, ``partial`` (items of an ``each`` failed), ``failed``, ``skipped``, or ``cancelled`` (its result was not
    needed)."""
    kind: str | None
    """The failure kind; None: nothing failed."""
    reason: str
    """Why it failed or was cancelled, in one sentence; else empty."""
    start: float | None
    """Seconds from the start of the request; None: it never began."""
    end: float
    """Seconds from the start of the request."""
    attempts: tuple[AttemptTrace, ...]
    """In the order of their starts."""

    @classmethod
    def of(cls, line: CallLine) -> CallTrace:
        """The trace of a call of a timeline."""
        start = None if line.start_ms is None else line.start_ms / 1000
        attempts = tuple([AttemptTrace.of(each) for each in line.attempts])
        return cls(line.name, line.upstream, line.outcome, line.kind, line.reason, start, line.end_ms / 1000, attempts)


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request to the gateway. ``str()`` shows it as a table."""

    method: str
    path: str
    route: str
    """The route's rule; empty if no route matched."""
    status: int
    outcome: RequestOutcome
    """``complete``; ``partial``: a composed answer without a part; ``failed``; ``cancelled``: the client left."""
    kind: str | None
    """The failure kind that decided the response; None for a success."""
    reason: str
    """Why the request ended as it did, in one sentence; empty for a complete answer."""
    start: float
    """Seconds of virtual time from the start of the gateway."""
    duration: float
    """Seconds until the end of the response."""
    calls: Mapping[str, CallTrace]
    """The calls by name, in the order of the configuration or code."""
    timeline: Timeline = field(repr=False)
    """All that is known of the request, in milliseconds."""

    @classmethod
    def of(cls, timeline: Timeline) -> RequestTrace:
        """The trace of a timeline whose ``received`` counts from the start of the gateway."""
        return cls(
            timeline.method,
            timeline.path,
            timeline.route,
            timeline.status,
            timeline.outcome,
            timeline.kind,
            timeline.reason,
            timeline.received,
            timeline.duration_ms / 1000,
            {line.name: CallTrace.of(line) for line in timeline.calls},
            timeline,
        )

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each call by its name; of a failed call its failure kind."""
        return {
            name: call.kind if call.outcome == "failed" and call.kind else call.outcome
            for name, call in self.calls.items()
        }

    def __str__(self) -> str:
        head = f"{self.method} {self.path} -> {self.status} {self.outcome} after {self.duration:g} s"
        lines = [f"{head}: {self.reason}" if self.reason else head]
        for call in self.calls.values():
            lines.append(f"  {call.name:<16} {_span(call.start, call.end)} {_ending(call.outcome, None, call.kind)}")
            for each in call.attempts:
                why = each.reason if each.outcome == "cancelled" else each.kind
                ending = _ending(each.outcome, each.status, why)
                lines.append(f"    {each.cause:<14} {_span(each.start, each.end)} {ending} {each.replica}")
        return "\n".join(lines)


def _span(start: float | None, end: float) -> str:
    return f"{'-' if start is None else format(start, 'g'):>8} {end:>8g}"


def _ending(outcome: str, status: int | None, why: str | None) -> str:
    return " ".join(str(part) for part in (outcome, status, why) if part is not None)
