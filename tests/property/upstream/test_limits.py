"""Attempts that reach an upstream with limits, in any mixture of keys, costs, cancels, retries and hedges."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.upstream.limited_calls import asked_by, limit, limiter
from tests.support.upstream.scripted_upstream import HANGS, OK, RESET, Step, scripted
from umbel.upstream import Hedge, Retry

STEPS = st.lists(st.sampled_from([OK, RESET, HANGS, Step(0.1, 503), Step(2.0, 200)]), min_size=1, max_size=12)
CALLS = st.lists(
    st.tuples(
        st.floats(0, 1.5),  # the pause before the call
        st.sampled_from("ab"),  # its key
        st.sampled_from([0.5, 1.0, 1.0, 2.0]),  # its cost
        st.sampled_from([None, 0.3, 2.0]),  # when its client leaves
        st.sampled_from([0.5, 3.0, 20.0]),  # its own limit
    ),
    min_size=1,
    max_size=25,
)
SLACK = 0.01


@given(
    steps=STEPS,
    calls=CALLS,
    rate=st.sampled_from([0.5, 1.0, 4.0]),
    burst=st.integers(2, 4),
    places=st.sampled_from([1, 2, 100]),
    coalesce=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_in_any_window_at_most_the_burst_and_the_rate_reach_the_upstream(
    steps: list[Step], calls: list[Any], rate: float, burst: int, places: int, coalesce: bool
) -> None:
    async def main() -> None:
        rules = {"retry": Retry(3, backoff=0.1), "hedge": Hedge(0.4, 2), "max_concurrency": places}
        async with scripted(steps, coalesce=coalesce, **rules) as upstream:
            (queue,) = limit(upstream, limiter(rate=f"{rate}/s", burst=burst, cost="query.n"))

            async def make(key: str, cost: float, leaves: float | None, own: float) -> None:
                with trio.move_on_after(leaves if leaves is not None else 1e9):
                    target = f"/{key}/{cost}".encode()
                    await upstream.outcome(target=target, request=asked_by(key, query={"n": cost}), limit=own)

            async with trio.open_nursery() as nursery:
                for pause, *call in calls:
                    await trio.sleep(pause)
                    nursery.start_soon(make, *call)
            assert queue.lines == {}
            assert queue.limiter.waiting == 0
            sent: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for made in upstream.script.made:
                if made.stream is not None and made.request:
                    key, cost = made.request.split()[1].decode().strip("/").split("/")
                    sent[key].append((made.at, float(cost)))
            for times in sent.values():
                for first, (start, _) in enumerate(times):
                    total = 0.0
                    for at, cost in times[first:]:
                        total += cost
                        assert total <= burst + rate * (at - start) + SLACK

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
