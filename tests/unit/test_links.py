"""The links of the pages at the top lead somewhere: to a file, and to a heading in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def _anchors(page: Path) -> set[str]:
    """The names that a heading gets where Markdown is shown: lower case, no punctuation, hyphens for blanks."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _links(name: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", (PROJECT / name).read_text())


def _base() -> str:
    """Where the files of the project are to be seen, as its metadata says."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return f"{project['urls']['Source']}/blob/main/"


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_to_files_and_headings(name: str) -> None:
    for link in (link.removeprefix(_base()) for link in _links(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = PROJECT / path if path else PROJECT / name
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_links_of_the_readme_lead_somewhere_on_an_index_page_too() -> None:
    relative = [link for link in _links("README.md") if "://" not in link and not link.startswith("#")]
    assert relative == []
    assert sum(link.startswith(_base()) for link in _links("README.md")) >= 18
