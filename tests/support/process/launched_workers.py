"""Server processes for a module of tests, started with ``umbel serve`` or with the command ``hypercorn``.

    with launched("umbel serve", directory, config) as server: ...

The context managers are synchronous, so that a fixture with module scope can use them. Tests connect to
``server.port`` with trio.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import write
from tests.support.process.processes import START_S_MAX, environment

LAUNCHERS = ("umbel serve", "stock hypercorn")

SETTINGS = """
bind = ["127.0.0.1:0"]
worker_class = "trio"
include_server_header = false
errorlog = "-"
loglevel = "INFO"
"""

_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "umbel serve": ("umbel", "serve"),
    "stock hypercorn": ("hypercorn", "-c", "hypercorn.toml"),
}
# The bits of Linux's clock id for the CPU clock of another process; see clock_getcpuclockid(3).
_CPUCLOCK_SCHED = 2
_SAYS_WHERE = re.compile(r"(?:[Rr]uns|[Rr]unning) on https?://[^ ]*:(\d+)|Listening at: https?://[^ ]*:(\d+)")


class Launched:
    """A running server: its port, its process, its output and its records."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, worker: int, directory: Path) -> None:
        self.process = process
        self.port = port
        self.worker = worker
        """The pid of the serving process; with the stock command the child of Hypercorn's master."""
        self.directory = directory
        self.connections_broken = 0
        """A counter for tests that break connections."""

    @property
    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")

    @property
    def lives(self) -> bool:
        """Whether the worker that was started first still runs."""
        return self.process.poll() is None and _worker_of(self.process.pid) == self.worker

    def records(self, stream: str = "access", skip: int = 0) -> list[dict[str, Any]]:
        """Return the records in a stream's file, without the first ``skip``."""
        whole, _, _ = (self.directory / "logs" / f"{stream}.jsonl").read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.split(b"\n")[skip:] if line]

    def complaints(self) -> list[dict[str, Any]]:
        """Return the records of the app stream with level WARNING or above."""
        return [record for record in self.records("app") if record["severity"] >= 13]

    async def recorded(self, count: int, stream: str = "access", skip: int = 0) -> list[dict[str, Any]]:
        """Return the records once there are ``count`` of them, after at most 5 seconds.

        A record is written a moment after the response, so a test has to wait for it.
        """
        with trio.move_on_after(5):
            while len(self.records(stream, skip)) < count:
                await wait_all_tasks_blocked(0.002)
        return self.records(stream, skip)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the worker has used."""
        return time.clock_gettime((~self.worker << 3) | _CPUCLOCK_SCHED)

    def resident(self) -> int:
        """Return the resident memory of the worker in bytes."""
        pages = int(Path(f"/proc/{self.worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def resident_from_now(self) -> int:
        """Return the resident memory, and reset the maximum that ``peak`` returns."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")
        return self.resident()

    def peak(self) -> int:
        """Return the maximum of the resident memory since ``resident_from_now``, in bytes."""
        text = Path(f"/proc/{self.worker}/status").read_text()
        (found,) = re.findall(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
        return int(found) * 1024

    def descriptors(self) -> int:
        """Return the number of file descriptors that the worker has open."""
        return sum(1 for _ in Path(f"/proc/{self.worker}/fd").iterdir())


@contextmanager
def launched(
    launcher: str,
    directory: Path,
    config: str | None = None,
    *,
    app: str | None = None,
    settings: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Launched]:
    """Run a server until the block ends.

    Args:
        launcher: one of LAUNCHERS.
        config: the text of ``umbel.toml``.
        app: the application to serve, as ``module:name``, instead of the configuration's.
        settings: further settings of Hypercorn.
        env: further environment variables.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if config is not None:
        write(directory, config)
    (directory / "hypercorn.toml").write_text(SETTINGS + settings)
    command = [sys.executable, "-m", *_COMMANDS[launcher]]
    if launcher == "stock hypercorn":
        command.append(app or "umbel.asgi:app")
    elif app is not None:
        command.append(app)
    with _run(command, directory, env or {}) as server:
        yield server


@contextmanager
def scripted(script: str, directory: Path) -> Iterator[Launched]:
    """Run a Python program that serves and prints "Running on" with its address, until the block ends."""
    with _run([sys.executable, "-c", script], directory, {}) as server:
        yield server


@contextmanager
def commanded(command: Sequence[str], directory: Path) -> Iterator[Launched]:
    """Run another server, which prints its address in the words of uvicorn or gunicorn, until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with _run(command, directory, {}) as server:
        yield server


@contextmanager
def _run(command: Sequence[str], directory: Path, env: Mapping[str, str]) -> Iterator[Launched]:
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**environment(), "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        port = _await_port(process, directory / "output")
        yield Launched(process, port, _worker_of(process.pid), directory)
    finally:
        _stop(process)


def _await_port(process: subprocess.Popen[bytes], output: Path) -> int:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if found := _SAYS_WHERE.search(output.read_text(errors="replace")):
            return int(found[1] or found[2])
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(f"the server did not print its address; its output:\n{output.read_text(errors='replace')}")


def _worker_of(pid: int) -> int:
    """Return the pid of the worker that Hypercorn's master has spawned, or ``pid`` if there is no master."""
    for child in _children(pid):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    return pid


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process with SIGTERM; after a timeout kill it and its workers, which would survive a killed master."""
    workers = _children(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(START_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
