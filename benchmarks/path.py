"""The costs of the whole path besides the CPU of a request: ``make bench-path``; ``ARGS=--quick`` for a short run.

Own time of a response, kinds of calls, a second worker, memory of open requests, and the tail of the latencies: one
file each (``path_*.py``). The gateway is on one core; clients and upstreams, including this process, are on another.
Prints each result beside its bar, and writes the lines into ``benchmarks/path.md``; the table of the kinds of calls
also stands in ``docs/performance.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import path_calls  # noqa: E402  # siblings, found only now
import path_memory  # noqa: E402
import path_overhead  # noqa: E402
import path_tail  # noqa: E402
import path_workers  # noqa: E402
from path_report import measure_all  # noqa: E402

MEASURES = {
    "overhead": path_overhead.measure,
    "calls": path_calls.measure,
    "workers": path_workers.measure,
    "memory": path_memory.measure,
    "tail": path_tail.measure,
}
QUOTED = {"calls": HERE.parent / "docs" / "performance.md"}


if __name__ == "__main__":
    measure_all(__doc__, "What the way in costs", HERE / "path.md", MEASURES, QUOTED)
