"""The costs of the whole path besides the CPU of a request: ``make bench-path``; ``ARGS=--quick`` for a short run.

Own time of a response, kinds of calls, a second worker, memory of open requests, and the tail of the latencies: one
file each (``path_*.py``). The gateway is on one core; clients and upstreams, including this process, are on another.
Prints each result beside its bar, and writes the lines into ``benchmarks/path.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import path_calls  # noqa: E402  # siblings, found only now
import path_memory  # noqa: E402
import path_overhead  # noqa: E402
import path_tail  # noqa: E402
import path_workers  # noqa: E402
from path_processes import pin_this  # noqa: E402
from path_report import Section  # noqa: E402

MEASURES = {
    "overhead": path_overhead.measure,
    "calls": path_calls.measure,
    "workers": path_workers.measure,
    "memory": path_memory.measure,
    "tail": path_tail.measure,
}


def report(sections: list[Section]) -> str:
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    head = f"""# What the way in costs

Written by `make bench-path`. {machine}: the gateway on one, clients and upstreams
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
        (HERE / "path.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
