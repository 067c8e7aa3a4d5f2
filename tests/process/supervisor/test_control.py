"""Signals and ``umbel ctl`` commands that change or show a running master."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import trio

from tests.support.process.processes import PYTHON, ended
from tests.support.process.supervised import TEST_TIMEOUT_S, ended_all, is_alive, supervised

CTL = (PYTHON, "-m", "umbel", "ctl")


async def test_signals_and_commands_change_the_number_of_workers(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=1) as master:
        master.signal(signal.SIGTTIN)
        await master.line("worker.ready: worker 2")
        both = await master.pids()
        master.signal(signal.SIGTTOU)
        await master.line("worker 2 ")
        await ended_all([both[2]])
        assert await master.pids() == {1: both[1]}
        master.signal(signal.SIGTTOU)  # There is always at least one worker.
        assert await master.pids() == {1: both[1]}  # The answer comes after the signal was handled.
        assert (await master.ask(command="scale", count=2))["size"] == 2
        await master.line("worker.ready: worker 2")

        killed = (await master.ask(command="kill", slot=2))["pid"]
        assert "signal (SIGKILL)" in await master.line(f"worker 2 ({killed}) ended")
        await master.line("worker.ready: worker 2")

        assert (await master.ask(command="drain", slot=1))["ok"]
        assert f"({both[1]}) ended: recycle" in await master.line(f"({both[1]}) ended")
        for request, said in [
            ({"command": "drain", "slot": 9}, "there is no slot 9; the slots are 1, 2"),
            ({"command": "scale", "count": 0}, "scale needs a number of workers from 1 to 256"),
            ({"command": "dance"}, '"dance" is not a command; the commands are scale, reload,'),
            ({"command": "stop", "loudly": True}, "the arguments are invalid: "),
        ]:
            answer = await master.ask(**request)
            assert not answer["ok"]
            assert answer["error"].startswith(said)
        assert (await master.ask(command="stop"))["ok"]
        assert await master.child.end() == 0


async def test_all_workers_reopen_their_logs_and_the_master_confirms_it(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("")
    async with supervised(tmp_path, "--allow-empty", app=None, workers=2) as master:
        await master.get("/nowhere")
        logs = tmp_path / "logs"
        with trio.fail_after(TEST_TIMEOUT_S):
            while b"/nowhere" not in (logs / "access.jsonl").read_bytes():
                await trio.testing.wait_all_tasks_blocked(0.02)
        (logs / "access.jsonl").rename(logs / "old.jsonl")
        master.signal(signal.SIGUSR1)
        assert "2 of 2 workers" in await master.line("logs.reopened")
        await master.get("/somewhere")
        with trio.fail_after(TEST_TIMEOUT_S):
            while not (logs / "access.jsonl").exists() or b"/somewhere" not in (logs / "access.jsonl").read_bytes():
                await trio.testing.wait_all_tasks_blocked(0.02)
    assert b"/somewhere" not in (logs / "old.jsonl").read_bytes()
    assert "worker.ready" in (logs / "app.jsonl").read_text()


async def test_ctl_prints_tables_and_json_over_a_socket_with_mode_0600(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=1) as master:
        where = ("--socket", "logs/admin.sock")
        assert stat.S_IMODE(master.socket.stat().st_mode) == 0o600
        pid = (await master.pids())[1]

        status, shown = await ended(*CTL, "status", *where, cwd=tmp_path)
        assert status == 0
        assert "serving: 1 of 1 workers ready" in shown
        row = next(line.split() for line in shown.splitlines() if "SLOT" not in line and str(pid) in line)
        assert row[:4] == ["1", "serving", str(pid), "1"]

        status, shown = await ended(*CTL, "tree", "--json", *where, cwd=tmp_path)
        trees = json.loads(shown)["trees"]
        assert [tree["process"] for tree in trees] == ["master", "worker 1"]
        assert "accept_from" in json.dumps(trees[1])

        status, shown = await ended(*CTL, "kill", "7", *where, cwd=tmp_path)
        assert (status, shown) == (1, "Error: there is no slot 7; the slots are 1\n")
        assert is_alive(pid)
    status, shown = await ended(*CTL, "status", *where, cwd=tmp_path)
    assert status == 1
    assert shown.startswith("Error: nothing answers at logs/admin.sock: ")


async def test_check_app_starts_the_application_in_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("async def app(scope, receive, send):\n    raise NotImplementedError\n")
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")

    assert (await ended(PYTHON, "-m", "umbel", "check", "--app", "good:app", cwd=tmp_path))[0] == 0
    status, shown = await ended(PYTHON, "-m", "umbel", "check", "--app", "bad:app", cwd=tmp_path)
    assert status == 1
    assert "bad:app: the application does not start or does not stop: ModuleNotFoundError" in shown


LOGGING = """
import logging
from umbel import Umbel
app = Umbel.from_file()
logger = logging.getLogger("shop")
logger.setLevel(logging.DEBUG)

@app.get("/r")
async def r():
    logger.debug("a detail")
    return "r"
"""


async def test_the_level_of_the_log_app_is_set_in_all_workers_until_a_reload(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("")
    (tmp_path / "logging_app.py").write_text(LOGGING)
    log = tmp_path / "logs" / "app.jsonl"

    async def details() -> int:
        """Send a request; return how many debug records the log has got by now."""
        await master.get("/r")
        assert (await master.ask(command="reopen"))["ok"]  # Everything is written after that.
        return log.read_text().count('"a detail"')

    async with supervised(tmp_path, "--allow-empty", app="logging_app:app", workers=1) as master:
        assert await details() == 0
        status, said = await ended(*CTL, "log-level", "debug", cwd=tmp_path)
        assert (status, said) == (0, "the level of the log app is debug\n")
        assert (await master.ask(command="status"))["master"]["log_level"] == "debug"
        assert (await master.ask(command="reopen"))["ok"]  # The worker answers this after it has set the level.
        assert await details() == 1
        # A successor of the worker has the level from its first request on.
        assert (await master.ask(command="kill", slot=1))["ok"]
        await master.line("worker.ready: worker 1")
        assert await details() == 2
        assert (await master.ask(command="reload", allow_empty=True))["ok"]
        assert (await master.ask(command="status"))["master"]["log_level"] is None
        assert await details() == 2
        answer = await master.ask(command="log-level")
        assert answer == {"ok": False, "error": "log-level needs a level: debug, info, warning, error or critical"}
