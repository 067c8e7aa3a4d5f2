"""The master of ``umbel serve -w`` compared with others: the same application and load, four workers each.

    make bench-supervisor            all of it; writes benchmarks/supervisor.md
    make bench-supervisor ARGS=--quick     fewer reloads, nothing written

Each scenario starts new processes and ends them by their process group. A peer without such a feature has a dash, and
one that does not get there has the limit after which the scenario was stopped.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from processes import free_port  # noqa: E402  # a sibling, found only now

BIN = Path(sys.executable).parent
WORKERS = 4
CONNECTIONS = 20
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
WAIT_S = 45.0

APP = """
import os, sys, time, threading
from pathlib import Path
import sniffio

HERE = Path(__file__).parent

async def pause(seconds):
    if sniffio.current_async_library() == "trio":
        import trio
        await trio.sleep(seconds)
    else:
        import asyncio
        await asyncio.sleep(seconds)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    path = scope["path"]
    if path == "/block":
        (HERE / "blocked").touch()
        time.sleep(600)
    if path == "/slow":
        (HERE / "slow").touch()
        await pause(3)
    if path == "/upload":
        while (await receive()).get("more_body"):
            pass
    if path in ("/sse", "/flood"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            body = b"x" * 1_000_000 if path == "/flood" else b"data: x\\n\\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await pause(0.05)
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
DIES = "\nwith open(HERE / 'starts', 'a') as f: f.write('x')\nthreading.Timer(1, os._exit, [9]).start()\n"

# All get the same grace, so that their ends can be compared; everything else is as each of them comes.
GRACE_S = 5
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "umbel serve -w": lambda port: [
        str(BIN / "umbel"), "serve", "-w", str(WORKERS), "app:app", "--bind", f"127.0.0.1:{port}",
        "--graceful-timeout", f"{GRACE_S}s",
    ],
    "gunicorn, uvicorn workers": lambda port: [
        str(BIN / "gunicorn"), "-w", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker", "app:app",
        "--bind", f"127.0.0.1:{port}", "--graceful-timeout", str(GRACE_S),
    ],
    "uvicorn --workers": lambda port: [
        str(BIN / "uvicorn"), "--workers", str(WORKERS), "app:app", "--port", str(port), "--log-level", "warning",
        "--timeout-graceful-shutdown", str(GRACE_S),
    ],
    "hypercorn -w": lambda port: [
        str(BIN / "hypercorn"), "-w", str(WORKERS), "app:app", "--bind", f"127.0.0.1:{port}",
        "--graceful-timeout", str(GRACE_S),
    ],
}  # fmt: skip
RELOADS = frozenset({"umbel serve -w", "gunicorn, uvicorn workers", "uvicorn --workers"})


@dataclass
class Tree:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path

    def workers(self) -> list[int]:
        """Its children that serve, found by what they answer."""
        return [pid for pid in children(self.process.pid) if "resource_tracker" not in command_line(pid)]

    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")

    async def get(self, path: str = "/", within: float = 5.0) -> bytes:
        """One request on its own connection; empty if it fails."""
        with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(within):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                return b"".join([piece async for piece in stream])
        return b""

    async def up(self, within: float = WAIT_S) -> bool:
        """Wait until every worker has answered or enough time has passed."""
        seen: set[bytes] = set()
        with trio.move_on_after(within):
            while len(seen) < WORKERS:
                answer = await self.get(within=1)
                if answer:
                    seen.add(answer.rpartition(b"\n")[2])
                if len(seen) >= 1 and len(self.workers()) >= WORKERS and time.monotonic() - self.began > 6:
                    return True
                await trio.sleep(0.02)
        return bool(seen)

    began: float = field(default_factory=time.monotonic)


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return "resource_tracker"


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(parent) == pid and state != "Z":
                    found.append(int(entry.name))
    return found


@contextmanager
def running(name: str, app: str = APP, extra: list[str] | None = None) -> Iterator[Tree]:
    """Run the server in a directory of its own; at the end its session is killed."""
    directory = Path(tempfile.mkdtemp(prefix="bench-supervisor-"))
    (directory / "app.py").write_text(app)
    port = free_port()
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [*SERVERS[name](port), *(extra or [])],
            cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield Tree(process, port, directory)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # our own session: the server and what it has started
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


class Load:
    """Closed-loop clients on kept connections."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = self.failed = 0
        self.worst = 0.0

    async def client(self) -> None:
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            except OSError:
                self.failed += 1
                await trio.sleep(0.05)
                continue
            async with stream:
                while await self.request(stream):
                    await trio.sleep(0.005)

    async def request(self, stream: trio.SocketStream) -> bool:
        began, answer = time.perf_counter(), b""
        with suppress(trio.BrokenResourceError):
            await stream.send_all(REQUEST)
            while not answer.rpartition(b"\r\n\r\n")[2].isdigit():
                piece = await stream.receive_some()
                if not piece:
                    break
                answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            self.failed += 1
            return False
        self.answered += 1
        self.worst = max(self.worst, time.perf_counter() - began)
        return b"connection: close" not in answer.lower()


async def killed_worker(name: str) -> str:
    with running(name) as tree:
        await tree.up()
        await trio.sleep(11)  # Long enough to count as having started well.
        load = Load(tree.port)
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(load.client)
            await trio.sleep(1)
            before = tree.workers()
            began = time.monotonic()
            os.kill(before[0], signal.SIGKILL)
            replaced = None
            with trio.move_on_after(WAIT_S / 3):
                while replaced is None:
                    await trio.sleep(0.05)
                    fresh = set(tree.workers()) - set(before)
                    if fresh and any(_answers(pid, tree) for pid in fresh):
                        replaced = time.monotonic() - began
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        if tree.process.poll() is not None:
            return f"all stopped, {load.failed} failed"
        return f"{replaced:.1f} s, {load.failed} failed" if replaced is not None else f"never, {load.failed} failed"


def _answers(pid: int, tree: Tree) -> bool:
    """Whether the process polls its sockets: it has an epoll descriptor with them."""
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            if entry.read_text().count("tfd:") >= 2:
                return True
    return False


async def killed_master(name: str) -> str:
    with running(name) as tree:
        await tree.up()
        workers = tree.workers()
        tree.process.kill()
        tree.process.wait()
        await trio.sleep(8)
        return f"{sum(Path(f'/proc/{pid}').exists() for pid in workers)} of {len(workers)}"


async def blocked(name: str) -> str:
    with running(name) as tree:
        await tree.up()
        before = set(tree.workers())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.get, "/block", WAIT_S)
            while not (tree.directory / "blocked").exists():
                await trio.sleep(0.02)
            began = time.monotonic()
            with trio.move_on_after(WAIT_S):
                while not any(_answers(pid, tree) for pid in set(tree.workers()) - before):
                    await trio.sleep(0.05)
                took = time.monotonic() - began
                nursery.cancel_scope.cancel()
                line = APP.splitlines().index("        time.sleep(600)") + 1
                named = f"app.py:{line}" in tree.output() or f'app.py", line {line}' in tree.output()
                return f"{took:.1f} s, {'file and line reported' if named else 'place not reported'}"
            nursery.cancel_scope.cancel()
        return f"not within {WAIT_S:.0f} s"


async def reloads(name: str, times: int) -> str:
    if name not in RELOADS:
        return "has none"
    with running(name) as tree:
        await tree.up()
        load = Load(tree.port)
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(load.client)
            await trio.sleep(1)
            load.worst = 0.0
            for _ in range(times):
                before = set(tree.workers())
                os.kill(tree.process.pid, signal.SIGHUP)
                with trio.move_on_after(WAIT_S):
                    while set(tree.workers()) & before or len(tree.workers()) < WORKERS:
                        await trio.sleep(0.05)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return f"{load.failed} failed of {load.answered}, worst {load.worst * 1000:.0f} ms"


async def broken_reload(name: str) -> str:
    if name not in RELOADS:
        return "has none"
    with running(name) as tree:
        await tree.up()
        (tree.directory / "app.py").write_text("this is no Python\n")
        os.kill(tree.process.pid, signal.SIGHUP)
        await trio.sleep(8)
        answers = bool(await tree.get())
        reported = "SyntaxError" in tree.output()
        serves = "serves on" if answers else "serves no more"
        return f"{serves}{', reason reported' if reported else ''}"


async def dying(name: str) -> str:
    with running(name, APP + DIES) as tree:
        starts = tree.directory / "starts"
        await trio.sleep(30)
        restarts = max(0, (starts.stat().st_size if starts.exists() else 0) - WORKERS)
        ended = tree.process.poll()
        degraded = "degraded" if "master.degraded" in tree.output() else ""
        return f"{restarts}{', ' + degraded if degraded else ''}{f', exit {ended}' if ended is not None else ''}"


async def no_import(name: str) -> str:
    with running(name, "import nothing_of_that_name\n") as tree:
        began = time.monotonic()
        with trio.move_on_after(20):
            while tree.process.poll() is None:
                await trio.sleep(0.05)
            return f"exit {tree.process.returncode} after {time.monotonic() - began:.1f} s, {_tracebacks(tree)}"
        return f"still tries after 20 s, {_tracebacks(tree)}"


def _tracebacks(tree: Tree) -> str:
    count = tree.output().count("Traceback (most recent call last)")
    return "1 traceback" if count == 1 else f"{count} tracebacks"


RECYCLING = {
    "umbel serve -w": "--max-requests",
    "gunicorn, uvicorn workers": "--max-requests",
    "uvicorn --workers": "--limit-max-requests",
    "hypercorn -w": "--max-requests",
}


async def recycling(name: str) -> str:
    """Send requests, one of them slow, until all workers are replaced; report failures and the fewest workers."""
    with running(name, extra=[RECYCLING[name], "50"]) as tree:
        await tree.up()
        before = set(tree.workers())
        answers: list[bytes] = []
        fewest = WORKERS

        async def slow() -> None:
            answers.append(await tree.get("/slow", 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            load = Load(tree.port)
            for _ in range(CONNECTIONS):
                nursery.start_soon(load.client)
            with trio.move_on_after(WAIT_S / 3):
                while not answers or set(tree.workers()) & before:
                    now = set(tree.workers())
                    fewest = min(fewest, sum(pid in before or _answers(pid, tree) for pid in now))
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        outcome = "answered" if answers and answers[0].startswith(b"HTTP/1.1 200") else "cut off"
        return f"slow one {outcome}, {load.failed} of {load.answered + load.failed} failed, at least {fewest} up"


async def busy_stop(name: str) -> str:
    with running(name) as tree:
        await tree.up()
        answers: list[bytes] = []

        async def slow() -> None:
            answers.append(await tree.get("/slow", 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            while not (tree.directory / "slow").exists():
                await trio.sleep(0.02)
            tree.process.terminate()
        status = await _ended(tree)
        return f"{'answered' if answers[0].startswith(b'HTTP/1.1 200') else 'cut off'}, {status}"


async def blocked_stop(name: str) -> str:
    with running(name) as tree:
        await tree.up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.get, "/block", WAIT_S)
            while not (tree.directory / "blocked").exists():
                await trio.sleep(0.02)
            tree.process.terminate()
            ended = await _ended(tree)
            nursery.cancel_scope.cancel()
        return ended


async def stuck_stop(name: str) -> str:
    upgrade = (
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with running(name) as tree:
        await tree.up()
        requests = [
            b"GET /sse HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbeginning",
            upgrade,
        ]
        streams = [await trio.open_tcp_stream("127.0.0.1", tree.port) for _ in requests]
        for stream, request in zip(streams, requests, strict=True):
            await stream.send_all(request)
        await trio.sleep(1)
        tree.process.terminate()
        ended = await _ended(tree)
        closing = b""
        with suppress(trio.BrokenResourceError), trio.move_on_after(2):
            async for piece in streams[-1]:
                closing += piece
        code = closing.rpartition(b"\r\n\r\n")[2][2:4]
        for stream in streams:
            await trio.aclose_forcefully(stream)
        return f"{ended}, WebSocket {int.from_bytes(code, 'big') if code else 'cut'}"


async def _ended(tree: Tree) -> str:
    began = time.monotonic()
    with trio.move_on_after(WAIT_S):
        while tree.process.poll() is None:
            await trio.sleep(0.02)
        return f"end after {time.monotonic() - began:.1f} s"
    return f"no end within {WAIT_S:.0f} s"


def scenarios(quick: bool) -> dict[str, Callable[[str], Awaitable[str]]]:
    times = 2 if quick else 20
    return {
        "SIGKILL of a worker under load: replaced after": killed_worker,
        "SIGKILL of the master: workers left after 8 s": killed_master,
        "a blocked loop: replaced after": blocked,
        f"{times} reloads (HUP) under {CONNECTIONS} keep-alive connections": lambda name: reloads(name, times),
        "HUP with broken code": broken_reload,
        "an app that dies 1 s after import: restarts in 30 s": dying,
        "an app that cannot be imported": no_import,
        "max_requests of 50, one slow request in flight": recycling,
        "SIGTERM, a request of 3 s in flight: end, counted from the end of the request": busy_stop,
        f"SIGTERM, one loop blocked, {GRACE_S} s of grace": blocked_stop,
        f"SIGTERM, stream, stuck reader, upload, WebSocket; {GRACE_S} s of grace": stuck_stop,
    }


async def bounded(scenario: Callable[[str], Awaitable[str]], name: str) -> str:
    """Return one figure, or none: a server that does not start must not stop the others."""
    with trio.fail_after(600):
        return await scenario(name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="part of a scenario's name")
    arguments = parser.parse_args()
    rows = []
    for title, scenario in scenarios(arguments.quick).items():
        if arguments.only not in title:
            continue
        cells = []
        for name in SERVERS:
            try:
                cells.append(trio.run(bounded, scenario, name))
            except Exception as error:  # noqa: BLE001 - one server's trouble must not hide the others' figures
                cells.append(f"({type(error).__name__})")
            print(f"{title} | {name} | {cells[-1]}", flush=True)
        rows.append(f"| {title} | {' | '.join(cells)} |")
    head = f"| | {' | '.join(SERVERS)} |\n|---|{'---|' * len(SERVERS)}"
    table = "\n".join([head, *rows])
    print(f"\n{table}")
    if not arguments.quick and not arguments.only:
        machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {WORKERS} workers each."
        (HERE / "supervisor.md").write_text(f"<!-- Made by `make bench-supervisor`. -->\n\n{machine}\n\n{table}\n")


if __name__ == "__main__":
    main()
