"""The table of docs/learn: the labs as they are."""

from __future__ import annotations

from pathlib import Path

from umbel.labs.model import all_labs

PAGE = Path(__file__).parents[3] / "docs" / "learn" / "README.md"


def test_the_table_of_labs_is_that_of_the_code() -> None:
    begin, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- labs: begin -->\n")
    table, _, _ = rest.partition("<!-- labs: end -->")
    wanted = "".join(
        f"| {lab.number} | {lab.title} | {lab.phenomenon} | {lab.measured} | {' · '.join(lab.expected.values())} |\n"
        for lab in all_labs()
    )
    assert begin
    assert table == wanted
