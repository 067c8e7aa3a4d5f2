"""``benchmarks/entries.py`` counts each function entry once, for the stage of the function or of its callers."""

from __future__ import annotations

from benchmarks.entries import Entered, by_stage, table
from benchmarks.stages import OTHER

READER = ("/lib/umbel/net/epoll.py", 1, "run")
ENGINE = ("/lib/umbel/composition/engine.py", 1, "settle")
LEN = ("~", 0, "<built-in method builtins.len>")
HELPER = ("/lib/python3.11/contextlib.py", 1, "helper")


def test_a_function_without_a_stage_counts_for_its_callers_in_proportion() -> None:
    stages = by_stage(
        {
            READER: Entered(2, {}),
            ENGINE: Entered(3, {READER: 3}),
            LEN: Entered(8, {READER: 2, ENGINE: 6}),
        }
    )
    assert stages == {"sockets: streams, reader, timers": 4.0, "composition: engine": 9.0}


def test_functions_that_call_each_other_without_a_stage_are_counted_once() -> None:
    stages = by_stage(
        {
            ENGINE: Entered(1, {}),
            HELPER: Entered(4, {ENGINE: 1, LEN: 3}),
            LEN: Entered(3, {HELPER: 3}),
        }
    )
    assert stages == {"composition: engine": 8.0}


def test_a_function_that_nobody_calls_and_without_a_stage_is_other() -> None:
    assert by_stage({LEN: Entered(5, {})}) == {OTHER: 5.0}


def test_the_table_adds_up_small_stages_and_all() -> None:
    column = {"composition: engine": 10.0, "logs: encode": 0.4, OTHER: 1.0}
    text = table((column, column, {}))
    assert "| composition: engine | 10 | 10 | 0 |\n" in text
    assert "logs: encode" not in text
    assert "| **function entries** | **11** | **11** | **0** |" in text
