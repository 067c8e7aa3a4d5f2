"""The costs of what is always observed: ``make bench-observe``; ``ARGS=--quick`` for a short run.

The cost of counting per request, and that of a scrape: one file each (``observe_*.py``). Prints each result beside its
bar, and writes the lines into ``benchmarks/observe.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import observe_counting  # noqa: E402  # siblings, found only now
import observe_scrape  # noqa: E402
from path_report import measure_all  # noqa: E402

MEASURES = {
    "counting": observe_counting.measure,
    "scrape": observe_scrape.measure,
}


if __name__ == "__main__":
    measure_all(__doc__, "What observing costs", HERE / "observe.md", MEASURES)
