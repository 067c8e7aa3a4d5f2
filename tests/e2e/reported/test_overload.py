"""Bulkheads under load: default limits refuse no healthy traffic, and hanging upstreams do not affect other routes."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.gateway.program import Program, route, running, up
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected
from tests.support.upstream.raw_server import Handler, Peer, raw_server, response, silent

LONG_DEADLINE = 'deadline = "30s"'
"""Longer than the default, because the tests are about the queue, and a busy machine may be slow."""


def healthy(seconds: float = 0.01, body: bytes = b"1") -> Handler:
    """Make a handler that answers each request after ``seconds``."""

    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await trio.sleep(seconds)
            await peer.send(response(body))

    return handler


def calls(count: int) -> str:
    """The tables of ``count - 1`` further calls of the last route."""
    return "".join(f'[routes.calls.c{n}]\nupstream = "up"\npath = "/{n}"\n' for n in range(count - 1))


async def crowd(
    program: Program, clients: int, target: str = "/r", rounds: int = 1, *, patient: bool = False
) -> Counter[int]:
    """Send requests from concurrent clients, each on a connection of its own, and count the statuses.

    With ``patient`` each connects when the one before has connected, and waits a little after a 503. Otherwise so many
    requests may come in one turn of the event loop that a full server refuses some of them, whatever their route is
    (``DISPLACED_SHARE``).
    """
    statuses: Counter[int] = Counter()
    pauses = random.Random(target)

    async def client(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with connected(program.port) as connection:
            task_status.started()
            for _ in range(rounds):
                status = (await connection.request("GET", target)).status
                statuses[status] += 1
                if patient and status == 503:
                    await trio.sleep(pauses.uniform(0.1, 0.3))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            if patient:
                await nursery.start(client)
            else:
                nursery.start_soon(client)
    return statuses


async def test_256_clients_of_a_route_of_ten_calls_get_no_error(tmp_path: Path) -> None:
    config = route(keys=LONG_DEADLINE) + calls(10)
    async with raw_server(healthy()) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert await crowd(program, 256) == {200: 256}
        bulkhead = program.client("up").statistics().bulkhead
        assert (bulkhead.overflowed, bulkhead.stalled) == (0, False)


async def test_five_clients_of_a_route_of_fifty_calls_get_no_error(tmp_path: Path) -> None:
    config = route(keys=LONG_DEADLINE) + calls(50)
    async with raw_server(healthy()) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert await crowd(program, 5, rounds=2) == {200: 10}


async def test_an_each_over_fifty_ids_for_sixty_clients_gets_no_error(tmp_path: Path) -> None:
    ids = b"[" + b",".join(b"%d" % n for n in range(50)) + b"]"
    config = route(keys=LONG_DEADLINE) + (
        '[routes.calls.things]\nupstream = "up"\npath = "/items/{item}"\neach = "part"\nlimit = 50\n'
    )
    async with raw_server(healthy(body=ids)) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert await crowd(program, 60) == {200: 60}


async def test_a_hundred_streams_of_a_route_of_three_calls_get_no_error(tmp_path: Path) -> None:
    config = route(keys=LONG_DEADLINE) + calls(3)
    async with (
        raw_server(healthy()) as upstream,
        running(tmp_path, up(upstream) + config) as program,
        h2_client(program.port) as client,
    ):
        streams = [await client.request(path="/r") for _ in range(100)]
        answers = [await client.answer(stream) for stream in streams]
    assert Counter(answer.status for answer in answers) == {200: 100}


async def test_a_request_with_more_calls_than_slots_is_answered_without_a_queue(tmp_path: Path) -> None:
    few, config = "max_concurrency = 2\nmax_queue = 0", route(keys=LONG_DEADLINE) + calls(8)
    async with raw_server(healthy()) as upstream, running(tmp_path, up(upstream, few) + config) as program:
        assert await crowd(program, 1) == {200: 1}


@pytest.mark.parametrize("keys", ["", "coalesce = true"], ids=["", "coalescing"])
async def test_two_hanging_upstreams_cause_no_errors_in_a_route_of_a_third(keys: str, tmp_path: Path) -> None:
    async with raw_server(silent) as first, raw_server(silent) as second, raw_server(healthy(0)) as third:
        config = up(first, name="one", keys=keys) + up(second, name="two", keys=keys) + up(third)
        brief = 'deadline = "3s"'
        config += route("/one", upstream="one", keys=brief) + route("/two", upstream="two", keys=brief) + route("/r")
        async with running(tmp_path, config, keep_alive_timeout=30.0) as program, trio.open_nursery() as nursery:
            for target in ("/one", "/two"):
                nursery.start_soon(partial(crowd, program, 200, target, 100, patient=True))
            # The route must answer from the beginning, and 20 more times after both upstreams count as stalled.
            stalled = 0
            with trio.move_on_after(5):
                while stalled < 20:
                    reply, _ = await program.ask("/r")
                    assert reply.status == 200, reply.body
                    both = [program.client(name).statistics().bulkhead for name in ("one", "two")]
                    stalled += all(bulkhead.stalled for bulkhead in both)
                    await trio.sleep(0.02)
            assert stalled, "the bulkheads do not report the upstreams as stalled"
            nursery.cancel_scope.cancel(reason="the test is over")
