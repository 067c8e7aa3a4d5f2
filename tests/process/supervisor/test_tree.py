"""The processes of a master: titles, restarts of dead workers, and the end of all with the master."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import trio

from tests.support.process.fork_server import BY_EXEC
from tests.support.process.processes import PYTHON, ended, started
from tests.support.process.supervised import Supervised, ended_all, is_alive, supervised, write_app


def titles(pid: int, column: str = "args") -> list[str]:
    """Return the command lines (or "comm") of a process and its children, as ``ps`` shows them."""
    shown = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid), "--ppid", str(pid)], capture_output=True, text=True
    )
    return sorted(line.strip() for line in shown.stdout.splitlines())


async def test_master_and_workers_have_process_titles_and_end_at_sigterm(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--pid", "master.pid", workers=4, env={BY_EXEC: "1"}) as master:
        shown = titles(master.pid)
        short = titles(master.pid, "comm")
        named = int((tmp_path / "master.pid").read_text())
        workers = list((await master.pids()).values())
        status = await master.child.stop(signal.SIGTERM)

    assert shown == ["umbel: master [served:app]", *(f"umbel: worker {n} [served:app]" for n in (1, 2, 3, 4))]
    assert short == ["umbel: master [", *(f"umbel: worker {n}" for n in (1, 2, 3, 4))]
    assert named == master.pid
    assert not (tmp_path / "master.pid").exists()
    assert not master.socket.exists()
    assert status == 0
    assert len(workers) == 4
    assert not any(map(is_alive, workers))
    said = [line.split()[4] for line in master.child.output.splitlines()]
    assert said[-6:] == ["master.stopping:", *["worker.ended:"] * 4, "master.stopped:"]


async def test_a_dead_worker_is_restarted_and_no_connection_is_refused(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=1) as master:
        before = (await master.pids())[1]
        os.kill(before, signal.SIGKILL)
        # There is no worker at the moment; the connection waits in the backlog.
        body = await master.get()
        after = (await master.pids())[1]

        assert body.endswith(b"%d 1" % after)
        assert after != before
        assert f"worker 1 ({before}) ended: signal (SIGKILL)" in await master.line("worker.ended")
        assert (await master.ask(command="status"))["slots"][0]["restarts"] == 1


async def test_no_worker_outlives_a_killed_master_even_with_a_blocked_loop(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--orphan-grace", "500ms") as master:
        workers = list((await master.pids()).values())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask_and_be_cut, master.port, "/block")
            await master.appeared("blocked")
            nursery.start_soon(_ask_and_be_cut, master.port, "/sse")
            master.signal(signal.SIGKILL)
            await ended_all(workers, within=20)


async def _ask_and_be_cut(port: int, path: str) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        try:
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            pass


async def test_without_workers_there_is_no_master(tmp_path: Path) -> None:
    write_app(tmp_path)
    command = (PYTHON, "-m", "umbel", "serve", "served:app", "--bind", "127.0.0.1:0", "--pid", "own.pid")
    async with started(*command, cwd=tmp_path) as child:
        await child.address("Umbel runs on")
        pid = int((tmp_path / "own.pid").read_text())
        alone = len(titles(pid))
        status = await child.stop(signal.SIGTERM)

    assert alone == 1
    assert status == 0
    assert not (tmp_path / "own.pid").exists()


async def test_a_held_pidfile_prevents_a_second_master_and_a_stale_one_does_not(tmp_path: Path) -> None:
    write_app(tmp_path)
    held = tmp_path / "held.pid"
    held.write_text("4711\n")
    command = (PYTHON, "-m", "umbel", "serve", "served:app", "-w", "1", "--bind", "127.0.0.1:0", "--pid", str(held))
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, output = await ended(*command, cwd=tmp_path)
    assert status == 78
    assert "held by a running master (process 4711)" in output
    assert output.count("\n") == 1

    async with supervised(tmp_path, "--pid", str(held), workers=1) as master:
        assert int(held.read_text()) == master.pid


def exists(pid: int) -> bool:
    """Whether the process exists, including a zombie."""
    return Path(f"/proc/{pid}").exists()


async def test_an_inherited_child_is_reaped(tmp_path: Path) -> None:
    """A subreaper inherits orphans as PID 1 of a container does."""
    write_app(tmp_path)
    script = (
        "import ctypes, runpy, sys\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        "sys.argv = ['umbel', 'serve', 'served:app', '-w', '1', '--bind', '127.0.0.1:0']\n"
        "runpy.run_module('umbel', run_name='__main__')\n"
    )
    async with started(PYTHON, "-c", script, cwd=tmp_path) as child:
        master = Supervised(child, tmp_path)
        await master.begun()
        await master.get("/orphan")
        await master.appeared("stranger")
        with trio.fail_after(20):
            while not (written := (tmp_path / "stranger").read_text()):  # The file is empty for a moment.
                await trio.testing.wait_all_tasks_blocked(0.02)
            stranger = int(written)
            while exists(stranger):
                await trio.testing.wait_all_tasks_blocked(0.02)
        workers = list((await master.pids()).values())
        assert await child.stop(signal.SIGTERM) == 0
    assert not any(map(is_alive, workers))
    assert str(stranger) not in child.output
