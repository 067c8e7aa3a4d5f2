"""Lines of requests on a terminal, by ``umbel serve`` with and without a master, and by ``umbel demo``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from tests.support.process.terminal import Program, on_terminal
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected

APP = """
from quart import request
from umbel import Umbel

app = Umbel("lines", static_folder=None)

@app.get("/fine")
async def fine():
    return "fine"

@app.get("/broken")
async def broken():
    raise ValueError("the reason")
"""


SERVE = ("serve", "app:app", "-b", "127.0.0.1:0")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


async def get(port: int, *paths: str) -> list[int]:
    async with connected(port) as client:
        return [(await client.request("GET", path)).status for path in paths]


async def port_of(program: Program, workers: bool) -> int:
    if workers:
        return int((await program.until(r"runs on http://127\.0\.0\.1:(\d+)"))[1])
    return await program.port()


@pytest.mark.parametrize("workers", [False, True], ids=["alone", "master"])
async def test_each_request_is_a_line_and_a_crash_also_its_traceback_once(directory: Path, workers: bool) -> None:
    async with on_terminal(directory, *SERVE, *(["-w", "1"] if workers else []), NO_COLOR="1") as program:
        port = await port_of(program, workers)
        if workers:
            await program.until("worker.ready")
        assert await get(port, "/fine", "/livez", "/broken", "/nothing%1b") == [200, 200, 500, 404]
        await program.until(r"GET /nothing\\x1b 404 [\d.]+ ms\n")
    lines = re.findall(r"^\d\d:\d\d:\d\d\.\d{3} (GET \S+ \d+ )[\d.]+ ms(.*)$", program.shown, re.MULTILINE)
    assert lines == [("GET /fine 200 ", ""), ("GET /broken 500 ", "  internal"), ("GET /nothing\\x1b 404 ", "")]
    assert program.shown.count("ValueError: the reason") == 1


@pytest.mark.parametrize("workers", [False, True], ids=["alone", "master"])
async def test_a_terminal_that_is_not_read_delays_no_request(directory: Path, workers: bool) -> None:
    async with on_terminal(directory, *SERVE, *(["-w", "1"] if workers else [])) as program:
        port = await port_of(program, workers)
        if workers:
            await program.until("worker.ready")
        with trio.fail_after(20):
            assert set(await get(port, *["/fine?" + "x" * 100] * 1000)) == {200}
        await program.until(r"requests were not shown|more requests? in the last second|bytes of output were dropped")


FOREIGN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/broken":
        raise ValueError("the reason")
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})
"""


async def test_requests_to_an_application_without_records_are_shown_too(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FOREIGN)
    async with on_terminal(tmp_path, *SERVE, NO_COLOR="1") as program:
        port = await program.port()
        assert await get(port, "/fine%20?secret=1", "/livez") == [201, 201]
        assert await get(port, "/broken") == [500]
        async with h2_client(port) as client:
            await client.fetch(path="/two")
        await program.until(r"GET /two 201 [\d.]+ ms\n")
    lines = re.findall(r"^\d\d:\d\d:\d\d\.\d{3} (GET \S+ \d+) [\d.]+ ms(.*)$", program.shown, re.MULTILINE)
    assert lines == [("GET /fine%20 201", ""), ("GET /broken 500", "  internal"), ("GET /two 201", "")]


async def test_quiet_shows_no_line(directory: Path) -> None:
    async with on_terminal(directory, *SERVE, "--quiet") as program:
        assert await get(await program.port(), "/fine", "/broken") == [200, 500]
        await program.until("its record is in")
    assert "/fine" not in program.shown


async def test_the_demo_shows_the_lines_of_its_gateway_only(tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "demo", "--port", "0", "--fail", "offers") as program:
        assert await get(await program.port(), "/dashboard/42") == [200]
        await program.until(r"GET /dashboard/42 \x1b\[32m200\x1b\[0m [\d.]+ ms  offers: status\n")
    assert program.shown.count("GET ") == 1
