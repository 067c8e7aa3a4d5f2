"""The tables of docs/ that say of each wait for a peer what ends it, and which test holds it."""

from __future__ import annotations

import re

from tests.support.process.processes import PROJECT


def check_waits(section: str, at_least: int) -> None:
    """Assert that every row has its four cells, and that its test is there."""
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
