"""An emptied configuration, at the start and on a reload: refused with one sentence, and the old workers serve on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, GOOD, UPSTREAM, write
from tests.support.process.processes import PYTHON, ended, started
from tests.support.process.supervised import Supervised, supervised

SERVE = (PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0")
RELOAD = (PYTHON, "-m", "umbel", "ctl", "reload")
NO_ROUTE = "umbel.toml: routes: there is no route, so every request would get 404; if that is meant, use"
QUIET = 'calls.c = { upstream = "u", path = "/", when = "`false`" }\n'


def routes(count: int) -> str:
    return UPSTREAM + "".join(f'[[routes]]\npath = "/r{number}"\n{QUIET}' for number in range(count))


@pytest.mark.parametrize("text", ["", "[server]\n", UPSTREAM], ids=["empty", "sections", "no routes"])
@pytest.mark.parametrize("more", [(), ("-w", "1")], ids=["alone", "supervised"])
async def test_a_start_without_routes_is_refused(text: str, more: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, text)
    status, output = await ended(*SERVE, *more, cwd=tmp_path)
    assert status == 78
    assert output.startswith(NO_ROUTE)
    assert output.count("\n") == 1


async def test_a_start_without_routes_is_refused_under_the_hypercorn_command(tmp_path: Path) -> None:
    write(tmp_path, "")
    command = (PYTHON, "-c", "import umbel.asgi")
    status, output = await ended(*command, cwd=tmp_path)
    assert (status, output.startswith(NO_ROUTE)) == (78, True)
    assert await ended(*command, cwd=tmp_path, env={"UMBEL_ALLOW_EMPTY": "1"}) == (0, "")


async def test_a_start_without_routes_is_possible_with_allow_empty(tmp_path: Path) -> None:
    write(tmp_path, "")
    async with started(*SERVE, "--allow-empty", cwd=tmp_path) as server:
        await server.address("Umbel runs on")
        assert await server.stop(signal.SIGTERM) == 0


async def test_check_refuses_what_serve_refuses(tmp_path: Path) -> None:
    write(tmp_path, UPSTREAM)
    check = (PYTHON, "-m", "umbel", "check")
    status, output = await ended(*check, cwd=tmp_path)
    assert (status, output.startswith(NO_ROUTE)) == (78, True)
    assert await ended(*check, "--allow-empty", cwd=tmp_path) == (0, "umbel.toml: ok, 1 upstream, 0 routes, 0 calls\n")


IN_PYTHON = """
from umbel import Umbel
app = Umbel.from_file()

@app.compose("/python")
async def python(compose):
    return {"from": "python"}
"""


async def test_an_application_in_python_needs_no_routes_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, UPSTREAM, {"served.py": IN_PYTHON})
    async with supervised(tmp_path, workers=1) as master:
        assert b'{"from":"python"}' in await master.get("/python")
        assert (await master.ask(command="reload"))["ok"]
        assert b'{"from":"python"}' in await master.get("/python")


async def assert_still_serves(master: Supervised, path: str = "/r0") -> None:
    assert (await master.get(path)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no route"),
        (routes(3)[:-30], "is not TOML"),
        (routes(1), "3 of 4 routes are gone, more than half of them"),
    ],
    ids=["truncated", "half written", "three of four gone"],
)
async def test_a_reload_that_would_lose_the_routes_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path, routes(4))
    async with supervised(tmp_path, workers=1, app=None) as master:
        before = await master.pids()
        write(tmp_path, text)
        master.signal(signal.SIGHUP)
        assert reason in await master.line("reload.aborted")
        assert "the present workers serve on" in await master.line("serve on")
        status, output = await ended(*RELOAD, cwd=tmp_path)
        assert (status, reason in output) == (1, True)
        await assert_still_serves(master)
        assert await master.pids() == before


async def test_a_restarted_worker_refuses_the_emptied_file(tmp_path: Path) -> None:
    write(tmp_path, routes(4))
    async with supervised(tmp_path, workers=2, app=None) as master:
        write(tmp_path, "")
        os.kill((await master.pids())[1], signal.SIGKILL)
        assert "there is no route" not in await master.line("worker.ended")
        assert "4 of 4 routes are gone" not in master.child.output
        assert "there is no route" in await master.line("worker.ended")
        for _ in range(3):
            await assert_still_serves(master)


async def test_a_reload_that_loses_the_routes_is_possible_with_allow_empty(tmp_path: Path) -> None:
    write(tmp_path, routes(4))
    async with supervised(tmp_path, workers=1, app=None) as master:
        write(tmp_path, routes(2))  # A loss of half of the routes is not more than half.
        assert (await ended(*RELOAD, cwd=tmp_path))[0] == 0
        write(tmp_path, "")
        assert (await ended(*RELOAD, "--allow-empty", cwd=tmp_path))[0] == 0
        assert (await master.get("/r0")).startswith(b"HTTP/1.1 404")
        # It holds only for that reload; and a file without routes cannot lose any.
        write(tmp_path, GOOD + CALL.replace("calls.c", "calls.d"))
        assert (await ended(*RELOAD, cwd=tmp_path))[0] == 0
        write(tmp_path, "")
        assert (await ended(*RELOAD, cwd=tmp_path))[0] == 1


async def test_a_pipe_in_the_place_of_the_configuration_blocks_no_start_or_reload(tmp_path: Path) -> None:
    write(tmp_path, routes(1))
    async with supervised(tmp_path, workers=1, app=None) as master:
        (tmp_path / "umbel.toml").unlink()
        os.mkfifo(tmp_path / "umbel.toml")
        master.signal(signal.SIGHUP)
        assert "it is a named pipe, not a regular file" in await master.line("reload.aborted")
        assert (await master.ask(command="status"))["ok"]
        await assert_still_serves(master)
        for command in (["serve"], ["serve", "-w", "1"], ["serve", "served:app"], ["check"], ["explain", "GET", "/r"]):
            status, output = await ended(PYTHON, "-m", "umbel", *command, cwd=tmp_path)
            assert status == 78, command
            assert output == "umbel.toml: cannot be read: it is a named pipe, not a regular file\n"
