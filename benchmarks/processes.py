"""The processes that ``gateways.py`` starts: each pinned to a core, with a directory of its own, ended with the block.

Each process begins a session, and only that session is killed.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STOP_S = 10.0
"""How long a process may take to end in good order, its log written."""
IDLE_SHARE = 0.05
"""A tree of processes that uses less of a core than this has nothing left to do."""


CORES = sorted(os.sched_getaffinity(0))
"""Those that this process had when it began; it may pin itself to one of them later."""


def ended(number: int, frame: FrameType | None) -> None:
    """Raise an exception at a signal, so that all processes are ended."""
    raise SystemExit(128 + number)


def pinned(core: int) -> list[str]:
    """Return the prefix of a command that pins it to one core; empty if there is only one core."""
    return ["taskset", "-c", str(CORES[core % len(CORES)])] if len(CORES) > 1 else []


def free_port() -> int:
    """Return a free port below the ephemeral ones, so that no other process gets it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def settled(cpu: Callable[[], float], within: float) -> bool:
    """Wait until what has used ``cpu()`` seconds has nothing left to do; False if it had not ``within`` that time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        used, began = cpu(), time.monotonic()
        time.sleep(0.1)
        if cpu() - used < IDLE_SHARE * (time.monotonic() - began):
            return True
    return False


class Tree:
    """A process with its descendants."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self._process = process
        self._directory = directory

    def alive(self) -> bool:
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """The processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
                    if int(session) == self._process.pid:
                        found.append(int(entry.name))
        return found

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads of all its processes, to the nanosecond."""
        nanoseconds = 0
        for pid in self.pids():
            for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    nanoseconds += int(schedstat.read_text().split()[0])
        return nanoseconds / 1e9

    def settle(self, within: float) -> bool:
        """Wait until it has nothing left to do; False if it had not by then."""
        return settled(self.cpu, within)

    def complaint(self) -> str:
        """The end of what it said."""
        said = b"".join((self._directory / name).read_bytes() for name in ("stdout", "stderr"))
        return said[-2000:].decode(errors="replace")

    def stop(self) -> None:
        """End it in good order if it can, and in any case."""
        if self.alive():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # our own session: the process and what it has started
        self._process.wait()


@contextmanager
def running(command: list[str], core: int, directory: Path, environment: Mapping[str, str]) -> Iterator[Tree]:
    """Run the command in this directory on this core; its output goes to ``stdout`` and ``stderr`` there."""
    with (directory / "stdout").open("wb") as output, (directory / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [*pinned(core), *command],
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    tree = Tree(process, directory)
    try:
        yield tree
    finally:
        tree.stop()
