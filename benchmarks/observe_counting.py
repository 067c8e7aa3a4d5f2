"""The cost of counting: one gateway, with counting and without it in turn; CPU per request and requests/s.

It is one process, because two equal processes differ by more than counting costs. Each round has a window with counting
and one without; a ratio compares the two, which a change of the machine's speed affects alike.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from observe_gateway import BEGIN, END
from path_processes import HERE, Process, cpu, gateway, script
from path_report import Line, Section, progress, route, spread, upstream

CALLS = 10
CLIENTS = 16
BAR = 0.03
HOW = f"""`umbel serve` with all counting and without any, switched in the process; {CLIENTS} clients that ask again as
soon as they are answered, {CALLS} calls per request. CPU is that of the gateway (user and system, all threads). The
cost is a share of the window without counting in the same round: the median, and its 95 % interval by ranks."""


def configuration(port: str) -> str:
    return upstream("parts", [port], "max_concurrency = 1000\n") + route("ten", ["parts"] * CALLS)


def window(server: Process, port: int, load: Process, seconds: float) -> tuple[float, float]:
    """Return the CPU microseconds per request, and the requests per second."""
    before = cpu(server.pid)
    count, duration, *_ = json.loads(load.ask(f"{port} /ten/4711 {CLIENTS} {seconds}"))
    return (cpu(server.pid) - before) / count * 1e6, count / duration


def measure(*, quick: bool) -> Section:
    rounds, seconds = (10, 0.4) if quick else (120, 0.6)
    costs: dict[int, list[float]] = {BEGIN: [], END: []}
    rates: dict[int, list[float]] = {BEGIN: [], END: []}
    with ExitStack() as stack:
        config = configuration(stack.enter_context(script(1, "stub.py")).line())
        server, port = stack.enter_context(gateway(config, sys.executable, str(HERE / "observe_gateway.py")))
        load = stack.enter_context(script(1, "path_load.py"))
        window(server, port, load, 2.0)
        for turn in range(rounds):
            # It counts at the beginning of each even round, and not at that of each odd one.
            for place, mode in enumerate((BEGIN, END) if turn % 2 == 0 else (END, BEGIN)):
                if place == 1:
                    os.kill(server.pid, mode)
                    window(server, port, load, 0.1)  # The interpreter adapts to the other functions.
                cost, rate = window(server, port, load, seconds)
                costs[mode].append(cost)
                rates[mode].append(rate)
            if turn % 20 == 19:
                progress(f"counting: round {turn + 1} of {rounds} done")
    return Section("Counting", HOW, lines(costs, rates))


def lines(costs: dict[int, list[float]], rates: dict[int, list[float]]) -> list[Line]:
    more_cpu = [one / other - 1 for one, other in zip(costs[BEGIN], costs[END], strict=True)]
    fewer = [1 - one / other for one, other in zip(rates[BEGIN], rates[END], strict=True)]
    bar = f"≤ {BAR:.0%}"
    return [
        Line("fewer requests/s", interval(fewer), bar, statistics.median(fewer) <= BAR),
        Line("more CPU per request", interval(more_cpu), bar, statistics.median(more_cpu) <= BAR),
        Line("CPU per request with counting, µs", spread(costs[BEGIN], ",.0f")),
        Line("CPU per request without, µs", spread(costs[END], ",.0f")),
        Line("requests/s with counting", spread(rates[BEGIN], ",.0f")),
        Line("requests/s without", spread(rates[END], ",.0f")),
    ]


def interval(shares: Sequence[float]) -> str:
    """Format the median with its 95 % interval by ranks, in percent."""
    ordered, count = sorted(shares), len(shares)
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return f"{statistics.median(ordered):.1%} ({ordered[low]:.1%} to {ordered[count - 1 - low]:.1%})"
