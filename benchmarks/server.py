"""The speed of the server compared with others: ``make bench-server``; ``ARGS=--quick`` for a short run.

All serve the same bare ASGI application ("Hello, world!") on one core, with the load on another, in five interleaved
rounds, so that a change of the machine's speed affects all alike. Prints one table and writes it into
``benchmarks/server.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import trustme  # noqa: E402
from processes import pinned  # noqa: E402  # siblings, found only now
from servers import FRAMEWORKS, SECURE, SERVERS  # noqa: E402
from wrk import load as wrk_load  # noqa: E402

LEVELS = (1, 32, 256)
OURS, PEER, STOCK = "umbel.server", "uvicorn, httptools, uvloop", "hypercorn, trio"
H11 = "uvicorn, h11, asyncio"
COMPOSED, FASTAPI, RESPOND = FRAMEWORKS
OURS_TLS, PEER_TLS, RESPOND_TLS = SECURE
IDLE = 500
HTTP2_REQUESTS = 3000


class Sample(NamedTuple):
    """One measurement of a server."""

    rate: float
    """Requests per second."""
    p50: float
    p99: float
    """Seconds."""
    cpu: float
    """Seconds of the server's CPU per request."""


class Process:
    """Run one of the scripts on one core."""

    def __init__(self, core: int, script: str, *arguments: str) -> None:
        command = [*pinned(core), sys.executable, str(HERE / script), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line of what it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process has ended; what it said stands above")
        return line.strip()

    def send_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def cpu(self) -> float:
        """Seconds of CPU so far, to the nanosecond."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(core: int, script: str, *arguments: str) -> Iterator[Process]:
    """Run a process until the block ends."""
    process = Process(core, script, *arguments)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


def ask(load: Process, server: Process, port: str, level: int, seconds: float) -> Sample:
    before = server.cpu()
    load.send_line(f"{port} {level} {seconds}")
    count, took, p50, p99 = json.loads(load.line())
    return Sample(count / took, p50, p99, (server.cpu() - before) / count)


def idle_cost(server: Process, port: str) -> float:
    """Return the server's memory of one idle connection after a request, in bytes."""
    connections = []
    before = 0
    try:
        for number in range(IDLE + 100):
            if number == 100:  # what is made once has been made
                time.sleep(0.5)
                before = server.resident()
            connection = socket.create_connection(("127.0.0.1", int(port)))
            connections.append(connection)
            connection.send(b"GET /hello HTTP/1.1\r\nhost: localhost\r\nuser-agent: idle\r\n\r\n")
            answer = b""
            while not answer.endswith((b"world!", b'world!"')):
                answer += connection.recv(65536)
        time.sleep(0.5)
        return (server.resident() - before) / IDLE
    finally:
        for connection in connections:
            connection.close()


def ask_http2(core: int, server: Process, port: str) -> Sample | None:
    """Measure HTTP/2, with eight connections of ten streams; None without h2load."""
    if shutil.which("h2load") is None:
        return None
    before = server.cpu()
    command = [
        *pinned(core),
        "h2load",
        "-n",
        str(HTTP2_REQUESTS),
        "-c",
        "8",
        "-m",
        "10",
        f"http://127.0.0.1:{port}/hello",
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"([\d.]+) req/s", printed)
    if rate is None or f"{HTTP2_REQUESTS} succeeded" not in printed:
        raise SystemExit(f"h2load had answers that failed:\n{printed}")
    return Sample(float(rate[1]), 0.0, 0.0, (server.cpu() - before) / HTTP2_REQUESTS)


def ask_wrk(core: int, server: Process, port: str, scheme: str, seconds: int) -> Sample | None:
    """Measure HTTP/1.1 with wrk, which can do TLS, on 32 connections; None without wrk."""
    if shutil.which("wrk") is None:
        return None
    before = server.cpu()
    seen = wrk_load(pinned(core), int(port), "/hello", 32, seconds, scheme=scheme)
    if seen.bad or seen.failed or seen.p50 is None or seen.p99 is None:
        raise SystemExit(f"wrk had answers that failed: {seen}")
    return Sample(seen.answers / seen.seconds, seen.p50, seen.p99, (server.cpu() - before) / seen.answers)


Samples = dict[tuple[str, int], list[Sample]]
HTTP2, WRK = -1, -2
"""In the place of a number of connections: HTTP/2, and 32 connections of wrk."""
BY_WRK = {OURS: "http", PEER: "http", OURS_TLS: "https", PEER_TLS: "https", RESPOND_TLS: "https"}
WRK_SECONDS = 1


def measure(levels: tuple[int, ...], rounds: int, seconds: float) -> tuple[Samples, dict[str, float], float]:
    """Measure all servers at all levels, the memory of an idle connection, and the maximal use of the load's core."""
    samples: Samples = {(name, level): [] for level in levels for name in SERVERS}
    samples |= {(name, 32): [] for name in FRAMEWORKS} | {(name, HTTP2): [] for name in (OURS, STOCK)}
    samples |= {(name, WRK): [] for name in BY_WRK}
    idle: dict[str, float] = {}
    busiest = 0.0
    with ExitStack() as stack:
        pem = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-server-"))) / "server.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        arguments = dict.fromkeys((*SERVERS, *FRAMEWORKS), ()) | dict.fromkeys(SECURE, (str(pem),))
        servers = {name: stack.enter_context(running(0, "servers.py", name, *more)) for name, more in arguments.items()}
        ports = {name: server.line() for name, server in servers.items()}
        load = stack.enter_context(running(1, "load.py"))
        time.sleep(2)  # they print their ports a moment before they serve
        for name, server in servers.items():
            if name in SERVERS:
                idle[name] = idle_cost(server, ports[name])
            if name not in SECURE:
                ask(load, server, ports[name], 32, seconds / 2)
        for turn in range(rounds):
            for level in levels:
                for name, server in servers.items():
                    if (name, level) not in samples:
                        continue
                    began, used = time.perf_counter(), load.cpu()
                    samples[name, level].append(ask(load, server, ports[name], level, seconds))
                    busiest = max(busiest, (load.cpu() - used) / (time.perf_counter() - began))
            for name in (OURS, STOCK):
                if (sample := ask_http2(1, servers[name], ports[name])) is not None:
                    samples[name, HTTP2].append(sample)
            for name, scheme in BY_WRK.items():
                if (sample := ask_wrk(1, servers[name], ports[name], scheme, WRK_SECONDS)) is not None:
                    samples[name, WRK].append(sample)
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    return samples, idle, busiest


# The table


def three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def median(samples: list[Sample], field: str) -> float:
    return statistics.median(getattr(sample, field) for sample in samples)


def ratios_of(ours: list[Sample], theirs: list[Sample], field: str) -> list[float]:
    """Return the ratio of each round, above 1 if better."""
    pairs = [(getattr(one, field), getattr(other, field)) for one, other in zip(ours, theirs, strict=True)]
    return [mine / its if field == "rate" else its / mine for mine, its in pairs]


def times(ratios: list[float]) -> str:
    """Return the median of the ratios and their spread."""
    spread = f" ({three_digits(min(ratios))}-{three_digits(max(ratios))})" if len(ratios) > 1 else ""
    return three_digits(statistics.median(ratios)) + spread


HEADER = (
    "| connections | server | requests/s | p50 ms | p99 ms | CPU µs/request "
    "| x uvicorn/httptools/uvloop, rate | CPU | x stock hypercorn, CPU |\n"
    "|---:|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


def table(samples: Samples, levels: tuple[int, ...]) -> str:
    """Return all results as Markdown."""
    rows = []
    for level in levels:
        for name in SERVERS:
            mine = samples[name, level]
            cells = (
                f"{level:,}",
                name,
                f"{median(mine, 'rate'):,.0f}",
                f"{median(mine, 'p50') * 1e3:.2f}",
                f"{median(mine, 'p99') * 1e3:.2f}",
                f"{median(mine, 'cpu') * 1e6:.1f}",
                times(ratios_of(mine, samples[PEER, level], "rate")),
                times(ratios_of(mine, samples[PEER, level], "cpu")),
                times(ratios_of(mine, samples[STOCK, level], "cpu")),
            )
            rows.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(rows)


def wrk_table(samples: Samples) -> str:
    """Return what was measured with wrk as Markdown."""
    if not samples[OURS, WRK]:
        return "There is no wrk here, so nothing was measured over TLS.\n"
    rows = [
        f"| {name} | {median(mine, 'rate'):,.0f} | {median(mine, 'p50') * 1e3:.2f} | {median(mine, 'p99') * 1e3:.2f} "
        f"| {median(mine, 'cpu') * 1e6:.1f} |\n"
        for name in BY_WRK
        if (mine := samples[name, WRK])
    ]
    head = "| 32 connections of wrk | requests/s | p50 ms | p99 ms | CPU µs/request |\n|---|---:|---:|---:|---:|\n"
    return head + "".join(rows)


def bars(samples: Samples, idle: dict[str, float]) -> str:
    """Return the bars with the results."""
    ours, peer = samples[OURS, 32], samples[PEER, 32]
    composed, fastapi, secure = samples[COMPOSED, 32], samples[FASTAPI, 32], samples[PEER_TLS, WRK]
    rows: list[tuple[str, str, str, str]] = []
    for what, mine, theirs, bar in (
        ("x uvicorn/httptools/uvloop, 32 connections", ours, peer, 1.2),
        ("x FastAPI/uvicorn, a function that calls nobody, 32 connections", composed, fastapi, 1.2),
        ("a respond route x uvicorn/httptools/uvloop, 32 connections", samples[RESPOND, 32], peer, 2),
        ("a respond route x uvicorn/h11/asyncio, 32 connections", samples[RESPOND, 32], samples[H11, 32], None),
        ("HTTPS, x uvicorn/httptools/uvloop, HTTPS", samples[OURS_TLS, WRK], secure, 1.3),
        ("a respond route, HTTPS, x uvicorn/httptools/uvloop, HTTPS", samples[RESPOND_TLS, WRK], secure, None),
        ("by the same load without TLS, x uvicorn/httptools/uvloop", samples[OURS, WRK], samples[PEER, WRK], None),
        ("x stock hypercorn, HTTP/2, 8 connections", samples[OURS, HTTP2], samples[STOCK, HTTP2], 2),
    ):
        for field, unit in (("rate", "requests/s"), ("cpu", "CPU")):
            ratios = ratios_of(mine, theirs, field)
            # Judged before it is rounded.
            met = verdict(statistics.median(ratios) >= bar) if ratios and bar else ""
            reached = times(ratios) if ratios else "no load for it"
            rows.append((f"{what}, {unit}", "" if bar is None else f"≥ {bar:g}", reached, met))
    rows += [
        (f"KiB of an idle connection, {name}", "≤ 12", f"{cost / 1024:.1f}", verdict(cost <= 12 * 1024))
        if name == OURS
        else (f"KiB of an idle connection, {name}", "", f"{cost / 1024:.1f}", "")
        for name, cost in idle.items()
    ]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return "| | bar | reached | met |\n|---|---:|---:|---|\n" + lines


def verdict(met: bool) -> str:
    return "yes" if met else "**no**"


def report(
    samples: Samples, idle: dict[str, float], levels: tuple[int, ...], busiest: float, rounds: int, seconds: float
) -> str:
    """The whole file."""
    return f"""# The server beside its peers

Written by `make bench-server`: medians of {rounds} interleaved rounds of {seconds:g} s, with the spread of the ratios
from round to round in brackets. Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; the
servers on one core, the load (a bare epoll loop) on another, of which it had at most {busiest:.0%}. Absolute figures
move with the machine's mood; CPU per request moves least.

The application is a bare ASGI function that answers at once with thirteen bytes. Each connection sends its next request
when its answer has come. The rows with HTTPS are HTTP/1.1 over TLS with kept connections, the same certificate for both
servers, and wrk as the load, {WRK_SECONDS} s in each round.

{bars(samples, idle)}
{table(samples, levels)}
{wrk_table(samples)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds at 32 connections; writes no file")
    quick = parser.parse_args().quick
    levels, rounds, seconds = ((32,), 2, 0.3) if quick else (LEVELS, 5, 0.5)
    samples, idle, busiest = measure(levels, rounds, seconds)
    text = report(samples, idle, levels, busiest, rounds, seconds)
    print(text)
    if not quick:
        (HERE / "server.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
