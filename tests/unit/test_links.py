"""The documents: links lead to existing files and headings, named modules exist, and the glossary is in order."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tools.site_hooks import FROM_OUTSIDE

PROJECT = Path(__file__).parents[2]
TOP = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
DOCS = sorted((PROJECT / "docs").rglob("*.md"))
EXAMPLES = sorted((PROJECT / "examples").rglob("*.md"))
PAGES = (*TOP, *(page.relative_to(PROJECT).as_posix() for page in (*DOCS, *EXAMPLES)))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as Markdown renders them: lower case, no punctuation, hyphens."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _links(name: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", (PROJECT / name).read_text())


def _base() -> str:
    """Return the URL of the project's files, from the metadata."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return f"{project['urls']['Source']}/blob/main/"


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_to_files_and_headings(name: str) -> None:
    for link in (link.removeprefix(_base()) for link in _links(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (PROJECT / name).parent / path if path else PROJECT / name
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_each_document_stands_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (PROJECT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {page.relative_to(PROJECT / "docs").as_posix() for page in DOCS} | set(FROM_OUTSIDE.values())
    assert pages - listed - {page for page in pages if page.startswith("decisions/0")} == set()


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_links_of_the_readme_are_absolute_so_that_they_work_on_a_package_index(name: str) -> None:
    relative = [link for link in _links(name) if "://" not in link and not link.startswith("#")]
    assert relative == []
    assert sum(link.startswith(_base()) for link in _links(name)) >= 18


@pytest.mark.parametrize("name", sorted({*PAGES} - {"CHANGELOG.md"}))  # It names former commands too.
def test_each_make_command_of_a_page_has_a_target(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+[a-z])", (PROJECT / name).read_text())) <= targets


MODULES = sorted((PROJECT / "src" / "umbel").rglob("*.py"))
PLACES = (PROJECT / "src" / "umbel", PROJECT, PROJECT / "tests", PROJECT / "benchmarks")


def _is_file_of_ours(name: str) -> bool:
    """Return whether a file has this path (``net/stream.py``), or whether the path of a module ends with the name."""
    return any((place / name).exists() for place in PLACES) or any(
        path.as_posix().endswith(f"/{name}") for path in MODULES
    )


def test_every_module_that_a_page_names_exists() -> None:
    pages = [*DOCS, *(PROJECT / name for name in TOP if name != "CHANGELOG.md")]
    named = {(page.name, name) for page in pages for name in re.findall(r"`((?:[\w.]+/)*\w+\.py)`", page.read_text())}
    templates = {(page, name) for page, name in named if name.endswith("NAME.py")}
    assert {(page, name) for page, name in named if not _is_file_of_ours(name.removeprefix("src/umbel/"))} == templates


def test_the_page_of_examples_lists_each_one() -> None:
    folder = PROJECT / "examples"
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)/README\.md\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted((page.parent.name, page.parent.name) for page in folder.glob("*/README.md"))


def test_the_index_of_decisions_lists_each_one_with_its_title() -> None:
    folder = PROJECT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        number, _, title = page.read_text().partition("\n")[0].removeprefix("# ").partition(": ")
        assert page.name.startswith(f"{number}-")
        assert f"- [{number}]({page.name}): {title}" in index


def test_the_glossary_has_each_term_once_and_in_order() -> None:
    sections = (PROJECT / "docs" / "glossary.md").read_text().split("\n## ")[1:]
    terms = [[term.lower() for term in re.findall(r"^- \*\*(.+?)\*\*", part, re.MULTILINE)] for part in sections]
    assert len(terms) == 9
    assert all(part == sorted(part) for part in terms)
    every = [term for part in terms for term in part]
    assert sorted(set(every)) == sorted(every)
