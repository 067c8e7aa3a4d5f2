"""The processes of a bench of the whole path: pinned to a core, talked to by lines, and asked what they use.

Used by ``where.py`` and ``path.py``. Every process is started by a context manager that ends it, by its number.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = os.sysconf("SC_PAGE_SIZE")


def pinned(core: int) -> list[str]:
    """What a command begins with to run on one core; nothing where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)])] if len(cores) > 1 else []


class Process:
    """A process that prints lines and reads some."""

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

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.line()


def cpu(pid: int) -> float:
    """Seconds of CPU that all threads of a process have had, ended ones too."""
    # The clock of another process's CPU time, as clock_getcpuclockid(3) makes its number.
    return time.clock_gettime((~pid << 3) | 2)


def main_cpu(pid: int) -> float:
    """Seconds of CPU of its main thread alone."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident(pid: int) -> int:
    """Bytes of memory that it holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def running(core: int, *command: str, directory: Path | None = None) -> Iterator[Process]:
    """A process that ends with the block: asked to, and killed if it takes longer than the stopping of a gateway."""
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
    """One of the scripts beside this file."""
    with running(core, sys.executable, str(HERE / name), *arguments) as process:
        yield process


@contextmanager
def gateway(config: str, *command: str, core: int = 0) -> Iterator[tuple[Process, int]]:
    """A gateway with this configuration, in a directory of its own, and its port.

    ``command`` gets the configuration's path as its last argument.
    """
    with tempfile.TemporaryDirectory(prefix="bench-path-") as directory:
        file = Path(directory) / "umbel.toml"
        file.write_text(config)
        with running(core, *command, str(file), directory=Path(directory)) as process:
            told = process.line()  # Umbel runs on http://127.0.0.1:54321 (Ctrl-C stops it)
            yield process, int(told.partition(" on ")[2].split()[0].rpartition(":")[2])
