"""``make bench-observe``: what is removed where nothing is counted, its configurations, and its report."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from umbel.upstream.calls import attempt

Script = Callable[[str], ModuleType]


def test_the_end_of_an_attempt_is_compiled_without_its_counting(script: Script) -> None:
    counted = attempt.Attempt._close
    silent = script("observe_gateway").without_counting(counted, attempt)
    assert "attempt_counts" in counted.__code__.co_names
    assert "attempt_counts" not in silent.co_names
    assert set(silent.co_names) < set(counted.__code__.co_names)


def test_the_interval_is_that_of_the_median(script: Script) -> None:
    interval = script("observe_counting").interval
    assert interval([0.01]) == "1.0% (1.0% to 1.0%)"
    assert interval([number / 1000 for number in range(101)]) == "5.0% (4.0% to 6.0%)"


def test_a_figure_beyond_its_bar_is_shown_as_missed(script: Script) -> None:
    counting, scrape = script("observe_counting"), script("observe_scrape")
    windows = counting.parsed("1 0.1 1 100\n0 0.1 1 105\n" * 9 + "1 0.1 1 0\n0 0.1 1 9\n" + "1 0.1 1 9\n")
    fewer, more, *_, pairs = counting.lines(windows)
    assert (fewer.reached, fewer.met) == ("4.8% (4.8% to 4.8%)", False)
    assert (more.reached, more.met, pairs.reached) == ("5.0% (5.0% to 5.0%)", False, "9")
    steps = [scrape.Step(0.05, 0.001, 10), scrape.Step(0.05, 0.0021, 10)]
    met = [line.met for line in scrape.lines([0.05, 0.09], steps, 1000, 10)]
    assert met == [None, True, None, False, None, None]
