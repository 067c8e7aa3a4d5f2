"""The task tree of programs of known shape: places, waits, scopes, ages, folding, bounds."""

from __future__ import annotations

import threading
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.longest_step import longest_step
from umbel.logs import bind
from umbel.observe.tree import reader as module
from umbel.observe.tree.nodes import CallNode, RequestNode, Scope, TaskNode
from umbel.observe.tree.reader import MEMBERS_MAX, TreeReader


def named(node: TaskNode, name: str) -> TaskNode:
    """The first node of a task with this name."""
    found = [each for each in every(node) if each.name.rpartition(".")[2] == name]
    assert found, name
    return found[0]


def every(node: TaskNode) -> list[TaskNode]:
    below = [each for nursery in node.nurseries for task in nursery.tasks for each in every(task)]
    return [node, *below]


async def waiting(event: trio.Event) -> None:
    await event.wait()


async def sleeping(seconds: float) -> None:
    await trio.sleep(seconds)


async def test_a_task_has_its_place_and_what_it_waits_for(autojump_clock: object) -> None:
    event = trio.Event()
    _send, receive = trio.open_memory_channel[int](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting, event)
        nursery.start_soon(receive.receive)
        nursery.start_soon(trio.sleep_forever)
        await wait_all_tasks_blocked()
        root = await TreeReader().read_in_slices()
        found = named(root, "waiting")
        assert (found.state, found.waits, found.function) == ("waiting", "an event", "waiting")
        line = waiting.__code__.co_firstlineno + 1
        assert found.at == f"tree/test_reader.py:{line}"
        assert named(root, "receive").waits == "a message of a channel"
        assert named(root, "sleep_forever").waits == "a cancel"
        own = named(root, trio.lowlevel.current_task().name.rpartition(".")[2])
        assert own.state == "running"
        nursery.cancel_scope.cancel(reason="seen")
        cancelled = named(await TreeReader().read_in_slices(), own.name.rpartition(".")[2]).nurseries[-1]
        assert cancelled.scope == Scope(cancelled=True, reason="seen")


async def test_scopes_have_deadline_shield_and_reason(mock_clock: MockClock) -> None:
    over = trio.Event()

    async def shielded() -> None:
        with trio.CancelScope(deadline=trio.current_time() + 5), trio.CancelScope(shield=True):
            await over.wait()

    async def cleaning() -> None:
        with trio.CancelScope() as scope:
            scope.cancel(reason="decided")
            with trio.CancelScope(shield=True):
                await over.wait()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 7
        nursery.start_soon(shielded)
        nursery.start_soon(cleaning)
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        root = await TreeReader().read_in_slices()
        assert named(root, "shielded").scopes == (Scope(shield=True), Scope(left=4.0))
        assert named(root, "cleaning").scopes == (Scope(shield=True), Scope(cancelled=True, reason="decided"))
        [parent] = [each for each in every(root) if any(n.scope and n.scope.left == 6.0 for n in each.nurseries)]
        assert parent.nurseries[-1].size == 2
        over.set()


async def test_siblings_of_one_kind_fold_and_others_do_not(autojump_clock: object) -> None:
    async def parent(event: trio.Event, children: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeping, 1) if not children else None
            for _ in range(children):
                nursery.start_soon(waiting, event)

    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(997):
            nursery.start_soon(waiting, event)
        for children in (2, 2, 5, 0):
            nursery.start_soon(parent, event, children)
        nursery.start_soon(sleeping, 1)
        await wait_all_tasks_blocked()
        root = await TreeReader().read_in_slices()
        event.set()
    [own] = [n for each in every(root) for n in each.nurseries if n.size == 1002]
    folds = {(task.name.rpartition(".")[2], task.count) for task in own.tasks}
    assert folds == {("waiting", 997), ("parent", 3), ("parent", 1), ("sleeping", 1)}
    fold = next(task for task in own.tasks if task.count == 997)
    assert len(fold.members) == MEMBERS_MAX
    assert len({fold.id, *(member.id for member in fold.members)}) == MEMBERS_MAX + 1


async def test_an_age_is_exact_if_the_tree_was_read_shortly_before_the_start(mock_clock: MockClock) -> None:
    reader, event = TreeReader(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeping, 1000)
        await wait_all_tasks_blocked()
        await reader.read_in_slices()
        mock_clock.jump(2)
        nursery.start_soon(waiting, event)
        await wait_all_tasks_blocked()
        await reader.read_in_slices()
        mock_clock.jump(3)
        root = await reader.read_in_slices()
        assert named(root, "sleeping").scopes == ()  # The scope of the sleep itself is no deadline.
        assert (named(root, "sleeping").age, named(root, "sleeping").older) == (5.0, True)
        assert (named(root, "waiting").age, named(root, "waiting").older) == (3.0, False)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_task_has_the_request_of_its_context_and_what_its_frames_hold(autojump_clock: object) -> None:
    class Cycle:
        async def run(self) -> None:
            bind(request_id="r-1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleeping, 5)
                await self.calls()

        async def calls(self) -> None:
            await trio.sleep(5)

    def request_of(frame: FrameType, now: float) -> RequestNode:
        assert isinstance(frame.f_locals["self"], Cycle)
        return RequestNode(id="r-1", method="GET", path="/a", age=now)

    def calls_of(frame: FrameType, now: float) -> tuple[CallNode, ...]:
        return (CallNode(name="profile", state="running"),)

    reader = TreeReader({Cycle.run.__code__: request_of, Cycle.calls.__code__: calls_of})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Cycle().run)
        await wait_all_tasks_blocked()
        found = named(await reader.read_in_slices(), "run")
    assert found.request == RequestNode(id="r-1", method="GET", path="/a", age=0.0)
    assert found.calls == (CallNode(name="profile", state="running"),)
    assert found.nurseries[0].tasks[0].request_id == "r-1"


async def test_nodes_and_levels_beyond_the_bounds_are_counted(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NODES_MAX", 20)
    monkeypatch.setattr(module, "DEPTH_MAX", 10)

    async def nested(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(nested, depth - 1, name=f"level {depth}")
            else:
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nested, 2000)
        for number in range(100):
            nursery.start_soon(sleeping, 1, name=f"a{number:03}")
        await wait_all_tasks_blocked()
        root = await TreeReader().read_in_slices()
    shown = every(root)
    assert len(shown) <= 21
    assert sum(nursery.left_out for node in shown for nursery in node.nurseries) >= 80
    monkeypatch.setattr(module, "NODES_MAX", 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nested, 2000)
        await wait_all_tasks_blocked()
        root = await TreeReader().read_in_slices()
    assert max(int(node.name[6:]) for node in every(root) if node.name.startswith("level")) == 2000
    assert [n.left_out for node in every(root) for n in node.nurseries if n.left_out] == [1]


async def test_a_large_tree_is_read_in_short_slices() -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(3000):
            nursery.start_soon(waiting, event)
        await wait_all_tasks_blocked()
        reader = TreeReader()
        await reader.read_in_slices()
        before = trio.lowlevel.current_task()._schedule_points
        with longest_step():
            root = await reader.read_in_slices()
        assert trio.lowlevel.current_task()._schedule_points - before >= 2
        event.set()
    assert any(task.count == 3000 for node in every(root) for n in node.nurseries for task in n.tasks)


async def test_tasks_that_end_during_the_walk_are_left_out(autojump_clock: object) -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(waiting, event)
        await wait_all_tasks_blocked()
        root = trio.lowlevel.current_root_task()
        assert root is not None
        walk = TreeReader().walk(root, trio.current_time())
        next(walk)
        event.set()
        await wait_all_tasks_blocked()
        while True:
            try:
                next(walk)
            except StopIteration as end:
                assert sum(node.count for node in every(end.value) if node.name.endswith("waiting")) <= 3
                break


async def test_a_tree_is_read_from_another_thread_without_remembering_tasks() -> None:
    reader, found = TreeReader(), list[Any]()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    thread = threading.Thread(target=lambda: found.append(reader.read(root, 0.0, remembers=False)))
    thread.start()
    thread.join()  # The event loop is blocked.
    assert found[0].name == "<init>"
    assert all(node.age is None for node in every(found[0]))
