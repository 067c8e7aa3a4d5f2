"""The console's configuration in Chromium: no secret is in the page, and the last reload is shown."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway.configs import write
from tests.support.process.admin import ask_admin

from .console_page import ADMIN, OVERFLOW, TOKEN, shown_console

ENV = {"TENANT": "planted-tenant"}
TEXT = """
[upstreams.up]
urls = ["http://127.0.0.1:1"]
[upstreams.up.headers]
authorization = "Bearer planted-header"
x-tenant = "${{TENANT}}"
x-note = "<b>bold</b>"
[[routes]]
path = "/r"
deadline = "{deadline}"
[routes.calls.c]
upstream = "up"
path = "/"
"""


async def test_secrets_are_masked_and_the_last_reload_says_what_it_changed(tmp_path: Path) -> None:
    async with shown_console(tmp_path, TEXT.format(deadline="2s"), "-w", "1", env=ENV) as console:
        page = console.page
        await console.show("configuration")
        await page.until("document.querySelector('.config tbody tr')")
        assert "No reload yet" in await page.value("document.querySelector('.reload').innerText")
        shown = await page.value("document.body.innerText")
        assert "[redacted]" in shown
        assert "${TENANT}" in shown
        assert "<b>bold</b>" in shown
        whole = await page.value("document.documentElement.outerHTML")
        for secret in ("planted-header", "planted-tenant", TOKEN):
            assert secret not in whole
        write(tmp_path, ADMIN + TEXT.format(deadline="3s"))
        assert (await ask_admin(console.socket, "POST", "/ctl/reload"))[0] == 200
        await page.until("document.querySelector('.reload').dataset.state === 'good'")
        changed = await page.value("document.querySelector('.reload').innerText")
        assert "generation 2" in changed
        assert "2s → 3s" in changed
        write(tmp_path, ADMIN + TEXT.format(deadline="never"))
        assert (await ask_admin(console.socket, "POST", "/ctl/reload"))[0] == 409
        await page.until("document.querySelector('.reload').dataset.state === 'bad'")
        failed = await page.value("document.querySelector('.reload').innerText")
        assert "deadline" in failed
        assert "generation 2: the configuration cannot be used" in failed
        assert "The configuration before it stays in use." in failed
        await console.show("tree/%E0%A4%A")  # No UTF-8.
        await page.until("document.querySelector('main [role=treeitem]')")
        await page.resize(390)
        assert await page.value(OVERFLOW) == 0


async def test_the_search_keeps_the_keys_that_it_finds(tmp_path: Path) -> None:
    async with shown_console(tmp_path, TEXT.format(deadline="2s"), env=ENV) as console:
        page = console.page
        await console.show("configuration?q=deadline")
        await page.until("document.querySelectorAll('.config tbody tr').length === 1")
        assert "2s" in await page.value("document.querySelector('.config tbody').innerText")
