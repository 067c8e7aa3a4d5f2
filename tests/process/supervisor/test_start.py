"""A stop during the start and during a reload."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.process.supervised import APP, is_alive, supervised, write_app


async def test_a_stop_before_any_worker_is_ready_ends_at_once_with_0(tmp_path: Path) -> None:
    slow = '(HERE / "starting").touch()\n    await trio.sleep_forever()'
    write_app(tmp_path, APP.replace('await send({"type": "lifespan.startup.complete"})', slow))
    async with supervised(tmp_path, "--pid", "master.pid", workers=2, ready=False) as master:
        await master.appeared("starting")
        master.pid = int((tmp_path / "master.pid").read_text())
        workers = list((await master.pids()).values())
        assert await master.child.stop(signal.SIGTERM) == 0

    assert len(workers) == 2
    assert not any(map(is_alive, workers))
    assert master.child.output.count("ended: drained") == 2


async def test_a_stop_during_a_reload_ends_the_reload_too(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=2) as master:
        master.signal(signal.SIGHUP)
        await master.line("reload.started")
        assert await master.child.stop(signal.SIGTERM) == 0

    # The stop is the reason, if the reload still gets to report one.
    aborted = [line for line in master.child.output.splitlines() if "reload.aborted" in line]
    assert all("the master is stopping and cannot reload" in line for line in aborted)
    assert "did not get ready" not in master.child.output
    assert "reload.done" not in master.child.output
