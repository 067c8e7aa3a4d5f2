"""The results of ``gateways.py`` and their report: ``results.md`` and ``--json``.

This module measures nothing. A gateway without responses has a rate of 0 and dashes, and the report says so.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from lineup import AIOHTTP, CLIENTS, COUNTS, KRAKEND, NGINX, NODE, SEED, UMBEL

BARS = (
    *((AIOHTTP, count, bar) for count, bar in zip(COUNTS, (3.0, 3.5, 4.0), strict=True)),
    *((NODE, count, bar) for count, bar in zip(COUNTS, (1.0, 1.3, 1.7), strict=True)),
    *((KRAKEND, count, bar) for count, bar in zip(COUNTS, (0.9, 1.7, 2.2), strict=True)),
    (SEED, 10, 80.0),
    (NGINX, 10, 0.35),
)
"""Umbel's requests/s by the other's: with whom, at which n, and how many times it is to be."""

START_AND_END = 100
"""The most lines in which a gateway describes itself."""


class Sample(NamedTuple):
    """One measurement of a gateway with one number of calls."""

    rate: float
    """Good answers per second."""
    p50: float | None
    p99: float | None
    """Seconds, of all answers."""
    errors: int
    """Answers that are no 2xx, broken connections and timeouts."""
    cpu: float | None
    """Seconds of CPU of all its processes per good answer."""
    helpers: float
    """The share of the other core that upstream and load had."""

    def text(self) -> str:
        return f"{self.rate:,.0f} requests/s, p99 {milliseconds(self.p99)} ms, {self.errors} errors"


class Lines(NamedTuple):
    """The lines of a gateway's log."""

    found: int
    answers: int
    under_way: int
    """The most requests that were under way when the load went, and may have a line as well."""

    def text(self) -> str:
        text = f"{self.found:,} lines for {self.answers:,} answers"
        return text if self.answers <= self.found <= self.answers + self.under_way + START_AND_END else f"**{text}**"


@dataclass
class Results:
    """All results of one run."""

    rounds: int
    seconds: int
    load: str
    upstream: str = ""
    body: int = 0
    """Bytes of one answer of the upstream."""
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    made_of: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """For programs."""
        samples = [
            {"gateway": name, "n": count, "round": turn, **sample._asdict()}
            for (name, count), some in self.samples.items()
            for turn, sample in enumerate(some, 1)
        ]
        bars = [
            {"peer": peer, "n": count, "bar": bar, "ratios": ratios(self, peer, count)} for peer, count, bar in BARS
        ]
        return {
            "seconds": self.seconds,
            "clients": CLIENTS,
            "load": self.load,
            "upstream": self.upstream,
            "body": self.body,
            "gateways": self.made_of,
            "left_out": self.left_out,
            "samples": samples,
            "bars": [bar for bar in bars if bar["ratios"]],
            "log_lines": {name: lines._asdict() for name, lines in self.lines.items()},
            "notes": self.notes,
        }


def ratios(results: Results, peer: str, count: int) -> list[float | None]:
    """Return the ratio of requests/s to the peer's by rounds; None if the peer had no responses."""
    ours, theirs = results.samples.get((UMBEL, count), []), results.samples.get((peer, count), [])
    return [_ratio(one.rate, other.rate) for one, other in zip(ours, theirs, strict=False)]


def _ratio(ours: float, theirs: float) -> float | None:
    if theirs:
        return ours / theirs
    return None if ours else 0.0


# The tables


def two_digits(value: float) -> str:
    return "∞" if math.isinf(value) else f"{float(f'{value:.2g}'):g}"


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e3:,.1f}"


def microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e6:,.0f}"


def median(samples: list[Sample], name: str) -> float | None:
    values = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return statistics.median(values) if values else None


def spread(values: list[float]) -> str:
    """Format the median and the range."""
    around = f" ({two_digits(min(values))}-{two_digits(max(values))})" if len(values) > 1 else ""
    return two_digits(statistics.median(values)) + around


class BarWords(NamedTuple):
    """The words of the table of bars in one language."""

    head: tuple[str, str, str]
    """Of the columns with the peer, with the bar, and with the result."""
    reached: str
    missed: str
    not_measured: str


ENGLISH = BarWords(
    ("Umbel's requests/s by those of", "asked", "reached: median (from-to)"), "reached", "**missed**", "not measured"
)
CHINESE = BarWords(
    ("Umbel 每秒的请求数除以下列网关的", "目标", "实测中位数 (最小-最大)"), "达到", "**未达到**", "没有测"
)


def bars(results: Results, words: BarWords = ENGLISH) -> str:
    """Return the bars with the results as a table."""
    peer_head, asked, result_head = words.head
    rows = [f"| {peer_head} | n | {asked} | {result_head} | |\n|---|---:|---:|---:|---|\n"]
    for peer, count, bar in BARS:
        found = [math.inf if ratio is None else ratio for ratio in ratios(results, peer, count)]
        if found:
            verdict = words.reached if statistics.median(found) >= bar else words.missed
            rows.append(f"| {peer} | {count} | ≥ {bar:g} | {spread(found)} | {verdict} |\n")
        else:
            rows.append(f"| {peer} | {count} | ≥ {bar:g} | - | {words.not_measured} |\n")
    return "".join(rows)


FIGURES = (
    "| n | gateway | requests/s (from-to) | p50 ms | p99 ms | errors | CPU µs/request | x Umbel's CPU | other core |\n"
    "|---:|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


def figures(results: Results, counts: tuple[int, ...] = COUNTS) -> str:
    """Return all measurements as a table."""
    rows = []
    for count in counts:
        ours = median(results.samples.get((UMBEL, count), []), "cpu")
        for name in results.made_of:
            samples = results.samples[name, count]
            rates, cpu = [sample.rate for sample in samples], median(samples, "cpu")
            cells = (
                str(count),
                name,
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
                milliseconds(median(samples, "p50")),
                milliseconds(median(samples, "p99")),
                f"{sum(sample.errors for sample in samples):,}",
                microseconds(cpu),
                two_digits(cpu / ours) if cpu and ours else "-",
                f"{max(sample.helpers for sample in samples):.0%}",
            )
            rows.append(f"| {' | '.join(cells)} |\n")
    return FIGURES + "".join(rows)


def peers(results: Results, counts: tuple[int, ...] = COUNTS) -> str:
    """Return the descriptions of the gateways."""
    lines = []
    for name, made_of in results.made_of.items():
        said = [made_of, results.lines[name].text(), *(f"**{note}**" for note in results.notes[name])]
        if all(sample.rate == 0 for count in counts for sample in results.samples[name, count]):
            said.append("**answered nothing at all**")
        else:
            said += [
                f"**at n = {count} it answered nothing good in {zero} of {results.rounds} rounds**"
                for count in counts
                if (zero := sum(sample.rate == 0 for sample in results.samples[name, count]))
            ]
        lines.append(f"- **{name}**: {'; '.join(said)}.\n")
    lines += [f"- **{name}** is left out: {reason}.\n" for name, reason in results.left_out.items()]
    return "".join(lines)


def report(results: Results) -> str:
    """Return the whole report."""
    cores = len(os.sched_getaffinity(0))
    return f"""# The gateway beside what people would pick instead

<!-- Made by `make bench`; how it is measured stands in benchmarks/gateways.py, the peers in benchmarks/peers/. -->

A request makes n calls at once and answers with one JSON object of their values, `{{"c0": …, "c1": …}}`. Medians of
{results.rounds} interleaved round(s) of {results.seconds} s, the order rotating; ratios are taken round by round.
{platform.machine()}, {cores} cores, Python {platform.python_version()}, Linux {platform.release()}.

{bars(results)}
{figures(results)}
"errors" are answers other than 2xx, broken connections and timeouts, in all rounds together; requests/s and CPU count
good answers only, the percentiles count all. "CPU" is that of all threads of all processes of the gateway. "other core"
is the most that upstream and load had of theirs: near 100 % it is they that were measured. "-" and ∞: there was no
answer.

## How they are set up

All gateways are up all the time on one core, one process of each that serves, idle but for the one that is asked. On
the other core: the load, {results.load}, with {CLIENTS} connections, each of which sends its next request when its
answer has come; and the upstream, {results.upstream}, which answers {results.body} bytes of JSON.

Each gateway keeps its connections to the upstream open, decodes the bodies and encodes one answer (nginx puts them
together as they are), has a deadline of 2 s over the request, and writes a line per request into a file. The peers have
room for every call in flight ({CLIENTS} times {max(COUNTS)}), and keep idle connections for ten minutes or longer, so
that these are still there when their turn comes again. Umbel has no settings but urls, paths and deadlines, so it has
all of it on that is on by default: an access record with a member per call, `Server-Timing`, and to the upstream
`traceparent`, `X-Request-Id`, `Via`, `X-Forwarded-*` and the time that is left. By default it also has at most 100
calls in flight to an upstream, so at n = 10 and 50 the others wait in its queue; and it closes idle connections after
4 s, so it connects anew in the second of the same load that each gateway has before each sample.

Before the rounds each gateway's answers are checked; after them its lines are counted: as many as answers, and up to
{CLIENTS} more for each of its runs, which were under way when the load went. KrakenD answers 200 with what it has when
a call fails, so its column of errors cannot show that.

{peers(results)}"""
