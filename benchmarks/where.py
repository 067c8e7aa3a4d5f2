"""The CPU time of a request by stage: ``make bench-where``; ``ARGS=--quick`` for a short run.

The gateway runs on one core with a sampling profiler (``sampled.py``), load and upstream on another. Windows with and
without sampling alternate: the CPU per request is measured without it, the shares with it. ``--json FILE`` writes the
result, ``--before FILE`` shows an older one beside it, ``--doc FILE`` writes the table between its markers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from marked import replace_marked  # noqa: E402  # siblings, found only now
from path_processes import Process, cpu, gateway, main_cpu, script  # noqa: E402
from stages import ORDER, THREADS  # noqa: E402

CALLS = (1, 10)
CLIENTS = 16
LEAST_SHARE = 0.004
"""A stage that is less in every column has no row of its own."""
POLICIES = """
retry = { attempts = 2 }
hedge = { after = "1s" }
breaker = {}
"""

Result = dict[str, dict[str, Any]]
"""By number of calls: ``us`` per stage, ``cpu_us`` and ``rate`` of a request, ``sampling``, ``functions``."""


def configuration(port: str, policies: str) -> str:
    """Return the configuration: a route for each number of calls, otherwise defaults."""
    routes = []
    for count in CALLS:
        routes.append(f'[[routes]]\npath = "/calls-{count}/<item_id>"\n')
        routes += [
            f'[routes.calls.part{number}]\nupstream = "parts"\npath = "/items/{{item_id}}/parts/{number}"\n'
            for number in range(count)
        ]
    upstream = f'[upstreams.parts]\nurls = ["http://127.0.0.1:{port}"]\nmax_concurrency = 1000{policies}\n'
    return "\n".join([upstream, *routes])


class Bench:
    """The processes: gateway, load and upstream."""

    def __init__(self, server: Process, port: int, load: Process) -> None:
        self._server, self._port, self._load = server, port, load

    def window(self, calls: int, seconds: float) -> tuple[float, float, float]:
        """CPU of the main thread and of the others, in microseconds per request, and requests per second."""
        pid = self._server.pid
        main, whole = main_cpu(pid), cpu(pid)
        answer = self._load.ask(f"{self._port} /calls-{calls}/4711 {CLIENTS} {seconds}")
        count, took, *_ = json.loads(answer)
        main, whole = main_cpu(pid) - main, cpu(pid) - whole
        return main / count * 1e6, max(0.0, whole - main) / count * 1e6, count / took

    def sampled(self, calls: int, seconds: float) -> tuple[float, dict[str, Any]]:
        """CPU of a request while it is sampled, and the samples."""
        self._server.send_line("start")
        main, others, _ = self.window(calls, seconds)
        samples: dict[str, Any] = json.loads(self._server.ask("stop"))
        return main + others, samples


def measure(bench: Bench, calls: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure alternating windows for one number of calls."""
    bench.window(calls, 1.0)
    plain, with_sampling = [], []
    weights: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    samples = 0
    for turn in range(rounds):
        plain.append(bench.window(calls, seconds))
        cost, found = bench.sampled(calls, seconds)
        with_sampling.append(cost)
        samples += found["samples"]
        weights.update(found["stages"])
        for weight, stage, function in found["functions"]:
            functions[f"{stage}: {function}"] += weight
        print(f"n = {calls}: round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    main, others, rate = (statistics.median(column) for column in zip(*plain, strict=True))
    scale = main / sum(weights.values())
    return {
        "us": {stage: weight * scale for stage, weight in weights.items()} | {THREADS: others},
        "cpu_us": main + others,
        "rate": rate,
        "samples": samples,
        "sampling": statistics.median(with_sampling) / (main + others) - 1,
        "functions": [[name, weight * scale] for name, weight in functions.most_common(60)],
    }


def run(rounds: int, seconds: float, policies: str) -> Result:
    with (
        script(1, "stub.py") as stub,
        gateway(configuration(stub.line(), policies), sys.executable, str(HERE / "sampled.py")) as (server, port),
        script(1, "path_load.py") as load,
    ):
        bench = Bench(server, port, load)
        return {str(calls): measure(bench, calls, rounds, seconds) for calls in CALLS}


# The table


def table(columns: list[tuple[str, dict[str, Any]]]) -> str:
    """Return a table in Markdown: a row for each stage, a column for each result."""
    stages = dict.fromkeys(ORDER)
    for _, result in columns:
        stages |= dict.fromkeys(result["us"])
    head = " | ".join(title for title, _ in columns)
    rows = [f"| stage, µs per request | {head} |\n|---|{'---:|' * len(columns)}\n"]
    rest = [0.0] * len(columns)
    for stage in stages:
        values = [result["us"].get(stage, 0.0) for _, result in columns]
        if max(value / result["cpu_us"] for value, (_, result) in zip(values, columns, strict=True)) < LEAST_SHARE:
            rest = [sum(pair) for pair in zip(rest, values, strict=True)]
            continue
        rows.append(_row(stage, values, columns))
    if any(rest):
        rows.append(_row("all smaller ones", rest, columns))
    totals = " | ".join(f"**{result['cpu_us']:,.0f}**" for _, result in columns)
    rows.append(f"| **CPU of a request** | {totals} |\n")
    return "".join(rows)


def _row(stage: str, values: list[float], columns: list[tuple[str, dict[str, Any]]]) -> str:
    cells = (
        f"{value:,.1f} ({value / result['cpu_us']:.0%})" for value, (_, result) in zip(values, columns, strict=True)
    )
    return f"| {stage} | {' | '.join(cells)} |\n"


def report(result: Result, before: Result | None, rounds: int, seconds: float) -> str:
    columns = []
    for calls in map(str, CALLS):
        if before is not None:
            columns.append((f"n = {calls}, before", before[calls]))
        columns.append((f"n = {calls}", result[calls]))
    rates = ", ".join(f"{found['rate']:,.0f} requests/s at n = {calls}" for calls, found in result.items())
    costs = ", ".join(f"{found['sampling']:+.0%} at n = {calls}" for calls, found in result.items())
    samples = " and ".join(f"{found['samples']:,}" for found in result.values())
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    return f"""Written by `make bench-where`: n calls per request, {CLIENTS} clients; {rounds} windows of {seconds:g} s
with sampling and as many without, in turn. {machine}: the gateway on one, load and upstream on another.
{rates}.
CPU is measured without sampling; the shares are those of the main thread's {samples} samples.
Sampling itself costs {costs}. A system call's row holds the kernel's work in it.

{table(columns)}"""


def functions(result: Result, count: int) -> str:
    """Return the functions with the most time of their own, including callees without a stage."""
    lines = []
    for calls, found in result.items():
        lines.append(f"\nn = {calls}: the dearest functions, µs per request")
        lines += [f"  {us:8.1f}  {name}" for name, us in found["functions"][:count]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of each kind")
    parser.add_argument("--policies", action="store_true", help="with retry, hedge and breaker turned on")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N dearest functions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result")
    parser.add_argument("--before", type=Path, metavar="FILE", help="an older result, to stand beside this one")
    parser.add_argument("--doc", type=Path, metavar="FILE", help="write the table between the markers of this file")
    given = parser.parse_args()
    rounds, seconds = (1, 2.0) if given.quick else (5, 4.0)
    before = json.loads(given.before.read_text()) if given.before else None
    result = run(rounds, seconds, POLICIES if given.policies else "")
    text = report(result, before, rounds, seconds)
    print(text)
    if given.functions:
        print(functions(result, given.functions), flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    if given.doc:
        replace_marked(given.doc, "where", text)


if __name__ == "__main__":
    main()
