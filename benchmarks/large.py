"""Large bodies, beside FastAPI with aiohttp and orjson: ``make bench-large``; ``ARGS=--quick`` for a short run.

    make bench-large                            three minutes; writes benchmarks/large.md
    make bench-large ARGS='--only check'        only what the check of JSON costs, some seconds

A request makes ten calls, each of which is answered with 10 KiB or 100 KiB of ordinary JSON. Processes, settings and
rounds are those of ``gateways.py``.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from umbel.composition.decode import decode_strict
from umbel.composition.json_check import is_json

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gateways import GATEWAYS, measure  # noqa: E402  # siblings, found only now
from lineup import AIOHTTP, CLIENTS, UMBEL  # noqa: E402
from processes import ended  # noqa: E402
from results import Results, figures, peers, ratios, spread  # noqa: E402

CALLS = (10,)
BARS = {10: 2.0, 100: 3.0}
"""Umbel's requests/s by those of the peer: by KiB of a body, how many times it is to be."""
NAMES = ("Ada Lovelace", "Jan Łukasiewicz", "Grace Hopper", "Anders Ångström")
SECONDS = {10: 3, 100: 6}
"""The length of a window by KiB of a body. At its end 16 requests are unfinished, and should be a small part of all."""
CHECK_BAR = 0.5
"""The most of the time of decoding that the check may take in order to be worth it."""


def ordinary_body(size: int) -> bytes:
    """A JSON text of at least ``size`` bytes, and at most some 200 more: a list of objects with values of each kind."""
    items: list[bytes] = []
    while sum(map(len, items)) + len(items) < size:
        number = len(items)
        item = {
            "id": 1000 + number,
            "sku": f"A-{number * 7919 % 10007}",
            "name": f"{NAMES[number % len(NAMES)]} {number}",
            "price": round(number * 1.37 % 200, 2),
            "tags": ["new", "sale"][: number % 3],
            "in_stock": number % 5 > 0,
            "note": None,
            "address": {"street": f"Long Street {number}", "city": "Zürich", "zip": "8001"},
        }
        items.append(json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode())
    return b'{"items":[' + b",".join(items) + b"]}"


def check_table(rounds: int) -> str:
    """Measure decoding, encoding and the check in turn; return the medians as a table."""
    rows = []
    gc.disable()  # A gateway that only serves hardly collects.
    for kib in BARS:
        body = ordinary_body(kib * 1024)
        if not is_json(body):
            raise SystemExit("the check leaves the body to decoding, so its time says nothing")
        value = decode_strict(body)
        encode = msgspec.json.Encoder().encode
        steps: list[Callable[[], object]] = [lambda: decode_strict(body), lambda: encode(value), lambda: is_json(body)]  # noqa: B023  # called here
        times: list[list[float]] = [[_microseconds(step) for step in steps] for _ in range(rounds)]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        share = statistics.median([check / decode for decode, _, check in times])
        verdict = "worth it" if share <= CHECK_BAR else "**not worth it**"
        rows.append(f"| {kib} | {' | '.join(f'{each:,.0f}' for each in medians)} | {share:.2f} | {verdict} |\n")
    gc.enable()
    return (
        f"| KiB | decode µs | encode µs | check µs | check / decode (asked: ≤ {CHECK_BAR:g}) | |\n"
        "|---:|---:|---:|---:|---:|---|\n"
    ) + "".join(rows)


def _microseconds(step: Callable[[], object], times: int = 20) -> float:
    """The CPU time of a step, the mean of some."""
    began = time.thread_time()
    for _ in range(times):
        step()
    return (time.thread_time() - began) / times * 1e6


def bars(results: dict[int, Results]) -> str:
    """Return the bars with the results."""
    rows = [f"| Umbel's requests/s by those of {AIOHTTP} | asked | reached: median (from-to) |\n|---|---:|---:|\n"]
    for kib, some in results.items():
        found = [ratio for ratio in ratios(some, AIOHTTP, CALLS[0]) if ratio is not None]
        reached = spread(found) if found else "not measured"
        rows.append(f"| {kib} KiB x {CALLS[0]} | ≥ {BARS[kib]:g} | {reached} |\n")
    return "".join(rows)


def report(results: dict[int, Results], checked: str) -> str:
    """Return the whole report."""
    first = next(iter(results.values()))
    tables = "\n".join(
        f"Bodies of {some.body:,} bytes, windows of {some.seconds} s:\n\n{figures(some, CALLS)}"
        for some in results.values()
    )
    made = "\n".join(f"With bodies of {kib} KiB:\n\n{peers(some, CALLS)}" for kib, some in results.items())
    return f"""# Large bodies

<!-- Made by `make bench-large`; how it is measured stands in benchmarks/large.py and benchmarks/gateways.py. -->

A request makes {CALLS[0]} calls at once, each answered with a large body of JSON, and answers with one object of their
values. Medians of {first.rounds} interleaved round(s), {CLIENTS} connections; the gateways on one core, the load
({first.load}) and the upstream ({first.upstream}) on another. The settings are those of [results.md](results.md).
"CPU" is that of the gateway by good answers; it includes requests that are unfinished at the end of a window.
{platform.machine()}, Python {platform.python_version()}.

{bars(results)}
{tables}
{made}
## The check instead of decoding

CPU of one body: decoding and encoding with msgspec, and the check of `composition/json_check.py`, which says whether
decoding would accept the body. Medians; the collector of cyclic garbage is off. The body is a list of objects of short
values. A body with few members is decoded at once, because its check would take longer (decision 0051).

{checked}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round; writes no file")
    parser.add_argument("--only", choices=("check",), help="measure the check alone; writes no file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, ended)
    rounds = 1 if arguments.quick else 5
    checked = check_table(5 if arguments.quick else 31)
    if arguments.only:
        print(checked)
        return
    gateways = [one for one in GATEWAYS if one.name in (UMBEL, AIOHTTP)]
    results = {kib: measure(gateways, rounds, SECONDS[kib], 1, ordinary_body(kib * 1024), CALLS) for kib in BARS}
    text = report(results, checked)
    print(text)
    if not arguments.quick:
        (HERE / "large.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
