"""The cost of a second worker: ``umbel serve -w 1`` and ``-w 2``, the CPU of all workers per request.

All workers are on one core, load and upstream on the other, so that the load is equal. The two masters are measured in
turn.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from contextlib import ExitStack

from path_processes import Process, Supervised, cpu, script, supervised, switches
from path_report import Line, Section, progress, route, spread, upstream

CALLS = 10
CLIENTS = 16
BAR = 1.15
HOW = f"""`umbel serve -w 1` and `-w 2` in turn, {CLIENTS} clients that ask again as soon as they are answered,
{CALLS} calls per request. All workers share one core; measured is their CPU time (user and system, all threads, the
master's left out) per request."""


def window(tree: Supervised, load: Process, seconds: float) -> tuple[float, list[float], float]:
    """Return the CPU microseconds per request, each worker's share of them, and the context switches per request."""
    pids = [worker["pid"] for worker in tree.status()]
    before = {pid: cpu(pid) for pid in pids}
    switched = sum(map(switches, pids))
    count, *_ = json.loads(load.ask(f"{tree.port} /ten/4711 {CLIENTS} {seconds}"))
    used = [cpu(pid) - before[pid] for pid in pids]
    switched = sum(map(switches, pids)) - switched
    return sum(used) / count * 1e6, [each / sum(used) for each in used], switched / count


def configuration(port: str) -> str:
    return upstream("parts", [port], "max_concurrency = 1000\n") + route("ten", ["parts"] * CALLS)


def measure(*, quick: bool) -> Section:
    rounds, seconds = (3, 1.5) if quick else (8, 4.0)
    with ExitStack() as stack:
        stub = stack.enter_context(script(1, "stub.py"))
        config = configuration(stub.line())
        trees = {count: stack.enter_context(supervised(config, count)) for count in (1, 2)}
        load = stack.enter_context(script(1, "path_load.py"))
        costs: dict[int, list[float]] = {1: [], 2: []}
        shares: list[float] = []
        switched: dict[int, list[float]] = {1: [], 2: []}
        for tree in trees.values():
            window(tree, load, 1.5)
        for turn in range(rounds):
            for count, tree in sorted(trees.items(), reverse=bool(turn % 2)):
                cost, used, changes = window(tree, load, seconds)
                costs[count].append(cost)
                switched[count].append(changes)
                if count == 2:
                    shares.append(max(used))
            progress(f"workers: round {turn + 1} of {rounds} done")
        records: Counter[str] = trees[2].requests()
    ratios = [two / one for one, two in zip(costs[1], costs[2], strict=True)]
    ratio = statistics.median(ratios)
    parts = " and ".join(f"{count / records.total():.0%}" for _, count in sorted(records.items()))
    return Section(
        "Two workers beside one",
        HOW,
        [
            Line("CPU per request, two workers to one", spread(ratios), f"≤ {BAR:g}", ratio <= BAR),
            Line("one worker, µs", spread(costs[1], ",.0f")),
            Line("two workers, µs", spread(costs[2], ",.0f")),
            Line("requests of each of the two, over all rounds", parts),
            Line("the busier one's share of the CPU in a round", spread(shares, ".0%")),
            Line("context switches per request, one worker", spread(switched[1])),
            Line("context switches per request, two workers", spread(switched[2])),
        ],
    )
