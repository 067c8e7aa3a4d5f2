"""The book of findings: summed up by kind and place, bounded, and forgetting."""

from __future__ import annotations

from umbel.observe.lints.book import FORGOTTEN_S, LINTS_MAX, LintBook
from umbel.observe.lints.lint import FULL_QUEUE, KINDS, LAG, LONG_STEP, as_topic


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_findings_of_one_kind_and_place_are_one_lint_with_the_worst_detail() -> None:
    book = LintBook("main", clock := Clock())
    book.add(LONG_STEP, "a.py:1", 0.02, "for 20 ms")
    clock.now += 5
    book.add(LONG_STEP, "a.py:1", 0.05, "for 50 ms")
    clock.now += 5
    book.add(LONG_STEP, "a.py:1", 0.03, "for 30 ms")
    clock.now += 2
    [lint] = book.lints()
    assert (lint.count, lint.detail, lint.first, lint.last) == (3, "for 50 ms", 12.0, 2.0)
    assert (lint.process, lint.name, lint.title, lint.advice) == (
        "main",
        "long-step",
        LONG_STEP.title,
        LONG_STEP.advice,
    )


def test_a_finding_that_goes_on_is_counted_once_and_renewed() -> None:
    book = LintBook("main", clock := Clock())
    book.add(FULL_QUEUE, "q", 1, "1 waits", again=False)
    clock.now += 60
    book.add(FULL_QUEUE, "q", 2, "2 wait", again=False)
    [lint] = book.lints()
    assert (lint.count, lint.detail, lint.first, lint.last) == (1, "2 wait", 60.0, 0.0)


def test_the_latest_finding_comes_first() -> None:
    book = LintBook("main", Clock())
    for place in ("a", "b", "c", "a"):
        book.add(LONG_STEP, place, 1, "")
    assert [lint.where for lint in book.lints()] == ["a", "c", "b"]


def test_a_lint_is_forgotten_a_quarter_of_an_hour_after_its_latest_finding() -> None:
    book = LintBook("main", clock := Clock())
    book.add(LAG, "", 1, "")
    clock.now += FORGOTTEN_S
    assert len(book.lints()) == 1
    clock.now += 1
    assert book.lints() == []


def test_beyond_the_bound_the_lint_found_least_recently_is_replaced() -> None:
    book = LintBook("main", Clock())
    for number in range(LINTS_MAX + 3):
        book.add(LONG_STEP, str(number), 1, "")
        book.add(LONG_STEP, "0", 1, "")  # It is found again and again.
    places = {lint.where for lint in book.lints()}
    assert len(places) == LINTS_MAX
    assert "0" in places
    assert not {"1", "2", "3"} & places
    assert book.dropped == 3


def test_a_page_gets_the_explanation_of_each_kind() -> None:
    kinds = as_topic([])["kinds"]
    assert [kind["name"] for kind in kinds] == [kind.name for kind in KINDS]
    assert all(kind["title"] and kind["found"].endswith(".") and kind["advice"].endswith(".") for kind in kinds)
