"""The functions that a request enters in a serving process, Python's and C's, counted with cProfile.

One client sends one request after the other over one connection; the settings are the defaults, and requests are
recorded. A profile begins when the records of earlier requests are written and ends when its own are, because
each record costs entries when its batch is written. The upstream responds to the calls of one request together, and the
server does not run before it has sent all of them: it is on the same core, with the policy SCHED_BATCH, which takes the
core from nobody when it becomes ready (sched(7)). Otherwise the load of the machine would decide in how many turns of
the scheduler the responses are read.
"""

from __future__ import annotations

import pstats
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import trio

from tests.support.gateway.configs import write
from tests.support.process.processes import started
from tests.support.server.serving import RawClient, connected

WARM_UP, COUNTED, RUNS = 30, 200, 3

ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""

SERVE = f"""{ONE_CORE}
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
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

UPSTREAM = f"""{ONE_CORE}
import selectors, socket
ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 18\\r\\n\\r\\n{{"v":1,"name":"x"}}'
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
received, complete = {{}}, {{b"/1": [], b"/11": []}}
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            ready.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        conn, got = key.fileobj, key.fileobj.recv(65536)
        if not got:
            ready.unregister(conn)
            conn.close()
            continue
        data = received.pop(conn, b"") + got
        if not data.endswith(b"\\r\\n\\r\\n"):
            received[conn] = data
            continue
        path = data.split(b" ", 2)[1]
        complete[path].append(conn)
        if len(complete[path]) == int(path[1:]):
            for waiting in complete[path]:
                waiting.sendall(ANSWER)
            complete[path].clear()
"""
"""The upstream, in a process of its own, so that its responses do not wait for the event loop of the test.

It responds to the calls of one request together, when all have arrived: ``/11`` is called eleven times.
"""


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
        runs: how often each route is profiled; the smallest profile is taken, without the work that the server does
            from time to time.

    Raises:
        AssertionError: the server does not start, or a response has another status than 200.
    """
    paths = ["/1", "/11", "/static"] * runs
    log, records = directory / "logs" / "access.jsonl", 0
    async with started(sys.executable, "-c", UPSTREAM, cwd=directory) as upstream:
        routes = "".join(
            f'[[routes]]\npath = "/{calls}"\n'
            + "".join(f'calls.c{call} = {{ upstream = "u", path = "/{calls}" }}\n' for call in range(calls))
            for calls in (1, 11)
        )
        routes += '[[routes]]\npath = "/static"\nrespond.text = "x"\n'
        write(directory, f'[upstreams.u]\nurls = ["{await upstream.address()}"]\n{tables}{routes}')
        async with started(sys.executable, "-c", SERVE, "serve", "--bind", "127.0.0.1:0", cwd=directory) as server:
            port = int((await server.address()).rpartition(":")[2])
            for path in paths:
                # A new connection for each run, because the server closes a connection after a thousand requests.
                async with connected(port) as client:
                    await _request(client, path, headers, WARM_UP)
                    await _written(log, records := records + WARM_UP)
                    # A signal is delivered before the request that is sent after it.
                    server.send(signal.SIGRTMIN)
                    await _request(client, path, headers, COUNTED)
                    await _written(log, records := records + COUNTED)
                    server.send(signal.SIGRTMIN + 1)
                    # The response to one more request shows that the profile has been written.
                    await _request(client, path, headers, 1)
                    records += 1
    profiles = [pstats.Stats(str(directory / f"profile.{number}")) for number, _ in enumerate(paths, 1)]
    return Entries(*(min(profiles[route::3], key=Entries._total) for route in range(3)))


async def _request(client: RawClient, path: str, headers: tuple[tuple[str, str], ...], times: int) -> None:
    for _ in range(times):
        assert (await client.request("GET", path, headers)).status == 200


async def _written(log: Path, records: int) -> None:
    """Wait until the log holds that many records."""
    file = trio.Path(log)
    while not await file.exists() or (await file.read_bytes()).count(b"\n") < records:  # noqa: ASYNC110  # a process's
        await trio.sleep(0.02)
