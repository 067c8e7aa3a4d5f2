"""The console in Chromium: its frame, and who gets it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from .console_page import TOKEN, shown_console

TEXT = '[[routes]]\npath = "/r"\nrespond = { text = "r" }\n'


async def test_the_page_opens_once_and_shows_live_data(tmp_path: Path) -> None:
    async with shown_console(tmp_path, TEXT) as console:
        await console.page.until("document.querySelector('.connection').dataset.state === 'live'")
        assert await console.page.value("location.search") == ""
        assert await console.page.value("document.cookie") == ""


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_another_host_or_origin_gets_no_data_of_the_console(
    tmp_path: Path, fields: dict[str, str], status: int
) -> None:
    async with shown_console(tmp_path, TEXT) as console:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=console.admin, trust_env=False) as client:
            for path in ("/", "/slow", "/config", "/events?topic=slow", "/plan?route=/r", "/console/main.js"):
                assert (await client.get(path, headers={**bearer, **fields})).status_code == status
                assert (await client.get(path)).status_code == 401


async def test_a_page_of_another_origin_cannot_read_the_console(tmp_path: Path) -> None:
    """The page of the gateway is at another port, so it is of the same site: the browser would send the cookie."""
    async with shown_console(tmp_path, TEXT) as console:
        await console.page.open(f"http://127.0.0.1:{console.port}/r")
        for options in ("{}", "{credentials: 'include'}", "{mode: 'no-cors', credentials: 'include'}"):
            seen = await console.page.value(
                f"fetch('{console.admin}/config', {options}).then((answer) => answer.text(), () => 'refused')"
            )
            assert seen in ("refused", "")
        console.page.problems.clear()
