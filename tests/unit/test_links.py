"""The links of the pages at the top lead somewhere: to a file, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md")


def _anchors(page: Path) -> set[str]:
    """The names that a heading gets where Markdown is shown: lower case, no punctuation, hyphens for blanks."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_to_files_and_headings(name: str) -> None:
    text = (PROJECT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = PROJECT / path if path else PROJECT / name
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link
