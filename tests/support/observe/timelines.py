"""Records of requests for timelines: one with a hedge, a retry, a queue, and a partial answer at its deadline."""

from __future__ import annotations

from umbel.core.events import RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt, DialTimes, Failure, Outcome, RequestFacts, Trace

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "01")
FACTS = RequestFacts("req-1", TRACE, "GET", "/dashboard/42", "/dashboard/<int:user_id>", 100.0, 101.0)
"""A request that started at 100 s, with a deadline of 1 s."""
CUT = Failure.of(Kind.TIMEOUT, "unfinished at the route's deadline")


def attempt(number: int, replica: str, start: float, end: float, status: int | None = 200, **more) -> Attempt:
    """An attempt at ``http://{replica}``; ``start`` and ``end`` are seconds from the request's start."""
    fields = {"span_id": number + 0x51, "trace": TRACE, "asked_at": 100.0, "method": "GET"} | more
    kind = fields.pop("kind", None)
    return Attempt(number, f"http://{replica}", 100.0 + start, 100.0 + end, status, kind, **fields)


def partial_answer(**more) -> RequestEnded:
    """A partial answer: ``user`` was retried, ``offers`` (needs user) hedged, ``news`` cut at the deadline."""
    user = Outcome(
        "user",
        "value",
        {"id": 42},
        None,
        100.0,
        100.25,
        (
            attempt(1, "users-1", 0.02, 0.1, 503, reused=True, span_id=0x61),
            attempt(2, "users-2", 0.15, 0.25, cause="retry", head_at=100.21, span_id=0x62, dial=dialled(0.15)),
        ),
        upstream="users",
    )
    offers = Outcome(
        "offers",
        "value",
        [],
        None,
        100.25,
        100.6,
        (
            attempt(2, "offers-2", 0.45, 0.6, cause="hedge", reused=True, span_id=0x72, asked_at=100.25),
            attempt(
                1,
                "offers-1",
                0.25,
                0.6,
                None,
                kind=Kind.CANCELLED,
                reused=True,
                cancelled="lost-hedge",
                detail="cancelled: lost-hedge",
                span_id=0x71,
                asked_at=100.25,
            ),
        ),
        upstream="offers",
        needs=("user",),
    )
    cancelled = attempt(
        1,
        "news-1",
        0.0,
        1.0,
        None,
        kind=Kind.TIMEOUT,
        cancelled="the route's deadline",
        detail="cancelled: the route's deadline",
        span_id=0x81,
        dial=DialTimes(100.0, 100.001, 100.004),
    )
    news = Outcome("news", "failed", None, CUT, 100.0, 101.0, (cancelled,), upstream="news")
    extra = Outcome("extra", "skipped", None, None, ended_at=100.25, upstream="news", needs=("user",))
    fields = {"request": FACTS, "status": 200, "ended_at": 101.002, "completed": False, "own_ms": 1.5}
    fields |= {"client": "192.0.2.7", "calls": (user, offers, news, extra), **more}
    return RequestEnded(**fields)


def dialled(start: float) -> DialTimes:
    """A dialling with TLS from ``start`` seconds on: 2 ms of DNS, 3 ms of connect, 20 ms of TLS."""
    began = 100.0 + start
    return DialTimes(began, began + 0.002, began + 0.005, began + 0.025)
