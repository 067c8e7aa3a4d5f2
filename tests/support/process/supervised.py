"""A master with real workers, which serves a test's application and takes commands over its admin socket.

async with supervised(directory, workers=2) as master: ...
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.process.admin import ask_admin
from tests.support.process.processes import PYTHON, Child, started

TEST_TIMEOUT_S = 50.0
"""The timeout of each wait: ten times the expected time on a busy machine."""

APP = """
import os, sys, time
from pathlib import Path
import trio

HERE = Path(__file__).parent
VERSION = 1

async def app(scope, receive, send):
    await {"lifespan": lifespan, "http": http, "websocket": websocket}[scope["type"]](scope, receive, send)

async def lifespan(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

async def http(scope, receive, send):
    path = scope["path"]
    if path == "/block":
        (HERE / "blocked").touch()
        time.sleep(600)  # the line that blocks
    if path == "/exit":
        os._exit(9)
    if path == "/orphan":
        os.system("sh -c 'sleep 0.1 & echo $! > stranger' &")
    if path == "/slow":
        (HERE / "slow").touch()
        while not (HERE / "release").exists():
            await trio.sleep(0.01)
    if path == "/upload":
        (HERE / "uploading").touch()
        while (await receive()).get("more_body"):
            pass
    if path in ("/sse", "/flood"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = b"x" * 1_000_000 if path == "/flood" else b"data: x\\n\\n"
        while True:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await trio.sleep(0.02)
    body = b"%d %d" % (os.getpid(), VERSION)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
"""


class Supervised:
    """A running master."""

    def __init__(self, child: Child, directory: Path) -> None:
        self.child = child
        self.directory = directory
        self.port = 0
        self.pid = 0

    async def line(self, containing: str) -> str:
        """Return the next line of the master's output that contains the text."""
        return await self.child.line(containing)

    async def begun(self) -> None:
        """Wait until the master reports that it serves, and read its port and pid."""
        line = await self.child.line("master.ready")
        self.port = int(line.split(" on http://127.0.0.1:")[1].split()[0])
        self.pid = int(line.split("[")[1].split("]")[0])

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send one command over the admin socket and return its answer with ``ok``, as ``umbel ctl --json`` does."""
        command = request.pop("command")
        get = command in ("status", "tree")
        method, target = ("GET", f"/{command}") if get else ("POST", f"/ctl/{command}")
        status, answer = await ask_admin(self.socket, method, target, None if get else request)
        return {"ok": True, **answer} if status == 200 else {"ok": False, "error": answer["detail"]}

    @property
    def socket(self) -> Path:
        """The path of the admin socket."""
        return self.directory / "logs" / "admin.sock"

    async def pids(self) -> dict[int, int]:
        """Return the pid of the newest worker of each slot."""
        slots = (await self.ask(command="status"))["slots"]
        return {slot["slot"]: slot["workers"][-1]["pid"] for slot in slots if slot["workers"]}

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    async def get(self, path: str = "/") -> bytes:
        """Send one request on a new connection and return the bytes of the response."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return b"".join([piece async for piece in stream])

    async def connected(self, request: bytes, until: bytes = b"\r\n\r\n") -> trio.SocketStream:
        """Open a connection, send the request, and return the connection once ``until`` has been received."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(request)
        received = b""
        while until not in received:
            piece = await stream.receive_some()
            assert piece, received
            received += piece
        return stream

    async def appeared(self, name: str) -> None:
        """Wait until the application has created a file of this name."""
        with trio.fail_after(TEST_TIMEOUT_S):
            while not (self.directory / name).exists():
                await wait_all_tasks_blocked(0.01)


def write_app(directory: Path, text: str = APP) -> None:
    """Write the module of the application."""
    (directory / "served.py").write_text(text)


@asynccontextmanager
async def supervised(
    directory: Path,
    *options: str,
    workers: int = 2,
    app: str | None = "served:app",
    env: Mapping[str, str] | None = None,
    ready: bool = True,
) -> AsyncGenerator[Supervised, None]:
    """Run a master that serves the application in ``directory`` on a free port; it is stopped after the block.

    Args:
        options: further options of ``umbel serve``.
        workers: the number of workers.
        app: the application as ``module:name``; None: the one of ``umbel.toml``.
        env: further environment variables.
        ready: wait until the master serves.
    """
    if app is not None and not (directory / "served.py").exists():
        write_app(directory)
    command = [PYTHON, "-m", "umbel", "serve", *([app] if app else []), "-w", str(workers), "--bind", "127.0.0.1:0"]
    async with started(*command, *options, cwd=directory, env=env) as child:
        master = Supervised(child, directory)
        if ready:
            await master.begun()
        yield master
        if child.returncode is None and ready:
            # SIGQUIT is the quick stop, which ends the workers too.
            with suppress(ProcessLookupError):
                master.signal(signal.SIGQUIT)
            await child.end()


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended_all(pids: list[int], within: float = TEST_TIMEOUT_S) -> None:
    """Wait until no process is alive, for at most ``within`` seconds.

    Raises:
        trio.TooSlowError: a process is still alive.
    """
    with trio.fail_after(within):
        while any(map(is_alive, pids)):
            await wait_all_tasks_blocked(0.02)
