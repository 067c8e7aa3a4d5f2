"""A worker whose event loop is blocked: the master shows where, while it is blocked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.support.process.admin import ask_admin
from tests.support.process.supervised import TEST_TIMEOUT_S, supervised


async def test_the_line_that_blocks_a_worker_is_shown_while_it_blocks(tmp_path: Path) -> None:
    async def shown() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The worker in the status, its tree, and its first lint, asked for until the worker's thread has said it."""
        with trio.fail_after(TEST_TIMEOUT_S):
            while True:
                worker = (await master.ask(command="status"))["slots"][0]["workers"][0]
                if worker["blocked"] is not None and worker["state"] == "silent":
                    tree = (await master.ask(command="tree"))["trees"][1]
                    lints = (await ask_admin(master.socket, "GET", "/lints"))[1]["lints"]
                    return worker, tree, next(lint for lint in lints if lint["process"] == "worker 1")
                await trio.testing.wait_all_tasks_blocked(0.05)

    options = ("--hang-timeout", "6s")
    async with supervised(tmp_path, *options, workers=1) as master, trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_be_cut, master.port)
        worker, tree, lint = await shown()
        line = (tmp_path / "served.py").read_text().partition("  # the line that blocks")[0].count("\n") + 1
        place = f"{tmp_path.name}/served.py:{line} in http"
        assert (worker["state"], worker["blocked"]["at"]) == ("silent", place)
        assert worker["blocked"]["seconds"] > 0.5
        assert (tree["process"], tree["blocked"]["at"]) == ("worker 1", place)
        assert (lint["name"], lint["where"], lint["ongoing"]) == ("long-step", place, True)
        # What the thread sends is no sign of life: the worker is still killed.
        assert place.partition(":")[0].rpartition("/")[2] in await master.line("worker.ended: worker 1")
        await master.line("worker.ready: worker 1")
        worker = (await master.ask(command="status"))["slots"][0]["workers"][-1]
        assert (worker["state"], worker["blocked"]) == ("serving", None)


LONG_STEPS = """
import time
from umbel import Umbel

app = Umbel.from_file()


@app.get("/long")
async def long():
    time.sleep(0.1)  # the long step
    return "done"
"""


async def test_a_long_step_of_a_worker_is_a_lint_while_somebody_asks(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("")
    (tmp_path / "steps.py").write_text(LONG_STEPS)
    line = LONG_STEPS.partition("  # the long step")[0].count("\n") + 1
    async with supervised(tmp_path, "--allow-empty", app="steps:app", workers=1) as master:

        async def lints() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await ask_admin(master.socket, "GET", "/lints"))[1]["lints"]
            return [lint for lint in found if lint["where"] == f"{tmp_path.name}/steps.py:{line} in long"]

        await master.get("/long")  # Nobody has asked yet.
        assert await lints() == []
        with trio.fail_after(TEST_TIMEOUT_S):
            found: list[dict[str, Any]] = []
            while not found:  # On a busy machine the thread that watches may begin after the step.
                await master.get("/long")
                found = await lints()
    [lint] = found
    assert (lint["process"], lint["name"], lint["ongoing"]) == ("worker 1", "long-step", False)


async def ask_and_be_cut(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        try:
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            pass
