"""The task tree of a gateway: the request on the task of its connection, and its calls, which have no task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.support.gateway.program import route, running, up
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.composition.gather import Compose
from umbel.gateway.app import Umbel
from umbel.observe.tree.nodes import CallNode, TaskNode
from umbel.observe.tree.reader import TreeReader

HEDGED = '[upstreams.up]\nurls = ["http://127.0.0.1:{}"]\n[upstreams.up.hedge]\nafter = "20ms"\n'


class Held:
    """An upstream that answers ``/fast`` at once, and other requests once released."""

    def __init__(self, held: int) -> None:
        self.release = trio.Event()
        self.all_there = trio.Event()
        self._missing = held

    async def __call__(self, peer: Peer) -> None:
        head = await peer.read_head()
        if b" /fast " not in head:
            self._missing -= 1
            if not self._missing:
                self.all_there.set()
            await self.release.wait()
        await peer.send(response(b"1"))


def every(node: TaskNode) -> list[TaskNode]:
    return [node, *(each for nursery in node.nurseries for task in nursery.tasks for each in every(task))]


async def serving_task(app: Umbel, path: str) -> tuple[TaskNode, list[CallNode]]:
    """The task that answers the request for ``path``, and the calls of all tasks."""
    nodes = every(await TreeReader(app.task_frames).read_in_slices())
    [found] = [node for node in nodes if node.request is not None and node.request.path == path]
    return found, [call for node in nodes for call in node.calls]


async def ask(program: Any, path: str, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    reply, _ = await program.ask(path)
    assert reply.status == 200


async def test_a_request_has_its_route_deadline_and_calls_with_hedge(tmp_path: Path) -> None:
    held = Held(2)
    calls = (
        '[routes.calls.fast]\nupstream = "up"\npath = "/fast"\n'
        '[routes.calls.later]\nupstream = "up"\npath = "/{part}"\n'
    )
    async with raw_server(held) as server:
        text = HEDGED.format(int(server)) + route("/r/<who>", keys='deadline = "30s"') + calls
        async with running(tmp_path, text) as program, trio.open_nursery() as nursery:
            await nursery.start(ask, program, "/r/me")
            await held.all_there.wait()
            task, found = await serving_task(program.app, "/r/me")
            held.release.set()
    assert task.request is not None
    assert (task.request.method, task.request.route, len(task.request.id) > 8) == ("GET", "/r/<who>", True)
    assert task.request.left is not None
    assert 20 < task.request.left <= 30
    states = {call.name: call for call in found}
    assert (states["fast"].state, [attempt.status for attempt in states["fast"].attempts]) == ("value", [200])
    part = states["part"]
    assert (part.state, [(each.cause, each.state) for each in part.attempts]) == (
        "running",
        [("first", "sent"), ("hedge", "sent")],
    )
    assert states["later"].state == "waiting"
    assert all(attempt.replica for attempt in part.attempts)


async def test_the_calls_of_a_handler_are_seen_with_its_request(tmp_path: Path) -> None:
    held = Held(1)

    def prepare(app: Umbel) -> None:
        @app.compose("/code", deadline=30)
        async def code(compose: Compose) -> Any:
            async with compose.gather() as calls:
                part = calls.get("up", "/x", name="part")
            return part.value

    async with raw_server(held) as server:
        text = up(server) + route()
        async with running(tmp_path, text, prepare=prepare) as program, trio.open_nursery() as nursery:
            await nursery.start(ask, program, "/code")
            await held.all_there.wait()
            task, found = await serving_task(program.app, "/code")
            held.release.set()
    assert task.request is not None
    assert [(call.name, call.upstream, call.state) for call in found] == [("part", "up", "running")]
