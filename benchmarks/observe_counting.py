"""The cost of counting: one gateway that counts and does not count in turn; CPU per request and requests/s.

It is one process, because two equal processes differ by more than counting costs. It switches ten times per second
under a steady load. A ratio compares a window with the one behind it, so a change of the machine's speed affects both.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from path_processes import HERE, gateway, script
from path_report import Line, Section, progress, route, spread, upstream

CALLS = 10
CLIENTS = 16
BAR = 0.03
HOW = f"""`umbel serve`, which counts and does not count in turn, for 0.1 s each; {CLIENTS} clients that ask again as
soon as they are answered, {CALLS} calls per request. To keep the timelines of some requests is part of counting. CPU is
that of the event loop's thread. The cost is a share of the window without counting beside it: the median, and its 95 %
interval by ranks."""


class Window(NamedTuple):
    """What happened in one window, with or without counting."""

    us: float
    """CPU microseconds per request."""
    rate: float
    """Requests per second."""


Windows = dict[bool, list[Window]]
"""The windows, by whether there was counting. Those with the same index are neighbours."""


def configuration(port: str) -> str:
    return upstream("parts", [port], "max_concurrency = 1000\n") + route("ten", ["parts"] * CALLS)


def parsed(text: str) -> Windows:
    """The windows of the gateway's file, in pairs; those without a request are left out with their neighbour."""
    found: Windows = {True: [], False: []}
    lines = [line.split() for line in text.splitlines()]
    for one, other in zip(lines[::2], lines[1::2], strict=False):
        if one[3] != "0" and other[3] != "0":
            for counts, cpu, took, requests in (one, other):
                found[counts == "1"].append(Window(float(cpu) / int(requests) * 1e6, int(requests) / float(took)))
    return found


def measure(*, quick: bool) -> Section:
    turns = 2 if quick else 36
    with ExitStack() as stack:
        config = configuration(stack.enter_context(script(1, "stub.py")).line())
        server, port = stack.enter_context(gateway(config, sys.executable, str(HERE / "observe_gateway.py")))
        load = stack.enter_context(script(1, "path_load.py"))
        load.ask(f"{port} /ten/4711 {CLIENTS} 2")
        server.send_line("begin")
        for turn in range(turns):  # A connection is closed after its thousandth request.
            load.ask(f"{port} /ten/4711 {CLIENTS} 5")
            progress(f"counting: {turn + 1} of {turns} loads done")
        windows = Path(f"/proc/{server.pid}/cwd/windows").read_text()
    return Section("Counting", HOW, lines(parsed(windows)))


def lines(windows: Windows) -> list[Line]:
    pairs = list(zip(windows[True], windows[False], strict=True))
    fewer = [1 - one.rate / other.rate for one, other in pairs]
    more_cpu = [one.us / other.us - 1 for one, other in pairs]
    bar = f"≤ {BAR:.0%}"
    us, rates = ([[getattr(each, name) for each in windows[mode]] for mode in (True, False)] for name in Window._fields)
    return [
        Line("fewer requests/s", interval(fewer), bar, statistics.median(fewer) <= BAR),
        Line("more CPU per request", interval(more_cpu), bar, statistics.median(more_cpu) <= BAR),
        Line("CPU per request with counting, µs", spread(us[0], ",.0f")),
        Line("CPU per request without, µs", spread(us[1], ",.0f")),
        Line("requests/s with counting", spread(rates[0], ",.0f")),
        Line("requests/s without", spread(rates[1], ",.0f")),
        Line("pairs of windows", f"{len(pairs):,}"),
    ]


def interval(shares: Sequence[float]) -> str:
    """Format the median with its 95 % interval by ranks, in percent."""
    ordered, count = sorted(shares), len(shares)
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return f"{statistics.median(ordered):.1%} ({ordered[low]:.1%} to {ordered[count - 1 - low]:.1%})"
