"""Runs: which bars run at a time, and the rows of a picture."""

from __future__ import annotations

from tests.unit.labs.runs import bar, runs
from umbel.labs.model import Run, rows


def test_the_innermost_running_bars_are_counted_until_right_before_their_end() -> None:
    run = runs()["taskgroup"]
    assert [each.id for each in run.running(0)] == [2, 3]
    assert [each.id for each in run.running(0.99)] == [2, 3]
    assert run.running(1) == []


def test_a_bar_is_counted_before_and_after_those_within_it() -> None:
    run = Run("trio", 4, [bar(1, "call", 0, 3), bar(2, "goodbye", 1, 2, parent=1)], [], [])
    assert [[each.id for each in run.running(at)] for at in (0, 1, 2, 3)] == [[1], [2], [1], []]


def test_a_bar_that_has_not_ended_runs_until_the_horizon() -> None:
    assert [each.id for each in runs()["gather"].running(4)] == [2, 3]


def test_alike_siblings_are_one_row_with_their_number_multiplied_by_their_parents() -> None:
    bars = [bar(n, "client", 0, 1) for n in (1, 2)]
    bars += [bar(10 * n + m, "call", 0, 1, parent=n) for n in (1, 2) for m in (1, 2, 3)]
    assert [(row.bar.name, row.depth, row.count) for row in rows(bars)] == [("client", 0, 2), ("call", 1, 6)]


def test_siblings_that_differ_are_rows_in_the_order_of_start_and_name() -> None:
    bars = [bar(1, "b", 0, 1), bar(2, "a", 0, 1), bar(3, "a", 0, 2), bar(4, "0", 1, 2)]
    assert [(row.bar.id, row.count) for row in rows(bars)] == [(2, 1), (3, 1), (1, 1), (4, 1)]
