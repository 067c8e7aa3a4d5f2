"""A headless Chromium that shows a page, and what the page reports."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trustme
from quart import request
from tools.external import program

from tests.support.process.processes import started
from umbel.gateway.app import Umbel

SECONDS_MAX = 60


class Reports:
    """The results that a page reports to ``/report``, by the name of the check.

    ``script`` is the script of the page ``/page``.
    """

    def __init__(self, script: Path) -> None:
        self.seen: dict[str, Any] = {}
        self.first_event = trio.Event()
        self.done = trio.Event()
        self._script = script

    def prepare(self, app: Umbel) -> None:
        """Register the page, its script, and the view that takes the reports."""

        @app.get("/page")
        async def page() -> str:
            return "<!doctype html><title>test</title><link rel=icon href=data:,><script src=/page.js></script>"

        @app.get("/page.js")
        async def script() -> tuple[str, dict[str, str]]:
            return self._script.read_text(encoding="utf-8"), {"content-type": "text/javascript"}

        @app.post("/report")
        async def report() -> str:
            told = await request.get_json()
            self.seen[told["what"]] = told["seen"]
            if told["what"] == "first event":
                self.first_event.set()
            if told["what"] == "done":
                self.done.set()
            return ""


def settings_of(protocol: str, directory: Path) -> dict[str, Any]:
    """The settings of a server for a browser with ``protocol``; for h2 with a certificate that the test issues."""
    if protocol != "h2":
        return {}
    certificate, key = directory / "cert.pem", directory / "key.pem"
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return {"certfile": str(certificate), "keyfile": str(key)}


@asynccontextmanager
async def browser(profile: Path, url: str) -> AsyncIterator[None]:
    """Run a headless browser that shows the page, until the block ends."""
    command = [
        program("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        # The certificate is issued by a CA of the test.
        "--ignore-certificate-errors", f"--user-data-dir={profile}", url,
    ]  # fmt: skip
    async with started(*command, cwd=profile.parent) as child:
        yield
        await child.stop(signal.SIGTERM)
