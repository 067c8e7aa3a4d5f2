"""The whole program: a configuration file, its application behind a server, and the records that it leaves in files.

When the block of ``running`` ends, nothing of any request may be left; what the logs say can be read then.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import write
from tests.support.server.serving import Reply, connected, serving
from umbel.gateway.app import Umbel
from umbel.upstream import Client

WAYS = pytest.mark.parametrize("way", ["quart", "direct"], indirect=True)
"""The ways of the fixture ``way`` that differ over sockets."""
SERVERS = pytest.mark.parametrize("stock", [False, True], ids=["our serve", "stock hypercorn"])

EVERY_CALL = '\n[logs.calls]\nwhich = "all"\n'
"""A line for each call, and not only for those that say something."""


def up(server: int, keys: str = "", *, name: str = "up") -> str:
    """An upstream at a port."""
    return f'[upstreams.{name}]\nurls = ["http://127.0.0.1:{int(server)}"]\n{keys}\n'


def route(
    path: str = "/r", target: str = "/x", *, upstream: str = "up", keys: str = "", call: str = "", answer: str = ""
) -> str:
    """A route with one call, ``part``, of ``target``; and more keys of the route, of its answer and of the call.

    The call stands last, so that tables of further calls may follow.
    """
    return (
        f'[[routes]]\npath = "{path}"\n{keys}\n'
        f"[routes.answer]\n{answer}\n"
        f'[routes.calls.part]\nupstream = "{upstream}"\npath = "{target}"\n{call}\n'
    )


class Program:
    """The program while it runs, and its logs afterwards."""

    def __init__(self, app: Umbel, port: int, server: trio.Nursery, logs: Path) -> None:
        self.app = app
        self.port = port
        self._server = server
        self._tasks = Counter(_names(server))
        self._logs = logs

    async def ask(
        self, target: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[Reply, bytes]:
        """One request on a connection of its own: the reply, and every byte of it."""
        with trio.fail_after(10):
            async with connected(self.port) as client:
                fields = [("connection", "close"), *headers]
                return await client.request(method, target, fields, body), client.received

    def client(self, upstream: str) -> Client:
        assert self.app.current_runtime is not None
        client = self.app.current_runtime.callers[upstream]
        assert isinstance(client, Client)
        return client

    async def settled(self) -> None:
        """Wait until nothing of any request is left: no task, no call in flight or in a queue, no connection in use."""
        with trio.move_on_after(15):
            while self._left():
                await wait_all_tasks_blocked(0.005)
        assert self._left() == {}

    def _left(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "requests": self.app.statistics().requests_in_flight,
            "tasks": [*(Counter(_names(self._server)) - self._tasks).elements()],
        }
        for upstream in self.app.gateway_config.upstreams:
            statistics = self.client(upstream).statistics()
            bulkhead, pool = statistics.bulkhead, statistics.pool
            found[f"{upstream}: in flight, waiting"] = bulkhead.in_flight + bulkhead.waiting
            found[f"{upstream}: active, connecting"] = pool.active + pool.connecting
        return {what: count for what, count in found.items() if count}

    def lines(self, stream: str) -> list[dict[str, Any]]:
        """The records of ``access``, ``calls`` or ``app``, once the program has ended."""
        return [json.loads(line) for line in (self._logs / f"{stream}.jsonl").read_text().splitlines()]


@asynccontextmanager
async def running(
    directory: Path,
    text: str,
    *,
    stock: bool = False,
    prepare: Callable[[Umbel], object] | None = None,
    **settings: Any,
) -> AsyncIterator[Program]:
    """The program of the configuration ``text``, behind our server or Hypercorn's own; ``settings`` are Hypercorn's.

    ``prepare`` registers what the application is to have beside its configuration. Every call has a line in
    the records, unless the text says which.
    """
    app = Umbel.from_file(write(directory, text if "[logs.calls]" in text else text + EVERY_CALL))
    if prepare is not None:
        prepare(app)
    # Hypercorn keeps a connection that its client has closed for as long as an idle one. That is not ours to wait for.
    settings = {"include_server_header": False, "keep_alive_timeout": 0.5, **settings}
    async with serving(app, stock=stock, **settings) as port:
        server = trio.lowlevel.current_task().child_nurseries[-1]
        if stock:
            # What stays beside Hypercorn's connections begins with the first of them.
            async with connected(port) as client:
                await client.stream.send_eof()
                assert await client.closed_by_server()
        # The address is announced a moment before the last task that stays has begun.
        await wait_all_tasks_blocked(0.01)
        program = Program(app, port, server, directory / "logs")
        yield program
        await program.settled()


def _names(nursery: trio.Nursery) -> list[str]:
    """Every task below."""
    names: list[str] = []
    for task in nursery.child_tasks:
        names.append(task.name)
        for child in task.child_nurseries:
            names.extend(_names(child))
    return names
