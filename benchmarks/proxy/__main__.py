"""A pass-through route beside other proxies: ``make bench-proxy``; ``ARGS=--quick`` for a short run.

    make bench-proxy                              all of it, ten minutes; writes benchmarks/proxy.md
    make bench-proxy ARGS='--only streams'        only the memory of 1,000 streams
    make bench-proxy ARGS='--only small --only download --proxy umbel --proxy nginx --json /tmp/figures.json'

All proxies run on one core, idle except for the one that is measured; upstreams and load share another core. Rounds
are interleaved in a rotating order, so that a change of the machine's speed affects all alike. Only processes that this
program started are ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateways import chosen, ended, say, upstream
from lineup import Absent, Gateway, tool
from path_memory import descriptors
from processes import Tree, free_port, running
from wrk import load_name

from .cases import CASES, Case, sampled
from .checks import BODY, FILE, large
from .contestants import DIRECT, PROXIES, Contestant, ProxySpot, started
from .memory import COUNT, KINDS, held
from .report import Results, report

HERE = Path(__file__).resolve().parent
MEMORY = "streams"
"""The name of the measurement of memory."""


@contextmanager
def upstreams(root: Path, results: Results) -> Iterator[tuple[ProxySpot, list[Tree]]]:
    """Run the upstreams on the second core; gives their ports in a spot, and their processes."""
    try:
        tool("nginx")
    except Absent as reason:
        raise SystemExit(f"{reason}, and the large files come from it") from None
    (root / "large").write_bytes(large())
    file = f"location = {FILE} {{ alias {root / 'large'}; sendfile on; }}"
    directory = root / "origin"
    directory.mkdir()
    with (
        upstream(root, BODY, file) as (files, service, results.upstream),
        running([sys.executable, str(HERE / "origin.py")], 1, directory, {}) as origin,
    ):
        while not (port := (directory / "stdout").read_text()).endswith("\n"):
            time.sleep(0.02)
        yield ProxySpot(root, 0, files, int(port)), [service, origin]


def spot_of(ports: ProxySpot, name: str) -> ProxySpot:
    """A new directory and port for a proxy."""
    return ProxySpot(ports.directory / name, free_port(), ports.upstream, ports.streams)


def start_all(proxies: list[Gateway], ports: ProxySpot, stack: ExitStack, results: Results) -> list[Contestant]:
    """Start all proxies that this machine can run and check what they pass on; others are left out with a reason."""
    contestants = []
    for number, proxy in enumerate(proxies):
        try:
            results.made_of[proxy.name] = proxy.prepare()
            contestant = stack.enter_context(started(proxy, spot_of(ports, str(number))))
        except Absent as reason:
            say(f"!!! {proxy.name} IS LEFT OUT: {reason}")
            results.made_of.pop(proxy.name, None)
            results.left_out[proxy.name] = str(reason)
            continue
        contestants.append(contestant)
        results.notes[proxy.name] = contestant.notes
        say(f"{proxy.name} is up and passes on what it should")
    return contestants


def measure_cases(
    cases: list[Case], contestants: list[Contestant], services: list[Tree], results: Results, warm_up: int
) -> None:
    """Measure all cases of all proxies in interleaved rounds."""
    for turn in range(results.rounds):
        order = contestants[turn % len(contestants) :] + contestants[: turn % len(contestants)]
        for case in cases:
            for one in order:
                if turn == 0 and warm_up:
                    sampled(case, one, warm_up, services)
                sample = sampled(case, one, results.seconds, services)
                results.samples.setdefault((case.name, one.name), []).append(sample)
                say(f"round {turn + 1} of {results.rounds}: {case.what}: {one.name}: {sample}")


def measure_memory(proxies: list[Gateway], ports: ProxySpot, results: Results, rounds: int) -> None:
    """Measure the memory of the streams of all proxies that can be compared, each time in a new process."""
    for turn in range(rounds):
        for kind in KINDS:
            for proxy in proxies:
                if proxy.name not in results.made_of:
                    continue
                with started(proxy, spot_of(ports, f"{kind} {proxy.name} {turn}".replace("/", " "))) as contestant:
                    found = held(contestant, kind, COUNT)
                results.held.setdefault((kind, proxy.name), []).append(found)
                say(f"{COUNT:,} {kind}: {proxy.name}: {found.opened:,} held, {found.each / 1024:,.1f} KiB each")


def measure(proxies: list[Gateway], parts: set[str], rounds: int, seconds: int, warm_up: int) -> Results:
    """Start the upstreams and the proxies, measure the parts, and end them."""
    results = Results(rounds, seconds, load_name())
    cases = [case for case in CASES if case.name in parts]
    descriptors()  # A thousand streams need more than some systems give at first.
    with (
        tempfile.TemporaryDirectory(prefix="umbel-bench-") as name,
        upstreams(Path(name), results) as (ports, services),
    ):
        with ExitStack() as stack:
            contestants = start_all(proxies, ports, stack, results)
            direct = Contestant(DIRECT, ports, None)
            measure_cases(cases, [*contestants, direct], services, results, warm_up)
        if MEMORY in parts:
            measure_memory(proxies, ports, results, min(rounds, 3))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*(case.name for case in CASES), MEMORY]
    parser.add_argument("--quick", action="store_true", help="one round of 1 s; writes no file")
    parser.add_argument("--only", action="append", default=[], choices=every, help="may stand more than once")
    parser.add_argument("--proxy", action="append", default=[], metavar="NAME", help="part of a name; may stand twice")
    parser.add_argument("--json", metavar="FILE", help="write every sample into this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, ended)
    rounds, seconds, warm_up = (1, 1, 0) if arguments.quick else (5, 2, 1)
    if len(os.sched_getaffinity(0)) < 2:
        say("!!! There is one core for all: the load takes its share of what the proxies could have.")
    results = measure(chosen(PROXIES, arguments.proxy), set(arguments.only or every), rounds, seconds, warm_up)
    text = report(results)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results.document(), indent=2) + "\n", encoding="utf-8")
    if not (arguments.quick or arguments.only or arguments.proxy):
        HERE.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
