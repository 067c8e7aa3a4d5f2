"""The pages of the examples in Chromium: a sign-in across three origins, and streams that a visitor stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.browser import Page, opened_page

from tests.support.process.examples import Example, running_example


@asynccontextmanager
async def shown(name: str, host: str, directory: Path) -> AsyncIterator[tuple[Example, Page]]:
    """Run an example, and open its page in a browser. No script of it may fail."""
    async with running_example(name, directory) as example, opened_page(directory / "profile") as page:
        await page.open(f"http://{host}:{example.port}/")
        yield example, page
        assert page.problems == []


def text_of(element: str) -> str:
    return f"document.getElementById('{element}')?.textContent"


async def click(page: Page, selector: str) -> None:
    """Wait for an element that is shown, and click it."""
    await page.until(f"document.querySelector({selector!r})?.hidden === false")
    await page.value(f"document.querySelector({selector!r}).click()")


async def test_a_visitor_signs_in_places_an_order_and_signs_out(tmp_path: Path) -> None:
    async with shown("spa_login", "app.localhost", tmp_path) as (_, page):
        await click(page, "#sign-in")
        await click(page, "button[value=ada]")
        await page.until(f"{text_of('who')} === 'Signed in as ada.'")
        assert await page.value("document.querySelector('#orders').innerText") == "dill"
        assert await page.value("location.pathname + location.search") == "/"
        await click(page, "#add button")
        await page.until("document.querySelectorAll('#orders li').length === 2")
        # The provider remembers who has signed in, and does not ask again until the visitor signs out.
        await page.value("location.reload()")
        await click(page, "#sign-in")
        await page.until(f"{text_of('who')} === 'Signed in as ada.'")
        await click(page, "#sign-out")
        await click(page, "#sign-in")
        await click(page, "button[value=bela]")
        await page.until(f"{text_of('who')} === 'Signed in as bela.'")
        await click(page, "#add button")
        await page.until(f"{text_of('problem')}?.startsWith('403: ')")
        # The browser reports the status of each failed request.
        assert [problem for problem in page.problems if "403" not in problem] == []
        page.problems.clear()


async def test_a_visitor_who_stops_ends_the_generation_at_the_model(tmp_path: Path) -> None:
    async with shown("stream", "127.0.0.1", tmp_path) as (_, page):
        await page.until(f"{text_of('running')} === '0'")
        await click(page, "#ask button")
        await page.until(f"{text_of('answer')}?.startsWith('every call ends')")
        await page.until(f"{text_of('running')} === '1'")
        await click(page, "#stop")
        await page.until(f"{text_of('running')} === '0'")
        assert await page.value("document.getElementById('stop').disabled")
        await click(page, "#brief")
        await page.until("document.querySelector('#parts li:last-child')?.textContent === 'complete'")
        parts = await page.value("[...document.querySelectorAll('#parts li')].map((each) => each.textContent)")
        assert [part.partition(":")[0] for part in parts] == ["weather", "news", "articles", "articles", "complete"]
