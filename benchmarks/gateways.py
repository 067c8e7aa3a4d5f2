"""The gateway compared with its alternatives: ``make bench``; ``ARGS=--quick`` for a short run.

    make bench                              all of it, ten minutes; writes benchmarks/results.md and the
                                            tables of README.md and README.zh-CN.md
    make bench ARGS='--only node --only umbel --json /tmp/figures.json'

All gateways run on one core, idle except for the one that is measured; upstream and load share another core. Five
interleaved rounds in a rotating order, so that a change of the machine's speed affects all alike; a second of the same
load before each sample. Only processes that this program started are ended.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lineup import CLIENTS, COUNTS, GATEWAYS, Absent, Gateway, Spot, nginx_command, nginx_conf, output, tool  # noqa: E402  # siblings, found only now
from marked import replace_marked  # noqa: E402
from processes import Tree, ended, free_port, pinned, running  # noqa: E402
from results import CHINESE, ENGLISH, Lines, Results, Sample, bars, report  # noqa: E402
from stub import BODY  # noqa: E402
from wrk import load, load_name  # noqa: E402

START_S = 30.0
SETTLE_S = 20.0
"""How long a gateway may go on with what nobody waits for any more, before the next one is asked."""
CONFIGURED_BODY_MAX = 4000
"""The most bytes of a body in nginx's configuration, whose strings are bounded; a larger body is a file."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def upstream(root: Path, body: bytes = BODY, more: str = "") -> Iterator[tuple[int, Tree, str]]:
    """The upstream of all gateways: its port, its processes and its name.

    It answers ``body`` to every path; to ``/item/3`` only, if the body has more than ``CONFIGURED_BODY_MAX`` bytes.
    ``more`` are lines for the server in nginx's configuration.
    """
    directory = root / "upstream"
    directory.mkdir()
    try:
        nginx = tool("nginx")
    except Absent as reason:
        if body != BODY:
            raise SystemExit(f"the own stub has one body only, and {reason}") from reason
        with running([sys.executable, str(HERE / "stub.py")], 1, directory, {}) as tree:
            while not (port := (directory / "stdout").read_text()).endswith("\n"):
                time.sleep(0.02)
            yield int(port), tree, "an own stub on uvloop (there is no nginx here)"
        return
    spot = Spot(directory, free_port(), 0)
    text = body.decode()
    if len(body) > CONFIGURED_BODY_MAX:
        more += f" location = /item/3 {{ alias {spot.written('item', text)}; }}"
        text = ""
    file = spot.written("nginx.conf", nginx_conf("upstream.conf", spot, BODY=text, MORE=more))
    with running(nginx_command(file, spot), 1, directory, {}) as tree:
        until = time.monotonic() + START_S
        while _get(spot.port, "/item/3") != (200, body):
            if time.monotonic() > until or not tree.alive():
                raise SystemExit(f"{nginx} does not serve as the upstream: {tree.complaint()}")
            time.sleep(0.05)
        yield spot.port, tree, output(nginx, "-v").partition(": ")[2]


def _get(port: int, path: str, within: float = 10.0) -> tuple[int, bytes]:
    """Send one request; return status and body, or 0 if there was no response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


@dataclass
class Contestant:
    """A running gateway."""

    gateway: Gateway
    spot: Spot
    tree: Tree
    body: bytes = BODY
    """The upstream's body."""
    answers: int = 0
    """Those that were seen; its log has to have as many lines, and a few more for what was under way at each end."""
    runs: int = 0
    notes: list[str] = field(default_factory=list)

    def right(self, counts: tuple[int, ...] = COUNTS) -> None:
        """Wait until it serves, and see that its answers are what was asked for. ``Absent`` if they are not."""
        until = time.monotonic() + START_S
        while _get(self.spot.port, "/n1")[0] != 200:
            if time.monotonic() > until or not self.tree.alive():
                raise Absent(f"it did not come up: {self.tree.complaint()}")
            time.sleep(0.1)
        value = json.loads(self.body)
        for count in counts:
            status, body = _get(self.spot.port, f"/n{count}")
            if status != 200 or json.loads(body) != {f"c{call}": value for call in range(count)}:
                raise Absent(f"its answer to /n{count} is wrong: {status} {body[:300]!r}")
            self.answers += 1
        self.answers += 1

    def ask(self, count: int, seconds: int, service: Tree) -> Sample:
        """One sample. Never fails: what a gateway does not manage is what the sample says."""
        cpu, helpers = self.tree.cpu(), service.cpu() + _children()
        began = time.perf_counter()
        seen = load(pinned(1), self.spot.port, f"/n{count}", CLIENTS, seconds)
        took = time.perf_counter() - began
        cpu, helpers = self.tree.cpu() - cpu, service.cpu() + _children() - helpers
        self.answers += seen.answers
        self.runs += 1
        if not self.tree.alive():
            self.note("ended during the bench")
        elif not self.tree.settle(SETTLE_S):
            self.note(f"was still busy {SETTLE_S:g} s after the load at n = {count} had gone")
        rate, errors = seen.good / seen.seconds, seen.bad + seen.failed
        return Sample(rate, seen.p50, seen.p99, errors, cpu / seen.good if seen.good else None, helpers / took)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            say(f"{self.gateway.name}: {text}")

    def lines(self) -> int:
        """The lines in its log, in what was rotated away as well. To be asked when it has ended."""
        count = 0
        for path in self.spot.directory.glob(self.gateway.log):
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                count += sum(line.startswith(self.gateway.mark) for line in file)
        return count


def _children() -> float:
    """Return the CPU seconds of ended child processes, which are those of the load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def started(
    gateways: list[Gateway],
    root: Path,
    port: int,
    stack: ExitStack,
    results: Results,
    body: bytes = BODY,
    counts: tuple[int, ...] = COUNTS,
) -> list[Contestant]:
    """Start all gateways that this machine can run and check their responses; the others are left out with a reason."""
    contestants = []
    for number, gateway in enumerate(gateways):
        try:
            results.made_of[gateway.name] = gateway.prepare()
            directory = root / str(number)
            directory.mkdir()
            spot = Spot(directory, free_port(), port)
            with ExitStack() as alone:  # which ends it at once if it is left out
                tree = alone.enter_context(running(gateway.command(spot), 0, directory, spot.environment()))
                contestant = Contestant(gateway, spot, tree, body)
                contestant.right(counts)
                stack.push(alone.pop_all())
        except Absent as reason:
            say(f"!!! {gateway.name} IS LEFT OUT: {reason}")
            results.made_of.pop(gateway.name, None)
            results.left_out[gateway.name] = str(reason)
            continue
        contestants.append(contestant)
        say(f"{gateway.name} is up and answers right")
    return contestants


def measure(
    gateways: list[Gateway],
    rounds: int,
    seconds: int,
    warm_up: int,
    body: bytes = BODY,
    counts: tuple[int, ...] = COUNTS,
) -> Results:
    """Start the gateways, measure all rounds, end them, and count their log lines.

    Args:
        warm_up: the seconds of the same load before each sample.
        body: what the upstream answers.
        counts: the numbers of calls of a request, of ``COUNTS``.
    """
    results = Results(rounds, seconds, load_name(), body=len(body))
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as name:
        root = Path(name)
        with upstream(root, body) as (port, service, results.upstream), ExitStack() as stack:
            contestants = started(gateways, root, port, stack, results, body, counts)
            for turn in range(rounds):
                order = contestants[turn % len(contestants) :] + contestants[: turn % len(contestants)]
                for count in counts:
                    for one in order:
                        # What the gateway has let go since its last turn, connections above all, is no steady load's.
                        one.ask(count, warm_up, service)
                        sample = one.ask(count, seconds, service)
                        results.samples.setdefault((one.gateway.name, count), []).append(sample)
                        say(f"round {turn + 1} of {rounds}, n = {count}: {one.gateway.name}: {sample.text()}")
        for one in contestants:
            results.lines[one.gateway.name] = Lines(one.lines(), one.answers, one.runs * CLIENTS)
            results.notes[one.gateway.name] = one.notes
    return results


def chosen(gateways: Iterable[Gateway], parts: list[str]) -> list[Gateway]:
    """Return the gateways whose names contain one of the given words; without words, all."""
    every = list(gateways)
    found = [one for one in every if not parts or any(part.lower() in one.name.lower() for part in parts)]
    if not found:
        raise SystemExit(f"none is called so; there are: {', '.join(one.name for one in every)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 1 s; writes no file")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="part of a name; may stand twice")
    parser.add_argument("--json", metavar="FILE", help="write every sample into this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, ended)
    rounds, seconds, warm_up = (1, 1, 1) if arguments.quick else (5, 3, 1)
    if len(os.sched_getaffinity(0)) < 2:
        say("!!! There is one core for all: the load takes its share of what the gateways could have.")
    results = measure(chosen(GATEWAYS, arguments.only), rounds, seconds, warm_up)
    text = report(results)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results.document(), indent=2) + "\n", encoding="utf-8")
    if not arguments.quick and not arguments.only:
        (HERE / "results.md").write_text(text, encoding="utf-8")
        for name, words in (("README.md", ENGLISH), ("README.zh-CN.md", CHINESE)):
            replace_marked(HERE.parent / name, "bars", bars(results, words).rstrip())


if __name__ == "__main__":
    main()
