"""Answers of the sample services."""

from __future__ import annotations

import tomllib

import pytest

from umbel.demo.services import SERVICES
from umbel.demo.session import SAMPLE


def ask(name: str, path: str, **query: str) -> tuple[int, object]:
    return SERVICES[name].answer(path, query)


def test_a_user_has_a_name_and_a_segment_that_has_offers() -> None:
    for number in range(1, 50):
        status, user = ask("users", f"/users/{number}")
        assert status == 200
        assert isinstance(user, dict)
        assert ask("offers", f"/for/{user['segment']}")[0] == 200


def test_every_ordered_sku_is_in_the_catalog() -> None:
    for number in range(1, 50):
        status, orders = ask("orders", "/orders", user_id=str(number))
        assert status == 200
        assert isinstance(orders, list)
        assert orders
        for order in orders:
            status, item = ask("catalog", f"/items/{order['sku']}")
            assert (status, item["sku"]) == (200, order["sku"])  # type: ignore[index]  # an object, by the assertion


def test_the_same_request_has_the_same_answer() -> None:
    assert ask("orders", "/orders", user_id="42") == ask("orders", "/orders", user_id="42")


def test_the_limit_cuts_the_orders() -> None:
    _, everything = ask("orders", "/orders", user_id="42")
    assert isinstance(everything, list)

    assert ask("orders", "/orders", user_id="42", limit="1") == (200, everything[:1])


@pytest.mark.parametrize(
    ("name", "path", "query", "status"),
    [
        ("users", "/users/ada", {}, 404),
        ("users", "/users/1234567890", {}, 404),
        ("users", "/", {}, 404),
        ("orders", "/orders", {}, 400),
        ("orders", "/orders", {"user_id": "42", "limit": "-1"}, 400),
        ("orders", "/other", {"user_id": "42"}, 404),
        ("catalog", "/items/unobtainium", {}, 404),
        ("offers", "/for/", {}, 404),
    ],
)
def test_an_unknown_resource_or_an_invalid_query_has_its_status(
    name: str, path: str, query: dict[str, str], status: int
) -> None:
    assert ask(name, path, **query)[0] == status


def test_the_usual_ports_are_those_of_the_sample_configuration() -> None:
    upstreams = tomllib.loads(SAMPLE.read_text())["upstreams"]

    assert {name: upstream["urls"] for name, upstream in upstreams.items()} == {
        name: [f"http://127.0.0.1:{port}" for port in service.ports] for name, service in SERVICES.items()
    }
