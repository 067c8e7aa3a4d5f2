"""The documentation site in Chromium, if there is one: what it loads, and what its search finds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tools.browser import opened_page
from tools.external import program

pytestmark = [
    pytest.mark.skipif(program("chromium") is None, reason="Chromium is not installed"),
    pytest.mark.timeout(120),  # The first test waits for the build.
]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing for a request."""


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    """The URL of the site, which is served while a test runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/", "/supervisor/", "/learn/zh/tasks/", "/api/"])
async def test_a_page_loads_nothing_from_another_host_without_an_error(path: str, url: str, tmp_path: Path) -> None:
    async with opened_page(tmp_path / "profile") as page:
        await page.open(url + path)
        await page.until("document.readyState === 'complete' && document.querySelector('article h1')")
        loaded = await page.value("performance.getEntriesByType('resource').map((each) => each.name)")
        assert page.problems == []
    assert len(loaded) > 3
    assert [each for each in loaded if not each.startswith((url, "data:", "blob:"))] == []


@pytest.mark.parametrize(("words", "expected"), [("hedge", "/upstream/"), ("协程", "/learn/zh/tasks/")])
async def test_the_search_finds_pages_in_both_languages(words: str, expected: str, url: str, tmp_path: Path) -> None:
    async with opened_page(tmp_path / "profile") as page:
        await page.open(f"{url}/?q={words}")
        await page.until("document.querySelectorAll('.md-search-result__link').length > 0")
        found = await page.value("[...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)")
        assert page.problems == []
    assert [link for link in found if expected in link], found
