"""What a lab is made of, and what a run of one of its programs has recorded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

Library = Literal["asyncio", "trio"]
End = Literal["ok", "failed", "cancelled", "destroyed", "running"]
"""How a bar ended. Destroyed: its coroutine was destroyed while it waited. Running: it had not ended at the horizon."""


class Wait(msgspec.Struct, frozen=True):
    """From second ``at`` on, a bar waits at ``line`` of its program."""

    at: float
    line: int


class Bar(msgspec.Struct, frozen=True):
    """A block of a program from its entry to its end, in seconds since the start of the run."""

    id: int
    parent: int | None
    """The bar within which this one was started, in the same task or in the task that started this one's."""
    name: str
    line: int
    """The source line of ``with bar(…)``."""
    start: float
    end: float | None
    how: End
    reason: str
    """The exception that ended it, in words; empty if there was none."""
    stopped_at: int
    """The source line at which an exception ended it, or where it waits at the horizon; 0 if it ended well."""
    waits: list[Wait]


class Note(msgspec.Struct, frozen=True):
    """A line of text that a program, or the event loop's own error log, has written."""

    at: float
    text: str
    line: int
    """The source line that wrote it; 0 if it is not of the program."""


class Deadline(msgspec.Struct, frozen=True):
    """A deadline that a program has set, from second ``start`` on, for second ``at``."""

    start: float
    at: float
    gone: float | None
    """When nothing had this deadline any more; None: never."""

    @property
    def passed(self) -> bool:
        """Whether it was still there at its end, or is there at the horizon."""
        return self.gone is None or self.gone >= self.at


class Run(msgspec.Struct, frozen=True):
    """What one program did, from second 0 to ``horizon``."""

    column: str
    horizon: float
    bars: list[Bar]
    notes: list[Note]
    deadlines: list[Deadline]

    def running(self, at: float) -> list[Bar]:
        """The bars that have been started and have not ended at second ``at``, without those that contain another one.

        A bar that ends right then has ended.
        """
        running = [bar for bar in self.bars if bar.start <= at and (bar.end is None or bar.end > at)]
        around = {bar.parent for bar in running}
        return [bar for bar in running if bar.id not in around]

    def named(self, name: str) -> list[Bar]:
        """The bars of this name."""
        return [bar for bar in self.bars if bar.name == name]

    def noted(self, beginning: str) -> list[Note]:
        """The notes whose text begins so."""
        return [note for note in self.notes if note.text.startswith(beginning)]


@dataclass(frozen=True)
class Column:
    """One of the programs of a lab: ``module`` within the lab's package, with a coroutine function ``main``."""

    key: str
    title: str
    library: Library
    module: str


GATHER = Column("gather", "asyncio.gather", "asyncio", "with_gather")
CREATE_TASK = Column("gather", "asyncio.create_task", "asyncio", "with_create_task")
TASKGROUP = Column("taskgroup", "asyncio.TaskGroup", "asyncio", "with_taskgroup")
TRIO = Column("trio", "trio nursery", "trio", "with_trio")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One lesson.

    Args:
        number: from 1 on.
        package: name of the folder.
        title: a few words.
        phenomenon: what it is about, in the field's terms.
        story: the situation, one to three sentences.
        question: what to think about before the run.
        choices: possible answers to the question.
        right: the index of the right one.
        measured: what the figure of each column says, one line.
        measure: takes the figure of a run.
        expected: the figures, by the key of the column; a test asserts them.
        answer: one or two sentences.
        why: the explanation; paragraphs.
        columns: the programs.
        horizon: seconds that each runs for.
        over_at: from this second on nothing should run any more; None: there is no such moment.
        over: what happens then, a few words.
        real_time: whether the seconds are real.
        ends: whether the event loop ends with the program, as that of a script, and not at the horizon. That of trio
            always does.
        grace: real seconds without an event of a socket, after which the clock may jump.
    """

    number: int
    package: str
    title: str
    phenomenon: str
    story: str
    question: str
    choices: tuple[str, ...]
    right: int
    measured: str
    measure: Callable[[Run], str]
    expected: dict[str, str]
    answer: str
    why: tuple[str, ...]
    horizon: float
    columns: tuple[Column, ...] = (GATHER, TASKGROUP, TRIO)
    over_at: float | None = None
    over: str = ""
    real_time: bool = False
    ends: bool = False
    grace: float = 0.0

    def column(self, key: str) -> Column:
        """Return the column with this key; ValueError if there is none."""
        for column in self.columns:
            if column.key == key:
                return column
        raise ValueError(f"lab {self.number} has no column {key!r}")

    def path(self, column: Column) -> Path:
        """Return the file of a column's program."""
        return Path(__file__).parent / self.package / f"{column.module}.py"

    def source(self, column: Column) -> str:
        """Return the program of a column."""
        return self.path(column).read_text(encoding="utf-8")

    def paragraphs(self) -> list[str]:
        """Return the explanation without the line breaks of its source."""
        return [inspect.cleandoc(part).replace("\n", " ") for part in self.why]


def _packages() -> dict[int, str]:
    names = sorted(path.parent.name for path in Path(__file__).parent.glob("lab[0-9][0-9]_*/__init__.py"))
    return {int(name[3:5]): name for name in names}


PACKAGES = _packages()
"""The folders of the labs by number, in ascending order."""


def lab_of(number: int) -> Lab:
    """Return the lab of this number; ValueError, with a sentence, if there is none."""
    if number not in PACKAGES:
        raise ValueError(f"There is no lab {number}; the labs are {', '.join(map(str, PACKAGES))}.")
    found = importlib.import_module(f"{__package__}.{PACKAGES[number]}").LAB
    assert isinstance(found, Lab)
    return found


def all_labs() -> Iterator[Lab]:
    """Iterate over the labs, by number."""
    return map(lab_of, PACKAGES)


class Row(msgspec.Struct, frozen=True):
    """A line of a picture: bars that did the same at the same time."""

    bar: Bar
    depth: int
    count: int


def rows(bars: Sequence[Bar]) -> list[Row]:
    """Return the lines of the picture of a run: the tree in depth-first order.

    Siblings that are alike, with all beneath them, become one line with their number.
    """
    children: dict[int | None, list[Bar]] = {}
    # trio starts the tasks of a turn in random order; the picture shall be the same each time.
    for bar in sorted(bars, key=lambda each: (each.start, each.name)):
        children.setdefault(bar.parent, []).append(bar)

    def shape(bar: Bar) -> object:
        waits = tuple((wait.at, wait.line) for wait in bar.waits)
        below = tuple(map(shape, children.get(bar.id, ())))
        return bar.name, bar.start, bar.end, bar.how, bar.reason, bar.stopped_at, waits, below

    def walk(parent: int | None, depth: int, times: int) -> Iterator[Row]:
        alike: dict[object, list[Bar]] = {}
        for bar in children.get(parent, ()):
            alike.setdefault(shape(bar), []).append(bar)
        for same in alike.values():
            yield Row(same[0], depth, times * len(same))
            yield from walk(same[0].id, depth + 1, times * len(same))

    return list(walk(None, 0, 1))
