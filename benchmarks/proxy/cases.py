"""What ``make bench-proxy`` measures of each proxy, one sample at a time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processes import Tree, pinned
from wrk import load

from .checks import FILE, ITEM, LARGE, POST, SLOW, SPREAD, TOGETHER, UPLOAD
from .contestants import Contestant
from .origin import STREAMS

HERE = Path(__file__).resolve().parent
CLIENTS = 64
TRANSFERS = 4
"""Large bodies at once."""
SLOW_ONES = 10
"""Slow responses at once."""
PATIENCE_S = 60.0
SETTLE_S = 20.0
"""How long a proxy may go on with what nobody waits for any more, before the next one is asked."""


class Sample(NamedTuple):
    """One measurement of a proxy."""

    rate: float
    """Good responses, events or bytes per second."""
    cpu: float | None
    """Seconds of CPU of all its processes for each of these."""
    p50: float | None
    p99: float | None
    """Seconds."""
    errors: int
    helpers: float
    """The share of the other core that upstreams and load had."""


class Seen(NamedTuple):
    """What a load has seen."""

    seconds: float
    count: int
    errors: int
    p50: float | None = None
    p99: float | None = None


def _script(name: str, *arguments: object) -> list[float]:
    """Run one of the scripts of this folder on the second core; return the JSON that it prints."""
    command = [*pinned(1), sys.executable, str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-1000:]}")
    found: list[float] = json.loads(done.stdout)
    return found


def _small(contestant: Contestant, seconds: int) -> Seen:
    seen = load(pinned(1), contestant.port(ITEM), ITEM, CLIENTS, seconds)
    return Seen(seen.seconds, seen.good, seen.bad + seen.failed, seen.p50, seen.p99)


def _post(contestant: Contestant, seconds: int) -> Seen:
    seen = load(pinned(1), contestant.port(ITEM), ITEM, CLIENTS, seconds, POST)
    return Seen(seen.seconds, seen.good, seen.bad + seen.failed, seen.p50, seen.p99)


def _transfers(kind: str, path: str) -> Callable[[Contestant, int], Seen]:
    def measured(contestant: Contestant, seconds: int) -> Seen:
        port = contestant.port(path)
        took, _, failed, count = _script("transfers.py", kind, port, path, TRANSFERS, seconds, LARGE)
        return Seen(took, int(count), int(failed))

    return measured


def _streams(kind: str, path: str, count: int) -> Callable[[Contestant, int], Seen]:
    def measured(contestant: Contestant, seconds: int) -> Seen:
        took, seen, failed, p50, p99, _ = _script("streams.py", kind, contestant.port(path), path, count, seconds)
        return Seen(took, int(seen), int(failed), p50, p99)

    return measured


class Case(NamedTuple):
    """One row of the tables for each proxy."""

    name: str
    what: str
    unit: str
    run: Callable[[Contestant, int], Seen]


REQUEST, BYTES, LATENCY = "request", "byte", "latency"
SMALL = Case("small", f"GET of 1.7 kB, {CLIENTS} clients", REQUEST, _small)
POSTED = Case("post", f"POST of 1 kB, {CLIENTS} clients", REQUEST, _post)
DOWNLOAD = Case("download", f"10 MB down, {TRANSFERS} at once", BYTES, _transfers("download", FILE))
UPLOADED = Case("upload", f"10 MB up, {TRANSFERS} at once", BYTES, _transfers("upload", UPLOAD))
TO_FIRST = Case("first", "first byte of a slow response", LATENCY, _streams("first", SLOW, SLOW_ONES))
EVENTS = Case("events", f"an event, {STREAMS} streams in turn", LATENCY, _streams("events", SPREAD, STREAMS))
BURST = Case("burst", f"an event, {STREAMS} streams at once", LATENCY, _streams("events", TOGETHER, STREAMS))
CASES = (SMALL, POSTED, DOWNLOAD, UPLOADED, TO_FIRST, EVENTS, BURST)


def _children() -> float:
    """Return the CPU seconds of ended child processes, which are those of the load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sampled(case: Case, contestant: Contestant, seconds: int, services: list[Tree]) -> Sample:
    """Measure one case of one proxy. What a proxy does not manage is what the sample says."""
    helpers = sum(service.cpu() for service in services) + _children()
    cpu, began = contestant.cpu(), time.perf_counter()
    seen = case.run(contestant, seconds)
    took = time.perf_counter() - began
    cpu = contestant.cpu() - cpu
    helpers = sum(service.cpu() for service in services) + _children() - helpers
    if contestant.tree is not None:
        if not contestant.tree.alive():
            contestant.note("ended during the bench")
        elif not contestant.tree.settle(SETTLE_S):
            contestant.note(f"was still busy {SETTLE_S:g} s after the load of '{case.what}' had gone")
    each = cpu / seen.count if seen.count and contestant.tree is not None else None
    return Sample(seen.count / seen.seconds, each, seen.p50, seen.p99, seen.errors, helpers / took)
