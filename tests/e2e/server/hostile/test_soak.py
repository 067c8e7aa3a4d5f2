"""Soak: thousands of connections are opened and broken at random points, and leak nothing.

``make soak`` breaks 20,000 connections under each launcher, ``make test`` a tenth of them.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
from pathlib import Path
from typing import NamedTuple

import trio

from tests.fuzz.corpus import PROTOCOLS, stored
from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import answering, open_sockets, raw_server, response

CONNECTIONS = 20_000 if SOAK else 1_000
"""Connections per launcher. There are two launchers."""
WARMING_UP = CONNECTIONS // 2
AT_ONCE = 25
CONFIG = '[server]\nhead_timeout = "500ms"\nbody_timeout = "500ms"\nwrite_timeout = "500ms"\n'
OBJECTS_MAX = 200
"""Most additional Python objects afterwards: caches of libraries, not one object per connection."""
MEMORY_MAX = 4 * 2**20


OWNERS = tuple(
    f"<class '{name}" for name in ("umbel.", "h2.", "hpack.", "hypercorn.", "wsproto.", "quart", "werkzeug.")
)


class Holdings(NamedTuple):
    """The resources of this process, in which the server runs."""

    tasks: int
    descriptors: int
    sockets: int
    objects: int
    """Objects of the server, its application and their libraries. trio's own, such as old deadlines, do not count."""
    resident: int

    @classmethod
    def now(cls) -> Holdings:
        for _ in range(3):
            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            trio.lowlevel.current_statistics().tasks_living,
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            open_sockets(),
            sum(repr(type(found)).startswith(OWNERS) for found in gc.get_objects()),
            pages * os.sysconf("SC_PAGE_SIZE"),
        )


async def break_one(port: int, inputs: list[bytes], rng: random.Random) -> None:
    """Send an input up to a random point, read a random part of the response, and leave in one of three ways."""
    data = rng.choice(inputs)
    data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.8 else data
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        for start in range(0, len(data), step := max(1, len(data) // rng.choice((1, 1, 2, 4)))):
            await stream.send_all(data[start : start + step])
        if rng.random() < 0.5:
            with trio.move_on_after(rng.choice((0.0, 0.001, 0.02))):
                await stream.receive_some(rng.choice((1, 10_000)))
        match rng.choice(("close", "reset", "half-close")):
            case "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "half-close":
                await stream.send_eof()
                with trio.fail_after(10):
                    while await stream.receive_some():
                        pass
    except trio.BrokenResourceError:
        pass  # The server has closed the connection first.
    finally:
        with trio.move_on_after(1, shield=True):
            await stream.aclose()


async def break_many(program: Program, count: int, rng: random.Random) -> None:
    inputs = [data for protocol in PROTOCOLS for data in stored(protocol).values()]
    inputs += [b"GET /r HTTP/1.1\r\nHost: gateway.test\r\n\r\n"] * (len(inputs) // 2)
    left = count

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await break_one(program.port, inputs, rng)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_another)
    await program.settled()


@SERVERS
async def test_connections_broken_at_random_points_leak_nothing(stock: bool, tmp_path: Path) -> None:
    rng = random.Random(20_000)
    async with raw_server(answering(response(b"1"))) as upstream:
        config = CONFIG + up(upstream, 'keepalive_expiry = "1h"') + route()
        async with running(tmp_path, config, stock=stock, keep_alive_timeout=0.5) as program:
            await break_many(program, WARMING_UP, rng)
            before = Holdings.now()
            await break_many(program, CONNECTIONS - WARMING_UP, rng)
            after = Holdings.now()
            grown = after.resident - before.resident
            if grown > MEMORY_MAX:
                # The allocator may take one more arena once. A leak grows with each round.
                await break_many(program, CONNECTIONS - WARMING_UP, rng)
                grown = Holdings.now().resident - after.resident
            assert (await program.ask("/r"))[0].status == 200
    # The number of pooled connections to the upstream, with both ends in this process, may differ.
    pool = 2 * len(upstream.connections)
    assert after.tasks <= before.tasks + pool
    assert after.descriptors - after.sockets == before.descriptors - before.sockets
    assert after.sockets <= before.sockets + pool
    assert after.objects - before.objects <= OBJECTS_MAX
    assert grown <= MEMORY_MAX
