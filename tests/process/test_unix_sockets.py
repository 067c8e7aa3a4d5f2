"""Two instances with one Unix socket: the first one serves on, and the second one reports why it does not start."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import GOOD, write
from tests.support.process.processes import PYTHON, ended, started

SERVE = (PYTHON, "-m", "umbel", "serve", "--bind", "unix:umbel.sock")
MODES = pytest.mark.parametrize("more", [(), ("-w", "1")], ids=["alone", "supervised"])


async def lives(path: Path) -> bool:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b'{"status":"live"}' in b"".join([piece async for piece in stream])


@MODES
async def test_a_second_instance_does_not_take_the_socket_of_the_first(more: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    path = tmp_path / "umbel.sock"
    async with started(*SERVE, *more, cwd=tmp_path) as first:
        await first.line("Umbel runs on")
        status, output = await ended(*SERVE, *more, cwd=tmp_path)
        assert status == 78
        reason = "another server listens at umbel.sock; stop it, or name another path"
        assert output == f"bind: cannot listen on unix:umbel.sock: {reason}\n"
        assert await lives(path)
        assert await first.stop(signal.SIGTERM) == 0
    assert not path.exists()


@MODES
async def test_the_socket_of_a_killed_instance_is_replaced(more: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "umbel.sock"))
    async with started(*SERVE, *more, cwd=tmp_path) as server:
        await server.line("Umbel runs on")
        assert await lives(tmp_path / "umbel.sock")
        assert await server.stop(signal.SIGTERM) == 0


async def test_of_two_instances_that_start_together_one_serves(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with trio.fail_after(30):
        async with started(*SERVE, cwd=tmp_path) as one, started(*SERVE, cwd=tmp_path) as other:
            while one.returncode is None and other.returncode is None:
                await wait_all_tasks_blocked(0.02)
            loser, winner = (one, other) if one.returncode is not None else (other, one)
            assert loser.returncode == 78
            await winner.line("Umbel runs on")
            assert await lives(tmp_path / "umbel.sock")
            assert await winner.stop(signal.SIGTERM) == 0
    assert not (tmp_path / "umbel.sock").exists()


async def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    write(tmp_path, GOOD, {"umbel.sock": "precious"})
    status, output = await ended(*SERVE, cwd=tmp_path)
    assert (status, output.count("\n")) == (78, 1)
    assert "umbel.sock is a regular file, not a socket; remove it, or name another path" in output
    assert (tmp_path / "umbel.sock").read_text() == "precious"


@MODES
async def test_a_path_that_is_too_long_for_a_socket_is_reported_in_a_sentence(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, GOOD)
    path = "x" * 120
    status, output = await ended(PYTHON, "-m", "umbel", "serve", f"--bind=unix:{path}", *more, cwd=tmp_path)
    assert (status, output.count("\n")) == (78, 1)
    assert f"{path} has 120 bytes, and the path of a socket 107 at most; name a shorter one" in output
