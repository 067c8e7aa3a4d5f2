"""The whole gateway: a configuration file, its application behind a server, and the records in its log files.

At the end of the block of ``running`` no request may be in flight; the log files are complete after it.
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
"""The parameters of the fixture ``way`` (see ``tests/conftest.py``) that differ over sockets."""
SERVERS = pytest.mark.parametrize("stock", [False, True], ids=["our serve", "stock hypercorn"])

EVERY_CALL = '\n[logs.calls]\nwhich = "all"\n'
"""The setting with which every call has a record; by default an ordinary call may have none."""


def up(server: int, keys: str = "", *, name: str = "up") -> str:
    """The table of an upstream at a port of this machine; ``keys`` are further keys."""
    return f'[upstreams.{name}]\nurls = ["http://127.0.0.1:{int(server)}"]\n{keys}\n'


def route(
    path: str = "/r", target: str = "/x", *, upstream: str = "up", keys: str = "", call: str = "", answer: str = ""
) -> str:
    """The tables of a route with one call, named ``part``, to ``target``.

    ``keys``, ``call`` and ``answer`` are further keys of the route, the call and the answer. The call is the last
    table, so that tables of further calls may follow.
    """
    return (
        f'[[routes]]\npath = "{path}"\n{keys}\n'
        f"[routes.answer]\n{answer}\n"
        f'[routes.calls.part]\nupstream = "{upstream}"\npath = "{target}"\n{call}\n'
    )


class Program:
    """The gateway while it runs, and its log files afterwards."""

    def __init__(self, app: Umbel, port: int, server: trio.Nursery, logs: Path) -> None:
        self.app = app
        self.port = port
        self._server = server
        self._tasks = Counter(_names(server))
        self._logs = logs

    async def ask(
        self, target: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[Reply, bytes]:
        """Send one request on a new connection; return the response, parsed and as bytes."""
        with trio.fail_after(10):
            async with connected(self.port) as client:
                fields = [("connection", "close"), *headers]
                return await client.request(method, target, fields, body), client.received

    def client(self, upstream: str) -> Client:
        """The client of an upstream."""
        assert self.app.current_runtime is not None
        client = self.app.current_runtime.callers[upstream]
        assert isinstance(client, Client)
        return client

    async def settled(self) -> None:
        """Wait until no request has a task, a call in flight or in a queue, or a connection in use.

        Raises:
            AssertionError: after 15 seconds something is left.
        """
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
    """Run the gateway with the configuration ``text`` within the block.

    Args:
        directory: for the configuration and the log files.
        text: the configuration. Every call has a record unless the text has a section ``[logs.calls]``.
        stock: serve with Hypercorn's own ``serve`` instead of Umbel's.
        prepare: called with the application before it starts, to register views.
        settings: Hypercorn's settings.
    """
    app = Umbel.from_file(write(directory, text if "[logs.calls]" in text else text + EVERY_CALL))
    if prepare is not None:
        prepare(app)
    # Hypercorn keeps a connection that its client has closed until the keep-alive timeout, so it is short here.
    settings = {"include_server_header": False, "keep_alive_timeout": 0.5, **settings}
    async with serving(app, stock=stock, **settings) as port:
        server = trio.lowlevel.current_task().child_nurseries[-1]
        if stock:
            # The first connection starts tasks that stay until the end. They must be counted as the server's own.
            async with connected(port) as client:
                await client.stream.send_eof()
                assert await client.closed_by_server()
        # The server announces its address shortly before its last permanent task has started.
        await wait_all_tasks_blocked(0.01)
        program = Program(app, port, server, directory / "logs")
        yield program
        await program.settled()


def _names(nursery: trio.Nursery) -> list[str]:
    """The names of all tasks in and below the nursery."""
    names: list[str] = []
    for task in nursery.child_tasks:
        names.append(task.name)
        for child in task.child_nurseries:
            names.extend(_names(child))
    return names
