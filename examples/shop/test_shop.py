"""The page of the shop, without its services: scripted answers, virtual time, no sockets.

pip install 'umbel[testing]' && pytest
"""

from pathlib import Path

import pytest

from umbel.testing import delay, fail, hang, json

CONFIG = Path(__file__).with_name("umbel.toml")
SERVICES = {
    "catalog": {
        "/catalog/products/dill": json({"title": "Dill", "sku": "dill", "similar": ["fennel", "hemlock"]}),
        "/catalog/products/fennel": json({"title": "Fennel", "sku": "fennel", "similar": []}),
        "/catalog/products/hemlock": json({}, 404),
    },
    "pricing": json({"cents": 240}),
    "stock": json({"count": 12}),
    "reviews": json([{"author": "7", "stars": 5}, {"author": "9", "stars": 4}, {"author": "7", "stars": 3}]),
    "users": json({"name": "Ada"}),
}
RATED = {"title": "Dill", "price": {"cents": 240}, "stock": 12, "similar": [{"sku": "fennel", "title": "Fennel"}]}


async def test_the_page_asks_for_each_author_once(umbel_gateway):
    async with umbel_gateway(CONFIG, SERVICES) as client:
        page = await client.get("/products/dill")

    assert page.headers["umbel-completed"] == "true"
    assert {name: page.json()[name] for name in RATED} == RATED
    assert sorted(request.path for request in client.received("users")) == ["/users/7", "/users/9"]


@pytest.mark.parametrize("outage", [hang(), fail("connect"), fail("reset"), json({}, 500), delay(1).then(json([]))])
async def test_a_page_without_reviews_is_there_after_300_ms(outage, umbel_gateway):
    async with umbel_gateway(CONFIG, {**SERVICES, "reviews": outage}) as client:
        page = await client.get("/products/dill")

    assert page.status_code == 200
    assert page.json() == {**RATED, "reviews": [], "authors": {}}
    assert page.headers["umbel-completed"] == "false"
    assert client.trace().duration <= 0.3


async def test_a_page_without_a_price_is_an_error_at_once_and_ends_the_other_calls(umbel_gateway):
    slow = delay(0.15).then(json({}))
    async with umbel_gateway(CONFIG, {**SERVICES, "stock": slow, "reviews": slow, "pricing": json({}, 500)}) as client:
        page = await client.get("/products/dill")

    assert page.status_code == 502
    assert client.trace().duration < 0.15
    assert client.trace().outcomes["price"] == "status"
    assert client.trace().outcomes["stock"] == client.trace().outcomes["reviews"] == "cancelled"


async def test_the_deadline_ends_a_page_whose_price_does_not_come(umbel_gateway):
    async with umbel_gateway(CONFIG, {**SERVICES, "pricing": hang()}) as client:
        page = await client.get("/products/dill")

    assert (page.status_code, client.trace().duration) == (504, 0.8)


async def test_a_price_that_failed_for_a_moment_is_asked_for_again(umbel_gateway):
    flaky = fail("reset").then(json({"cents": 240}))
    async with umbel_gateway(CONFIG, {**SERVICES, "pricing": flaky}) as client:
        page = await client.get("/products/dill")

    assert page.json()["price"] == {"cents": 240}
    assert [attempt.cause for attempt in client.trace().calls["price"].attempts] == ["first", "retry"]
