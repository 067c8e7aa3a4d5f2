"""The benchmark of policies: each of its calls gets a response, with each policy and in each variant."""

from __future__ import annotations

from typing import Any


async def test_a_call_gets_a_response_with_every_policy_and_variant(script: Any) -> None:
    policies = script("policies")
    bare, added = await policies.costs(2, 3)
    assert bare > 0
    assert added.keys() == policies.POLICIES.keys() > policies.BARS.keys()
    assert len(await policies.ways(2, 3)) == 3


async def test_the_memory_of_a_waiting_call_is_measured(script: Any) -> None:
    policies = script("policies")
    assert await policies.silent(30, max_concurrency=1, max_queue=100) > 0
