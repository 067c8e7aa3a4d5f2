"""The cost of a log record compared with other loggers: ``make bench-logs``; ``ARGS=--quick`` for a short run.

Three measures of each logger, each in a new process: the time of a call in the event loop, the records per second that
reach the disk, and the delay of the event loop by a disk that stalls. The rounds are interleaved, so that a change of
the machine's speed affects all alike. Prints the tables and writes them into ``benchmarks/logs.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from loggers import LOGGERS, STALL_S  # noqa: E402  # a sibling, found only now

MEASURES = ("cost", "throughput", "stall")
OWN, OURS, RING, BRIDGED, PEER = (
    "umbel, our own record",
    "umbel, log.info",
    "umbel, with ring",
    "umbel, through logging",
    "logging, QueueHandler",
)
Samples = dict[tuple[str, str], list[dict[str, float]]]


def one(name: str, measure: str, seconds: float) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="umbel-bench-", dir=HERE) as directory:
        done = subprocess.run(
            [sys.executable, str(HERE / "loggers.py"), name, measure, directory, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    if done.returncode != 0:
        raise SystemExit(f"{name}: {measure} failed; what it said stands above")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(rounds: int, seconds: float) -> Samples:
    """Run all measurements, round by round."""
    samples: Samples = {(name, what): [] for what in MEASURES for name in LOGGERS}
    for turn in range(rounds):
        for what in MEASURES:
            for name in LOGGERS:
                if (what, name) != ("throughput", "no logging"):
                    samples[name, what].append(one(name, what, seconds))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    return samples


def best(samples: Samples, name: str, what: str, field: str) -> float:
    """Return the minimum of all rounds: other work of the machine can only add to a cost."""
    return min(sample[field] for sample in samples[name, what])


def median(samples: Samples, name: str, what: str, field: str) -> float:
    return statistics.median(sample[field] for sample in samples[name, what])


def times(samples: Samples, name: str, what: str, field: str) -> str:
    """Return the ratio to the peer by rounds, above 1 if better: the median and the spread."""
    pairs = zip(samples[name, what], samples[PEER, what], strict=True)
    ratios = [(b[field] / a[field] if field != "rate" else a[field] / b[field]) for a, b in pairs if a[field]]
    if not ratios:
        return "-"
    return f"{statistics.median(ratios):.2g} ({min(ratios):.2g}-{max(ratios):.2g})"


def table(samples: Samples) -> str:
    """Return all figures as Markdown."""
    head = (
        "| logger | µs a call | x QueueHandler | records/s to disk | x QueueHandler | lost "
        "| late p50, ms | p99.9 | max |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    rows = []
    for name in LOGGERS:
        cells = [name, f"{best(samples, name, 'cost', 'cost'):.2f}", times(samples, name, "cost", "cost")]
        if samples[name, "throughput"]:
            cells += [
                f"{median(samples, name, 'throughput', 'rate'):,.0f}",
                times(samples, name, "throughput", "rate"),
                f"{median(samples, name, 'throughput', 'lost'):.1%}",
            ]
        else:
            cells += ["-", "-", "-"]
        cells += [f"{median(samples, name, 'stall', field):,.2f}" for field in ("p50", "p999", "max")]
        rows.append(f"| {' | '.join(cells)} |\n")
    return head + "".join(rows)


def bars(samples: Samples) -> str:
    """Return the bars with the results."""
    lines = [
        ("µs on the loop, a record of our own", "≤ 5", f"{best(samples, OWN, 'cost', 'cost'):.2f}"),
        ("µs on the loop, ten free fields", "≤ 25", f"{best(samples, OURS, 'cost', 'cost'):.2f}"),
        ("µs on the loop, with a ring", "", f"{best(samples, RING, 'cost', 'cost'):.2f}"),
        ("µs on the loop, through logging", "≤ 25", f"{best(samples, BRIDGED, 'cost', 'cost'):.2f}"),
        ("records/s to disk", "≥ 100,000", f"{median(samples, OURS, 'throughput', 'rate'):,.0f}"),
        (
            f"ms late, p99.9, disk stalled {STALL_S:g} s",
            "< 5",
            f"{median(samples, OURS, 'stall', 'p999'):.2f} "
            f"(no logging: {median(samples, 'no logging', 'stall', 'p999'):.2f})",
        ),
    ]
    rows = "".join(f"| {what} | {bar} | {reached} |\n" for what, bar, reached in lines)
    return "| | bar | reached |\n|---|---:|---:|\n" + rows


def report(samples: Samples, rounds: int, seconds: float) -> str:
    """Return the whole report."""
    return f"""# What a record costs, beside its peers

Written by `make bench-logs`: {rounds} interleaved rounds of {seconds:g} s, every measurement in a fresh process.
Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores,
load average {os.getloadavg()[0]:.1f} at the end: above one, others took
part of the machine, and of every wall-clock figure.

- **µs a call**: CPU time of the thread that runs the loop, for a record of ten fields; the best of short bursts with
  time to write between them, since the rest of the machine can only add. (What a listener's thread takes of the
  interpreter's lock is not in it.)
- **records/s to disk**: as many as a loop that does nothing else can log, until the last one is in the file; "lost" is
  what is not there. Ours is bounded and drops under such a flood, counted and reported in the log; the
  others' queues are not.
- **late**: how late a timer of 1 ms is while the other end of the log, a pipe, is not read for {STALL_S:g} s, and two
  records are logged each time. Who awaits each line waits that long himself.

"x QueueHandler" is how many times better than the standard library's QueueHandler and QueueListener: median and spread
of the rounds.

{bars(samples)}
{table(samples)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round; writes no file")
    quick = parser.parse_args().quick
    rounds, seconds = (1, 0.5) if quick else (3, 1.0)
    text = report(measure(rounds, seconds), rounds, seconds)
    print(text)
    if not quick:
        (HERE / "logs.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
