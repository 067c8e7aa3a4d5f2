"""Chromium against the gateway: fetch, uploads, WebSocket and EventSource, over HTTP/1.1 and over HTTP/2 with TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.external.site import site
from umbel.gateway.app import Umbel

from .browsing import SECONDS_MAX, Reports, browser, settings_of

SCRIPT = Path(__file__).with_name("page.js")


def prepare(app: Umbel) -> None:
    @app.get("/long")
    async def long() -> tuple[str, dict[str, str]]:
        numbers = " ".join(map(str, range(20_000)))
        return numbers, {"content-type": "text/plain", "etag": '"long"', "cache-control": "max-age=0"}


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_page_gets_the_response_to_each_kind_of_request(tmp_path: Path, protocol: str) -> None:
    reports, settings = Reports(SCRIPT), settings_of(protocol, tmp_path)

    def more(app: Umbel) -> None:
        reports.prepare(app)
        prepare(app)

    async with site(tmp_path, more=more, **settings) as (running, upstream):
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
