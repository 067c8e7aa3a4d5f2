"""The text form of a lab: bars, counters and facts, side by side or one below the other."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest
from msgspec.structs import replace as replaced

from tests.unit.labs.runs import bar, lab, runs
from umbel.labs.model import Run
from umbel.labs.terminal import figures, panes, sources


def shown(width: int) -> list[str]:
    return [line for text in panes(lab(), runs(), width) for line in click.unstyle(text).splitlines()]


@pytest.mark.parametrize("width", [20, 60, 100, 126, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, shown(width))) <= max(width, 40)


def test_panes_stand_side_by_side_where_there_is_room_for_all() -> None:
    assert shown(126)[0].split() == ["asyncio.gather", "asyncio.TaskGroup", "trio", "nursery"]
    assert shown(125)[0] == "asyncio.gather"


def test_bars_show_how_they_ended_and_what_runs_after_the_end() -> None:
    lines = [line for line in shown(48) if set("━█▒") & set(line) and "running after" not in line]
    assert lines == [
        "page      ━━━━━━━━✗│",
        "  call ×2 ━━━━━━━━━█████████████████████████████",
        "page      ━━━━━━━━✗│         │",
        "  call ×2 ▒▒▒▒▒▒▒▒▒│         │",
        "gone    ━━━━━━━━━━█████████?",
        "late    ━━━━━━━━━━████████████████████",
    ]


def test_the_last_tick_has_its_whole_number() -> None:
    long = replace(lab(), horizon=12.0)
    ran = {key: replaced(run, horizon=12.0) for key, run in runs().items()}
    axis = [click.unstyle(line) for line in panes(long, ran, 48)][2]
    assert axis.endswith(" 12")


@pytest.mark.parametrize("width", [40, 48, 60, 77, 100])
def test_labels_of_the_axis_do_not_touch(width: int) -> None:
    long = replace(lab(), horizon=10.0)
    ran = {key: replaced(run, horizon=10.0) for key, run in runs().items()}
    ticks = [click.unstyle(line) for line in panes(long, ran, width)][2].split()[1:]
    assert ticks[0] == "0"
    assert ticks[-1] == "10"
    assert [float(tick) for tick in ticks] == sorted(float(tick) for tick in ticks)
    assert max(map(float, ticks)) == 10


def test_a_cancelled_bar_that_ran_on_is_not_said_to_be_cancelled_at_its_end() -> None:
    late = replaced(bar(1, "call", 0, 3, "cancelled"), reason="CancelledError", stopped_at=13)
    ran = {**runs(), "trio": Run("trio", 4.0, [late], [], [])}
    text = "\n".join(click.unstyle(line) for line in panes(lab(), ran, 100))
    assert "call: cancelled, ran on until 3 s, line 13: CancelledError" in text


def test_bars_of_one_name_and_end_are_counted_together() -> None:
    calls = [bar(1, "call", 0, 2), bar(2, "call", 0.5, 2), bar(3, "call", 0.5, 2)]
    ran = {**runs(), "trio": Run("trio", 4.0, calls, [], [])}
    assert "call ×3: ran on until 2 s" in "\n".join(click.unstyle(line) for line in panes(lab(), ran, 100))


def test_a_bar_that_is_cancelled_where_it_begins_does_not_count_as_late() -> None:
    ran = {**runs(), "trio": Run("trio", 4.0, [bar(1, "goodbye", 1, 1, "cancelled")], [], [])}
    assert "goodbye           ▒" in [click.unstyle(line) for line in panes(lab(), ran, 48)]


def test_the_counter_gives_the_running_bars_at_each_tick() -> None:
    counters = [line.split()[1::2] for line in shown(48) if line.startswith("running ")]
    assert counters == [["2", "2", "2", "2", "2"], ["2", "0", "0", "0", "0"], ["2", "2", "1", "0", "0"]]


def test_facts_name_end_line_and_reason_and_count_equal_notes() -> None:
    text = " ".join(" ".join(shown(100)).split())
    assert "call ×2: still running at 4 s, line 13" in text
    assert "call ×2: cancelled at 1 s, line 13: Cancelled: why" in text
    assert "late: ran on until 3 s, at line 4" in text
    assert "at 1 s: 502 <b>& (line 31) ×2" in text
    assert "line 13: await asyncio.sleep(seconds)" in text


def test_the_figures_of_all_programs_stand_together() -> None:
    measured = replace(lab(), measured="calls that still run", measure=lambda run: f"{len(run.running(3))} calls")
    assert [click.unstyle(line) for line in figures(measured, runs(), 80)] == [
        "Measured: calls that still run",
        "  asyncio.gather     2 calls",
        "  asyncio.TaskGroup  0 calls",
        "  trio nursery       0 calls",
    ]


def test_the_programs_are_printed_with_line_numbers() -> None:
    text = [click.unstyle(line) for line in sources(lab())]
    assert " 13          await asyncio.sleep(seconds)" in text
    assert " 13          await trio.sleep(seconds)" in text
