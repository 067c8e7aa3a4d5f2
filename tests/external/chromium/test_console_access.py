"""Every view of the console in Chromium: contrast of its texts, names of its controls, and its width."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from tools.browser import Page

from .console_page import OVERFLOW
from .test_console_requests import hedging, kept

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
CONTROLS = {"link", "button", "searchbox", "combobox", "table", "listbox", "option", "tree", "treeitem", "region"}


async def unnamed_controls(page: Page) -> list[str]:
    """The roles of controls, tables and regions without a name for screen readers."""
    nodes = (await page.send("Accessibility.getFullAXTree"))["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    return [role for role, name in found if role in CONTROLS and not name]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_each_view_has_contrast_names_and_no_scrolling_to_the_side(
    tmp_path: Path, theme: Literal["light", "dark"]
) -> None:
    async with hedging(tmp_path) as console:
        page = console.page
        request = await kept(console, "/hedged")
        await page.theme(theme)
        views = await page.value("[...document.querySelectorAll('nav a')].map((link) => link.hash.slice(2))")
        assert len(views) >= 7
        for view in [*views, f"requests/{request}", "routes/%2Fhedged"]:
            await console.show(view)
            await page.until("document.querySelector('main').childElementCount > 1")
            await page.until("document.querySelector('.connection').dataset.state === 'live'")
            for width in (1280, 390):
                await page.resize(width)
                assert (view, width, await page.value(OVERFLOW)) == (view, width, 0)
                assert (view, width, await page.value(CONTRAST)) == (view, width, {})
            assert (view, await unnamed_controls(page)) == (view, [])
