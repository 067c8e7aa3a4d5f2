"""The master's reactions to ends of its workers: restart, degraded, stop. Workers are simulated."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from umbel.admin.settings import AdminSettings, SocketPlace
from umbel.admin.source import CommandError
from umbel.config.schema.sections import Logs
from umbel.supervisor.control.admin_source import MasterSource
from umbel.supervisor.control.messages import Failed, Ready
from umbel.supervisor.control.status import status
from umbel.supervisor.master import process
from umbel.supervisor.master.console_output import ConsoleOutput
from umbel.supervisor.master.exit_status import MASTER_FAILED, Exit, ExitClass
from umbel.supervisor.master.listeners import Listeners
from umbel.supervisor.master.master import Master
from umbel.supervisor.master.options import Application, Options
from umbel.supervisor.master.settings import Settings
from umbel.supervisor.master.slot_state import State

DEVNULL = os.open(os.devnull, os.O_WRONLY)


class Script:
    """The behaviour of the next workers: seconds until ready (None: never) and until death (None: at a drain)."""

    def __init__(self) -> None:
        self.ready_after: float | None = 0.0
        self.dies_after: float | None = None
        self.end = Exit(ExitClass.CRASH, 9)
        self.failure: Failed | None = None
        self.spawned: list[float] = []


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Workers without processes: ``Worker.run`` follows the script."""
    made = Script()

    async def run(self: process.Worker, on_message: Any) -> Exit:
        made.spawned.append(trio.current_time())
        ends = trio.Event()
        monkeypatch.setattr(self, "drain", lambda *_, **__: ends.set())
        with trio.move_on_after(float("inf") if made.dies_after is None else made.dies_after):
            if made.ready_after is not None:
                await trio.sleep(made.ready_after)
                self.ready_at = trio.current_time()
                on_message(Ready())
            await ends.wait()
            return Exit(ExitClass.DRAINED, 0)
        self.failure = made.failure
        return made.end

    monkeypatch.setattr(process.Worker, "run", run)
    yield made


class KeptConsole(ConsoleOutput):
    """A console that keeps the events."""

    def __init__(self) -> None:
        super().__init__(DEVNULL)
        self.events: list[str] = []
        self.messages: list[str] = []

    def report(self, level: Any, event: str, message: str, **fields: Any) -> None:
        self.events.append(event)
        self.messages.append(message)


def settings(**options: Any) -> Settings:
    return Settings(
        Application("served:app"), Options(**options), {}, None, None, AdminSettings(SocketPlace(Path("logs"), "admin"))
    )


@asynccontextmanager
async def mastering(size: int, reread: Any = None, **options: Any) -> AsyncGenerator[tuple[Master, KeptConsole], None]:
    console = KeptConsole()
    master = Master(size, settings(**options), Listeners((), tls=False), console, reread=reread)
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        yield master, console
        master.stop("the test is over")


async def test_a_degraded_master_recovers_when_all_workers_have_been_ready_for_10_s(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.dies_after = 1.0
    async with mastering(2) as (master, console):
        await trio.sleep(45)
        assert master.degraded
        assert (await status(master))["master"]["state"] == "degraded"
        assert "degraded: too many restarts" in master.summary()
        # The backoff reduces thirty restarts for each worker to these.
        assert len(script.spawned) < 20
        script.dies_after = None
        await trio.sleep(15 + 10 + 2)
        assert not master.degraded
        assert console.events.count("master.degraded") == console.events.count("master.recovered") == 1


async def test_a_reload_applies_the_limits_of_restarts(autojump_clock: trio.testing.MockClock, script: Script) -> None:
    script.dies_after = 1.0
    changed = settings(intensity_restarts=1000, restart_max_delay=1.0)

    async def reread(_: Settings, __: bool) -> Settings:
        return changed

    async with mastering(1, reread=reread, intensity_restarts=1000, restart_max_delay=100.0) as (master, console):
        await master.reloader.wait_for(master.reloader.request())
        await trio.sleep(60)
        waits = [later - before for before, later in zip(script.spawned, script.spawned[1:], strict=False)]
        assert max(waits[3:]) <= 2.0
        assert not master.degraded
        changed = settings(intensity_restarts=1, intensity_window=7.0, restart_max_delay=1.0)
        script.ready_after = 0.5
        await master.reloader.wait_for(master.reloader.request())
        await trio.sleep(20)
        assert master.degraded
        assert "more than 1 restarts in 7 s" in "".join(console.messages)


async def test_a_reload_reports_changed_logs_once_and_new_workers_use_them(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    read = iter([Logs(dir="changed"), Logs(dir="changed"), None])

    async def reread(before: Settings, _: bool) -> Settings:
        return replace(before, logs=next(read))

    async with mastering(1, reread=reread) as (master, console):
        for expected in ("changed", "changed", Logs().dir):
            await master.reloader.wait_for(master.reloader.request())
            assert master.worker_spec(1, None).start.logs["dir"] == expected
        assert console.events.count("reload.logs") == 1


async def test_a_degraded_master_restarts_workers_after_the_longest_delay(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.dies_after = 1.0
    async with mastering(1) as (master, _):
        await trio.sleep(200)
        waits = [later - before for before, later in zip(script.spawned[-6:], script.spawned[-5:], strict=False)]
        assert waits == pytest.approx([16.0] * 5)
        assert master.degraded
        script.dies_after = None


async def test_a_stop_during_the_delay_before_a_restart_ends_the_slot_at_once(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.dies_after = 1.0
    async with mastering(1) as (master, _):
        await trio.sleep(200)
        await master.slots[1].state.wait_value(State.WAITING)
        stopped_at = trio.current_time()
    assert trio.current_time() == stopped_at


async def test_a_stop_for_too_many_restarts_ends_the_delay_of_the_dead_worker(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    """The slot waited for the whole delay, and the end of the master waited for the slot."""
    script.dies_after = 1.0
    async with mastering(1, on_intensity="exit") as (master, _):
        while not master.stopping:  # noqa: ASYNC110  # there is no event of it
            await trio.sleep(0.01)
        stopped_at = trio.current_time()
    assert trio.current_time() - stopped_at < 0.1
    assert master.status == MASTER_FAILED


async def test_a_worker_that_was_ready_for_10_s_is_restarted_without_delay(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.dies_after = 11.0
    async with mastering(1):
        await trio.sleep(34)
        assert script.spawned == [0.0, 11.0, 22.0, 33.0]
        script.dies_after = None


async def test_a_start_without_any_ready_worker_stops_the_master_with_3(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.ready_after, script.dies_after, script.end = None, 2.0, Exit(ExitClass.BOOT, 3)
    script.failure = Failed(reason="the database is away", traceback="Traceback: here")
    console = KeptConsole()
    assert await Master(3, settings(), Listeners((), tls=False), console).run() == 3
    assert len(script.spawned) == 3
    assert sum("Traceback: here" in message for message in console.messages) == 1
    assert sum("(as above)" in message for message in console.messages) == 2


async def test_a_load_failure_after_the_start_does_not_stop_the_master(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(20)
        script.dies_after, script.ready_after, script.end = 0.5, None, Exit(ExitClass.LOAD, 4)
        assert not (await master.slots[1].renew(ExitClass.DRAINED)).succeeded
        await trio.sleep(100)
        assert not master.stopping
        assert master.workers


async def test_a_renewal_during_the_delay_before_a_restart_starts_at_once(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.dies_after = 1.0
    async with mastering(1) as (master, _):
        await trio.sleep(100)
        script.dies_after = None
        before = len(script.spawned)
        await master.slots[1].state.wait_value(lambda state: state == "waiting")
        now = trio.current_time()
        assert (await master.slots[1].renew(ExitClass.DRAINED)).succeeded
        assert script.spawned[before:] == [now]


async def test_scale_is_bounded_and_stops_the_highest_slots_first(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        for count, slots in [(4, [1, 2, 3, 4]), (2, [1, 2]), (0, [1]), (3, [1, 2, 3])]:
            master.scale(count)
            await trio.sleep(1)
            assert [slot.number for slot in master.slots_in_order() if slot.serves] == slots
        master.scale(10_000)
        assert master.size == 256


class BlockedRecorder:
    """A recorder whose files cannot be written until ``writable`` is set."""

    def __init__(self) -> None:
        self.reopened = 0
        self.writable = trio.Event()

    def record(self, event: object) -> None:
        pass

    def reopen(self) -> None:
        self.reopened += 1

    async def flush(self) -> None:
        await self.writable.wait()


async def test_a_reopen_ends_in_time_if_the_masters_own_files_cannot_be_written(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    script.ready_after = None
    async with mastering(1) as (master, console):
        recorder = console.recorder = BlockedRecorder()
        began, source = trio.current_time(), MasterSource(master)
        with pytest.raises(CommandError, match=r"0 of 0 workers .*; the master has not, because its own cannot be "):
            await source.command("reopen", b"")
        assert (trio.current_time() - began, recorder.reopened) == (5, 1)
        assert "the master has not" in console.messages[-1]
        recorder.writable.set()
        assert await source.command("reopen", b"") == {"workers": 0}
        assert console.messages[-1] == "0 of 0 workers have reopened their log files"


async def test_a_command_to_scale_is_refused_during_a_stop(
    autojump_clock: trio.testing.MockClock, script: Script
) -> None:
    async with mastering(1) as (master, _):
        source = MasterSource(master)
        assert await source.command("scale", b'{"count": 2}') == {"size": 2}
        await trio.sleep(1)
        master.stop("the test")
        with pytest.raises(CommandError, match="the master is stopping and cannot scale; start it again"):
            await source.command("scale", b'{"count": 3}')
        assert master.size == 2


async def test_the_master_acts_on_signals(autojump_clock: trio.testing.MockClock, script: Script) -> None:
    async with mastering(1) as (master, console):
        await trio.sleep(1)
        os.kill(os.getpid(), signal.SIGTTIN)
        await trio.sleep(1)
        assert master.size == 2
        os.kill(os.getpid(), signal.SIGTERM)
    assert console.events[-1] == "master.stopped"


async def test_a_cancelled_master_leaves_no_worker(autojump_clock: trio.testing.MockClock, script: Script) -> None:
    with trio.move_on_after(5) as scope:
        await Master(3, settings(), Listeners((), tls=False), KeptConsole()).run()
    assert scope.cancelled_caught
