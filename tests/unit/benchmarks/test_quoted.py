"""The README quotes what the bench has printed, line by line, and nothing else."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parents[3]


def test_the_readme_quotes_the_bars_as_they_were_printed() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    quoted = readme.partition("<!-- bars: begin -->\n")[2].partition("<!-- bars: end -->")[0].splitlines()
    printed = (PROJECT / "benchmarks" / "results.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in quoted if line]
    assert table
    begin = printed.index(table[0])
    assert table == printed[begin : begin + len(table)]
    assert not printed[begin + len(table)].startswith("|"), "no bar is left out"
