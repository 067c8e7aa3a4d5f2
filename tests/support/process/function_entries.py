"""The functions that a request enters in a serving process, Python's and C's, counted with cProfile.

One client sends one request after the other over one connection; the settings are the defaults, and requests are
recorded. The counts do not depend on the load of the machine, except that it decides how many upstream responses are
read in one turn of the scheduler.
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
"""The upstream, in a process of its own, so that its responses do not wait for the event loop of the test."""


class Entries(NamedTuple):
    """The profiles of ``COUNTED`` requests for routes with one call, with eleven calls, and with a ``respond``."""

    one: pstats.Stats
    eleven: pstats.Stats
    static: pstats.Stats

    @property
    def per_request(self) -> float:
        """The function entries of a request with one call."""
        return self._total(self.one) / COUNTED

    @property
    def per_static_request(self) -> float:
        """The function entries of a request for the route with a ``respond``."""
        return self._total(self.static) / COUNTED

    @property
    def per_further_call(self) -> float:
        """The function entries that each further call adds to a request."""
        return (self._total(self.eleven) - self._total(self.one)) / COUNTED / 10

    def entered(self, package: Path) -> set[tuple[str, int, str]]:
        """Return the functions of a package (file, line, name) that each request with one call enters.

        Functions that run once in many requests are left out, such as those that write a batch of records.
        """
        functions: dict[tuple[str, int, str], tuple[int, int]] = self.one.stats
        return {
            function
            for function, (_, entries, *_) in functions.items()
            # 0.9 because the last requests may end after the profile has been written.
            if entries >= COUNTED * 0.9 and package in Path(function[0]).parents
        }

    def caused_by(self, package: Path) -> float:
        """The entries, per request with one call, of functions of a package and of functions that they call."""
        caused = 0
        for (file, _, _), (_, entries, _, _, callers) in self.one.stats.items():  # type: ignore[attr-defined]
            if package in Path(file).parents:
                caused += entries
            else:
                caused += sum(counts[1] for caller, counts in callers.items() if package in Path(caller[0]).parents)
        return caused / COUNTED

    @staticmethod
    def _total(profile: pstats.Stats) -> int:
        return profile.total_calls


async def count_entries(
    directory: Path, tables: str = "", headers: tuple[tuple[str, str], ...] = (), runs: int = RUNS
) -> Entries:
    """Serve three routes in a process, and profile requests of one connection after a warm-up.

    Writes files to ``directory``.

    Args:
        directory: an empty directory.
        tables: further tables of the configuration.
        headers: header fields of each request.
        runs: how often the requests with eleven calls are profiled.

    Raises:
        AssertionError: the server does not start, or a response has another status than 200.
    """
    paths = ["/1", "/static", *["/11"] * runs]
    async with started(sys.executable, "-c", UPSTREAM, cwd=directory) as upstream:
        routes = "".join(
            f'[[routes]]\npath = "/{calls}"\n'
            + "".join(f'calls.c{call} = {{ upstream = "u", path = "/x" }}\n' for call in range(calls))
            for calls in (1, 11)
        )
        routes += '[[routes]]\npath = "/static"\nrespond.text = "x"\n'
        write(directory, f'[upstreams.u]\nurls = ["{await upstream.address()}"]\n{tables}{routes}')
        async with started(sys.executable, "-c", SERVE, "serve", "--bind", "127.0.0.1:0", cwd=directory) as server:
            port = int((await server.address()).rpartition(":")[2])
            for path in paths:
                # A new connection for each run, because the server closes a connection after a thousand requests.
                async with connected(port) as client:
                    await _count(server, client, path, headers)
    one, static, *elevens = [pstats.Stats(str(directory / f"profile.{number}")) for number, _ in enumerate(paths, 1)]
    # Upstream responses that arrive in more turns cost more entries, so the smallest of several runs is taken.
    return Entries(one, min(elevens, key=Entries._total), static)


async def _count(server: Child, client: RawClient, path: str, headers: tuple[tuple[str, str], ...]) -> None:
    await _request(client, path, headers, WARM_UP)
    # A signal is delivered before the request that is sent after it.
    server.send(signal.SIGRTMIN)
    await _request(client, path, headers, COUNTED)
    server.send(signal.SIGRTMIN + 1)
    # The response to one more request shows that the profile has been written.
    await _request(client, path, headers, 1)


async def _request(client: RawClient, path: str, headers: tuple[tuple[str, str], ...], times: int) -> None:
    for _ in range(times):
        assert (await client.request("GET", path, headers)).status == 200
