"""What the console costs: ``make bench-console``; ``ARGS=--quick`` for a short run.

- The longest step in which a tree of 10,000 tasks holds the event loop: reading it, encoding it, and looking for lints.
  Measured is CPU time, since a step's wall time has the other processes of the machine in it.
- The share of an open page in the CPU time of a gateway at 1,000 requests of five calls a second, by the page's view.
  The main thread's CPU time varies by more than a page takes. So what a page takes of it is measured while the clients
  are connected and silent, and what it takes of other threads is measured under load. The two calls in each turn of the
  event loop that lints need are not in it.

The exit status is 1 if a figure misses what is asked.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio
from tests.support.process.admin import ask_admin
from tests.support.process.processes import PYTHON, started
from tests.support.upstream.raw_server import answering, raw_server, response

from umbel.observe.lints.watch import ATTENTION_S, LintWatch
from umbel.observe.process.live_process import LiveProcess

TASKS = 10_000
HOLD_MS = 5.0
"""What is asked of a step."""
REQUESTS_PER_S, CLIENTS = 1_000, 20
SHARE = 0.02
"""What is asked of a page."""
VIEWS = {"tree": ["tree"], "workers": ["workers"], "routes": ["routes", "upstreams"], "lints": ["lints"]}
"""The topics that each view subscribes to. Lints are the last: their thread lives on for ten seconds."""
CONFIG = """
[upstreams.up]
urls = ["http://127.0.0.1:{port}"]
[[routes]]
path = "/r"
"""
CALL = """
[routes.calls.part{number}]
upstream = "up"
path = "/{number}"
"""
CALLS = 5


class LongestStep:
    """The longest CPU time between two turns of the event loop, while its task runs."""

    def __init__(self) -> None:
        self.ms = 0.0

    async def measure(self) -> None:
        while True:
            before = time.thread_time()
            await trio.lowlevel.checkpoint()
            self.ms = max(self.ms, 1000 * (time.thread_time() - before))


async def waiting(event: trio.Event, kind: int) -> None:
    if kind % 3 == 0:
        await trio.sleep(3600 + kind)
    elif kind % 3 == 1:
        with trio.CancelScope(deadline=trio.current_time() + 3600):
            await event.wait()
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(event.wait)


async def longest_steps() -> dict[str, float]:
    """The longest step of each part, in milliseconds."""
    found: dict[str, float] = {}
    event = trio.Event()
    gc.disable()  # A collection of the objects of so many tasks takes some 80 ms, whoever has made the last of them.
    live, lints = LiveProcess("main"), LintWatch("main")
    async with trio.open_nursery() as nursery:
        for number in range(TASKS * 3 // 4):  # A third of them has a task below.
            nursery.start_soon(waiting, event, number)
        await trio.sleep(0.5)
        for what, work in (("reading the tree", live.tree), ("a look for lints", lints.look)):
            step = LongestStep()
            nursery.start_soon(step.measure)
            for _ in range(3):
                live._latest, lints._again_at = None, 0.0  # Otherwise the last one would be given again.
                await work()
            found[what] = step.ms
        tree = await live.tree()
        times = []
        for _ in range(5):
            began = time.thread_time()
            msgspec.json.encode(tree)
            times.append(1000 * (time.thread_time() - began))
        found["encoding the tree"] = max(times)
        nursery.cancel_scope.cancel(reason="measured")
    gc.enable()
    return found


def configuration(port: int) -> str:
    return CONFIG.format(port=port) + "".join(CALL.format(number=number) for number in range(CALLS))


class Cpu(NamedTuple):
    """CPU seconds of a process, to a microsecond."""

    main: float
    others: float
    """Those of the threads beside the main one that live now."""

    @classmethod
    def of(cls, pid: int) -> Cpu:
        found = {
            int(file.parent.name): int(file.read_text().split()[0]) / 1e9
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
        }
        main = found.pop(pid)
        return cls(main, sum(found.values()))


async def used(pid: int, seconds: float) -> Cpu:
    """The CPU seconds that a process uses in a second, over so many seconds."""
    before = Cpu.of(pid)
    await trio.sleep(seconds)
    after = Cpu.of(pid)
    return Cpu((after.main - before.main) / seconds, (after.others - before.others) / seconds)


async def send(port: int, begin: trio.Event, count: list[int]) -> None:
    """Connect, wait for ``begin``, and send requests at a steady rate, on one connection after another."""
    due = trio.current_time()
    while True:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await begin.wait()
            while await is_answered(stream):
                count[0] += 1
                due = max(due + CLIENTS / REQUESTS_PER_S, trio.current_time() - 1)
                await trio.sleep_until(due)


async def is_answered(stream: trio.SocketStream) -> bool:
    """Send a request and receive its response; return False if the server has closed the connection."""
    received = b""
    await stream.send_all(b"GET /r HTTP/1.1\r\nHost: x\r\n\r\n")
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        piece = await stream.receive_some()
        if not piece:
            return False
        received += piece
    return b"connection: close" not in received


@asynccontextmanager
async def page(socket: Path, topics: Sequence[str]) -> AsyncIterator[None]:
    """Have a page open, which reads what comes."""
    query = "&".join(f"topic={topic}" for topic in topics)

    async def read() -> None:
        async with await trio.open_unix_socket(socket) as stream:
            await stream.send_all(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async for _ in stream:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield
        nursery.cancel_scope.cancel(reason="the round is over")


async def shares(seconds: float) -> tuple[dict[str, float], float, float]:
    """The share of a page by its view, the reached requests per second, and the gateway's load in cores."""
    upstream = answering(response(b'{"a":1}', b"Content-Type: application/json"))
    count, begin = [0], trio.Event()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        socket = place / "umbel-admin.sock"
        async with raw_server(upstream) as port:
            await trio.Path(place / "umbel.toml").write_text(configuration(int(port)))
            command = (PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0")
            env = {"RUNTIME_DIRECTORY": directory}
            async with started(*command, cwd=place, env=env) as server, trio.open_nursery() as nursery:
                said = await server.line("Umbel runs on")
                nursery.start_soon(server.follow)
                gateway = int(said.partition("http://127.0.0.1:")[2].split()[0])
                for _ in range(CLIENTS):
                    nursery.start_soon(send, gateway, begin, count)
                await ask_admin(socket, "GET", "/livez")
                await trio.sleep(3)  # The start has an end too.
                silent = await by_view(server.pid, socket, seconds)
                begin.set()
                await trio.sleep(ATTENTION_S + 1)  # Until the thread that watches steps has ended.
                count[0], began = 0, trio.current_time()
                loaded = await by_view(server.pid, socket, seconds)
                rate = count[0] / (trio.current_time() - began)
                nursery.cancel_scope.cancel(reason="measured")
    load = sum(loaded[""])
    costs = {view: silent[view].main - silent[""].main + loaded[view].others - loaded[""].others for view in VIEWS}
    return {view: cost / load for view, cost in costs.items()}, rate, load


async def by_view(pid: int, socket: Path, seconds: float) -> dict[str, Cpu]:
    """What the gateway uses in a second while a page shows a view, by its name; under an empty name without a page."""
    found = {"": await used(pid, seconds)}
    for view, topics in VIEWS.items():
        async with page(socket, topics):
            await trio.sleep(0.5)
            found[view] = await used(pid, seconds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-console", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short measurements")
    options = parser.parse_args()
    print(f"A process with {TASKS} tasks: CPU time of the longest step, asked at most {HOLD_MS:g} ms\n")
    steps = trio.run(longest_steps)
    for what, ms in steps.items():
        print(f"  {what:24} {ms:6.1f} ms{'' if ms <= HOLD_MS else '   MISSED'}")
    found, rate, load = trio.run(shares, 1.5 if options.quick else 4.0)
    print(f"\nAn open page at {rate:.0f} requests/s ({load:.2f} cores): share of CPU time, asked at most {SHARE:.0%}\n")
    for view, share in found.items():
        print(f"  {view:24} {share:6.1%}{'' if share <= SHARE else '   MISSED'}")
    return 1 if max(steps.values()) > HOLD_MS or max(found.values()) > SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
