"""Every regular expression of the source takes time linear in what it is given.

The strings come from each pattern's own parse. A pattern that is added is found here without being listed; one that is
made while the program runs has to be named in ``MADE_AT_RUN_TIME``, with the objects that hold it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.adversarial import Shape, SuperLinearError, check_linear, shapes_of
from tests.support.patterns import METHODS, find_patterns
from umbel.logs.redact import Redactor
from umbel.server.head import HeadReader
from umbel.server.host import Hosts
from umbel.server.limits import Limits

REDACTED_NAMES: Sequence[Sequence[str]] = (
    (),
    ("*x*y*", "a*b*c*d*e", "*.id", "client.id", "x-*-*"),
    ("*", "***"),
    ("my name", "pin#*", " ", "\\", "a\\*b c", "=", '"'),
)


def _redactors() -> list[re.Pattern[Any]]:
    return [Redactor(names)._candidate for names in REDACTED_NAMES]


def _heads() -> list[re.Pattern[Any]]:
    return [HeadReader(Limits(underscore_headers=kept), Hosts(()))._pattern for kept in ("keep", "drop")]


# The function that makes them: what it makes, and what is called of it.
MADE_AT_RUN_TIME: dict[str, tuple[Callable[[], list[re.Pattern[Any]]], frozenset[str]]] = {
    "logs/redact.py:Redactor.__init__": (_redactors, frozenset({"search"})),
    "server/head.py:HeadReader.__init__": (_heads, frozenset({"fullmatch"})),
}
# Expressions that a person gives to a command that reads log files: no server runs them.
OF_A_PERSON = frozenset({"cli/logwhere.py:parse", "cli/logs.py:grep"})

FOUND = find_patterns()


def _method(pattern: re.Pattern[Any], method: str) -> Callable[[Any], object]:
    if method in ("sub", "subn"):
        nothing = b"" if isinstance(pattern.pattern, bytes) else ""
        return lambda text: pattern.sub(nothing, text)
    if method == "finditer":
        return lambda text: list(pattern.finditer(text))
    function: Callable[[Any], object] = getattr(pattern, method)
    return function


def _check(pattern: re.Pattern[Any], methods: frozenset[str]) -> None:
    shapes = shapes_of(pattern)
    for method in sorted(methods):
        check_linear(_method(pattern, method), shapes, binary=isinstance(pattern.pattern, bytes))


@pytest.mark.parametrize("found", [each for each in FOUND if each.pattern is not None], ids=lambda each: each.place)
def test_a_pattern_of_the_source_takes_linear_time(found: Any) -> None:
    _check(found.pattern, found.methods)


@pytest.mark.parametrize("owner", MADE_AT_RUN_TIME)
def test_a_pattern_made_at_run_time_takes_linear_time(owner: str) -> None:
    make, methods = MADE_AT_RUN_TIME[owner]
    for pattern in make():
        _check(pattern, methods)


def test_every_pattern_of_the_source_is_accounted_for() -> None:
    unknown = {each.owner for each in FOUND if each.pattern is None}
    assert unknown == MADE_AT_RUN_TIME.keys() | OF_A_PERSON
    assert len(FOUND) > 80


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"(a+)+$", "search"),
        (r"(?:a|a)*b", "fullmatch"),
        (r"[\w-]+\.", "search"),
        (r"\beyJ[\w-]{4,}(?:\.[\w-]+)+", "search"),
        (r"(?<![\w.-])(?:[\w-]+\.)*(?:[\w.-]*secret[\w.-]*)=", "search"),
        (r'"[^"\\]*(?:\\.[^"\\]*)*"', "sub"),
        (r"cookie\s*[:=]\s*(?![\\\s\"'b]*[\"'])[^\r\n\"'\\]+", "search"),
        (r"BEGIN.+?END", "findall"),
        (r"x*x*x*y", "fullmatch"),
    ],
)
def test_the_strings_find_a_pattern_that_is_not_linear(pattern: str, method: str) -> None:
    assert method in METHODS
    with pytest.raises(SuperLinearError):
        _check(re.compile(pattern, re.DOTALL), frozenset({method}))


def test_a_shape_has_about_the_size_that_is_asked_for() -> None:
    assert len(Shape("ab", "cde", "f").text(1024)) in range(1020, 1025)
    assert Shape("", "é", "\x00").data(8) == b"\xe9" * 7 + b"\x00"
