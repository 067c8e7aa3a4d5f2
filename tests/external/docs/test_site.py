"""The documentation site: it is built without a warning, and each of its links leads somewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.process.processes import PROJECT

pytestmark = pytest.mark.timeout(120)  # The first test waits for the build, which reads all sources.
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
"""What a browser requests without a click."""


@dataclass
class Page:
    """What one HTML file refers to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


class Reader(HTMLParser):
    """Collect the links and the anchors of an HTML file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.page = Page()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif values.get("rel") not in {"canonical", "next", "prev", "alternate"}:
            self.page.loaded.extend(value for name, value in values.items() if (tag, name) in LOADED)


def pages_of(site: Path) -> dict[Path, Page]:
    return {path: Reader(path.read_text()).page for path in site.rglob("*.html")}


def _target(site: Path, page: Path, link: str) -> tuple[Path, str] | None:
    """Return the file and the anchor to which a link of a page leads; None: another host."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    base = site if parts.path.startswith("/") else page.parent
    path = Path(os.path.normpath(base / unquote(parts.path).lstrip("/"))) if parts.path else page
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link without a target within the site."""
    pages = pages_of(site)
    for page, content in pages.items():
        if page.name == "404.html":  # Its links begin with the site's address.
            continue
        for link in [*content.links, *content.loaded]:
            target = _target(site, page, link)
            if target is None:
                continue
            path, anchor = target
            known = path.exists() and (not anchor or path not in pages or anchor in pages[path].anchors)
            if not known:
                yield f"{page.relative_to(site)}: {link}"


def test_each_link_leads_to_a_file_and_a_heading_of_the_site(site: Path) -> None:
    assert len(pages_of(site)) > 50
    assert list(broken_links(site)) == []


def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    foreign = {link for page in pages_of(site).values() for link in page.loaded if urlsplit(link).netloc}
    assert foreign == set()


def test_a_broken_link_and_a_broken_anchor_are_found(site: Path, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="one">A</h1><a href="#one">1</a> <a href="#two">2</a> <a href="b/">3</a>')
    assert list(broken_links(tmp_path)) == ["a.html: #two", "a.html: b/"]


def test_the_links_of_the_site_to_the_repository_lead_to_existing_files(site: Path) -> None:
    source = "https://umbel.example/umbel/"
    links = {link for page in pages_of(site).values() for link in page.links if link.startswith(source)}
    files = {link.removeprefix(source).partition("/main/")[2].partition("#")[0] for link in links} - {""}
    assert len(files) > 5
    assert [file for file in files if not (PROJECT / file).exists()] == []
