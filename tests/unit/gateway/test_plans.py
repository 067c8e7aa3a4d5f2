"""The plans of a route as data: the graph of its calls, and no secret of its templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umbel.config.schema.sections import Config
from umbel.gateway.operation import plans as module
from umbel.gateway.operation.plans import plans_of

UPSTREAMS = {name: {"urls": [f"http://{name}"]} for name in ("users", "orders", "beta")}
COMPOSED = {
    "path": "/dashboard/<who>",
    "deadline": "2s",
    "calls": {
        "user": {"upstream": "users", "path": "/u/{who}?password=planted-secret", "split": {"beta": "10%"}},
        "orders": {"upstream": "orders", "path": "/o/{user.id}", "optional": True, "when": "user.active"},
        "items": {"upstream": "orders", "path": "/i/{item}", "each": "orders.skus"},
    },
}


def plans(*routes: Any, path: str = "/dashboard/<who>") -> dict[str, Any] | None:
    return plans_of(Config.model_validate({"upstreams": UPSTREAMS, "routes": routes}), path)


def test_a_composition_is_a_graph_of_its_calls() -> None:
    found = plans(COMPOSED)
    assert found is not None
    [plan] = found["plans"]
    assert (plan["kind"], plan["methods"], plan["deadline_s"], plan["combine"]) == ("composition", ["GET"], 2.0, "all")
    calls = {call["name"]: call for call in plan["calls"]}
    assert {name: call["needs"] for name, call in calls.items()} == {
        "user": [], "orders": ["user"], "items": ["orders"],
    }  # fmt: skip
    assert calls["user"]["upstreams"] == ["users", "beta"]
    orders = calls["orders"]
    assert (orders["optional"], orders["when"], orders["each"]) == (True, "user.active", None)
    assert calls["items"]["each"] == "orders.skus"
    assert all(call["answers"] for call in calls.values())


def test_secrets_in_paths_are_hidden() -> None:
    assert "planted-secret" not in json.dumps(plans(COMPOSED))


def test_all_routes_with_the_path_are_shown_and_others_are_not() -> None:
    other = {"path": "/other", "respond": {"status": 204}}
    posted = {"path": "/dashboard/<who>", "methods": ["POST"], "proxy": {"upstream": "users", "split": {"beta": "5%"}}}
    found = plans(COMPOSED, other, posted)
    assert found is not None
    assert [(plan["kind"], plan["methods"]) for plan in found["plans"]] == [
        ("composition", ["GET"]),
        ("proxy", ["POST"]),
    ]
    assert [(call["name"], call["upstreams"]) for call in found["plans"][1]["calls"]] == [("proxy", ["users", "beta"])]
    answered = plans(COMPOSED, other, path="/other")
    assert answered is not None
    assert (answered["plans"][0]["kind"], answered["plans"][0]["calls"]) == ("response", [])
    assert plans(COMPOSED, path="/nowhere") is None


def test_the_calls_of_a_large_plan_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLS_MAX", 2)
    found = plans(COMPOSED)
    assert found is not None
    assert (len(found["plans"][0]["calls"]), found["plans"][0]["calls_total"]) == (2, 3)
