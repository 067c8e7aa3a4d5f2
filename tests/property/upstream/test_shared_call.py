"""A shared call's deadline against a model: the latest deadline of the present waiters."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.upstream.memory_calls import Made, coalescing, hang
from umbel.core.model import RequestFacts, Trace

DEADLINES = st.floats(min_value=1000, max_value=2000)
JOIN = st.tuples(st.just("join"), DEADLINES)
LEAVE = st.tuples(st.just("leave"), st.integers(0, 50))


def request(deadline: float) -> RequestFacts:
    """The inbound request of a call with this deadline."""
    return RequestFacts(f"r-{deadline}", Trace("ab" * 16), "GET", "/", "/", deadline / 2, deadline + 1)


async def check(first: float, steps: list[tuple[str, float | int]]) -> None:
    async with coalescing(hang, cut=True) as upstream:

        def join(deadline: float) -> tuple[Made, float]:
            return upstream.start(request=request(deadline), limit=deadline - trio.current_time()), deadline

        waiting = [join(first)]
        (shared,) = upstream.client.coalescing.joinable.values()
        ids = shared.context.request and (shared.context.request.request_id, shared.context.request.trace.trace_id)
        for what, value in steps:
            if what == "join":
                waiting.append(join(value))
            else:
                waiting.pop(int(value) % len(waiting))[0].cancel("client-gone")
            assert upstream.statistics.waiting == len(waiting)
            if not waiting:
                assert upstream.statistics.abandoned == 1
                return
            longest = max(deadline for _, deadline in waiting)
            own = shared.context.request
            assert own is not None
            assert shared.context.deadline == longest
            assert (own.deadline, own.started_at) == (longest + 1, longest / 2)
            assert (own.request_id, own.trace.trace_id) == ids


@settings(deadline=None)  # a busy machine
@given(DEADLINES, st.lists(JOIN | LEAVE))
def test_the_deadline_of_a_shared_call_is_the_latest_of_its_waiters(
    first: float, steps: list[tuple[str, float | int]]
) -> None:
    trio.run(check, first, steps, clock=trio.testing.MockClock())
