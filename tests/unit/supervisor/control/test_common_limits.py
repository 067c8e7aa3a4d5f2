"""The limits that a master adds up: which ones it keeps, their bounds, and what it counts. Workers are simulated."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from umbel.supervisor.control import messages
from umbel.supervisor.control.common_limits import CommonLimits

NOW = 1000.0


class FakeWorker:
    """A worker of the master, which keeps the messages for it."""

    def __init__(self) -> None:
        self.got: list[messages.LimitTats] = []
        self.has_room = True

    def send(self, message: Any) -> bool:
        self.got.append(message)
        return True

    @property
    def keys(self) -> list[str | None]:
        return [key for message in self.got for key, _ in message.tats]


def spent(limit: str, *keys: str, number: int = 1, keys_max: int = 100) -> messages.LimitSpent:
    each = tuple((f"t{key}", 10.0, NOW + 10.0) for key in keys)
    return messages.LimitSpent(limit=limit, number=number, spent=each, keys_max=keys_max, width=1.0, sync=0.1)


@pytest.fixture
def master() -> Any:
    return CommonLimits(lambda: NOW)


async def sent(master: CommonLimits, seconds: float = 1.0) -> None:
    """Let the master send for so many seconds of virtual time."""
    with trio.move_on_after(seconds):
        await master.run()


async def test_a_limit_of_another_identity_begins_with_nothing_spent(master: Any, autojump_clock: MockClock) -> None:
    old, new = FakeWorker(), FakeWorker()
    master.on_message(old, messages.Ready(limits=("l@1",)))
    master.on_message(old, spent("l@1", "a"))
    master.on_message(new, messages.Ready(limits=("l@2",)))
    await sent(master)
    assert (old.keys, new.keys) == (["ta"], [])


async def test_a_limit_is_dropped_once_no_worker_has_it(master: Any) -> None:
    old, new = FakeWorker(), FakeWorker()
    master.on_message(old, messages.Ready(limits=("l@1",)))
    master.on_message(old, spent("l@1", "a", "b", keys_max=1))
    master.on_message(new, messages.Ready(limits=("l@2",)))
    assert master.statistics() == {"l": {"keys": 1, "evicted": 1}}
    master.on_worker_exit(old)
    assert master.statistics() == {"l": {"keys": 0, "evicted": 1}}  # The count of a metric does not fall.
    master.on_message(new, spent("l@2", "a"))
    assert master.statistics() == {"l": {"keys": 1, "evicted": 1}}


async def test_what_was_spent_stays_while_no_worker_is_ready(master: Any, autojump_clock: MockClock) -> None:
    dead, next_one = FakeWorker(), FakeWorker()
    master.on_message(dead, messages.Ready(limits=("l@1",)))
    master.on_message(dead, spent("l@1", "a"))
    master.on_worker_exit(dead)
    master.on_message(next_one, messages.Ready(limits=("l@1",)))
    await sent(master)
    assert next_one.keys == ["ta"]


async def test_a_greater_maximum_of_keys_holds_in_the_master_too(master: Any) -> None:
    old, new = FakeWorker(), FakeWorker()
    master.on_message(old, spent("l@1", "a", "b", keys_max=1))
    master.on_message(new, spent("l@1", *"cdef", keys_max=5))
    master.on_message(old, spent("l@1", "a", number=2, keys_max=1))
    assert master.statistics() == {"l": {"keys": 5, "evicted": 2}}


async def test_a_worker_that_opens_a_limit_late_gets_what_was_spent(master: Any, autojump_clock: MockClock) -> None:
    first, late = FakeWorker(), FakeWorker()
    master.on_message(first, messages.Ready(limits=("l@1",)))
    master.on_message(late, messages.Ready())
    master.on_message(first, spent("l@1", "a"))
    await sent(master)
    assert late.keys == []
    master.on_message(late, spent("l@1", "b"))
    await sent(master)
    assert sorted(map(str, late.keys)) == ["ta", "tb"]


async def test_a_worker_without_room_gets_all_once_it_has_some(master: Any, autojump_clock: MockClock) -> None:
    full, other = FakeWorker(), FakeWorker()
    full.has_room = False
    for worker in (full, other):
        master.on_message(worker, messages.Ready(limits=("l@1",)))
    master.on_message(full, spent("l@1", *map(str, range(2500)), keys_max=10_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(master.run)
        await trio.sleep(1.0)
        assert (len(full.got), len(other.keys)) == (0, 2500)
        full.has_room = True
        await trio.sleep(0.06)
        await wait_all_tasks_blocked()
        assert len(full.keys) == 2500
        nursery.cancel_scope.cancel()
