"""The pages of the labs in Chromium: as a file, and as ``umbel lab --serve`` serves them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.browser import Page, opened_page

from tests.support.process.processes import PYTHON, started
from umbel.labs.model import PACKAGES, lab_of
from umbel.labs.page import page_of
from umbel.labs.run import run_lab

COUNTERS = "[...document.querySelectorAll('.counter b')].map((each) => each.textContent).join()"
SCRUB = """(at) => {
  const time = document.querySelector('.time input');
  time.value = at;
  time.dispatchEvent(new Event('input'));
}"""


async def shown_file(page: Page, number: int, directory: Path) -> None:
    """Write the page of a lab that has been run, and open it."""
    lab = lab_of(number)
    path = directory / f"lab{number}.html"
    path.write_text(page_of(lab, await run_lab(lab)), encoding="utf-8")
    await page.open(path.as_uri())
    await page.until("document.querySelector('.choices button')")


async def choose(page: Page, label: str) -> None:
    """Click the button with this label."""
    await page.value(f"[...document.querySelectorAll('button')].find((each) => each.textContent === {label!r}).click()")


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Page]:
    """A page of a new browser; no script may fail."""
    async with opened_page(directory / "profile") as page:
        yield page
        assert page.problems == []


async def test_a_file_asks_first_then_shows_the_runs_on_one_axis(tmp_path: Path) -> None:
    async with opened(tmp_path) as page:
        await shown_file(page, 1, tmp_path)
        assert await page.value("document.querySelectorAll('svg').length") == 0
        await choose(page, "1")
        await page.until("document.querySelector('.wrong')?.textContent === '1'")
        assert await page.value("document.querySelector('.right').textContent") == "5"
        # It plays by itself; a scrub stops it there.
        await page.value(f"({SCRUB})(0.5)")
        assert await page.value(COUNTERS) == "6,6,6"
        assert await page.value("document.querySelectorAll('rect.late').length") == 0
        await page.value(f"({SCRUB})(5)")
        assert await page.value(COUNTERS) == "5,0,0"
        assert await page.value("document.querySelectorAll('rect.late').length") == 5
        assert await page.value("document.querySelector('.counter').classList.contains('late')")


async def test_a_bar_leads_to_the_source_line_at_which_it_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as page:
        await shown_file(page, 1, tmp_path)
        await choose(page, "Just show me")
        await page.until("document.querySelector('svg')")
        await page.value("document.querySelector('svg [data-row=\"1\"]').dispatchEvent(new Event('click'))")
        assert (
            (await page.value("document.querySelector('pre .on').textContent"))
            .strip()
            .startswith("await asyncio.sleep")
        )
        assert "running since 0 s; it waits at line" in await page.value("document.querySelector('.told').textContent")
        # The same by keyboard, in the third program.
        await page.value("document.querySelectorAll('svg')[2].querySelector('[data-row=\"1\"]').focus()")
        await page.press("Enter")
        told = await page.value("document.querySelectorAll('.told')[2].textContent")
        assert "cancelled at 1 s" in told
        assert "offers is down" in told


async def test_a_cancelled_bar_that_ran_on_says_until_when(tmp_path: Path) -> None:
    async with opened(tmp_path) as page:
        await shown_file(page, 6, tmp_path)
        await choose(page, "at once")
        assert await page.value("document.querySelector('.question').innerText.includes('Wrong. The answer is: 3 s.')")
        await page.until("document.querySelector('svg')")
        await page.value(f"({SCRUB})(6)")
        await page.value("document.querySelector('svg [data-row=\"1\"]').dispatchEvent(new Event('click'))")
        told = await page.value("document.querySelector('.told').textContent")
        assert told == "call: cancelled at line 18, ran on until 4 s: CancelledError, which has no reason."


async def test_no_lab_is_wider_than_its_window(tmp_path: Path) -> None:
    async with opened(tmp_path) as page:
        for number in PACKAGES:
            await shown_file(page, number, tmp_path)
            await choose(page, "Just show me")
            await page.until("document.querySelector('svg')")
            for width in (390, 1400):
                await page.resize(width)
                await page.until(f"innerWidth === {width}")
                assert await page.value("document.documentElement.scrollWidth") <= width, number


async def test_a_served_page_runs_the_programs_when_asked_and_again(tmp_path: Path) -> None:
    async with started(PYTHON, "-m", "umbel", "lab", "--serve", cwd=tmp_path) as server:
        address = await server.address()
        async with opened(tmp_path) as page:
            await page.open(address)
            await page.until(f"document.querySelectorAll('.labs a').length === {len(PACKAGES)}")
            await page.open(await page.value("document.querySelector('.labs a').href"))
            await page.until("document.querySelector('.choices button')")
            await choose(page, "Just show me")
            await page.until(f"{COUNTERS} === '5,0,0'")
            await page.value("document.querySelector('svg').id = 'of the first run'")
            await choose(page, "Run again")
            await page.until("document.querySelector('svg') && document.querySelector('svg').id === ''")
        assert await server.stop(signal.SIGTERM) == 0
