"""The processes of the benchmarks of the whole path: pinned to a core, controlled by lines, and measured.

Each process is started by a context manager, which ends it by its pid.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from processes import CORES, free_port, pinned  # noqa: E402  # a sibling, found only now

PAGE = os.sysconf("SC_PAGE_SIZE")


def pin_this(core: int) -> None:
    """Pin this process to one core."""
    os.sched_setaffinity(0, {CORES[core % len(CORES)]})


class Process:
    """A process that is controlled by lines."""

    def __init__(self, core: int, command: list[str], directory: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [*pinned(core), *command], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """The next line of what it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} has ended; what it said stands above")
        return line.strip()

    def send_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.send_line(line)
        return self.line()


def cpu(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, including ended ones."""
    # The clock of another process's CPU time, as clock_getcpuclockid(3) makes its number.
    return time.clock_gettime((~pid << 3) | 2)


def main_cpu(pid: int) -> float:
    """Return the CPU seconds of the main thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def switches(pid: int) -> int:
    """Return the number of context switches of the main thread."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def resident(pid: int) -> int:
    """Return the memory of the process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def running(core: int, *command: str, directory: Path | None = None) -> Iterator[Process]:
    """Run a process until the block ends; it is terminated, and killed if it does not end in time."""
    process = Process(core, list(command), directory)
    try:
        yield process
    finally:
        process.process.terminate()
        try:
            process.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.process.kill()
            process.process.communicate()


@contextmanager
def script(core: int, name: str, *arguments: str) -> Iterator[Process]:
    """Run one of the scripts beside this file."""
    with running(core, sys.executable, str(HERE / name), *arguments) as process:
        yield process


UMBEL = (sys.executable, "-m", "umbel", "serve", "-b", "127.0.0.1:0", "-c")


@contextmanager
def gateway(config: str, *command: str, hypercorn: str = "") -> Iterator[tuple[Process, int]]:
    """Run a gateway with this configuration in a directory of its own; gives its port.

    ``command`` gets the configuration's path as its last argument; it is `umbel serve` where none is given.
    ``hypercorn``: the content of ``hypercorn.toml``, if there is one.
    """
    with tempfile.TemporaryDirectory(prefix="bench-path-") as directory:
        file = Path(directory) / "umbel.toml"
        file.write_text(config)
        if hypercorn:
            file.with_name("hypercorn.toml").write_text(hypercorn)
        with running(0, *(command or UMBEL), str(file), directory=Path(directory)) as process:
            announced = process.line()  # Umbel runs on http://127.0.0.1:54321 (Ctrl-C stops it)
            yield process, int(announced.partition(" on ")[2].split()[0].rpartition(":")[2])


class Supervised:
    """A master and its workers."""

    def __init__(self, master: Process, port: int, directory: Path) -> None:
        self.master = master
        self.port = port
        self.directory = directory

    def status(self) -> list[dict[str, Any]]:
        """What `umbel ctl status` says of each worker."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.directory / "logs" / "admin.sock"))
            sock.sendall(b"GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        status = json.loads(answer.partition(b"\r\n\r\n")[2])
        return [worker for slot in status["slots"] for worker in slot["workers"]]

    def requests(self) -> Counter[str]:
        """How many requests each worker has recorded."""
        counts: Counter[str] = Counter()
        with (self.directory / "logs" / "access.jsonl").open() as records:
            for record in records:
                counts[str(json.loads(record).get("worker"))] += 1
        return counts


@contextmanager
def supervised(config: str, workers: int) -> Iterator[Supervised]:
    """Run a master with ``workers`` workers on one core, and wait until they are ready."""
    with tempfile.TemporaryDirectory(prefix="bench-path-") as name:
        directory = Path(name)
        (directory / "umbel.toml").write_text(config)
        port = free_port()
        options = ["-w", str(workers), "-b", f"127.0.0.1:{port}"]
        with running(0, sys.executable, "-m", "umbel", "serve", *options, directory=directory) as master:
            tree = Supervised(master, port, directory)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                time.sleep(0.2)
                if master.process.poll() is not None:
                    raise SystemExit("the master has ended; what it said stands above")
                with suppress(OSError):
                    if [worker["state"] for worker in tree.status()].count("serving") == workers:
                        break
            else:
                raise SystemExit("the workers did not get ready")
            yield tree
