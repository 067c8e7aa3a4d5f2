"""``Worker.run`` and ``WorkerQueries.ask``, cancelled at each checkpoint: no process and no query is left.

The process is a small one of the test's own, since it is started once per checkpoint.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from umbel.supervisor.control import messages
from umbel.supervisor.control.worker_queries import WorkerQueries
from umbel.supervisor.master import process
from umbel.supervisor.master.console_output import ConsoleOutput
from umbel.supervisor.master.exit_status import Exit, ExitClass
from umbel.supervisor.master.options import Options
from umbel.supervisor.master.process import Spawned, Worker, WorkerSpec

JOB = WorkerSpec(messages.Start(slot=1, generation=1, app=None, config=None, heartbeat_every=1, orphan_grace=1), "")
# A worker that sends ``ready``, waits for one message after ``start``, and ends.
SCRIPT = 'echo "{\\"is\\":\\"ready\\"}" >&0; read start; read drain; echo bye >&2'


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    started: list[int] = []

    async def spawn(descriptors: object, title: str) -> Spawned:
        ours, theirs = socket.socketpair()
        with theirs:
            child = await trio.lowlevel.open_process(
                ["/bin/sh", "-c", SCRIPT], stdin=theirs.fileno(), stderr=subprocess.PIPE
            )
        started.append(child.pid)
        assert child.stderr is not None
        return Spawned(child, ours, child.stderr)

    monkeypatch.setattr(process, "spawn", spawn)
    return started


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_cancel_at_any_checkpoint_kills_and_reaps_the_worker(pids: list[int]) -> None:
    quiet = ConsoleOutput(os.open(os.devnull, os.O_WRONLY))

    async def live() -> None:
        worker = Worker(JOB, Options(), quiet)

        def on_message(message: messages.WorkerMessage) -> None:
            assert isinstance(message, messages.Ready)
            worker.drain(20.0)

        assert await worker.run(on_message) == Exit(ExitClass.DRAINED, 0)
        assert worker.stderr_tail == b"bye\n"

    await live()  # The first run creates threads and caches, which stay.
    before = descriptors()

    def check() -> None:
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert descriptors() <= before

    assert await for_every_checkpoint(live, check) > 10


async def test_a_cancel_at_any_checkpoint_forgets_the_query(autojump_clock: object) -> None:
    queries = WorkerQueries()
    quiet = ConsoleOutput(os.open(os.devnull, os.O_WRONLY))
    workers = [Worker(JOB, Options(), quiet) for _ in range(3)]
    number = 0

    async def ask() -> None:
        nonlocal number
        number += 1  # Each run is the next query.
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await trio.sleep(0.1)
                queries.on_message(workers[0], messages.LogsReopened(query=number))
                queries.on_message(workers[0], messages.Ready())
                await trio.sleep(0.1)
                queries.on_worker_exit(workers[1])

            nursery.start_soon(answer)
            answers = await queries.ask(workers, messages.ReopenLogs(), messages.LogsReopened, 1.0)
            assert answers == {workers[0]: messages.LogsReopened(query=number)}

    def check() -> None:
        queries.on_message(workers[2], messages.LogsReopened(query=number))
        assert queries.pending == 0

    assert await for_every_checkpoint(ask, check) > 4
