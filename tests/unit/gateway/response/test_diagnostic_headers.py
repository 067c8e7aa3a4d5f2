"""Proxy-Status and Server-Timing."""

from __future__ import annotations

import http_sf
import pytest

from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt, FailedItem, Failure, Outcome
from umbel.gateway.response.diagnostic_headers import LENGTH_MAX, proxy_status, server_timing


def failed(call: str, failure: Failure) -> Outcome:
    return Outcome(call, "failed", failure=failure, started_at=1.0, ended_at=1.5)


def test_each_failed_call_is_one_member_and_no_address_is_named() -> None:
    outcomes = [
        Outcome("fine", "value", 1),
        failed("orders", Failure.of(Kind.TIMEOUT, "http://10.0.0.1/secret")),
        failed("users", Failure(Kind.STATUS, 502, "", received_status=503)),
        failed("offers", Failure.of(Kind.DEPENDENCY, "")),
        Outcome("items", "value", [None], failed_items=(FailedItem((0,), Failure.of(Kind.DNS, "")),)),
    ]
    assert proxy_status(outcomes) == (
        'umbel;error=http_response_timeout;next-hop="orders", '
        'umbel;received-status=503;next-hop="users", '
        'umbel;next-hop="offers", '
        'umbel;error=dns_error;next-hop="items"'
    )


def test_no_proxy_status_without_a_failure_or_with_cancelled_calls_only() -> None:
    assert proxy_status([Outcome("a", "value", 1), Outcome("b", "skipped")]) is None
    assert proxy_status([failed("a", Failure.of(Kind.CANCELLED, ""))]) is None


def test_a_long_proxy_status_counts_its_omitted_members() -> None:
    outcomes = [failed(f"call-{number}", Failure.of(Kind.TIMEOUT, "")) for number in range(100)]
    field = proxy_status(outcomes)
    assert field is not None
    assert LENGTH_MAX - 80 < len(field) <= LENGTH_MAX
    members = http_sf.parse(field.encode(), tltype="list")
    assert members[-1][1]["details"] == f"+{100 - len(members) + 1} more"


def test_a_call_name_with_any_characters_makes_valid_fields() -> None:
    field = proxy_status([failed('a"\r\nset-cookie: é', Failure.of(Kind.TIMEOUT, ""))])
    assert field == 'umbel;error=http_response_timeout;next-hop="a\\"??set-cookie: ?"'
    assert server_timing(0, [failed("a,b;c é", Failure.of(Kind.DNS, ""))]) == "umbel;dur=0.0, a_b_c__;dur=500.0"


def test_server_timing_lists_the_calls_that_began() -> None:
    outcomes = [
        Outcome("profile", "value", 1, started_at=1.0, ended_at=1.0123),
        Outcome("skipped", "skipped"),
        Outcome("orders", "value", 1, started_at=1.0, ended_at=1.0401),
    ]
    assert server_timing(0.42, outcomes) == "umbel;dur=0.4, profile;dur=12.3, orders;dur=40.1"


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([{}], None),
        ([{}, {"cause": "retry"}, {"cause": "hedge"}], "retried, hedged"),
        ([{"coalesced": True}], "coalesced"),
        ([{"coalesced": True}, {"cause": "retry", "coalesced": True}], "retried, coalesced"),
    ],
)
def test_server_timing_names_the_causes_of_attempts(attempts: list[dict], words: str | None) -> None:
    made = tuple(Attempt(number, "http://a", 0.0, 1.0, **each) for number, each in enumerate(attempts, 1))
    outcome = Outcome("c", "value", 1, started_at=0.0, ended_at=1.0, attempts=made)
    assert server_timing(0, [outcome]) == "umbel;dur=0.0, c;dur=1000.0" + (f';desc="{words}"' if words else "")


def test_a_long_server_timing_counts_its_omitted_members() -> None:
    outcomes = [Outcome("x" * 200 + str(n), "value", 1, started_at=0.0, ended_at=1.0) for n in range(9)]
    field = server_timing(1, outcomes)
    assert len(field) <= LENGTH_MAX
    assert field.endswith(', more;desc="5"')
