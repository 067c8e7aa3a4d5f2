"""The CPU time of a request by stage: ``make bench-where``; ``ARGS=--quick`` for a short run.

The gateway runs on one core with a sampling profiler (``sampled.py``), load and upstream on another. Windows with and
without sampling alternate: the CPU per request is measured without it, the shares with it. ``--only KIND`` measures one
kind of request. ``--json FILE`` writes the result, ``--before FILE`` shows an older one beside it, ``--doc FILE``
writes the table between its markers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import trustme

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from marked import replace_marked  # noqa: E402  # siblings, found only now
from path_processes import Process, cpu, gateway, main_cpu, script  # noqa: E402
from path_report import route  # noqa: E402
from stages import ORDER, THREADS  # noqa: E402

CLIENTS = 16
LEAST_SHARE = 0.004
"""A stage that is less in every column has no row of its own."""
POLICIES = """
retry = { attempts = 2 }
hedge = { after = "1s" }
breaker = {}
"""


class Kind(NamedTuple):
    """A kind of request that is measured: a column of the table."""

    title: str
    path: str
    """The first segment of the path."""
    load: str = ""
    """A kind of ``path_load.py``."""


KINDS = {
    "one": Kind("n = 1", "one"),
    "ten": Kind("n = 10", "ten"),
    "tls": Kind("n = 10, TLS upstream", "tls"),
    "https": Kind("n = 1, TLS client", "one", "tls"),
    "gzip": Kind("n = 10, gzip", "gzip", "gzip"),
    "proxy": Kind("proxy route", "proxy", "proxied"),
}
Result = dict[str, dict[str, Any]]
"""By name of a kind: ``us`` per stage, ``cpu_us`` and ``rate`` of a request, ``sampling``, ``functions``."""


def configuration(port: str, tls_port: str, ca: str, policies: str) -> str:
    """Return the configuration: a route for each kind of request, otherwise defaults."""
    urls = {"parts": f"http://127.0.0.1:{port}", "secure": f"https://127.0.0.1:{tls_port}"}
    upstreams = [
        f'[upstreams.{name}]\nurls = ["{url}"]\nmax_concurrency = 1000{policies}' for name, url in urls.items()
    ]
    return "\n".join(
        [
            *upstreams,
            f'tls.ca = "{ca}"\n[compress]',
            *(route(name, ["parts"] * calls, "compress = false\n") for name, calls in (("one", 1), ("ten", 10))),
            route("tls", ["secure"] * 10, "compress = false\n"),
            route("gzip", ["parts"] * 10),
            '[[routes]]\npath = "/proxy/<item_id>"\nproxy = { upstream = "parts" }\n',
        ]
    )


class Bench:
    """The processes of one kind of request: gateway and load."""

    def __init__(self, kind: Kind, server: Process, port: int, load: Process) -> None:
        self._kind, self._server, self._port, self._load = kind, server, port, load

    def window(self, seconds: float) -> tuple[float, float, float]:
        """CPU of the main thread and of the others, in microseconds per request, and requests per second."""
        pid = self._server.pid
        main, whole = main_cpu(pid), cpu(pid)
        answer = self._load.ask(f"{self._port} /{self._kind.path}/4711 {CLIENTS} {seconds} {self._kind.load}")
        count, took, *_ = json.loads(answer)
        main, whole = main_cpu(pid) - main, cpu(pid) - whole
        return main / count * 1e6, max(0.0, whole - main) / count * 1e6, count / took

    def sampled(self, seconds: float) -> tuple[float, dict[str, Any]]:
        """CPU of a request while it is sampled, and the samples."""
        self._server.send_line("start")
        main, others, _ = self.window(seconds)
        samples: dict[str, Any] = json.loads(self._server.ask("stop"))
        return main + others, samples


def measure(bench: Bench, name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure alternating windows for one kind of request."""
    bench.window(1.0)
    plain, with_sampling = [], []
    weights: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    samples = 0
    for turn in range(rounds):
        plain.append(bench.window(seconds))
        cost, found = bench.sampled(seconds)
        with_sampling.append(cost)
        samples += found["samples"]
        weights.update(found["stages"])
        for weight, stage, function in found["functions"]:
            functions[f"{stage}: {function}"] += weight
        print(f"{name}: round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
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


def run(names: list[str], rounds: int, seconds: float, policies: str) -> Result:
    """Measure the kinds of requests with these names."""
    command = (sys.executable, str(HERE / "sampled.py"))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-where-")))
        authority, ca, pem = trustme.CA(), directory / "ca.pem", directory / "server.pem"
        authority.cert_pem.write_to_path(str(ca))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        ports = [stack.enter_context(script(1, "stub.py", *more)).line() for more in ((), (str(pem),))]
        load = stack.enter_context(script(1, "path_load.py"))
        config, secured = configuration(*ports, str(ca), policies), f'certfile = "{pem}"\nkeyfile = "{pem}"\n'
        # Two gateways, because one serves either TLS or plain connections.
        served = {
            hypercorn: stack.enter_context(gateway(config, *command, hypercorn=hypercorn))
            for hypercorn in ("", secured)
        }
        result = {}
        for name in names:
            kind = KINDS[name]
            bench = Bench(kind, *served[secured if kind.load == "tls" else ""], load)
            result[name] = measure(bench, name, rounds, seconds)
        return result


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
    for what, text in (
        ("**CPU of a request**", "**{cpu_us:,.0f}**"),
        ("requests per second", "{rate:,.0f}"),
        ("samples", "{samples:,}"),
        ("cost of sampling", "{sampling:+.0%}"),
    ):
        rows.append(f"| {what} | {' | '.join(text.format(**result) for _, result in columns)} |\n")
    return "".join(rows)


def _row(stage: str, values: list[float], columns: list[tuple[str, dict[str, Any]]]) -> str:
    cells = (
        f"{value:,.1f} ({value / result['cpu_us']:.0%})" if value else ""
        for value, (_, result) in zip(values, columns, strict=True)
    )
    return f"| {stage} | {' | '.join(cells)} |\n"


def report(result: Result, before: Result | None, rounds: int, seconds: float) -> str:
    columns = []
    for name, found in result.items():
        if before is not None and name in before:
            columns.append((f"{KINDS[name].title}, before", before[name]))
        columns.append((KINDS[name].title, found))
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    return f"""Written by `make bench-where`: n calls per request, {CLIENTS} clients; {rounds} windows of {seconds:g} s
with sampling and as many without, in turn. {machine}: the gateway on one, load and upstream on another.
CPU is measured without sampling; the shares are those of the main thread's samples. A system call's row holds the
kernel's work in it. All bodies of upstreams have 170 bytes; with gzip, a response of 1.8 kB is compressed.

{table(columns)}"""


def functions(result: Result, count: int) -> str:
    """Return the functions with the most time of their own, including callees without a stage."""
    lines = []
    for name, found in result.items():
        lines.append(f"\n{KINDS[name].title}: the dearest functions, µs per request")
        lines += [f"  {us:8.1f}  {name}" for name, us in found["functions"][:count]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of each kind")
    parser.add_argument("--only", action="append", choices=KINDS, help="only this kind of request; may be repeated")
    parser.add_argument("--policies", action="store_true", help="with retry, hedge and breaker turned on")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N dearest functions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result")
    parser.add_argument("--before", type=Path, metavar="FILE", help="an older result, to stand beside this one")
    parser.add_argument("--doc", type=Path, metavar="FILE", help="write the table between the markers of this file")
    given = parser.parse_args()
    rounds, seconds = (1, 2.0) if given.quick else (5, 4.0)
    before = json.loads(given.before.read_text()) if given.before else None
    result = run(given.only or list(KINDS), rounds, seconds, POLICIES if given.policies else "")
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
