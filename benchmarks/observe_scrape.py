"""The cost of a scrape: 100 routes, 20 upstreams and 4 workers under a master; its wall time, and the held loops.

A worker's loop is held by two steps, apart from each other: it collects its figures, and it encodes them. Both are
measured in the worker. All workers and the master share one core, so the wall time of a step has other processes in it;
its CPU time has not.
"""

from __future__ import annotations

import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from path_processes import HERE, running, script
from path_report import Line, Section, milliseconds, progress, upstream
from processes import free_port

ROUTES, UPSTREAMS, CALLS, REPLICAS, WORKERS = 100, 20, 10, 2, 4
BAR_S, HOLD_BAR_S = 0.1, 0.002
START_S = 60.0
ROUNDS_MAX = 20
HOW = f"""{ROUTES} routes of {CALLS} calls each, {UPSTREAMS} upstreams with {REPLICAS} replicas, {WORKERS} workers, each
of which has answered every route. The scraper asks for OpenMetrics, every half second. All processes of the gateway
share one core. A loop is held while a worker collects its figures, and again while it encodes them; measured is the CPU
time of each of these steps."""


class Step(NamedTuple):
    """One step in a worker: figures are collected, or encoded."""

    wall: float
    cpu: float
    series: int


def configuration(ports: list[str], metrics_port: int) -> str:
    text = f'[admin]\nmetrics = "127.0.0.1:{metrics_port}"\n'
    for number in range(UPSTREAMS):
        text += upstream(f"up{number}", ports, "max_concurrency = 1000\n")
    for number in range(ROUTES):
        text += f'[[routes]]\npath = "/route{number}/<item_id>"\n'
        for call in range(CALLS):
            # Neighbouring routes call other upstreams, so that each upstream has calls of many routes.
            text += f'[routes.calls.part{call}]\nupstream = "up{(number + call) % UPSTREAMS}"\npath = "/{call}"\n'
    return text


def steps(directory: Path) -> list[list[Step]]:
    """The steps of each worker so far."""
    found = []
    for file in sorted(directory.glob("holds-*")):
        lines = [line.split() for line in file.read_text().splitlines()]
        found.append([Step(float(wall), float(cpu), int(series)) for wall, cpu, series in lines])
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise SystemExit("the workers did not get ready; what they said stands above")


def ask_every_route(port: int) -> None:
    """Send one request to each route, each on a connection of its own, so that all workers get some."""
    for number in range(ROUTES):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", f"/route{number}/1")
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"no whole answer: {body[:300]!r}")
        client.close()


def fill(port: int, directory: Path) -> int:
    """Send requests until all workers have the same time series, two times in a row; return their number."""
    before = -1
    for turn in range(ROUNDS_MAX):
        threads = [threading.Thread(target=ask_every_route, args=(port,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(1.5)  # A worker sends its figures every second.
        series = {found[-1].series for found in steps(directory)}
        progress(f"scrape: round {turn + 1}, time series of the workers: {sorted(series)}")
        if series == {before}:
            return before
        before = max(series)
    raise SystemExit("the workers did not get requests for every route")


def scrape(port: int) -> tuple[float, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    began = time.perf_counter()
    client.request("GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    answer = client.getresponse()
    text = answer.read()
    took = time.perf_counter() - began
    client.close()
    if answer.status != 200 or not text.endswith(b"# EOF\n"):
        raise SystemExit(f"no whole answer: {answer.status} {text[-300:]!r}")
    return took, text


def measure(*, quick: bool) -> Section:
    count = 10 if quick else 60
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-observe-")))
        ports = stack.enter_context(script(1, "path_upstream.py", *["0"] * REPLICAS)).line().split()
        port, metrics_port = free_port(), free_port()
        (directory / "umbel.toml").write_text(configuration(ports, metrics_port))
        os.environ["PYTHONPATH"] = str(HERE)
        options = ["observe_app:make()", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}"]
        stack.enter_context(running(0, sys.executable, "-m", "umbel", "serve", *options, directory=directory))
        wait_until(lambda: sum(1 for found in steps(directory) if found) == WORKERS)
        series = fill(port, directory)
        before = [len(found) for found in steps(directory)]
        took, texts = [], [b""]
        for _ in range(count):
            seconds, texts[0] = scrape(metrics_port)
            took.append(seconds)
            time.sleep(0.5)
        held = [step for found, begin in zip(steps(directory), before, strict=True) for step in found[begin:]]
    return Section("A scrape", HOW, lines(took, held, texts[0].count(b"\n"), series))


def lines(took: list[float], held: list[Step], printed: int, series: int) -> list[Line]:
    held_wall, held_cpu = [step.wall for step in held], [step.cpu for step in held]
    longest, longest_held = max(took), max(held_cpu)
    beside = f"{milliseconds(statistics.median(held_wall))}, {milliseconds(max(held_wall))}"
    bars = f"< {BAR_S * 1e3:g} ms", f"< {HOLD_BAR_S * 1e3:g} ms"
    return [
        Line("wall time of `/metrics`, median", milliseconds(statistics.median(took))),
        Line("wall time of `/metrics`, longest", milliseconds(longest), bars[0], longest < BAR_S),
        Line("a worker's loop held, CPU, median", milliseconds(statistics.median(held_cpu))),
        Line("a worker's loop held, CPU, longest", milliseconds(longest_held), bars[1], longest_held < HOLD_BAR_S),
        Line("the same as wall time, beside the other processes: median, longest", beside),
        Line("lines of `/metrics`; time series of each worker; steps", f"{printed:,}; {series:,}; {len(held):,}"),
    ]
