"""A run of a lab as text: a pane for each program, side by side where the terminal is wide enough."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest

import click

from .model import Bar, Column, Lab, Run, rows

_PANE_MIN = 40
_GAP = 3
_NAME_MAX = 18
_PANE_MAX = 100

Piece = tuple[str, dict[str, str | bool]]
Line = list[Piece]

_RED: dict[str, str | bool] = {"fg": "red"}
_YELLOW: dict[str, str | bool] = {"fg": "yellow"}
_BOLD: dict[str, str | bool] = {"bold": True}
_DIM: dict[str, str | bool] = {"dim": True}
_PLAIN: dict[str, str | bool] = {}

LEGEND = "━ running   █ running after it should be over   ▒ cancelled   ✗ failed   ? destroyed   │ deadline, or the end"
COUNTED = "The line “running” counts bars, without those in which another one runs."


def seconds(at: float) -> str:
    """Return a time with its unit."""
    return f"{at:.3g} s"


def fill(text: str, width: int, indent: str = "") -> list[str]:
    """Break text, in which line breaks mean nothing, into lines of this width."""
    return textwrap.wrap(" ".join(text.split()), max(width, 20), subsequent_indent=indent, break_on_hyphens=False)


class _Pane:
    """The lines of one program's run."""

    def __init__(self, lab: Lab, column: Column, run: Run, width: int) -> None:
        self._lab = lab
        self._run = run
        self._column = column
        self._width = width
        self._rows = rows(run.bars)
        labels = [self._label(row.bar, row.depth, row.count) for row in self._rows]
        self._names = min(max(map(len, [*labels, "running"])), _NAME_MAX)
        self._cells = width - self._names - 1
        self._moments = sorted(
            {
                *(each.at for each in run.deadlines if each.passed and each.at <= run.horizon),
                *([lab.over_at] if lab.over_at is not None else []),
            }
        )

    @staticmethod
    def _label(bar: Bar, depth: int, count: int) -> str:
        return "  " * depth + _times(bar.name, count)

    def lines(self) -> Iterator[Line]:
        yield [(self._column.title, _BOLD)]
        yield [(f"{self._lab.package}/{self._column.module}.py", _DIM)]
        yield self._axis()
        for row in self._rows:
            yield self._bar(row.bar, self._label(row.bar, row.depth, row.count))
        yield self._counter()
        yield []
        for text in self._facts():
            yield from ([(line, _PLAIN)] for line in fill(text, self._width, "  "))

    def _cell(self, at: float) -> int:
        return min(int(at / self._run.horizon * self._cells), self._cells - 1)

    def _ticks(self) -> list[float]:
        step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if self._cells * step / self._run.horizon >= 4)
        return [step * n for n in range(math.floor(self._run.horizon / step) + 1)]

    def _axis(self) -> Line:
        cells = [" "] * self._cells
        room = self._cells + 1
        for tick in reversed(self._ticks()):
            label = f"{tick:g}"
            first = min(self._cell(tick), self._cells - len(label))
            if first + len(label) < room:  # a cell stays free before the next label
                cells[first : first + len(label)] = label
                room = first
        return [("seconds".ljust(self._names + 1), _DIM), ("".join(cells), _DIM)]

    def _bar(self, bar: Bar, label: str) -> Line:
        if len(label) > self._names:
            label = label[: self._names - 1] + "…"
        line: Line = [(label.ljust(self._names + 1), _PLAIN)]
        moments = {self._cell(at) for at in self._moments}
        first = self._cell(bar.start)
        last = self._cells - 1 if bar.end is None else max(first, self._cell(bar.end) - 1)
        for cell in range(self._cells):
            if first <= cell <= last:
                line.append(self._inside(bar, cell, cell == last))
            else:
                line.append(("│", _RED) if cell in moments else (" ", _PLAIN))
        return _joined(line)

    def _inside(self, bar: Bar, cell: int, is_last: bool) -> Piece:
        if is_last and bar.how == "failed":
            return "✗", _RED
        if is_last and bar.how == "destroyed":
            return "?", _RED
        over_at = self._lab.over_at
        if over_at is not None and cell >= self._cell(over_at) and (bar.end is None or bar.end > over_at):
            return "█", _RED
        return ("▒", _YELLOW) if bar.how == "cancelled" else ("━", {"fg": "green"})

    def _counter(self) -> Line:
        line: Line = [("running".ljust(self._names + 1), _BOLD)]
        at_cell = 0
        for tick in self._ticks():
            count, cell = len(self._run.running(tick)), self._cell(tick)
            late = self._lab.over_at is not None and tick >= self._lab.over_at and count
            if cell >= at_cell and cell + len(str(count)) <= self._cells:
                line += [
                    (" " * (cell - at_cell), _PLAIN),
                    (str(count), {"fg": "red", "bold": True} if late else _PLAIN),
                ]
                at_cell = cell + len(str(count))
        return line

    def _facts(self) -> Iterator[str]:
        source = self._lab.source(self._column).splitlines()
        used: set[int] = set()
        said: dict[str, Counter[str]] = {}
        for row in self._rows:
            if text := self._end_of(row.bar, used):
                said.setdefault(text, Counter())[row.bar.name] += row.count
        for text, names in said.items():
            yield f"{', '.join(_times(name, count) for name, count in sorted(names.items()))}: {text}"
        told: dict[tuple[str, int], int] = {}
        for note in self._run.notes:
            key = f"at {seconds(note.at)}: {note.text}", note.line
            told[key] = told.get(key, 0) + 1
        for (text, line), times in told.items():
            yield _times(text + (f" (line {line})" if line else ""), times)
        for line in sorted(used):
            yield f"line {line}: {source[line - 1].strip()}"

    def _end_of(self, bar: Bar, used: set[int]) -> str:
        at_line = f", line {bar.stopped_at}" if bar.stopped_at else ""
        if bar.how == "running":
            used.add(bar.stopped_at or bar.line)
            return f"still running at {seconds(self._run.horizon)}{at_line}"
        assert bar.end is not None
        over_at = self._lab.over_at
        if bar.how != "ok":
            used.add(bar.stopped_at or bar.line)
            # Its end is not the time of the cancel: the cleanup ran on.
            is_late = bar.how == "cancelled" and over_at is not None and bar.start < over_at < bar.end
            when = f", ran on until {seconds(bar.end)}" if is_late else f" at {seconds(bar.end)}"
            return f"{bar.how}{when}{at_line}: {bar.reason}"
        if over_at is not None and bar.start <= over_at < bar.end:
            waited = [wait.line for wait in bar.waits if wait.at <= bar.end]
            used.update(waited[-1:])
            return f"ran on until {seconds(bar.end)}" + (f", at line {waited[-1]}" if waited else "")
        return ""


def _times(text: str, count: int) -> str:
    return f"{text} ×{count}" if count > 1 else text


def _joined(line: Line) -> Line:
    """Join neighbours of one style, so that the output has few escape sequences."""
    joined: Line = []
    for text, style in line:
        if joined and joined[-1][1] == style:
            joined[-1] = (joined[-1][0] + text, style)
        else:
            joined.append((text, style))
    return joined


def _printed(line: Iterable[Piece]) -> str:
    return "".join(click.style(text, **style) if style else text for text, style in line)  # type: ignore[arg-type]


def panes(lab: Lab, runs: Mapping[str, Run], width: int) -> Iterator[str]:
    """Return the lines that show the runs, for a terminal of this width, with escape sequences for colours."""
    count = len(lab.columns)
    beside = (width - _GAP * (count - 1)) // count
    pane_width = beside if beside >= _PANE_MIN else min(width, _PANE_MAX)
    drawn = [list(_Pane(lab, column, runs[column.key], pane_width).lines()) for column in lab.columns]
    if beside >= _PANE_MIN:
        for line in zip_longest(*drawn, fillvalue=[]):
            printed = ""
            for part in line[:-1]:
                printed += _printed(part) + " " * (pane_width + _GAP - sum(len(text) for text, _ in part))
            yield (printed + _printed(line[-1])).rstrip()
    else:
        for pane in drawn:
            yield from (_printed(line).rstrip() for line in pane)
            yield ""
    if lab.over_at is not None:
        yield from fill(f"At {seconds(lab.over_at)}: {lab.over}. Nothing should run any more.", width)
    yield from [LEGEND] if width >= len(LEGEND) else fill(LEGEND.replace("   ", ", "), width)
    yield from fill(COUNTED, width)


def figures(lab: Lab, runs: Mapping[str, Run], width: int) -> Iterator[str]:
    """Return the lines of what was measured, one for each program."""
    yield from fill(f"Measured: {lab.measured}", width)
    titles = max(len(column.title) for column in lab.columns)
    for column in lab.columns:
        yield f"  {column.title:{titles}}  {click.style(lab.measure(runs[column.key]), bold=True)}"


def sources(lab: Lab) -> Iterator[str]:
    """Return the lines of the programs, numbered."""
    for column in lab.columns:
        yield click.style(f"{column.title}: {lab.package}/{column.module}.py", bold=True)
        for number, line in enumerate(lab.source(column).splitlines(), 1):
            yield f"{number:3}  {line}".rstrip()
        yield ""
