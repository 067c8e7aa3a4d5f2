"""examples/shop: its commands run, and the page is what README.md says for each mood of the services."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process.examples import EXAMPLES, running_example

README = (EXAMPLES / "shop" / "README.md").read_text()


def shown_page() -> Any:
    found = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


async def test_the_commands_of_the_readme_give_the_page_that_it_shows(tmp_path: Path) -> None:
    async with running_example("shop", tmp_path) as shop, httpx.AsyncClient(base_url=shop.url) as client:
        page = await client.get(shop.shown)
        status = await shop.gateway.stop(signal.SIGTERM)

    assert (page.status_code, page.json()) == (200, shown_page())
    assert page.headers["umbel-completed"] == "true"
    assert page.headers["cache-control"] == "public, max-age=10"
    assert (status, "Traceback" in shop.gateway.output, "warning" in shop.gateway.output) == (0, False, False)
    [record] = [json.loads(line) for line in (shop.logs / "access.jsonl").read_text().splitlines()]
    assert {call["name"]: call["outcome"] for call in record["calls"]} == dict.fromkeys(
        ("product", "price", "stock", "reviews", "authors", "similar"), "ok"
    )


async def test_the_other_requests_of_the_readme_are_answered_as_it_says(tmp_path: Path) -> None:
    async with running_example("shop", tmp_path) as shop, httpx.AsyncClient(base_url=shop.url) as client:
        one_review = await client.get("/products/dill?reviews=1")
        refused = await client.get("/products/dill?reviews=many")
        without_reviews = await client.get("/products/fennel")
        gone = await client.get("/products/hemlock")
        lines = await client.get(shop.shown, headers={"accept": "application/x-ndjson"})
        cart = await client.get("/cart", headers={"cookie": "session=ada"})
        image = await client.get("/images/dill.svg")

    assert one_review.json()["reviews"] == shown_page()["reviews"][:1]
    assert one_review.json()["authors"] == {"7": {"name": "Ada"}}
    assert refused.status_code == 400
    assert without_reviews.json()["reviews"] == []
    assert without_reviews.headers["cache-control"] == "public, max-age=10"
    assert gone.status_code == 404
    *parts, last = [json.loads(line) for line in lines.text.splitlines()]
    assert {part["call"] for part in parts} == {"product", "price", "stock", "reviews", "authors", "similar"}
    assert last["answer"] == shown_page()
    assert cart.json() == {
        "items": [{"title": "Dill seed, 5 g", "cents": 240}, {"title": "Caraway bread", "cents": 450}],
        "total": 690,
    }
    assert "private" in cart.headers["cache-control"]
    assert image.headers["x-from"] == "images"
    assert image.headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    ("moods", "changes", "failures"),
    [
        (
            {"SLOW": "stock,reviews"},
            {"stock": "unknown", "reviews": [], "authors": {}},
            {"stock", "reviews"},
        ),
        ({"FAIL": "users"}, {"authors": {}}, {"authors"}),
    ],
)
async def test_a_page_without_an_optional_part_says_what_is_missing(
    moods: dict[str, str], changes: dict[str, Any], failures: set[str], tmp_path: Path
) -> None:
    async with running_example("shop", tmp_path, **moods) as shop, httpx.AsyncClient(base_url=shop.url) as client:
        page = await client.get(shop.shown)

    assert (page.status_code, page.json()) == (200, shown_page() | changes)
    assert page.headers["umbel-completed"] == "false"
    assert set(re.findall(r'next-hop="(\w+)"', page.headers["proxy-status"])) == failures
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("moods", "status", "kind"), [({"FAIL": "pricing"}, 502, "status"), ({"SLOW": "pricing"}, 504, "timeout")]
)
async def test_a_page_without_a_required_part_is_an_error(
    moods: dict[str, str], status: int, kind: str, tmp_path: Path
) -> None:
    async with running_example("shop", tmp_path, **moods) as shop, httpx.AsyncClient(base_url=shop.url) as client:
        page = await client.get(shop.shown)

    assert page.status_code == status
    assert [(call["name"], call["kind"]) for call in page.json()["calls"]] == [("price", kind)]


async def test_an_image_comes_from_the_copy_if_its_service_is_too_slow(tmp_path: Path) -> None:
    async with running_example("shop", tmp_path, SLOW="images") as shop, httpx.AsyncClient(base_url=shop.url) as client:
        image = await client.get("/images/dill.svg")

    assert (image.status_code, image.headers["x-from"]) == (200, "images-copy")
