"""The speed of upstream calls compared with other clients: ``make bench-upstream``; ``ARGS=--quick`` for a short run.

All clients call the same upstream, in turn, in five interleaved rounds, so that a change of the machine's speed affects
all alike. Clients run on one core and the upstream on another. Prints one table and writes it into
``benchmarks/upstream.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from clients import CLIENTS, Sample  # noqa: E402  # a sibling, found only now

LEVELS = (1, 32, 256, 1000)
STOCK, PEER = "httpx, stock", "aiohttp on uvloop"
OURS, CLIENT, LIMIT = "ours, a call", "ours, AsyncClient", "bare llhttp loop"
RATE_MIN = 50.0
"""Calls per second; a client that makes fewer is not asked again, for it would take all the time there is."""
Samples = dict[tuple[str, int], list[Sample]]


def pinned(core: int) -> list[str]:
    """Return the prefix of a command that pins it to one core; empty if there is only one core."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)])] if len(cores) > 1 else []


@contextmanager
def running(core: int, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the scripts until the block ends."""
    command = [*pinned(core), sys.executable, str(HERE / script), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Upstream:
    """The upstream, and its use of its core."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._stat = Path(f"/proc/{process.pid}/stat")
        assert process.stdout is not None
        self.port = process.stdout.readline().strip()

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(process: subprocess.Popen[str], in_flight: int, seconds: float) -> Sample:
    """Run one measurement in a client's process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{in_flight} {seconds}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or "null")
    if answer is None:
        raise SystemExit(f"a client failed at {in_flight} in flight; what it said stands above")
    return Sample(*answer)


def measure(levels: tuple[int, ...], rounds: int, seconds: float) -> tuple[Samples, float]:
    """Measure all clients at all levels, round by round, and the maximal use of the upstream's core."""
    samples: Samples = {(name, level): [] for level in levels for name in CLIENTS}
    busiest = 0.0
    with ExitStack() as stack:
        upstream = Upstream(stack.enter_context(running(1, "stub.py")))
        clients = {name: stack.enter_context(running(0, "clients.py", name, upstream.port)) for name in CLIENTS}
        for turn in range(rounds):
            for level, (name, client) in itertools.product(levels, clients.items()):
                before = samples[name, level]
                if before and before[-1].rate < RATE_MIN:
                    continue
                began, used = time.perf_counter(), upstream.cpu()
                before.append(ask(client, level, seconds))
                busiest = max(busiest, (upstream.cpu() - used) / (time.perf_counter() - began))
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    return samples, busiest


# The table


def microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e6:,.0f}"


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e3:.2f}"


def median(samples: list[Sample], field: str) -> float | None:
    values = [value for sample in samples if (value := getattr(sample, field)) is not None]
    return statistics.median(values) if values else None


def times(ours: list[Sample], theirs: list[Sample], field: str) -> str:
    """Return the ratio by rounds, above 1 if better: the median and the spread."""
    ratios = []
    for one, other in zip(ours, theirs, strict=False):
        mine, its = getattr(one, field), getattr(other, field)
        if mine and its:
            ratios.append(mine / its if field == "rate" else its / mine)
    if not ratios:
        return "-"
    spread = f" ({two_digits(min(ratios))}-{two_digits(max(ratios))})" if len(ratios) > 1 else ""
    return two_digits(statistics.median(ratios)) + spread


def two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


HEADER = (
    "| in flight | client | calls/s | p50 ms | p99 ms | CPU µs/call "
    "| x aiohttp/uvloop, rate | CPU | x stock httpx, rate | CPU |\n"
    "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def table(samples: Samples, levels: tuple[int, ...]) -> str:
    """Return all results as Markdown."""
    rows = []
    for level in levels:
        stock, peer = samples[STOCK, level], samples[PEER, level]
        for name in CLIENTS:
            mine = samples[name, level]
            rate = median(mine, "rate") or 0.0
            cells = (
                f"{level:,}",
                name,
                f"{rate:,.0f}",
                milliseconds(median(mine, "p50")),
                milliseconds(median(mine, "p99")),
                microseconds(median(mine, "cpu")),
                *(times(mine, other, field) for other in (peer, stock) for field in ("rate", "cpu")),
            )
            rows.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(rows)


def bars(samples: Samples, levels: tuple[int, ...]) -> str:
    """Return the bars with the results."""
    if 32 not in levels:
        return ""
    ours, client = samples[OURS, 32], samples[CLIENT, 32]
    lines = [
        ("our call, x aiohttp/uvloop, 32 in flight", "≥ 3", times(ours, samples[PEER, 32], "cpu")),
        ("our call, x stock httpx, 32 in flight", "≥ 30", times(ours, samples[STOCK, 32], "cpu")),
        ("ours through AsyncClient, x stock httpx, 32 in flight", "≥ 7", times(client, samples[STOCK, 32], "cpu")),
        ("the bare loop, x our call, 32 in flight", "", times(samples[LIMIT, 32], ours, "cpu")),
    ]
    if 1000 in levels:
        lines.append(("our call, cost at 32 ÷ cost at 1,000", "≥ 1", times(samples[OURS, 1000], ours, "cpu")))
    rows = "".join(f"| {what} | {bar} | {reached} |\n" for what, bar, reached in lines)
    return "| by CPU per call | bar | reached |\n|---|---:|---:|\n" + rows


def report(samples: Samples, levels: tuple[int, ...], busiest: float, rounds: int, seconds: float) -> str:
    """Return the whole report."""
    return f"""# The upstream path beside its peers

Written by `make bench-upstream`: medians of {rounds} interleaved rounds of {seconds:g} s, with the spread of the
ratios from round to round in brackets. Python {platform.python_version()}, {platform.machine()},
{os.cpu_count()} cores; the clients on one core, the upstream (a uvloop stub that parses nothing) on another, of which
it used at most {busiest:.0%}. Absolute figures move with the machine's mood; CPU per call moves least.

"httpx, stock" is `httpx.AsyncClient` as it comes, but for timeouts and the environment (off for all); the others may
open as many connections as calls are in flight. "ours, AsyncClient" is httpx's client over our `Pool`, and "policies"
over a `Transport` with retries and a breaker; "ours, a call" is made as a composition makes it, its request
anew each time. The bare loop is the limit: llhttp on plain sockets, with no pool, no check and no error handling.
"-": no call ended within the time.

{bars(samples, levels)}
{table(samples, levels)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds at 1 and 32 in flight; writes no file")
    quick = parser.parse_args().quick
    levels, rounds, seconds = ((1, 32), 2, 0.3) if quick else (LEVELS, 5, 0.5)
    samples, busiest = measure(levels, rounds, seconds)
    text = report(samples, levels, busiest, rounds, seconds)
    print(text)
    if not quick:
        (HERE / "upstream.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
