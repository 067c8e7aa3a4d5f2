"""The upstreams of several processes: sums where they have a meaning, else the state of each process."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from umbel.config.schema.sections import Upstream
from umbel.core.events import NULL
from umbel.observe.traffic.upstreams import upstreams_of
from umbel.policy.breaker import BreakerState
from umbel.upstream.from_config import build

from .figures_of import CLIENT, cells, changed_from, figures_of, since_start

A, B = "http://a", "http://b"


def process(number: str, answered: int, in_use: int = 1, lost: int = 0) -> Any:
    up = ("up",)
    return figures_of(
        number,
        **{
            CLIENT: [
                (("up", A, "200"), cells(*[0.01] * answered)),
                (("up", B, "503"), cells(0.2)),
                (("up", B, ""), cells(*[0.2] * lost)),
            ]
        },
        umbel_attempts_total=[(("up", "first"), answered), (("up", "hedge"), 1)],
        umbel_bulkhead_in_use=[(up, in_use)],
        umbel_bulkhead_waiting=[(up, 2)],
        umbel_bulkhead_limit=[(up, 100)],
        umbel_retry_budget_left=[(up, 3.0)],
        umbel_retry_budget_denied_total=[(up, 1)],
        umbel_pool_connections=[(("up", "idle"), 4)],
        umbel_limit_waiting=[(("l",), 5)],
        umbel_limit_delayed_total=[(("l",), 6)],
    )


def snapshot(state: str = "closed", **replica: Any) -> dict[str, Any]:
    of_a = {"name": A, "in_flight": 1, "ejected_for": 0.0, "up": True}
    return {
        "breaker": {"state": state, "requests": 9, "failures": 3, "opened": 1, "refused": 0},
        "bulkhead": {"capacity": 100, "in_flight": 1, "waiting": 2, "stalled": False, "limit": None},
        "retry": {"retries": 7},
        "hedge": {"hedges": 1, "won": 1},
        "balance": {"replicas": [of_a, {**of_a, "name": B, **replica}], "ejections": 2},
    }


def test_counts_and_connections_are_added_and_breakers_are_not() -> None:
    processes = {"worker 1": {"up": snapshot()}, "worker 2": {"up": snapshot("open")}, "worker 3": None}
    answer = upstreams_of(since_start(process("1", 10, lost=1), process("2", 30, in_use=4)), processes)
    [up] = answer["upstreams"]
    assert (answer["silent"], answer["limits"]) == (["worker 3"], [{"name": "l", "waiting": 10, "delayed": 12}])
    assert up["total"]["attempts"] == {"first": 40, "hedge": 2}
    assert (up["total"]["answered"], up["total"]["errors"]) == (43, 3)
    assert 5 < up["total"]["p50_ms"] <= 10
    assert up["bulkhead"] == {"in_use": 5, "waiting": 4, "limit": 200}
    assert up["budget"] == {"left": 6, "denied": 2}
    assert up["pool"] == {"connecting": 0, "active": 0, "idle": 8}
    assert up["breaker"] == "open"
    assert [(each["process"], each["breaker"]["state"], each["hedges_won"]) for each in up["processes"]] == [
        ("worker 1", "closed", 1),
        ("worker 2", "open", 1),
    ]


def test_a_replica_names_the_processes_for_which_it_is_out() -> None:
    processes = {"worker 1": {"up": snapshot(ejected_for=12.34, up=False)}, "worker 2": {"up": snapshot()}}
    [up] = upstreams_of(since_start(process("1", 1)), processes)["upstreams"]
    a, b = up["replicas"]
    assert (a["name"], a["in_flight"], a["ejected"], a["down"]) == (A, 2, [], [])
    assert (b["ejected"], b["down"]) == ([{"process": "worker 1", "for_s": 12.3}], ["worker 1"])
    assert (b["total"]["answered"], b["total"]["errors"]) == (1, 1)


def test_the_last_seconds_are_the_difference_of_two_samples() -> None:
    processes = {"main": {"up": snapshot()}}
    answer = upstreams_of(changed_from(process("main", 10), process("main", 15)), processes)
    [up] = answer["upstreams"]
    assert answer["window_s"] == 4
    assert (up["recent"]["answered"], up["recent"]["errors"], up["recent"]["attempts"]["first"]) == (5, 0, 5)
    assert [each["recent"]["answered"] for each in up["replicas"]] == [5, 0]


def test_an_upstream_without_any_figures_yet_is_shown() -> None:
    [up] = upstreams_of(since_start(), {"main": {"new": snapshot()}})["upstreams"]
    assert (up["name"], up["total"]["answered"], up["total"]["p50_ms"]) == ("new", 0, None)


async def test_the_snapshot_of_a_client_has_what_is_read_of_it() -> None:
    async with build("up", Upstream(urls=(A,)), recorder=NULL) as client:
        taken = msgspec.to_builtins(client.statistics(), str_keys=True, enc_hook=dict)
        wired = json.loads(msgspec.json.encode(taken))
    [up] = upstreams_of(since_start(), {"main": {"up": wired}})["upstreams"]
    assert [each["name"] for each in up["replicas"]] == [A]
    assert up["processes"][0]["process"] == "main"
    assert up["breaker"] in (None, *map(str, BreakerState))
