"""The console's routes and upstreams in Chromium: figures, the plan as a graph, replicas and breakers."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tests.support.gateway.program import route, up
from tests.support.upstream.raw_server import answering, raw_server, response

from .console_page import OVERFLOW, ShownConsole, shown_console

JSON = b"content-type: application/json"
ROUTE = "/composed/<id>"
NODES = """[...document.querySelectorAll('.plan-node')].map((node) => {
  const box = node.getBoundingClientRect();
  return {text: node.innerText, x: box.x, y: box.y, right: box.right, state: node.dataset.state ?? ''};
})"""


@asynccontextmanager
async def trafficked(directory: Path) -> AsyncIterator[ShownConsole]:
    """A gateway with a composed route, one of whose upstreams fails, after five requests."""
    async with (
        raw_server(answering(response(b'{"a": 1}', JSON))) as server,
        raw_server(answering(response(b"{}", JSON, status=b"503 Service Unavailable"))) as failing,
    ):
        text = (
            up(int(server))
            + up(int(failing), "breaker = { min_requests = 3, open_for = '1h' }", name="failing")
            + f'[upstreams.both]\nurls = ["http://127.0.0.1:{int(server)}", "http://127.0.0.1:{int(failing)}"]\n'
            + 'balance = "round_robin"\nejection = { failures = 1 }\n'
            + route(ROUTE, "/quick", keys='deadline = "700ms"')
            + '[routes.calls.next]\nupstream = "up"\npath = "/{part.a}"\noptional = true\n'
            + '[routes.calls.broken]\nupstream = "failing"\npath = "/"\noptional = true\n'
            + '[routes.calls.either]\nupstream = "both"\npath = "/"\noptional = true\n'
        )
        async with shown_console(directory, text) as console:
            for number in range(5):
                assert (await console.get(f"/composed/{number}")).status == 200
            yield console


async def test_the_routes_have_figures_and_a_plan_with_live_numbers(tmp_path: Path) -> None:
    async with trafficked(tmp_path) as console:
        page = console.page
        await console.show("routes")
        await page.until("document.querySelector('table.figures tbody tr')")
        await page.value(
            "(() => { const choice = document.querySelector('select'); choice.value = 'total';"
            " choice.dispatchEvent(new Event('change')); })()"
        )
        shown = await page.value("document.querySelector('table.figures tbody tr').innerText")
        assert shown.startswith(ROUTE)
        assert "100 %" in shown  # Each answer was partial.
        assert shown.split()[-1] == "5"
        await page.value("document.querySelector('table.figures tbody a').click()")
        await page.until("document.querySelector('.plan-node .plan-numbers')?.innerText.includes('failed')")
        nodes = {node["text"].split()[0]: node for node in await page.value(NODES)}
        assert set(nodes) == {"request", "part", "next", "broken", "either", "answer"}
        assert nodes["request"]["right"] < nodes["part"]["x"]
        assert nodes["part"]["right"] < nodes["next"]["x"]
        assert nodes["next"]["right"] < nodes["answer"]["x"]
        assert nodes["part"]["x"] == nodes["broken"]["x"]
        assert "deadline 700 ms" in nodes["answer"]["text"]
        assert "optional" in nodes["next"]["text"]
        await page.until("document.querySelectorAll('table.calls tbody tr').length === 4")


async def test_an_upstream_shows_its_replicas_and_the_state_of_its_breaker(tmp_path: Path) -> None:
    async with trafficked(tmp_path) as console:
        page = console.page
        await console.show("upstreams")
        await page.until("document.querySelectorAll('.card').length === 3")
        cards = await page.value("[...document.querySelectorAll('.card')].map((card) => card.innerText)")
        both, failing, working = cards
        assert re.search(r"\tup\t.*\n.*\tejected by main for \d+", both)
        assert both.startswith("both")
        assert failing.startswith("failing")
        assert "breaker open" in failing
        assert working.startswith("up")
        assert "http://127.0.0.1:" in working
        await page.value("document.querySelector('.card summary').click()")
        assert "open" in await page.value("document.querySelector('.card details table').innerText")


async def test_the_views_of_traffic_fit_a_phone_and_a_desk(tmp_path: Path) -> None:
    async with trafficked(tmp_path) as console:
        page = console.page
        themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        views = {"routes": "table tbody tr", f"routes/{quote(ROUTE, safe='')}": ".plan-node", "upstreams": ".card"}
        for width, theme in itertools.product((390, 1280), themes):
            await page.resize(width)
            await page.theme(theme)
            for view, part in views.items():
                await console.show(view)
                await page.until(f"document.querySelector('{part}')")
                assert await page.value(OVERFLOW) == 0
                if part == ".plan-node":
                    inside = max(node["right"] for node in await page.value(NODES))
                    assert inside <= width
