"""The console of a running gateway, shown by Chromium."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from tools.browser import Page, opened_page

from tests.support.gateway.configs import write
from tests.support.process.admin import ask_admin
from tests.support.process.processes import PYTHON, Child, started
from tests.support.server.serving import Reply, fetch

TOKEN = "planted-token-of-the-console"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""How many pixels of a page lie beside its window."""
ADMIN = f'[admin]\nbind = "127.0.0.1:0"\ntoken = "{TOKEN}"\n'


@dataclass(frozen=True, slots=True)
class ShownConsole:
    """A running gateway whose console is shown."""

    page: Page
    server: Child
    port: int
    """The port of the gateway."""
    admin: str
    """The base URL of the admin side."""
    socket: Path
    """The Unix socket of the admin side."""

    async def get(self, target: str, *fields: tuple[str, str]) -> Reply:
        """Send a request to the gateway, and return its response."""
        return await fetch(self.port, "GET", target, fields)

    async def show(self, view: str) -> None:
        """Show a view by its address, such as ``requests?bucket=error``."""
        await self.page.value(f"location.hash = '#/{view}'")


@asynccontextmanager
async def shown_console(
    directory: Path, text: str, *options: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[ShownConsole]:
    """Run a gateway with a configuration, and open its console in a browser. No script of it may fail.

    Args:
        text: the configuration, without the section ``[admin]``.
        options: further options of ``umbel serve``.
        env: further environment variables.
    """
    write(directory, ADMIN + text)
    command = [PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0", *options]
    async with started(*command, cwd=directory, env=env) as server, trio.open_nursery() as nursery:
        said = await server.line("master.ready" if options else "Umbel runs on")
        port = int(said.partition(" on http://127.0.0.1:")[2].split()[0])
        nursery.start_soon(server.follow)
        socket = directory / "logs" / "admin.sock"
        _, answer = await ask_admin(socket, "POST", "/ctl/url")
        async with opened_page(directory / "profile") as page:
            await page.resize(1280)
            await page.open(answer["url"])
            await page.until("document.querySelector('header nav a')")
            yield ShownConsole(page, server, port, answer["url"].partition("/?")[0], socket)
            assert page.problems == [], page.problems
        server.send(signal.SIGTERM)
