"""Which requests have a trace: a share that is chosen at the start, and those that turn out to be notable at the end.

Theory
------
*Head.* The decision of the client's ``traceparent`` holds, if it has one. Otherwise a request is chosen by its trace id
(``head_bound``), as OpenTelemetry's ``TraceIdRatioBased`` does, so that all processes decide alike. The decision is the
flag "sampled" of the trace context, which every upstream gets.

*Tail.* Of the requests that were not chosen, those that failed with a 5xx, broke off, are partial, or took at least
``slow`` seconds have a trace too. Their upstreams were told "not sampled", so such a trace has only the gateway's own
spans. If the client's ``traceparent`` says "not sampled", this holds for the tail as well, unless ``force`` is set.

*Load.* When everything fails, all requests are notable. So at most ``TAIL_PER_S`` traces a second are chosen at the
end; the spans of the others are counted as dropped.
"""

from __future__ import annotations

from typing import Protocol

from ...core.events import RequestEnded
from ..timeline import Sampled, Timeline

TAIL_PER_S = 50
"""The bound on traces per second that are chosen at the end of their requests."""
_PROBABILITY_DIGITS = 16


def head_bound(share: float) -> str:
    """The bound of a share of all traces: a trace is chosen if the last 16 digits of its id are less (as texts).

    Source: OpenTelemetry, "TraceIdRatioBased".
    """
    bound = round(share * 2**64)
    return "g" if bound >= 2**64 else f"{bound:0{_PROBABILITY_DIGITS}x}"


class SpanSink(Protocol):
    """Takes the timelines of requests that have a trace."""

    def take(self, timeline: Timeline) -> None:
        """Export the spans of a request. Never waits and never raises."""

    def drop(self, spans: int) -> None:
        """Count spans that were dropped before they were made."""


class Traces:
    """Chooses the requests that have a trace, and passes their timelines on; see the module.

    Args:
        sink: takes the timelines.
        slow: the duration in seconds from which a request is notable.
        force: whether the tail has traces although the client's ``traceparent`` says no.
    """

    def __init__(self, sink: SpanSink, slow: float, *, force: bool = False) -> None:
        self.slow = slow
        self._sink = sink
        self._force = force
        self._second = 0
        self._tails = 0
        """Traces of the tail in this second."""

    def sampled(self, event: RequestEnded, seconds: float, *, notable: bool) -> Sampled:
        """How the request was chosen; empty: it was not.

        Args:
            seconds: how long the request took.
            notable: whether it failed or is partial.
        """
        trace = event.request.trace
        if trace.is_sampled:
            return "head"
        if not (notable or seconds >= self.slow) or (trace.parent_id and not self._force):
            return ""
        second = int(event.ended_at)
        if second != self._second:
            self._second, self._tails = second, 0
        self._tails += 1
        if self._tails > TAIL_PER_S:
            began = [each for each in event.calls if each.started_at is not None]
            self._sink.drop(1 + sum([1 + len(each.attempts) for each in began]))
            return ""
        return "tail"

    def take(self, timeline: Timeline) -> None:
        """Pass on the timeline of a request that was chosen."""
        self._sink.take(timeline)
