"""The costs of what is always observed: ``make bench-observe``; ``ARGS=--quick`` for a short run.

The cost of counting per request, and that of a scrape: one file each (``observe_*.py``). Prints each result beside its
bar, and writes the lines into ``benchmarks/observe.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import observe_counting  # noqa: E402  # siblings, found only now
import observe_scrape  # noqa: E402
from path_processes import pin_this  # noqa: E402
from path_report import Section  # noqa: E402

MEASURES = {
    "counting": observe_counting.measure,
    "scrape": observe_scrape.measure,
}


def report(sections: list[Section]) -> str:
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    head = f"""# What observing costs

Written by `make bench-observe`. {machine}: the gateway on one, clients and upstreams
on another. Records of requests and calls, fields and deadline as they are by default.
"""
    return "\n".join([head, *(section.markdown() for section in sections)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds; writes no file")
    parser.add_argument("--only", choices=MEASURES, help="one of the measurements; writes no file")
    given = parser.parse_args()
    pin_this(1)
    text = report([measure(quick=given.quick) for name, measure in MEASURES.items() if given.only in (None, name)])
    print(text)
    if not given.quick and not given.only:
        (HERE / "observe.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
