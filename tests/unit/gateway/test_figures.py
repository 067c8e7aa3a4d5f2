"""Figures of an application: what is counted of its upstreams."""

from __future__ import annotations

import trio

from tests.support.upstream.scripted_upstream import Step, scripted
from umbel.gateway.operation.figures import upstream_values
from umbel.policy.retry_budget import Budget
from umbel.upstream import Retry


async def test_retries_that_the_budget_refuses_are_counted_although_it_has_room_again(autojump_clock: object) -> None:
    async with scripted([Step(1.0, 503)], retry=Retry(), budget=Budget(0.2, 3)) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(upstream.call)
        values = upstream_values("users", upstream.client)
    assert values["umbel_retry_budget_left"] == [(("users",), 3)]
    assert values["umbel_retry_budget_denied_total"] == [(("users",), 16)]
