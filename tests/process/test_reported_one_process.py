"""One process without a master: signals, times, directories and sockets, as an operator meets them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.processes import PYTHON, started

APP = """
import trio
from umbel import Umbel

app = Umbel(__name__)
release = {}

@app.get("/wait")
async def wait():
    release["event"] = trio.Event()
    print("a request waits", flush=True)
    await release["event"].wait()
    return "answered"

@app.get("/release")
async def let_go():
    release["event"].set()
    return "released"

if __name__ == "__main__":
    app.run(port=0)
"""
SERVE = (PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0")
WAYS = pytest.mark.parametrize(
    "command", [(*SERVE, "application:app"), (PYTHON, "application.py")], ids=["umbel serve", "app.run()"]
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APP)
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@WAYS
async def test_hup_usr1_and_usr2_leave_a_request_in_flight_alone(command: tuple[str, ...], directory: Path) -> None:
    log = directory / "logs" / "access.jsonl"
    bodies: list[str] = []

    async def ask(client: httpx.AsyncClient, url: str) -> None:
        bodies.append((await client.get(f"{url}/wait")).text)

    async with started(*command, cwd=directory) as server, httpx.AsyncClient() as client:
        url = await server.address("Umbel runs on")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, url)
            await server.line("a request waits")
            log.rename(log.with_name("renamed"))
            for number in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGUSR2):
                server.send(number)
            lines = [await server.line(f"{name} is ignored: ") for name in ("SIGHUP", "SIGUSR2")]
            await client.get(f"{url}/release")
        assert await server.stop(signal.SIGTERM) == 0
    assert all("restart the process" in line for line in lines)
    assert bodies == ["answered"]
    assert {record["url.path"] for record in read(log)} == {"/wait", "/release"}


@WAYS
async def test_quit_cuts_what_is_in_flight_and_records_it(command: tuple[str, ...], directory: Path) -> None:
    async def ask(client: httpx.AsyncClient, url: str) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}/wait")

    async with started(*command, cwd=directory) as server, httpx.AsyncClient() as client:
        url = await server.address("Umbel runs on")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, url)
            await server.line("a request waits")
            before = trio.current_time()
            assert await server.stop(signal.SIGQUIT) == 0
            assert trio.current_time() - before < 5
    [record] = read(directory / "logs" / "access.jsonl")
    assert record["url.path"] == "/wait"
    assert "Traceback" not in server.output


async def test_the_demo_survives_a_hangup(tmp_path: Path) -> None:
    async with started(PYTHON, "-m", "umbel", "demo", "--port", "0", cwd=tmp_path) as demo:
        await demo.line("One line per request")
        demo.send(signal.SIGHUP)
        await demo.line("SIGHUP is ignored: ")
        assert await demo.stop(signal.SIGTERM) == 0
