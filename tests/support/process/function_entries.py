"""The functions that requests enter in a served process, Python's and C's, counted by cProfile.

One client, one request after the other over a kept connection, defaults on, the records included. The counts do not
depend on how busy the machine is, but for how many answers come in one turn.
"""

from __future__ import annotations

import pstats
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.gateway.configs import write
from tests.support.process.processes import Child, started
from tests.support.server.serving import RawClient, connected

WARM_UP, COUNTED, RUNS = 30, 200, 6

SERVE = """
import cProfile, runpy, signal
profiles = []
def begin(*_):
    profiles.append(cProfile.Profile())
    profiles[-1].enable()
def end(*_):
    profiles[-1].disable()
    profiles[-1].dump_stats("profile.%d" % len(profiles))
signal.signal(signal.SIGRTMIN, begin)
signal.signal(signal.SIGRTMIN + 1, end)
runpy.run_module("umbel", run_name="__main__")
"""

UPSTREAM = """
import socket, threading
ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 18\\r\\n\\r\\n{"v":1,"name":"x"}'
def serve(conn):
    data = b""
    while got := conn.recv(65536):
        data += got
        while (end := data.find(b"\\r\\n\\r\\n")) >= 0:
            data = data[end + 4 :]
            conn.sendall(ANSWER)
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""A process of its own, so that its answers do not wait for the client's turn in the caller's loop."""


class Entries(NamedTuple):
    """The profiles of ``COUNTED`` requests of a route of one call, and of as many of a route of eleven calls."""

    one: pstats.Stats
    eleven: pstats.Stats

    @property
    def per_request(self) -> float:
        """Functions that a request of one call enters."""
        return self._total(self.one) / COUNTED

    @property
    def per_further_call(self) -> float:
        """Functions that each further call of a request adds."""
        return (self._total(self.eleven) - self._total(self.one)) / COUNTED / 10

    def entered(self, package: Path) -> set[tuple[str, int, str]]:
        """Return the functions of a package (file, line, name) that a request of one call enters.

        Tasks that run once in many requests, such as the writing of a batch of records, are left out.
        """
        functions: dict[tuple[str, int, str], tuple[int, int]] = self.one.stats
        return {
            function
            for function, (_, entries, *_) in functions.items()
            # Less than all: the end of the last request may come after the profile is written.
            if entries >= COUNTED * 0.9 and package in Path(function[0]).parents
        }

    @staticmethod
    def _total(profile: pstats.Stats) -> int:
        return profile.total_calls


async def count_entries(directory: Path) -> Entries:
    """Serve two routes in a process of its own, and profile the later requests of a kept connection.

    Writes files to ``directory``. Raises AssertionError if the server does not start or gives another status than 200.
    """
    runs = ["/1", *["/11"] * RUNS]
    async with started(sys.executable, "-c", UPSTREAM, cwd=directory) as upstream:
        routes = "".join(
            f'[[routes]]\npath = "/{calls}"\n'
            + "".join(f'calls.c{call} = {{ upstream = "u", path = "/x" }}\n' for call in range(calls))
            for calls in (1, 11)
        )
        write(directory, f'[upstreams.u]\nurls = ["{await upstream.address()}"]\n{routes}')
        async with started(sys.executable, "-c", SERVE, "serve", "--bind", "127.0.0.1:0", cwd=directory) as server:
            port = int((await server.address()).rpartition(":")[2])
            for path in runs:
                # A connection of its own for each run: the server closes one after a thousand requests.
                async with connected(port) as client:
                    await _count(server, client, path)
    one, *elevens = [pstats.Stats(str(directory / f"profile.{number}")) for number, _ in enumerate(runs, 1)]
    # Answers that come in more turns count more: of several runs the least says what the code needs.
    return Entries(one, min(elevens, key=Entries._total))


async def _count(server: Child, client: RawClient, path: str) -> None:
    await _request(client, path, WARM_UP)
    # A signal is delivered before the request that is sent after it.
    server.send(signal.SIGRTMIN)
    await _request(client, path, COUNTED)
    server.send(signal.SIGRTMIN + 1)
    # An answer to one more request says that the profile is written.
    await _request(client, path, 1)


async def _request(client: RawClient, path: str, times: int) -> None:
    for _ in range(times):
        assert (await client.request("GET", path)).status == 200
