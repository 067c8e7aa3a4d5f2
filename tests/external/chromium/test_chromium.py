"""Chromium against the gateway: fetch, uploads, WebSocket and EventSource, over HTTP/1.1 and over HTTP/2 with TLS."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from quart import request
from tools.external import program

from tests.external.site import site
from tests.support.process.processes import started
from umbel.gateway.app import Umbel

PAGE = "<!doctype html><title>test</title><link rel=icon href=data:,><script src=/page.js></script>"
SCRIPT = Path(__file__).with_name("page.js")
SECONDS_MAX = 60


class Reports:
    """The results that the page reports, by the name of the check."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.first_event = trio.Event()
        self.done = trio.Event()

    def prepare(self, app: Umbel) -> None:
        @app.get("/page")
        async def page() -> str:
            return PAGE

        @app.get("/page.js")
        async def script() -> tuple[str, dict[str, str]]:
            return SCRIPT.read_text(encoding="utf-8"), {"content-type": "text/javascript"}

        @app.get("/long")
        async def long() -> tuple[str, dict[str, str]]:
            numbers = " ".join(map(str, range(20_000)))
            return numbers, {"content-type": "text/plain", "etag": '"long"', "cache-control": "max-age=0"}

        @app.post("/report")
        async def report() -> str:
            told = await request.get_json()
            self.seen[told["what"]] = told["seen"]
            if told["what"] == "first event":
                self.first_event.set()
            if told["what"] == "done":
                self.done.set()
            return ""


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


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_page_gets_the_response_to_each_kind_of_request(tmp_path: Path, protocol: str) -> None:
    reports = Reports()
    settings: dict[str, Any] = {}
    if protocol == "h2":
        issued = trustme.CA().issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        settings = {"certfile": str(tmp_path / "cert.pem"), "keyfile": str(tmp_path / "key.pem")}
    async with site(tmp_path, more=reports.prepare, **settings) as (running, upstream):
        scheme = "https" if settings else "http"
        with trio.fail_after(SECONDS_MAX):
            async with browser(tmp_path / "profile", f"{scheme}://localhost:{running.port}/page"):
                await reports.first_event.wait()
                assert "eventSource" not in reports.seen
                upstream.late.set()
                await reports.done.wait()
    assert reports.seen == {
        "json": {"status": 200, "body": {"a": 1}, "again": 304},
        "compressed": {
            "coding": "zstd",
            "lengths": [108_889] * 2,
            # Chromium keeps no response of a server whose certificate it does not trust, so it asks without condition.
            "sent": ["much", "much" if settings else "little"],
            "bodies": [True, True],
        },
        "upload": {"status": 200, "length": 500_000},
        "manyAtOnce": {"statuses": [200], "protocols": [protocol]},
        "webSocket": {"seen": ["hello", 300_000], "code": 1000},
        "first event": "part",
        "eventSource": {
            "seen": ["part", "late", "end"],
            "data": {"end": True, "completed": True, "answer": {"part": 42, "late": 42}},
        },
        "leaving": "AbortError",
        "done": None,
    }
    kinds = [line["kind"] for line in running.lines("access") if line.get("url.path") == "/hangs"]
    assert kinds == ["client-gone"]
