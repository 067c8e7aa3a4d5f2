"""The cost of a request against size: ``make bench-growth``; ``ARGS=--quick`` for a short run.

    make bench-growth                           some five minutes; writes benchmarks/growth.md
    make bench-growth ARGS='--only calls'       one kind of size; writes no file

Sizes are those of the load (clients, header fields of a request), of the configuration (routes, upstreams) and of a
request's work (calls). Each configuration has a gateway of its own, `umbel serve`; all are up all the time, idle but
for the one that is asked. In each round every step is loaded once, in a rotating order.
"""

from __future__ import annotations

import argparse
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import path_report  # noqa: E402  # siblings, found only now
from gateways import upstream  # noqa: E402
from lineup import CLIENTS  # noqa: E402
from path_processes import Process, cpu, gateway, pin_this, resident  # noqa: E402
from path_report import progress, spread  # noqa: E402
from processes import ended, pinned, settled  # noqa: E402
from wrk import load, load_name  # noqa: E402

SIZES: Mapping[str, tuple[int, ...]] = {
    "clients": (16, 64, 256, 1_000, 2_000),
    "routes": (1, 10, 100, 1_000, 10_000),
    "upstreams": (1, 10, 100, 1_000),
    "calls": (1, 10, 50, 100, 200),
    "fields": (10, 25, 50, 100),
}
WHAT = {
    "clients": "clients",
    "routes": "routes",
    "upstreams": "upstreams, a route for each",
    "calls": "calls of a request",
    "fields": "header fields of a request",
}
CONFIGURED = ("routes", "upstreams")
"""The kinds of size that have a gateway for each step, whose start is measured too."""
FIELDS = 10
"""The header fields of a request where their number is not what grows: about what a browser sends."""
SECONDS = {"clients": 3}
"""Seconds of a window, by kind: 1 otherwise. The more clients, the more is unfinished at its end."""
BAR = 1.1
"""The most of linear growth that a step may take. A tenth is for the rounds, which differ by more than that."""
SETTLE_S = 10.0


class Step(NamedTuple):
    """One size of one kind: how the gateway is asked."""

    kind: str
    size: int

    @property
    def path(self) -> str:
        """What the paths of the requests begin with."""
        return f"/n{self.size if self.kind == 'calls' else 1}/"

    @property
    def paths(self) -> int:
        return self.size if self.kind in CONFIGURED else 1

    @property
    def clients(self) -> int:
        """One asks for many calls: several would have more calls in flight than the adaptive limit of an upstream
        allows, and the queue for it would be measured.
        """
        return {"clients": self.size, "calls": 1}.get(self.kind, CLIENTS)

    @property
    def fields(self) -> int:
        return self.size if self.kind == "fields" else FIELDS

    @property
    def server(self) -> str:
        """The gateway that is asked: kinds that need no configuration of their own share one."""
        return f"{self.kind} {self.size}" if self.kind in CONFIGURED else "shared"


class Start(NamedTuple):
    """What a gateway has used until it serves."""

    cpu: float
    """Seconds."""
    resident: int
    """Bytes."""


class Grown(NamedTuple):
    """The results of one step."""

    step: Step
    cpu: Sequence[float]
    """Microseconds of the gateway's CPU per request, by rounds."""
    errors: int
    starts: Sequence[Start]
    """By starts of the gateway; none where the configuration is not what grows."""

    @property
    def median(self) -> float:
        return statistics.median(self.cpu)


# Configurations


def configuration(step: Step, port: int) -> str:
    """The configuration of a step's gateway, with an upstream on this port of loopback."""
    urls = [f"http://127.0.0.1:{port}"]
    if step.kind == "routes":
        return _upstream("items", urls) + "".join(_route(f"/n1/{number}", ["items"]) for number in range(step.size))
    if step.kind == "upstreams":
        names = [f"items{number}" for number in range(step.size)]
        return "".join(_upstream(name, urls) for name in names) + "".join(
            _route(f"/n1/{number}", [name]) for number, name in enumerate(names)
        )
    # By default a process has 256 requests in flight, and answers 503 to more.
    server = f"[server]\nmax_in_flight = {max(SIZES['clients'])}\n"
    routes = "".join(_route(f"/n{count}/0", ["items"] * count) for count in SIZES["calls"])
    return server + _upstream("items", urls) + routes


def _upstream(name: str, urls: list[str]) -> str:
    listed = ", ".join(f'"{url}"' for url in urls)
    # By default they are closed after 4 s, long before the next window of the same step.
    return f'[upstreams.{name}]\nurls = [{listed}]\nkeepalive_expiry = "10m"\n'


def _route(path: str, upstreams: list[str]) -> str:
    calls = [
        f'[routes.calls.c{number}]\nupstream = "{name}"\npath = "/item/3"\n' for number, name in enumerate(upstreams)
    ]
    return f'[[routes]]\npath = "{path}/<number>"\n{"".join(calls)}'


# Measuring


class Bench:
    """The running gateways and what was measured of each step."""

    def __init__(self, steps: Sequence[Step], upstream_port: int, starts: int) -> None:
        self._upstream = upstream_port
        self._running: dict[str, tuple[Process, int]] = {}
        self._starts: dict[str, list[Start]] = {}
        self._cpu: dict[Step, list[float]] = {step: [] for step in steps}
        self._errors = dict.fromkeys(steps, 0)
        self._times = starts

    def start(self, stack: ExitStack) -> None:
        """Start every gateway: those whose start is measured several times, in turn. The last ones stay until the end
        of ``stack``."""
        servers = {step.server: step for step in self._cpu}
        for turn in range(self._times):
            for name, step in servers.items():
                last = turn == self._times - 1
                if not last and step.kind not in CONFIGURED:
                    continue
                with ExitStack() as alone:
                    process, port = alone.enter_context(gateway(configuration(step, self._upstream)))
                    start = Start(cpu(process.pid), resident(process.pid))
                    self._starts.setdefault(name, []).append(start)
                    self._running[name] = process, port
                    progress(f"start {turn + 1} of {self._times}, {name}: {start.cpu:.2f} s, {mib(start.resident)} MiB")
                    if last:
                        stack.push(alone.pop_all())

    def ask(self, step: Step, seconds: int, *, counted: bool = True) -> None:
        """Load one step once."""
        process, port = self._running[step.server]
        before = cpu(process.pid)
        seen = load(pinned(1), port, step.path, step.clients, seconds, paths=step.paths, fields=step.fields)
        took = cpu(process.pid) - before
        settled(partial(cpu, process.pid), SETTLE_S)
        if seen.good == 0:
            raise SystemExit(f"{step.size:,} {WHAT[step.kind]}: no request was answered")
        cost, errors = took / seen.good * 1e6, seen.bad + seen.failed
        self._errors[step] += errors
        if counted:
            self._cpu[step].append(cost)
        progress(f"{WHAT[step.kind]}: {step.size:,}: {cost:,.0f} µs of CPU per request, {errors} errors")

    def results(self) -> list[Grown]:
        return [
            Grown(step, costs, self._errors[step], self._starts[step.server] if step.kind in CONFIGURED else ())
            for step, costs in self._cpu.items()
        ]


def measure(kinds: Sequence[str], *, quick: bool) -> tuple[list[Grown], str]:
    """Measure the kinds of size; return the results of all steps in order, and the name of the upstream."""
    rounds, starts = (1, 1) if quick else (4, 3)
    steps = [Step(kind, size) for kind in kinds for size in SIZES[kind]]
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as name, ExitStack() as stack:
        port, _, made_of = stack.enter_context(upstream(Path(name)))
        bench = Bench(steps, port, starts)
        bench.start(stack)
        if not quick:
            for step in steps:
                bench.ask(step, 1, counted=False)
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            first = turn * len(steps) // rounds
            for step in steps[first:] + steps[:first]:
                bench.ask(step, 1 if quick else SECONDS.get(step.kind, 1))
        return bench.results(), made_of


# The table


HEADER = """\
| | size | CPU µs/request (from-to) | of linear growth, from the first | from the step before | µs per call | errors \
| start, CPU s | MiB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f}"


def shares(one: Grown, other: Grown) -> list[float]:
    """The parts of linear growth from a smaller step: of a request's CPU, of the start's CPU and of its memory.

    1 if the cost has grown by the factor of the size; a cost that stays the same is the inverse of that factor. For the
    CPU of a request it is the median of the rounds, so that a change of the machine's speed affects both steps.
    """
    growth = one.step.size / other.step.size
    found = [statistics.median(mine / its for mine, its in zip(one.cpu, other.cpu, strict=True)) / growth]
    for name in Start._fields if one.starts else ():
        mine, its = (statistics.median(getattr(start, name) for start in each.starts) for each in (one, other))
        found.append(mine / its / growth)
    return found


def table(results: Sequence[Grown]) -> str:
    """All steps as one table."""
    rows = []
    first = before = results[0]
    for one in results:
        if one.step.kind != first.step.kind:
            first = before = one
        starts = ("", "")
        if one.starts:
            seconds, size = (statistics.median(column) for column in zip(*one.starts, strict=True))
            starts = (f"{seconds:.2f}", mib(size))
        cells = (
            WHAT[one.step.kind],
            f"{one.step.size:,}",
            spread(one.cpu, ",.0f"),
            *("" if one is first else f"{shares(one, other)[0]:.3f}" for other in (first, before)),
            f"{one.median / one.step.size:,.0f}" if one.step.kind == "calls" else "",
            f"{one.errors:,}",
            *starts,
        )
        rows.append(f"| {' | '.join(cells)} |\n")
        before = one
    return HEADER + "".join(rows)


def worse_than_linear(results: Sequence[Grown]) -> list[str]:
    """The steps that cost more than ``BAR`` of linear growth from the step before, or from the first."""
    found = []
    names = ("the CPU of a request", "the CPU of the start", "the memory after the start")
    for place, one in enumerate(results):
        smaller = [each for each in results[:place] if each.step.kind == one.step.kind]
        for other in {each.step: each for each in (*smaller[:1], *smaller[-1:])}.values():
            found += [
                f"{WHAT[one.step.kind]}, {other.step.size:,} to {one.step.size:,}: "
                f"{name} takes {part:.2f} of linear growth"
                for name, part in zip(names, shares(one, other), strict=False)
                if part > BAR
            ]
    return found


def verdicts(results: Sequence[Grown]) -> str:
    """The bars with the results."""
    worse, errors = worse_than_linear(results), sum(one.errors for one in results)
    lines = [
        path_report.Line("steps that grow worse than linear", "; ".join(worse) or "none", "none", not worse),
        path_report.Line("errors", f"{errors:,}", "0", errors == 0),
    ]
    return "| | bar | reached | met |\n|---|---:|---:|---|\n" + "".join(line.markdown() for line in lines)


def report(results: Sequence[Grown], made_of: str) -> str:
    """The whole report."""
    rounds = len(results[0].cpu)
    starts = next((len(one.starts) for one in results if one.starts), 0)
    return f"""# Cost against size

<!-- Made by `make bench-growth`; how it is measured stands in benchmarks/growth.py. -->

Medians of {rounds} interleaved round(s), the least and the greatest in brackets. The gateways, one `umbel serve` for
each configuration, on one core; the load ({load_name()}) and the upstream ({made_of}) on another.
{platform.machine()}, Python {platform.python_version()}.

{verdicts(results)}
{table(results)}
"of linear growth" is the CPU of a request divided by what it would be had it grown as the size did: 1 is linear, less
is better. Worse than linear is more than {BAR:g}, from the first step or from the step before, also for the CPU and the
memory of a start: a tenth is for the rounds, which differ by more than that.

Where these are not what grows, a request has {FIELDS} header fields and makes one call, and {CLIENTS} clients ask, each
anew when it is answered; one client asks for many calls. No two requests are equal: each has a number in its path and
in a field. They go round all routes. "errors" are answers other than 2xx, broken connections and timeouts, in all
rounds together. CPU includes the opening of the clients' connections and the requests that are unfinished at the end of
a window. "start" is the CPU until the gateway serves, and "MiB" its memory then: medians of {starts} start(s). Set are
urls, paths, `max_in_flight` (as many as clients), and `keepalive_expiry`, since a gateway waits for its turn longer
than the 4 s for which idle connections are kept.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round and one start; writes no file")
    parser.add_argument("--only", choices=SIZES, help="one kind of size; writes no file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, ended)
    pin_this(1)
    began = time.monotonic()
    results, made_of = measure([arguments.only] if arguments.only else list(SIZES), quick=arguments.quick)
    progress(f"done after {time.monotonic() - began:.0f} s")
    text = report(results, made_of)
    print(text)
    if not arguments.quick and not arguments.only:
        (HERE / "growth.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
