"""The crew: one task leads, and another takes over as soon as something waits; nobody loses a turn."""

from __future__ import annotations

import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from umbel.server.crew import LEFT, READABLE, SPARES_MAX, Crew

MockClock = trio.testing.MockClock


class Member:
    """Takes a turn for each byte that comes; ``work`` is what it does in it."""

    def __init__(self, crew: Crew, work: Callable[[trio.CancelScope], Awaitable[object]]) -> None:
        self.crew = crew
        self.work = work
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.done = 0
        self.abandoned = False
        crew.members.add(self)
        crew.watch(self.sock.fileno(), self._changed, READABLE | LEFT)

    def _changed(self, flags: int) -> None:
        self.crew.turns.append(self)

    async def turn(self, scope: trio.CancelScope) -> bool:
        self.sock.recv(1)
        await self.work(scope)
        self.done += 1
        return scope.cancel_called

    def abandon(self) -> None:
        self.abandoned = True
        self.close()

    def close(self) -> None:
        self.crew.forget(self.sock.fileno())
        self.crew.members.discard(self)
        self.sock.close()
        self.peer.close()


@asynccontextmanager
async def running(*works: Callable[[trio.CancelScope], Awaitable[object]]) -> AsyncIterator[tuple[Crew, list[Member]]]:
    crew = Crew()
    async with trio.open_nursery() as nursery:
        await nursery.start(crew.run)
        yield crew, [Member(crew, work) for work in works]
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not crew.members
    assert not crew.works


async def nothing(scope: trio.CancelScope) -> None:
    return


async def test_turns_that_do_not_wait_are_made_by_one_task(autojump_clock: MockClock) -> None:
    async with running(*[nothing] * 200) as (crew, members):
        for _ in range(3):
            for member in members:
                member.peer.send(b"x")
            await wait_all_tasks_blocked()
        assert {member.done for member in members} == {3}
        assert crew.statistics().hands == 1


async def test_a_turn_that_waits_holds_up_nobody(autojump_clock: MockClock) -> None:
    async def slow(scope: trio.CancelScope) -> None:
        await trio.sleep(10)

    async with running(slow, nothing, slow, nothing) as (crew, members):
        for member in members:
            member.peer.send(b"x")
        await wait_all_tasks_blocked()
        assert [member.done for member in members] == [0, 1, 0, 1]
        assert crew.statistics().hands == 3
        await trio.sleep(11)
        assert [member.done for member in members] == [1, 1, 1, 1]
        assert crew.statistics().hands == 1


async def test_tasks_that_have_waited_take_the_lead_again_while_something_waits(autojump_clock: MockClock) -> None:
    tasks: set[trio.lowlevel.Task] = set()

    async def slow(scope: trio.CancelScope) -> None:
        tasks.add(trio.lowlevel.current_task())
        await trio.sleep(1)

    async def slower(scope: trio.CancelScope) -> None:
        await trio.sleep(100)

    async with running(slower, *[slow] * (SPARES_MAX + 10)) as (crew, members):
        for member in members[:6]:
            member.peer.send(b"x")
        await wait_all_tasks_blocked()
        assert (crew.statistics().hands, crew.statistics().spares) == (7, 0)
        await trio.sleep(2)
        assert (crew.statistics().hands, crew.statistics().spares) == (2, 5)
        known = set(tasks)
        for _ in range(20):
            for member in members[1:6]:
                member.peer.send(b"x")
            await trio.sleep(2)
        assert len(tasks - known) <= 1, "beside the leader of then, nobody new was needed"
        for member in members[1:]:
            member.peer.send(b"x")
        await trio.sleep(2)
        assert [member.done for member in members] == [0, *[22] * 5, *[1] * (SPARES_MAX + 5)]
        assert (crew.statistics().hands, crew.statistics().spares) == (2, SPARES_MAX)
        await trio.sleep(100)
        assert members[0].done == 1
        assert (crew.statistics().hands, crew.statistics().spares) == (1, 0), "nothing waits, so nobody rests"


async def test_nobody_rests_when_the_last_that_waits_is_cancelled(autojump_clock: MockClock) -> None:
    async def slow(scope: trio.CancelScope) -> None:
        await trio.sleep(1)

    async def cancelled(scope: trio.CancelScope) -> None:
        await trio.sleep(5)
        scope.cancel(reason="test")
        await trio.sleep_forever()

    async with running(slow, slow, cancelled) as (crew, members):
        for member in members:
            member.peer.send(b"x")
        await trio.sleep(2)
        assert (crew.statistics().hands, crew.statistics().spares) == (2, 2)
        await trio.sleep(5)
        assert (crew.statistics().hands, crew.statistics().spares) == (1, 0)


async def test_a_task_that_cancelled_its_scope_is_no_spare(autojump_clock: MockClock) -> None:
    async def cancels(scope: trio.CancelScope) -> None:
        await trio.sleep(1)
        scope.cancel(reason="test")

    async with running(cancels, nothing) as (crew, members):
        for _ in range(2):
            for member in members:
                member.peer.send(b"x")
            await trio.sleep(2)
        assert [member.done for member in members] == [2, 2]
        assert (crew.statistics().hands, crew.statistics().spares) == (1, 0)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_turn_that_cancels_its_scope_ends_its_task_and_not_the_crew(
    waits: bool, autojump_clock: MockClock
) -> None:
    async def cancels(scope: trio.CancelScope) -> None:
        scope.cancel(reason="test")
        if waits:
            await trio.sleep_forever()

    async with running(cancels, nothing) as (crew, members):
        for _ in range(3):
            for member in members:
                member.peer.send(b"x")
            await wait_all_tasks_blocked()
        assert members[0].done == (0 if waits else 3)
        assert members[1].done == 3
        assert crew.statistics().hands == 1


async def test_a_cut_cancels_what_waits_and_abandons_the_others(autojump_clock: MockClock) -> None:
    reasons: list[str | None] = []

    async def waits(scope: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            reasons.append(error.reason)
            raise

    async with running(waits, nothing) as (crew, members):
        members[0].peer.send(b"x")
        await wait_all_tasks_blocked()
        crew.cut("enough")
        await wait_all_tasks_blocked()
        assert reasons == ["enough"]
        assert [member.abandoned for member in members] == [True, True]


async def test_other_tasks_get_their_turn_however_much_there_is_to_serve(autojump_clock: MockClock) -> None:
    """Each turn makes the next one at once, without a wait in between."""
    members: list[Member] = []

    async def again(scope: trio.CancelScope) -> None:
        members[0].peer.send(b"x")

    async with running(again) as (_, made):
        members += made
        members[0].peer.send(b"x")
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert members[0].done < 1000
        made[0].work = nothing


async def test_a_change_is_told_once_until_it_is_forgotten(autojump_clock: MockClock) -> None:
    flags: list[int] = []
    ours, theirs = socket.socketpair()
    async with running() as (crew, _):
        crew.watch(ours.fileno(), flags.append)
        theirs.send(b"bytes that nobody reads")
        await wait_all_tasks_blocked()
        assert flags == []
        theirs.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        assert [flag & LEFT for flag in flags] == [LEFT]
        crew.forget(ours.fileno())
        theirs.close()
        await wait_all_tasks_blocked()
        assert len(flags) == 1
    ours.close()


async def test_without_epoll_it_watches_nothing(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.delattr(select, "epoll")
    crew: Any = Crew()
    await crew.run()
    crew.watch(0, print)
    assert not crew.works


async def test_turns_that_are_long_give_way_to_other_tasks_in_between() -> None:
    seen: set[int] = set()

    async def long(scope: trio.CancelScope) -> None:
        until = perf_counter() + 0.002
        while perf_counter() < until:
            pass

    async with running(*[long] * 50) as (_, members):
        for member in members:
            member.peer.send(b"x")
        with trio.fail_after(10):
            while 50 not in seen:
                await trio.lowlevel.checkpoint()
                seen.add(sum(member.done for member in members))
    assert len(seen) > 5
