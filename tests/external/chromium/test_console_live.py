"""The console's tree, lints and workers in Chromium, used by keyboard alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import trio
from tools.browser import Page

from tests.support.process.admin import ask_admin
from tests.support.upstream.raw_server import Peer, raw_server

from .console_page import ShownConsole, shown_console

HANGING = """
[upstreams.up]
urls = ["http://127.0.0.1:{port}"]
timeout = "60s"

[[routes]]
path = "/hangs/<name>"
deadline = "60s"
calls.profile = {{ upstream = "up", path = "/" }}
"""
BLOCKING = """
import time
from umbel import Umbel

app = Umbel.from_file()


@app.get("/block")
async def block():
    time.sleep(9)  # This line blocks.
    return "done"
"""
SELECTED = "document.querySelector('[role=treeitem][aria-selected=true]')"


async def hangs(peer: Peer) -> None:
    await peer.closed()


async def type_text(page: Page, text: str) -> None:
    await page.press(*text)


async def test_the_tree_is_searched_folded_and_paused_by_keyboard(tmp_path: Path) -> None:
    async with raw_server(hangs) as upstream, shown_console(tmp_path, HANGING.format(port=int(upstream))) as console:
        page = console.page
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ignoring_the_end, console, "/hangs/bread")
            nursery.start_soon(ignoring_the_end, console, "/hangs/honey")
            await page.until("document.querySelectorAll('.chip.request').length === 2")
            await page.press("/")
            await type_text(page, "hangs/bread")
            await page.until("document.querySelector('.summary').textContent.endsWith('; 1 rows match')")
            assert await page.value("document.querySelectorAll('.chip.request').length") == 1
            await page.press("Enter")  # To the tree.
            await page.press("End")
            assert await page.value(f"{SELECTED}.querySelector('.name').textContent") == "profile"
            await page.until(f"{SELECTED}.querySelector('.attempt').textContent.startsWith('first 127.0.0.1:')")
            assert await page.value("document.querySelector('.details h2').textContent") == "call profile"
            await page.press("ArrowLeft")  # To the request that the call belongs to.
            assert "GET /hangs/bread" in await page.value(f"{SELECTED}.textContent")
            await page.press("/", "Escape", "Home")
            assert await page.value(f"{SELECTED}.getAttribute('aria-expanded')") == "true"
            await page.press("ArrowLeft")
            assert await page.value("document.querySelectorAll('[role=treeitem]').length") == 1
            await page.press("ArrowRight", "ArrowDown")
            assert await page.value(f"{SELECTED}.querySelector('.name').textContent") == "<init>"
            await page.press("p")
            assert await page.value("[...document.querySelectorAll('button')].some((b) => b.textContent === 'Resume')")
            nursery.cancel_scope.cancel(reason="the test is over")


async def ignoring_the_end(console: ShownConsole, target: str) -> None:
    with suppress(trio.BrokenResourceError, OSError):
        await console.get(target)


async def test_a_blocked_worker_is_shown_with_its_line_while_it_blocks(tmp_path: Path) -> None:
    (tmp_path / "blocks.py").write_text(BLOCKING)
    line = BLOCKING.partition("  # This line")[0].count("\n") + 1
    place = f"{tmp_path.name}/blocks.py:{line} in block"
    async with shown_console(tmp_path, "", "--allow-empty", "-w", "1", "blocks:app") as console:
        page = console.page
        await page.press("g")
        await page.press("l")
        await page.until("document.querySelector('.summary')?.textContent.startsWith('No lints')")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(console.get, "/block")
            await page.until(f"document.querySelector('.lints .ongoing .place')?.textContent === '{place}'")
            await console.show("workers")
            await page.until("document.querySelector('main tbody tr')?.dataset.state === 'silent'")
            assert f"silent at {place}" in await page.value("document.querySelector('main tbody tr').textContent")
        await page.until("document.querySelector('main tbody tr').dataset.state === 'serving'")
        await console.show("lints")
        await page.until("document.querySelector('.lints li:not(.ongoing) .place')")
        await page.value("document.querySelector('details > summary').focus()")
        await page.press("Enter")
        assert await page.value("document.querySelectorAll('.kinds dt').length") == 6


async def test_a_page_whose_cookie_is_refused_says_so_until_the_browser_has_a_new_one(tmp_path: Path) -> None:
    async with shown_console(tmp_path, "", "--allow-empty", "-w", "1") as console:
        page = console.page
        await page.until("document.querySelector('.connection').dataset.state === 'live'")
        cookies = (await page.send("Network.getCookies"))["cookies"]
        await page.send("Network.clearBrowserCookies")  # As after a restart, which makes all cookies invalid.
        await console.show("workers")
        await page.until("document.querySelector('.problem').textContent.includes('`umbel ctl url`')")
        await page.send("Network.setCookies", cookies=cookies)
        await page.until("document.querySelector('.connection').dataset.state === 'live'")
        assert await page.value("document.querySelector('.problem').hidden")
        assert all("401" in problem for problem in page.problems)
        page.problems.clear()


async def test_workers_are_drained_and_the_log_level_is_set_by_keyboard(tmp_path: Path) -> None:
    route = '[[routes]]\npath = "/r"\nrespond = { text = "r" }\n'
    async with shown_console(tmp_path, route, "-w", "1") as console:
        page = console.page
        await console.show("workers")
        await page.until("document.querySelector('main tbody tr')?.dataset.state === 'serving'")
        pid = await page.value("document.querySelector('main tbody tr').querySelector('[data-label=pid]').textContent")
        await page.value("window.confirm = () => true")
        await focus(page, "Drain")
        await page.press("Enter")
        await page.until("document.querySelector('.said').textContent === 'drain: done'")
        await page.until(
            f"[...document.querySelectorAll('main [data-label=pid]')].every((cell) => cell.textContent !== '{pid}')"
        )
        await page.value("document.querySelector('select').focus()")
        await page.press("ArrowUp")  # From info to debug.
        await focus(page, "Set log level")
        await page.press("Enter")
        await page.until("document.querySelector('.said').textContent === 'log-level: done'")
        _, status = await ask_admin(console.socket, "GET", "/status")
        assert status["master"]["log_level"] == "debug"
        await page.resize(390)
        assert await page.value("document.documentElement.scrollWidth <= innerWidth")


async def focus(page: Page, title: str) -> None:
    """Focus the first button with this title."""
    await page.value(f"[...document.querySelectorAll('button')].find((b) => b.textContent === '{title}').focus()")
