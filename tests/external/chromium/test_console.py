"""The console in Chromium: its frame, and who gets it."""

from __future__ import annotations

from pathlib import Path

from .console_page import shown_console

TEXT = '[[routes]]\npath = "/r"\nrespond = { text = "r" }\n'


async def test_the_page_opens_once_and_shows_live_data(tmp_path: Path) -> None:
    async with shown_console(tmp_path, TEXT) as console:
        await console.page.until("document.querySelector('.connection').dataset.state === 'live'")
        assert await console.page.value("location.search") == ""
        assert await console.page.value("document.cookie") == ""
