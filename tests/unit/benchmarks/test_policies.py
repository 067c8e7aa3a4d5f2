"""The bench of policies must not rot: each call that it makes is answered, with every policy and in every way."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


async def test_a_call_is_answered_with_every_policy_and_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    policies = importlib.import_module("policies")
    bare, added = await policies.costs(2, 3)
    assert bare > 0
    assert added.keys() == policies.POLICIES.keys() > policies.BARS.keys()
    assert len(await policies.ways(2, 3)) == 3


async def test_a_call_that_waits_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    policies = importlib.import_module("policies")
    assert await policies.silent(30, max_concurrency=1, max_queue=100) > 0
