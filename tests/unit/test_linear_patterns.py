"""Every regular expression of the source takes time linear in its input.

The inputs are made from the parse tree of each pattern. A new pattern is found without being listed; a pattern that is
made at run time must be listed in ``regex_patterns.MADE_AT_RUN_TIME`` with the objects that have it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.source.adversarial import PumpedText, SuperLinearError, check_linear, texts_of_pattern
from tests.support.source.regex_patterns import MADE_AT_RUN_TIME, METHODS, find_patterns, method_of

FOUND = find_patterns()


def _check(pattern: re.Pattern[Any]) -> None:
    texts = texts_of_pattern(pattern)
    for method in METHODS:
        check_linear(method_of(pattern, method), texts, binary=isinstance(pattern.pattern, bytes))


@pytest.mark.parametrize("found", [each for each in FOUND if each.pattern is not None], ids=lambda each: each.place)
def test_a_pattern_of_the_source_takes_linear_time(found: Any) -> None:
    _check(found.pattern)


@pytest.mark.parametrize("owner", MADE_AT_RUN_TIME)
def test_a_pattern_made_at_run_time_takes_linear_time(owner: str) -> None:
    for pattern in MADE_AT_RUN_TIME[owner]():
        _check(pattern)


def test_every_function_that_makes_patterns_at_run_time_is_listed() -> None:
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
def test_a_pattern_that_is_not_linear_is_detected(pattern: str) -> None:
    with pytest.raises(SuperLinearError):
        _check(re.compile(pattern, re.DOTALL))


def test_a_string_has_about_the_requested_size() -> None:
    assert len(PumpedText("ab", "cde", "f").text(1024)) in range(1020, 1025)
    assert PumpedText("", "é", "\x00").data(8) == b"\xe9" * 7 + b"\x00"
