"""A check of the tables in docs/ that list each wait for a peer with the timeout that ends it and the test of that."""

from __future__ import annotations

import re

from tests.support.process.processes import PROJECT


def check_waits(section: str, at_least: int) -> None:
    """Assert that each of at least ``at_least`` rows has four cells, and that the test it names exists."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| wait |")
    ]
    assert len(rows) >= at_least
    for wait, clock, forbidden, tested in rows:
        assert wait
        assert clock
        assert forbidden
        (named,) = re.findall(r"`([^`]+)`", tested)
        path, _, name = named.partition("::")
        assert re.search(rf"^(async )?def {name}\b", (PROJECT / "tests" / path).read_text(), re.MULTILINE), named
