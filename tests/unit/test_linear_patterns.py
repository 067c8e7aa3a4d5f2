"""Every regular expression of the source takes time linear in what it is given.

The strings come from each pattern's own parse. A pattern that is added is found here without being listed; one that is
made while the program runs has to be named in ``patterns.MADE_AT_RUN_TIME``, with the objects that hold it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.source.adversarial import Shape, SuperLinearError, check_linear, shapes_of
from tests.support.source.regex_patterns import MADE_AT_RUN_TIME, METHODS, find_patterns, method_of

FOUND = find_patterns()


def _check(pattern: re.Pattern[Any]) -> None:
    shapes = shapes_of(pattern)
    for method in METHODS:
        check_linear(method_of(pattern, method), shapes, binary=isinstance(pattern.pattern, bytes))


@pytest.mark.parametrize("found", [each for each in FOUND if each.pattern is not None], ids=lambda each: each.place)
def test_a_pattern_of_the_source_takes_linear_time(found: Any) -> None:
    _check(found.pattern)


@pytest.mark.parametrize("owner", MADE_AT_RUN_TIME)
def test_a_pattern_made_at_run_time_takes_linear_time(owner: str) -> None:
    for pattern in MADE_AT_RUN_TIME[owner]():
        _check(pattern)


def test_every_pattern_of_the_source_is_accounted_for() -> None:
    unknown = {each.owner for each in FOUND if each.pattern is None}
    assert unknown == MADE_AT_RUN_TIME.keys()
    assert len(FOUND) > 80


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(?:a|a)*b",
        r"[\w-]+\.",
        r"\beyJ[\w-]{4,}(?:\.[\w-]+)+",
        r"(?<![\w.-])(?:[\w-]+\.)*(?:[\w.-]*secret[\w.-]*)=",
        r'"[^"\\]*(?:\\.[^"\\]*)*"',
        r"cookie\s*[:=]\s*(?![\\\s\"'b]*[\"'])[^\r\n\"'\\]+",
        r"BEGIN.+?END",
        r"x*x*x*y",
    ],
)
def test_the_strings_find_a_pattern_that_is_not_linear(pattern: str) -> None:
    with pytest.raises(SuperLinearError):
        _check(re.compile(pattern, re.DOTALL))


def test_a_shape_has_about_the_size_that_is_asked_for() -> None:
    assert len(Shape("ab", "cde", "f").text(1024)) in range(1020, 1025)
    assert Shape("", "é", "\x00").data(8) == b"\xe9" * 7 + b"\x00"
