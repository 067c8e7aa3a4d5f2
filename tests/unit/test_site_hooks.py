"""``tools/site_hooks.py``: where a link of a document leads on the documentation site."""

from __future__ import annotations

import pytest
from tools.site_hooks import links_of_site

REPOSITORY = "https://umbel.example/umbel"


@pytest.mark.parametrize(
    ("name", "link", "expected"),
    [
        ("README.md", f"{REPOSITORY}/blob/main/docs/edge.md#uploads-of-any-size", "edge.md#uploads-of-any-size"),
        ("README.md", f"{REPOSITORY}/raw/main/docs/pictures/console.png", "pictures/console.png"),
        ("README.md", f"{REPOSITORY}/blob/main/umbel.toml", f"{REPOSITORY}/blob/main/umbel.toml"),
        ("README.md", f"{REPOSITORY}/blob/main/CHANGELOG.md", "changes.md"),
        ("CHANGELOG.md", "docs/logs.md", "logs.md"),
        ("docs/howto.md", "../examples/shop/README.md", "examples/shop.md"),
        ("examples/shop/README.md", "umbel.toml", f"{REPOSITORY}/blob/main/examples/shop/umbel.toml"),
        ("examples/shop/README.md", "../stream/README.md#run-it", "stream.md#run-it"),
        ("examples/README.md", "../docs/auth.md", "../auth.md"),
        ("docs/server.md", "../benchmarks/server.md", f"{REPOSITORY}/blob/main/benchmarks/server.md"),
        ("docs/server.md", "../tests/fuzz", f"{REPOSITORY}/tree/main/tests/fuzz"),
        ("docs/server.md", "supervisor.md", "supervisor.md"),
        ("docs/decisions/README.md", "../design.md#the-invariants", "../design.md#the-invariants"),
        ("docs/learn/README.md", "../../README.md", "../index.md"),
        ("docs/server.md", "#uploads", "#uploads"),
        ("docs/server.md", "https://trio.readthedocs.io", "https://trio.readthedocs.io"),
    ],
)
def test_a_link_of_a_document_leads_to_the_same_place(name: str, link: str, expected: str) -> None:
    assert links_of_site(f"See [it]({link}).", name, REPOSITORY) == f"See [it]({expected})."
