"""The functions that a request enters, by stage: ``make bench-entries``; it takes a quarter of a minute.

Counted with cProfile, Python's functions and C's, of all threads: one client sends one request after the other over one
connection, with the default settings (``tests/support/process/function_entries.py``). The counts do not depend on the
machine, only on the version of Python. A test holds their totals (``tests/process/test_function_entries.py``).

``--doc FILE`` writes the table between its markers.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import trio
from tests.process.test_function_entries import FURTHER_CALL_MAX, REQUEST_MAX, STATIC_MAX
from tests.support.process.function_entries import COUNTED, count_entries

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from marked import replace_marked  # noqa: E402  # siblings, found only now
from stages import ORDER, OTHER, stage_of  # noqa: E402

LEAST = 0.5
"""A stage that is less in every column has no row of its own."""
BARS = (REQUEST_MAX, FURTHER_CALL_MAX, STATIC_MAX)

Function = tuple[str, int, str]
"""File, first line and name; the file of a C function is ``~``."""


class Entered(NamedTuple):
    """How often a function was entered, in all and by caller."""

    count: int
    callers: Mapping[Function, int]


def by_stage(profile: Mapping[Function, Entered]) -> Counter[str]:
    """Return the entries by stage. A function without a stage counts for the stages of its callers, in proportion."""
    shares: dict[Function, dict[str, float]] = {}

    def shares_of(function: Function, above: frozenset[Function]) -> dict[str, float]:
        """The shares of the stages in a function; none if it is entered only by functions in ``above``."""
        if function in shares:
            return shares[function]
        stage = None if function[0] == "~" else stage_of(function[0], function[2], function[1])
        if stage is not None:
            return {stage: 1.0}
        weights: Counter[str] = Counter()
        for caller, count in profile[function].callers.items():
            if caller in profile and caller not in above:
                for name, share in shares_of(caller, above | {function}).items():
                    weights[name] += share * count  # type: ignore[assignment]  # a count in proportion
        found = {name: weight / weights.total() for name, weight in weights.items()}
        if not above:  # Below another function, the callers in ``above`` were left out.
            shares[function] = found
        return found

    stages: Counter[str] = Counter()
    for function, entered in profile.items():
        for stage, share in (shares_of(function, frozenset()) or {OTHER: 1.0}).items():
            stages[stage] += entered.count * share  # type: ignore[assignment]  # a count in proportion
    return stages


def entered(
    stats: Mapping[Function, tuple[int, int, float, float, Mapping[Function, tuple[int, ...]]]],
) -> dict[Function, Entered]:
    """Return the entries in the statistics of ``pstats``."""
    return {
        function: Entered(count, {caller: counts[1] for caller, counts in callers.items()})
        for function, (_, count, _, _, callers) in stats.items()
    }


def table(columns: tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float]]) -> str:
    """Return the table: a row for each stage, the totals and their bounds."""
    rows = [
        "| stage, function entries | request of one call | each further call | fixed response |\n|---|---:|---:|---:|\n"
    ]
    rest = [0.0, 0.0, 0.0]
    for stage in ORDER:
        values = [column.get(stage, 0.0) for column in columns]
        if max(values) < LEAST:
            rest = [sum(pair) for pair in zip(rest, values, strict=True)]
        else:
            rows.append(_row(stage, values))
    rows.append(_row("all smaller ones", rest))
    totals = " | ".join(f"**{sum(column.values()):.0f}**" for column in columns)
    bounds = " | ".join(map(str, BARS))
    return "".join((*rows, f"| **function entries** | {totals} |\n", f"| at most | {bounds} |\n"))


def _row(stage: str, values: list[float]) -> str:
    return f"| {stage} | {' | '.join(f'{max(value, 0.0):.0f}' for value in values)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doc", type=Path, metavar="FILE", help="write the table between the markers of this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-entries-") as directory:
        counts = trio.run(count_entries, Path(directory))
    one, eleven, static = (
        {stage: count / COUNTED for stage, count in by_stage(entered(profile.stats)).items()}  # type: ignore[attr-defined]
        for profile in (counts.one, counts.eleven, counts.static)
    )
    further = {stage: (count - one.get(stage, 0.0)) / 10 for stage, count in eleven.items()}
    text = (
        f"Written by `make bench-entries`, with Python {platform.python_version()}.\n\n{table((one, further, static))}"
    )
    print(text)
    if given.doc:
        replace_marked(given.doc, "entries", text)


if __name__ == "__main__":
    main()
