"""The tail of the latencies: with one slow replica of two, with and without hedging; and with another upstream dead.

The load has a fixed and moderate rate, so that no queue of the load generator dominates. The variants alternate in
short windows, so that a change of the machine's speed affects both alike.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

from path_processes import Process, gateway, script
from path_report import Line, Section, milliseconds, percentile, progress, route, spread, upstream

RATE = 100
DELAY_MS = 20
LATE_MS = 500
HEDGE_BAR = 1 / 3
DEAD_BAR = 0.10
Latencies = dict[str, list[float]]


def window(load: Process, seconds: float, targets: list[str]) -> tuple[Latencies, dict[str, int]]:
    """The latencies of each target, and the number of missing or incomplete responses."""
    measured = json.loads(load.ask(f"{RATE} {seconds} {' '.join(targets)}"))
    return {target: measured[target][0] for target in measured}, {target: measured[target][1] for target in measured}


def flat(windows: list[list[float]]) -> list[float]:
    return list(chain.from_iterable(windows))


def hedging_configuration(replicas: Sequence[str]) -> str:
    return "\n".join(
        [
            upstream("plain", replicas),
            upstream("hedged", replicas, 'hedge = { after = "p95" }\n'),
            route("plain", ["plain"]),
            route("hedged", ["hedged"]),
        ]
    )


def hedging(*, quick: bool) -> list[Line]:
    """Measure two replicas, one of them late, with and without hedging."""
    rounds, seconds = (3, 5.0) if quick else (10, 10.0)
    with script(1, "path_upstream.py", str(DELAY_MS), str(DELAY_MS + LATE_MS)) as stub:
        config = hedging_configuration(stub.line().split())
        seen: dict[str, list[list[float]]] = {"/plain/1": [], "/hedged/1": []}
        with gateway(config) as (_, port), script(1, "path_fixed_rate.py", str(port)) as load:
            for target in seen:
                window(load, 4.0, [target])  # a percentile needs a hundred attempts
            for turn in range(rounds):
                for target, latencies in seen.items():
                    found, failed = window(load, seconds, [target])
                    latencies.append(found[target])
                    if failed[target]:
                        progress(f"tail: {failed[target]} requests to {target} failed")
                progress(f"tail: hedging, round {turn + 1} of {rounds} done")
    plain, hedged = map(flat, seen.values())
    without, with_hedge = percentile(plain, 0.99), percentile(hedged, 0.99)
    late = sum(latency > LATE_MS / 1e3 for latency in plain) / len(plain)
    late_hedged = sum(latency > LATE_MS / 1e3 for latency in hedged) / len(hedged)
    ratios = [
        percentile(with_, 0.99) / percentile(without_, 0.99)
        for without_, with_ in zip(seen["/plain/1"], seen["/hedged/1"], strict=True)
    ]
    usual = ", ".join(milliseconds(percentile(latencies, 0.5)) for latencies in (plain, hedged))
    return [
        Line(f"one replica of two {LATE_MS} ms late: p99 without hedging", milliseconds(without)),
        Line('p99 with `hedge = { after = "p95" }`', milliseconds(with_hedge)),
        Line("the second beside the first", f"{with_hedge / without:.2f}", "≤ 1/3", with_hedge <= without * HEDGE_BAR),
        Line("the same, round by round", spread(ratios)),
        Line("p50 without and with", usual),
        Line("answers later than the late replica, without and with", f"{late:.1%}, {late_hedged:.1%}"),
    ]


ALIVE, REFUSES, SILENT = "alive", "dead: refuses connections", "dead: accepts and never answers"


def change(stub: Process, state: str) -> None:
    """Set the state of the second upstream."""
    if state == ALIVE:
        stub.ask(f"delay 1 {DELAY_MS}")
    elif state == REFUSES:
        stub.ask("close 1")
    else:
        stub.ask("delay 1 hold")


def restore(stub: Process, state: str) -> None:
    if state == REFUSES:
        stub.ask("open 1")
    elif state == SILENT:
        stub.ask(f"delay 1 {DELAY_MS}")
        stub.ask("release 1")


def dead_configuration(alive: str, dying: str) -> str:
    return "\n".join(
        [
            upstream("alive", [alive]),
            upstream("dying", [dying], 'timeout = "1s"\n'),
            route("needs-not", ["alive"]),
            route("needs", ["alive", "dying"]),
        ]
    )


def dead(*, quick: bool) -> list[Line]:
    """Measure the p99 of a route while the second upstream of another route is dead."""
    rounds, seconds = (3, 4.0) if quick else (12, 10.0)
    needs_not, needs = "/needs-not/1", "/needs/1"
    with script(1, "path_upstream.py", str(DELAY_MS), str(DELAY_MS)) as stub:
        config = dead_configuration(*stub.line().split())
        seen: dict[str, list[list[float]]] = defaultdict(list)
        failures: dict[str, int] = defaultdict(int)
        with gateway(config) as (_, port), script(1, "path_fixed_rate.py", str(port)) as load:
            window(load, 3.0, [needs_not, needs])
            for turn in range(rounds):
                for state in (ALIVE, REFUSES, ALIVE, SILENT):
                    change(stub, state)
                    found, failed = window(load, seconds, [needs_not, needs_not, needs])
                    restore(stub, state)
                    window(load, 0.5, [needs_not])
                    seen[state].append(found[needs_not])
                    failures[state] += failed[needs_not]
                progress(f"tail: a dead upstream, round {turn + 1} of {rounds} done")
    return dead_lines(seen, failures)


def dead_lines(seen: dict[str, list[list[float]]], failures: dict[str, int]) -> list[Line]:
    """Return lines about the windows ``seen`` of each state and the ``failures`` of requests that need not fail."""
    lines = []
    base = percentile(flat(seen[ALIVE]), 0.99)
    for state in (ALIVE, REFUSES, SILENT):
        latencies = flat(seen[state])
        p99, failed = percentile(latencies, 0.99), failures[state]
        worse = p99 / base - 1
        text = f"{milliseconds(p99)} ({worse:+.0%}); p50 {milliseconds(percentile(latencies, 0.5))}; {failed} failed"
        what = f"p99 of a route that does not need the upstream that is {state}"
        if state == ALIVE:
            lines.append(Line(what, text))
        else:
            lines.append(Line(what, text, f"≤ {DEAD_BAR:+.0%}", worse <= DEAD_BAR and not failed))
    by_round = [percentile(latencies, 0.99) * 1e3 for latencies in seen[ALIVE]]
    lines.append(Line("the p99 of single windows with all alive, for comparison, ms", spread(by_round)))
    return lines


def measure(*, quick: bool) -> Section:
    how = f"""{RATE} requests a second at fixed times, whatever comes back; upstreams answer after {DELAY_MS} ms. With
an upstream dead, a third of the requests goes to a route that needs it (its limit is 1 s; there is neither retry nor
breaker)."""
    return Section("The tail", how, [*hedging(quick=quick), *dead(quick=quick)])
