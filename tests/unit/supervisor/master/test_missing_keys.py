"""Replacements of workers while keys of ``[auth]`` do not come: aborted, put off, or done where nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio

from tests.unit.supervisor.master.test_master import KeptConsole, mastering
from umbel.supervisor.control.messages import Failed, Heartbeat, Ready
from umbel.supervisor.master import process
from umbel.supervisor.master.exit_status import Exit, ExitClass
from umbel.supervisor.master.master import Master
from umbel.supervisor.master.process import Worker
from umbel.supervisor.master.slot_state import State

MockClock = trio.testing.MockClock
KEYS = "https://id.example for [auth.users]"
SENTENCE = f"the keys of {KEYS} have not come yet: the upstream id answered 500"
WAIT_S = 10.0


class Provider:
    """Workers without processes, which wait for their keys at their start as those of the gateway do."""

    def __init__(self) -> None:
        self.missing: tuple[str, ...] = ()
        """The keys that do not come now."""
        self.spawned: list[float] = []
        self.crash: dict[Worker, trio.Event] = {}
        """Events that end the ready workers."""

    async def run(self, worker: Worker, on_message: Any) -> Exit:
        self.spawned.append(trio.current_time())
        if self.missing:
            await trio.sleep(WAIT_S)
        may_lack = worker._spec.start.may_lack_keys
        if may_lack is not None and set(self.missing) - set(may_lack):
            worker.failure = Failed(reason=SENTENCE, lacks_keys=True)
            return Exit(ExitClass.BOOT, 3)
        worker.ready_at = trio.current_time()
        beat = Heartbeat(lag_ms=0, inflight=0, tasks=1, rss=1, connections=0, requests=0, missing_keys=self.missing)
        worker.take_heartbeat(beat)
        on_message(Ready())
        self.crash[worker] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drained, worker, nursery.cancel_scope)
            await self.crash[worker].wait()
            nursery.cancel_scope.cancel()
            return Exit(ExitClass.CRASH, 9)
        return Exit(ExitClass.DRAINED, 0)

    @staticmethod
    async def _drained(worker: Worker, scope: trio.CancelScope) -> None:
        while not worker.draining:
            await worker._changed.wait()
        scope.cancel()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider()
    monkeypatch.setattr(process.Worker, "run", lambda worker, on_message: made.run(worker, on_message))
    return made


def current(master: Master) -> list[Worker]:
    return [worker for slot in master.slots_in_order() if (worker := slot.worker) is not None]


@asynccontextmanager
async def recycle_put_off(provider: Provider) -> AsyncGenerator[tuple[Master, KeptConsole, Worker], None]:
    """A master whose worker was to be replaced while the keys do not come, and serves on."""
    async with mastering(1) as (master, console):
        await trio.sleep(20)
        (before,) = current(master)
        provider.missing = (KEYS,)
        master.reloader.recycle(master.slots[1], "it is old")
        await trio.sleep(WAIT_S + 0.001)
        assert "worker.recycle_put_off" in console.events
        yield master, console, before


async def test_a_reload_that_would_lose_keys_is_aborted_and_says_which(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with mastering(2) as (master, console):
        await trio.sleep(20)
        before = current(master)
        provider.missing = (KEYS,)
        reason = await master.reloader.wait_for(master.reload())
        assert reason == f"the new worker 1 did not get ready, because {SENTENCE}"
        assert current(master) == before == master.workers
        assert console.messages[console.events.index("reload.aborted")] == (
            f"{reason}; 2 old workers serve on, 0 were replaced"
        )
        provider.missing = ()
        assert await master.reloader.wait_for(master.reload()) == ""
        assert not {*current(master)} & {*before}


async def test_a_recycle_that_would_lose_keys_is_tried_again_until_they_come(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with mastering(1, restart_max_delay=15.0) as (master, console):
        await trio.sleep(20)
        (before,) = current(master)
        provider.missing = (KEYS,)
        master.random = Random(1)
        for _ in range(900):  # However often the worker asks, the backoff holds.
            master.reloader.recycle(master.slots[1], "it is large")
            await trio.sleep(1)
        assert current(master) == [before] == master.workers
        tries = provider.spawned[1:]
        assert 900 / (WAIT_S + 15) <= len(tries) < 900 / (WAIT_S + 4)
        assert console.events.count("worker.recycle") == 1
        assert console.messages[console.events.index("worker.recycle_put_off")] == (
            f"worker 1 serves on and will be replaced later (it is large), because {SENTENCE}"
        )
        assert not master.degraded
        provider.missing = ()
        await trio.sleep(WAIT_S + 15)
        assert current(master) != [before]
        count = len(provider.spawned)
        await trio.sleep(1000)
        assert len(provider.spawned) == count


async def test_a_recycle_that_is_put_off_is_forgotten_when_the_worker_ends(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with recycle_put_off(provider) as (master, console, before):
        provider.crash[before].set()
        await trio.sleep(1000)
        (after,) = current(master)
        assert (after.is_ready, after.waits_for_keys) == (True, True)
        assert console.events.count("worker.recycle_put_off") <= 2
        count = len(provider.spawned)
        await trio.sleep(1000)
        assert len(provider.spawned) == count


async def test_a_recycle_that_is_put_off_goes_on_after_a_reload_that_was_aborted(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with recycle_put_off(provider) as (master, _, before):
        for _ in range(10):
            assert await master.reloader.wait_for(master.reload()) != ""
        assert current(master) == [before]
        provider.missing = ()
        await trio.sleep(60)
        assert current(master) != [before]


@pytest.mark.parametrize("added", [(), ("https://b.example for [auth.b]",)], ids=["the same", "one more"])
async def test_a_worker_without_keys_is_replaced_unless_the_new_one_lacks_more(
    added: tuple[str, ...], autojump_clock: MockClock, provider: Provider
) -> None:
    provider.missing = (KEYS,)
    async with mastering(1) as (master, _):
        await trio.sleep(WAIT_S + 1)
        (before,) = current(master)
        assert before.waits_for_keys
        provider.missing = (KEYS, *added)
        failed = bool(await master.reloader.wait_for(master.reload()))
        assert failed == bool(added)
        assert (current(master) == [before]) == failed


async def test_a_successor_whose_worker_dies_gets_ready_without_keys(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(20)
        provider.missing = (KEYS,)
        number = master.reload()
        await master.slots[1].state.wait_value(State.RENEWING)
        successor = master.slots[1].successor
        (before,) = current(master)
        provider.crash[before].set()
        assert await master.reloader.wait_for(number) == ""
        assert current(master) == [successor]
        assert master.without_keys == 1
        assert len(provider.spawned) == 2


async def test_only_a_worker_that_replaces_a_dead_one_may_lack_key_files(
    autojump_clock: MockClock, provider: Provider
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        (first,) = current(master)
        assert first._spec.start.needs_key_files
        await master.reloader.wait_for(master.reloader.request())
        (successor,) = current(master)
        assert successor is not first
        assert successor._spec.start.needs_key_files
        provider.crash[successor].set()
        await trio.sleep(60)
        (after_death,) = current(master)
        assert after_death is not successor
        assert not after_death._spec.start.needs_key_files
