"""The names of test functions: each says condition and result in at most 80 characters."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
NAME_LENGTH_MAX = 80


def test_no_test_name_has_more_than_80_characters() -> None:
    found = (
        re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE) for path in TESTS.rglob("*.py")
    )
    names = [name for each in found for name in each]
    assert len(names) > 1000
    assert [name for name in names if len(name) > NAME_LENGTH_MAX] == []
