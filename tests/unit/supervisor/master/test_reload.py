"""The Reloader on the autojump clock: the order of replacements, and failures that abort a reload."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import pytest
import trio

from umbel.core.diagnostics.redact import Redactor
from umbel.core.errors import ConfigError, ConfigProblem
from umbel.supervisor.master.console_output import ConsoleOutput
from umbel.supervisor.master.exit_status import ExitClass
from umbel.supervisor.master.options import Application, Options
from umbel.supervisor.master.reload import Reloader
from umbel.supervisor.master.slot import Renewed, Slot
from umbel.supervisor.run import _fixed

DEVNULL = os.open(os.devnull, os.O_WRONLY)


class FakeSlot:
    """A slot whose renewal takes a second, and fails if ``fails`` is set."""

    def __init__(self, number: int, happened: list[Any]) -> None:
        self.number = number
        self.worker = None
        self.fails = False
        self.happened = happened

    async def renew(self, why: ExitClass) -> Renewed:
        self.happened.append((self.number, str(why), trio.current_time()))
        await trio.sleep(1)
        return Renewed(not self.fails)


class FakeMaster:
    """A master with three slots."""

    def __init__(self) -> None:
        self.generation = 1
        self.options = Options()
        self.random = Random()
        self.stopping = False
        self.happened: list[Any] = []
        self.slots = [FakeSlot(number, self.happened) for number in (1, 2, 3)]
        self.began = self.ended = 0
        self.allowed_empty: list[bool] = []
        self.console = ConsoleOutput(DEVNULL)
        self.mistake: Exception | None = None

    def slots_in_order(self) -> list[Slot]:
        return cast("list[Slot]", self.slots)

    def reload_began(self) -> None:
        self.began += 1

    def reload_ended(self) -> None:
        self.ended += 1

    async def reread(self, allow_empty: bool) -> None:
        self.allowed_empty.append(allow_empty)
        if self.mistake is not None:
            raise self.mistake

    def slot(self, number: int) -> Slot:
        return cast("Slot", self.slots[number - 1])


@asynccontextmanager
async def reloading() -> AsyncGenerator[tuple[FakeMaster, Reloader], None]:
    master = FakeMaster()
    reloader = Reloader(master, master.reread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        yield master, reloader
        nursery.cancel_scope.cancel()


async def test_slots_are_renewed_one_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    async with reloading() as (master, reloader):
        assert await reloader.wait_for(reloader.request()) == ""
        assert master.happened == [(1, "drained", 0.0), (2, "drained", 1.0), (3, "drained", 2.0)]
        assert (master.generation, master.began, master.ended) == (2, 1, 1)


async def test_the_first_failure_aborts_a_reload_and_a_later_reload_can_succeed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        master.slots[1].fails = True
        assert await reloader.wait_for(reloader.request()) == "the new worker 2 did not get ready"
        assert [number for number, *_ in master.happened] == [1, 2]
        master.slots[1].fails = False
        assert await reloader.wait_for(reloader.request()) == ""
        assert (master.began, master.ended) == (2, 2)


async def test_a_configuration_error_aborts_a_reload_before_any_renewal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        master.mistake = ConfigError([ConfigProblem("umbel.toml", 3, "logs", "is wrong")])
        assert "umbel.toml:3: logs: is wrong" in await reloader.wait_for(reloader.request())
        assert reloader.ended == {"ok": 0, "failed": 1}
        assert master.happened == []
        assert (master.generation, master.ended) == (1, 1)


async def test_an_unexpected_exception_aborts_a_reload_and_a_later_reload_can_succeed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        master.mistake = TypeError("a defect")
        reason = "an internal error, TypeError; the master's stderr has its traceback"
        assert await reloader.wait_for(reloader.request()) == reason
        assert (master.happened, master.generation, master.ended) == ([], 1, 1)
        master.mistake = None
        assert await reloader.wait_for(reloader.request()) == ""
        assert reloader.ended == {"ok": 1, "failed": 1}


async def test_requests_during_a_reload_are_merged_into_one_further_reload(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        first = reloader.request()
        await trio.sleep(0.5)
        later = [reloader.request() for _ in range(5)]
        assert later == [first + 1] * 5
        await reloader.wait_for(first)
        await reloader.wait_for(later[0])
        await trio.sleep(100)
        assert master.began == 2
        assert len(master.happened) == 6


async def test_recycles_wait_for_a_reload_which_makes_them_unnecessary(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        for number in (3, 1, 3):
            reloader.recycle(master.slot(number), "it is old")
        await trio.sleep(0.5)
        reloader.request()
        await trio.sleep(100)
        assert [(number, why) for number, why, _ in master.happened] == [
            (3, "recycle"),
            (1, "drained"),
            (2, "drained"),
            (3, "drained"),
        ]


async def test_a_reload_requested_while_the_master_stops_fails_and_does_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        first = reloader.request()
        await trio.sleep(0.5)
        second = reloader.request()
        master.stopping = True
        reason = "the master is stopping and cannot reload; start it again"
        assert await reloader.wait_for(first) == reason
        assert await reloader.wait_for(second) == reason
        assert await reloader.wait_for(reloader.request()) == reason
        assert [number for number, *_ in master.happened] == [1]
        assert (master.began, master.ended, len(master.allowed_empty)) == (1, 1, 1)
        assert reloader.ended == {"ok": 0, "failed": 0}  # A stop is no failure of the configuration.


async def test_allow_empty_holds_for_one_reload(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reloading() as (master, reloader):
        await reloader.wait_for(reloader.request())
        await reloader.wait_for(reloader.request(allow_empty=True))
        await reloader.wait_for(reloader.request())
    assert master.allowed_empty == [False, True, False]


@pytest.mark.parametrize("name", ["admin.token", "admin.bind", "pid_path", "certfile"])
def test_the_redactor_leaves_the_sentence_about_a_setting_that_needs_a_restart(name: str) -> None:
    sentence = str(_fixed(name, Application(config="umbel.toml", hypercorn="hypercorn.toml")))
    assert Redactor().text(sentence) == sentence
    assert name.rpartition(".")[2] in sentence
    assert sentence.endswith(" by a reload; restart the master")
