"""The results of ``make bench-proxy`` and their report. This module measures nothing."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from results import two_digits

from .cases import BYTES, CASES, CLIENTS, DOWNLOAD, EVENTS, LATENCY, REQUEST, SMALL, TRANSFERS, UPLOADED, Case, Sample
from .contestants import AIOHTTP, DIRECT, NGINX, UMBEL
from .memory import Held
from .origin import EVERY_S, SLOW_S

EVENT_BAR_S = 0.005


class RatioBar(NamedTuple):
    """Umbel's rate by that of a peer: how many times it is to be."""

    case: Case
    peer: str
    least: float


BARS = (RatioBar(SMALL, AIOHTTP, 2.0), RatioBar(DOWNLOAD, NGINX, 0.5), RatioBar(UPLOADED, NGINX, 0.5))


@dataclass
class Results:
    """All results of one run."""

    rounds: int
    seconds: int
    load: str
    upstream: str = ""
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    """By the name of the case and that of the proxy."""
    held: dict[tuple[str, str], list[Held]] = field(default_factory=dict)
    """By the kind of streams and the name of the proxy."""
    made_of: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "seconds": self.seconds,
            "load": self.load,
            "upstream": self.upstream,
            "proxies": self.made_of,
            "left_out": self.left_out,
            "notes": self.notes,
            "samples": [
                {"case": case, "proxy": proxy, "round": turn, **sample._asdict()}
                for (case, proxy), some in self.samples.items()
                for turn, sample in enumerate(some, 1)
            ],
            "held": [
                {"kind": kind, "proxy": proxy, **held._asdict(), "each": held.each}
                for (kind, proxy), some in self.held.items()
                for held in some
            ],
        }


def spread(values: list[float], text: Callable[[float], str] = two_digits) -> str:
    """Format the median and the range."""
    around = f" ({text(min(values))}-{text(max(values))})" if len(values) > 1 else ""
    return text(statistics.median(values)) + around


def present(samples: Iterable[Sample], name: str) -> list[float]:
    return [value for sample in samples if (value := getattr(sample, name)) is not None]


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown, its first two columns of text."""
    lines = [heads, ("---", "---", *("---:",) * (len(heads) - 2)), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# The bars


def ratios(results: Results, bar: RatioBar) -> list[float]:
    """Return the ratios of the rates, round by round."""
    ours = results.samples.get((bar.case.name, UMBEL), [])
    theirs = results.samples.get((bar.case.name, bar.peer), [])
    return [one.rate / other.rate for one, other in zip(ours, theirs, strict=False) if other.rate]


def _row(what: str, bar: str, found: list[float], text: Callable[[float], str], met: Callable[[float], bool]) -> str:
    if not found:
        return f"| {what} | {bar} | - | not measured |\n"
    verdict = "reached" if met(statistics.median(found)) else "**missed**"
    return f"| {what} | {bar} | {spread(found, text)} | {verdict} |\n"


def bars(results: Results) -> str:
    """Return the bars with the results."""
    rows = "| Umbel | asked | reached: median (from-to) | |\n|---|---:|---:|---|\n"
    for bar in BARS:
        rate = "requests/s" if bar.case.unit == REQUEST else "bytes/s"
        what = f"{bar.case.what}: {rate} by those of {bar.peer}"
        rows += _row(what, f"≥ {bar.least:g}", ratios(results, bar), two_digits, bar.least.__le__)
    found = present(results.samples.get((EVENTS.name, UMBEL), []), "p99")
    what = f"{EVENTS.what}: p99 from the upstream to the client"
    return rows + _row(what, f"≤ {milliseconds(EVENT_BAR_S)} ms", found, milliseconds, EVENT_BAR_S.__ge__)


# The tables


def milliseconds(value: float) -> str:
    return f"{value * 1e3:,.2f}"


def microseconds(value: float) -> str:
    return f"{value * 1e6:,.0f}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f}"


def per_gigabyte(value: float) -> str:
    """Seconds per byte as milliseconds per GB."""
    return f"{value * 1e12:,.0f}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def _cell(values: list[float], text: Callable[[float], str], *, ranged: bool = False) -> str:
    if not values:
        return "-"
    return spread(values, text) if ranged else text(statistics.median(values))


def _own_cpu(results: Results, case: Case, samples: list[Sample]) -> str:
    """The CPU beside Umbel's."""
    ours, theirs = present(results.samples.get((case.name, UMBEL), []), "cpu"), present(samples, "cpu")
    return two_digits(statistics.median(theirs) / statistics.median(ours)) if ours and theirs else "-"


LAST = ("errors", "other core")
HEADS = {
    REQUEST: ("", "proxy", "requests/s (from-to)", "CPU µs/request", "x Umbel's", "p50 ms", "p99 ms", *LAST),
    BYTES: ("", "proxy", "MB/s (from-to)", "CPU ms/GB", "x Umbel's", *LAST),
    LATENCY: ("", "proxy", "p50 ms", "p99 ms (from-to)", "CPU µs each", *LAST),
}


def figures(results: Results, unit: str) -> str:
    """Return the measurements of the cases of one unit as a table."""
    rows = []
    for case in CASES:
        for proxy in (*results.made_of, DIRECT):
            samples = results.samples.get((case.name, proxy), []) if case.unit == unit else []
            if not samples:
                continue
            rates, cpu = present(samples, "rate"), present(samples, "cpu")
            p50, p99 = present(samples, "p50"), present(samples, "p99")
            last = (count(sum(sample.errors for sample in samples)), f"{max(s.helpers for s in samples):.0%}")
            own = _own_cpu(results, case, samples)
            if unit == REQUEST:
                times = (_cell(p50, milliseconds), _cell(p99, milliseconds))
                some = (_cell(rates, count, ranged=True), _cell(cpu, microseconds), own, *times)
            elif unit == BYTES:
                some = (_cell(rates, megabytes, ranged=True), _cell(cpu, per_gigabyte), own)
            else:
                some = (_cell(p50, milliseconds), _cell(p99, milliseconds, ranged=True), _cell(cpu, microseconds))
            rows.append((case.what, proxy, *some, *last))
    return table(HEADS[unit], rows) if rows else ""


def memory(results: Results) -> str:
    """Return the memory of the streams as a table."""
    rows = []
    for (kind, proxy), some in results.held.items():
        each = spread([held.each / 1024 for held in some], "{:,.1f}".format)
        all_before = statistics.median(held.before for held in some) / 2**20
        opened = min(held.opened for held in some)
        rows.append((kind, proxy, f"{opened:,}", each, f"{all_before:,.0f}"))
    return table(("", "proxy", "held", "KiB each (from-to)", "MiB before"), rows) if rows else ""


def peers(results: Results) -> str:
    """Return the descriptions of the proxies."""
    lines = []
    for name, made_of in results.made_of.items():
        said = [made_of, *(f"**{note}**" for note in results.notes.get(name, ()))]
        lines.append(f"- **{name}**: {'; '.join(said)}.\n")
    lines += [f"- **{name}** is left out: {reason}.\n" for name, reason in results.left_out.items()]
    return "".join(lines)


def report(results: Results) -> str:
    """Return the whole report."""
    cores = len(os.sched_getaffinity(0))
    tables = "\n".join(part for unit in HEADS if (part := figures(results, unit)))
    return f"""# A pass-through route beside other proxies

<!-- Made by `make bench-proxy`; how it is measured stands in benchmarks/proxy/, the peers in benchmarks/peers/. -->

Each proxy passes everything on to the same upstreams. Medians of {results.rounds} interleaved round(s) of
{results.seconds} s, the order rotating; ratios are taken round by round.
{platform.machine()}, {cores} cores, Python {platform.python_version()}, Linux {platform.release()}.

{bars(results)}
{tables}
{memory(results)}
"{DIRECT}" is the load on the upstream itself: what load and upstream can do on their one core, and what they need.
"other core" is the most that they had of it: near 100 % it is they that were measured, and the CPU of a proxy per
request or GB says more than its rate. "CPU" is that of all threads of all processes of the proxy; that of an event has
its share of the opening of the streams in it. "errors" are responses other than 2xx, connections that broke, and
streams that did not come. "-": there was none.

## How they are set up

There are two cores. All proxies are up all the time on the first one, one process of each that serves, idle but for the
one that is asked. The upstreams and the load share the other core. Everything is on loopback, over HTTP/1.1 without
TLS, on kept connections.

- Small requests: {results.load}, {CLIENTS} connections, each of which sends its next request when its response has
  come; the upstream is {results.upstream}, which answers with 1.7 kB of JSON.
- Large bodies: {TRANSFERS} connections. Downloads come from that nginx (`sendfile`), and the load discards them inside
  the kernel; uploads are sent by `sendfile`, and the upstream (benchmarks/proxy/origin.py) discards them inside the
  kernel, so that neither costs much beside the proxy. MB and GB are 10⁶ and 10⁹ bytes.
- The first byte: from the request until the first piece of a body whose last piece the upstream sends
  {SLOW_S * 1e3:g} ms later. An event: from just before the upstream sends it until it is read by the client, one per
  stream every {EVERY_S * 1e3:g} ms; "in turn", the streams are evenly apart; "at once", all events are sent one right
  after the other, so that the last one waits for the work of all others.
- Memory: what all processes of the proxy have resident with the streams open and each used once, less what they had
  before, in a process of its own for each figure, where 100 such streams had come and gone.

Before the rounds it is compared what comes through each proxy: a small and a large body down and up, a slow body, an
event, a frame of a WebSocket. Each proxy writes a line per request into a file.

{peers(results)}"""
