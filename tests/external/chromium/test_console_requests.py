"""The console's requests in Chromium: the list, and the waterfall of a hedged request."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec
import pytest

from tests.support.gateway.program import route, up
from tests.support.observe.timelines import partial_answer
from tests.support.process.admin import ask_admin
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.core.diagnostics.redact import Redactor
from umbel.observe.timeline import timeline_of

from .console_page import OVERFLOW, ShownConsole, shown_console

JSON = b"content-type: application/json"
HOSTILE = "<img src=x onerror=document.title='broken'>"
CANCELLED = "cancelled: lost-hedge (another attempt was answered first)"
LANES = """[...document.querySelectorAll('.lane[role=option]')].map((lane) => ({
  name: lane.querySelector('.lane-label').innerText,
  note: lane.querySelector('.lane-note').innerText,
  hatched: lane.querySelectorAll('.hatched').length,
  critical: lane.querySelectorAll('.critical').length,
}))"""


async def silent_for_offers(peer: Peer) -> None:
    """Answer ``/quick`` and ``/fails`` at once, and others never."""
    while head := await peer.read_head():
        if b" /quick" in head:
            await peer.send(response(b'{"a": 1}', JSON))
        elif b" /fails" in head:
            await peer.send(response(b"{}", JSON, status=b"503 Service Unavailable"))
        else:
            await peer.closed()


async def quick(peer: Peer) -> None:
    while await peer.read_head():
        await peer.send(response(b'{"b": 2}', JSON))


@asynccontextmanager
async def hedging(directory: Path, *options: str) -> AsyncIterator[ShownConsole]:
    """A gateway whose route ``/hedged`` always gets its answer from the hedge, and the console's page of it."""
    async with raw_server(silent_for_offers) as slow, raw_server(quick) as other:
        text = (
            f'[upstreams.both]\nurls = ["http://127.0.0.1:{int(slow)}", "http://127.0.0.1:{int(other)}"]\n'
            'balance = "round_robin"\nhedge = { after = "60ms" }\n'
            + up(int(slow))
            + route("/hedged", "/quick", keys='deadline = "5s"')
            + '[routes.calls.offers]\nupstream = "both"\npath = "/offers/{part.a}"\n'
            + route("/fails", "/fails")
            + '[[routes]]\npath = "/any/<path:rest>"\nrespond = { text = "r" }\n'
        )
        async with shown_console(directory, text, *options) as console:
            yield console


async def listed(console: ShownConsole) -> list[str]:
    """The ids of the kept requests, the latest first."""
    _, answer = await ask_admin(console.socket, "GET", "/slow")
    return [each["id"] for each in answer["requests"]]


async def kept(console: ShownConsole, target: str, *fields: tuple[str, str], status: int = 200) -> str:
    """Send a request, and return its id in the list of kept requests."""
    before = await listed(console)
    assert (await console.get(target, *fields)).status == status
    while len(now := await listed(console)) == len(before):
        pass  # The request is kept after its response.
    return now[0]


LATE = """import("/console/parts/findings.js").then(({findings}) => JSON.stringify(findings(
  {duration_ms: 898, deadline_ms: 800, deadline_reached: false, calls: []})))"""


async def test_a_hedged_request_shows_the_slow_upstream_the_cancelled_attempt_and_why(tmp_path: Path) -> None:
    async with hedging(tmp_path) as console:
        page = console.page
        await console.show(f"requests/{await kept(console, '/hedged')}")
        await page.until("document.querySelector('.findings')")
        said = await page.value("document.querySelector('.findings').innerText")
        assert "offers (upstream both): " in said
        assert "offers: first attempt, to 127.0.0.1:" in said
        assert "did not answer within " in said
        assert "; the hedge to 127.0.0.1:" in said
        assert CANCELLED.removeprefix("cancelled: ") in said
        assert "5000 ms, not reached." in said
        assert "800 ms: nothing was cut, but the answer ended 98.0 ms after it." in await page.value(LATE)
        lanes = await page.value(LANES)
        first, hedge = [lane for lane in lanes if "127.0.0.1" in lane["name"]][-2:]
        assert (first["hatched"], first["critical"], first["note"]) == (1, 0, CANCELLED)
        assert (hedge["hatched"], hedge["critical"], hedge["note"]) == (0, 1, "200")
        assert "hedge" in hedge["name"]
        fill = await page.value("getComputedStyle(document.querySelector('.lane .hatched')).fill")
        assert "hatch" in fill


async def test_a_request_is_found_and_read_with_the_keyboard_alone(tmp_path: Path) -> None:
    async with hedging(tmp_path) as console:
        page = console.page
        await kept(console, "/hedged")
        await console.show("requests")
        await page.until("document.querySelector('table.requests tbody tr')")
        for _ in range(40):
            await page.press("Tab")
            if await page.value("document.activeElement.closest('table.requests') !== null"):
                break
        await page.press("Enter")
        await page.until("document.activeElement.matches('.request-title')")
        while not await page.value("document.activeElement.matches('.lane')"):
            await page.press("Tab")
        await page.press("Home")
        assert await page.value("document.activeElement.innerText.startsWith('GET /hedged')")
        assert "5000 ms" in await page.value("document.querySelector('.lane-details').innerText")
        await page.press("End", "ArrowUp")
        assert await page.value("document.activeElement.dataset.outcome") == "cancelled"
        assert "lost-hedge" in await page.value("document.querySelector('.lane-details').innerText")


async def test_the_table_of_routes_and_buckets_filters_the_list(tmp_path: Path) -> None:
    async with hedging(tmp_path) as console:
        page = console.page
        await kept(console, "/any/thing")
        await kept(console, "/fails", status=502)
        await console.show("requests")
        await page.until("document.querySelectorAll('table.requests tbody tr').length === 2")
        await page.value("document.querySelector('table.buckets td[data-bucket=error] a[href]').click()")
        await page.until("document.querySelectorAll('table.requests tbody tr').length === 1")
        assert "/fails" in await page.value("document.querySelector('table.requests tbody').innerText")
        assert await page.value("document.querySelector('.summary').innerText") == (
            "1 kept request of /fails in the bucket error."
        )


@pytest.mark.parametrize("options", [(), ("-w", "2")], ids=["process", "master"])
async def test_hostile_text_of_a_request_is_shown_as_text(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with hedging(tmp_path, *options) as console:
        page = console.page
        identifier = await kept(console, "/any/" + quote(HOSTILE), ("x-request-id", HOSTILE), ("user-agent", HOSTILE))
        await console.show("requests")
        await page.until("document.querySelector('table.requests tbody tr')")
        assert HOSTILE in await page.value("document.querySelector('table.requests').innerText")
        await console.show(f"requests/{identifier}")
        await page.until("document.querySelector('.findings')")
        assert HOSTILE in await page.value("document.querySelector('.request-title').innerText")
        assert await page.value("document.images.length") == 0
        assert (await page.value("document.title")).startswith("Requests")


async def test_a_timeline_is_told_in_sentences_with_its_retry_hedge_and_deadline(tmp_path: Path) -> None:
    timeline = msgspec.json.encode(timeline_of(partial_answer(), Redactor(()))).decode()
    async with shown_console(tmp_path, '[[routes]]\npath = "/r"\nrespond = { text = "r" }\n') as console:
        said = await console.page.value(
            f"import('/console/parts/findings.js').then((found) => found.findings({timeline}))"
        )
    assert {title: "\n".join(lines) for title, lines in said} == {
        "Slowest": "news (upstream news): 1000 ms of 1002 ms (100 %).\n"
        "Of that, 996 ms in the TLS handshake with news-1.",
        "Cancelled": "offers: first attempt, to offers-1, after 350 ms: lost-hedge "
        "(another attempt was answered first).\nnews: first attempt, to news-1, after 1000 ms: the route's deadline.",
        "Failed": "news (upstream news): timeout, unfinished at the route's deadline.",
        "Deadline": "1000 ms: reached, and what was unfinished was cut.",
    }


async def test_many_attempts_are_folded_and_unfold_by_keyboard(tmp_path: Path) -> None:
    async with raw_server(quick) as server:
        items = ", ".join(map(str, range(30)))
        text = up(int(server)) + route("/many", "/{item}", call=f"each = '`[{items}]`'")
        async with shown_console(tmp_path, text) as console:
            page = console.page
            await console.show(f"requests/{await kept(console, '/many')}")
            await page.until("document.querySelectorAll('.lane[role=option]').length === 11")
            await page.value("document.querySelector('.lane[tabindex=\"0\"]').focus()")
            await page.press("End", "Enter")
            await page.until("document.querySelectorAll('.lane[role=option]').length === 32")
            assert await page.value("document.activeElement.matches('.lane.attempt')")


async def test_the_views_fit_a_phone_and_a_desk_in_light_and_dark(tmp_path: Path) -> None:
    async with hedging(tmp_path) as console:
        page = console.page
        identifier = await kept(console, "/hedged")
        await kept(console, "/any/" + "long" * 100)
        backgrounds = set()
        themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for width, theme in itertools.product((390, 1280), themes):
            await page.resize(width)
            await page.theme(theme)
            for view, part in (("requests", "table.requests tbody tr"), (f"requests/{identifier}", ".lane")):
                await console.show(view)
                await page.until(f"document.querySelector('{part}')")
                assert await page.value(OVERFLOW) == 0
            backgrounds.add(await page.value("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
