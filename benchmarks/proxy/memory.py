"""The memory of streams: 1,000 server-sent event streams and 1,000 WebSockets through one process of each proxy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from path_processes import resident
from processes import pinned

from .cases import SETTLE_S
from .checks import IDLE, SOCKET
from .contestants import Contestant

HERE = Path(__file__).resolve().parent
COUNT = 1000
WARM = 100
OPEN_S = 30.0
KINDS = {"server-sent events": IDLE, "WebSockets": SOCKET}


class Held(NamedTuple):
    """The memory of a proxy without and with its streams."""

    opened: int
    before: int
    after: int
    """Bytes of all its processes."""

    @property
    def each(self) -> float:
        return (self.after - self.before) / self.opened if self.opened else 0.0


@contextmanager
def _held(port: int, path: str, count: int) -> Iterator[int]:
    """Hold streams open; gives how many have brought something."""
    command = [*pinned(1), sys.executable, str(HERE / "streams.py"), "hold", str(port), path, str(count), str(OPEN_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline() or 0)
            process.stdin.close()
            process.wait(30)
        finally:
            process.kill()


def _memory(contestant: Contestant) -> int:
    """The memory of all processes of the proxy, when it has nothing left to do."""
    assert contestant.tree is not None
    contestant.tree.settle(SETTLE_S)
    return sum(resident(pid) for pid in contestant.tree.pids())


def held(contestant: Contestant, kind: str, count: int) -> Held:
    """Measure a proxy that was just started: what it makes once is made by ``WARM`` streams before."""
    port = contestant.port("")
    with _held(port, KINDS[kind], WARM):
        pass
    time.sleep(0.5)
    before = _memory(contestant)
    with _held(port, KINDS[kind], count) as opened:
        return Held(opened, before, _memory(contestant))
