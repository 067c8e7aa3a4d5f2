"""docs/asked.md: each row has its threads, and the keys that it names are keys of the configuration."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "asked.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| asked")
]
_THREAD = re.compile(r"\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+\)")


def test_each_row_has_a_thread_and_each_thread_its_year() -> None:
    assert len(ROWS) > 25
    for asked, threads, here in ROWS:
        assert asked
        assert here
        found = re.findall(r"\[[^\]]+\]\([^)]+\)", threads)
        assert found, asked
        assert all(re.search(r", 20\d\d\]", each) and _THREAD.search(each) for each in found), asked


def test_each_key_that_is_named_stands_in_the_reference_of_the_configuration() -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "config.md").read_text(), re.MULTILINE))
    named = {key for row in ROWS for key in re.findall(r"`(?:answer\.)?([a-z_]+)`", row[2])}
    assert len(named) > 10
    assert named - keys == set()
