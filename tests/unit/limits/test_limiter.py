"""A limit of the configuration: keys, costs, and the members of the fields."""

from __future__ import annotations

import math
from typing import Any

import http_sf
import pytest

from umbel.config.schema.access.limits import parse_request_rate
from umbel.config.schema.sections import Limit
from umbel.limits.limit_expression import compiled, cost_of, counted_address, evaluator, key_of
from umbel.limits.limiter import Limiter


def limiter(**keys: Any) -> Limiter:
    return Limiter("l", Limit.model_validate({"key": "client.ip", "rate": "1/s", "burst": 2, **keys}))


def ask(limit: Limiter, now: float, **context: Any) -> bool:
    key, decision = limit.decide(context, now)
    if decision.admitted:
        limit.spend(key, decision, now)
    else:
        limit.refuse()
    return decision.admitted


def test_each_key_has_a_burst_of_its_own() -> None:
    limit = limiter()
    answers = [ask(limit, 100.0, client={"ip": ip}) for ip in ("a", "a", "a", "b", "b", "b")]
    assert answers == [True, True, False] * 2
    assert ask(limit, 101.0, client={"ip": "a"})
    statistics = limit.statistics()
    assert (statistics.keys, statistics.admitted, statistics.refused, statistics.evicted) == (2, 5, 2, 0)


def test_requests_without_a_key_count_together() -> None:
    limit = limiter(key="headers.x_tenant")
    assert [ask(limit, 1.0, headers={"x_tenant": None}) for _ in range(3)] == [True, True, False]


def test_a_request_spends_its_cost_and_a_free_one_makes_no_key() -> None:
    limit = limiter(burst=10, cost="query.n && to_number(query.n)")
    assert ask(limit, 1.0, client={"ip": "a"}, query={"n": "0"})
    assert limit.statistics().keys == 0
    assert [ask(limit, 1.0, client={"ip": "a"}, query={"n": "4"}) for _ in range(3)] == [True, True, False]
    assert not ask(limit, 1000.0, client={"ip": "a"}, query={"n": "11"})


def test_the_seconds_of_the_field_are_an_integer_of_structured_fields() -> None:
    limit = limiter(rate="0.000001/d", burst=10**9)
    _, decision = limit.decide({"client": {"ip": "a"}}, 0.0)
    ((_, parameters),) = http_sf.parse(limit.item(decision).encode(), tltype="list")
    assert parameters["t"] < 10**15
    spent = decision._replace(reset=1e18)
    assert limit.item(spent).endswith(";t=999999999999999")


@pytest.mark.parametrize("value", [None, "5", True, [], -1, -0.5, math.nan, math.inf])
def test_a_cost_that_is_no_amount_is_one(value: Any) -> None:
    assert cost_of(value) == 1


@pytest.mark.parametrize("value", [0, 0.5, 7, 10**400])
def test_a_cost_of_zero_or_more_is_itself_within_the_range_of_floats(value: Any) -> None:
    assert cost_of(value) == min(value, 1e300)


def test_keys_of_different_values_differ_and_have_a_bounded_size() -> None:
    values = [None, "", "1", 1, True, 1.5, "a" * 64, "a" * 65, "a" * 100_000, ["a"], '["a"]', {"a": 1}, ["a" * 99]]
    keys = [key_of(value) for value in values]
    assert len(set(keys)) == len(values)
    assert all(key is None or len(key) <= 64 for key in keys)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of(["\ud800"]) != key_of([10**30])
    assert key_of("\ud800" * 100) == key_of("\ud800" * 100)


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no:address", "no:address"),
        ("", None),
    ],
)
def test_an_ipv6_client_counts_by_its_network(client: str, counted: str | None) -> None:
    for _ in range(2):
        assert counted_address(client) == counted


@pytest.mark.parametrize(
    "context",
    [
        {"auth": None, "client": {"ip": "i"}},
        {"auth": {"sub": None}, "client": {"ip": "i"}},
        {"auth": {"sub": ""}, "client": {"ip": "i"}},
        {"auth": {"sub": "s"}, "client": {"ip": None}},
        {"auth": {}, "client": {}},
        {"auth": "text", "client": {"ip": []}},
    ],
)
def test_the_short_way_of_a_common_key_gives_what_jmespath_gives(context: Any) -> None:
    expression = compiled("auth.sub || client.ip", ("k",))
    assert evaluator(expression)(context) == expression.evaluate(context)
    both = compiled("[client.ip, auth.sub || client.ip]", ("k",))
    assert evaluator(both)(context) == both.evaluate(context)


@pytest.mark.parametrize(
    ("rate", "quota", "per_second"),
    [
        ("100/m", (100, 60), 100 / 60),
        ("0.5/s", (1, 2), 0.5),
        ("2.5/h", (5, 7200), 2.5 / 3600),
        ("3/d", (3, 86400), 3 / 86400),
    ],
)
def test_a_rate_is_a_quota_in_whole_seconds(rate: str, quota: tuple[int, int], per_second: float) -> None:
    parsed = parse_request_rate(rate)
    assert parsed.quota == quota
    assert parsed.per_second == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["100", "100/w", "-1/s", "0/s", "0.0/m", "1e3/s", "/s", "1 /s", "1000000000000/s"])
def test_a_text_that_is_no_rate_is_a_mistake(rate: str) -> None:
    with pytest.raises(ValueError, match="rate of requests"):
        parse_request_rate(rate)


def test_the_members_of_the_fields_are_structured_fields() -> None:
    limit = limiter(rate="0.5/s", burst=5)
    _, decision = limit.decide({"client": {"ip": "a"}}, 1.0)
    assert http_sf.parse(limit.policy.encode(), tltype="list") == [("l", {"q": 1, "w": 2})]
    assert http_sf.parse(limit.item(decision).encode(), tltype="list") == [("l", {"r": 4, "t": 2})]
